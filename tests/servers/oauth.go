package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// Who the gateway says that it is when it speaks for callers.
const gateway = "https://mayfly.example.com"

// An OAuth 2.0 server with two clients: `sid1` asks for itself (RFC 6749, 4.4), `web` in exchange for what the gateway signs of its
// callers (RFC 8693).
func oauthServer(address string, more []string) (http.Handler, map[string]string, error) {
	if len(more) != 1 {
		return nil, nil, errors.New("the public key of those who speak for callers is missing")
	}
	file, err := os.ReadFile(more[0])
	if err != nil {
		return nil, nil, err
	}
	block, _ := pem.Decode(file)
	if block == nil {
		return nil, nil, errors.New("the public key is no PEM")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, nil, err
	}
	issuer := "http://" + address + "/"
	storage.RegisterClients(storage.WebClient("web", "secret"))
	users := storage.NewUserStore(issuer)
	store := &store{Storage: storage.NewStorage(users), users: users, key: key, endpoint: issuer + "oauth/token"}
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	return exampleop.SetupServer(issuer, store, logger, false), map[string]string{}, nil
}

// The server's storage, which also takes what the gateway signs.
type store struct {
	*storage.Storage
	users    storage.UserStore
	key      any
	endpoint string
}

var _ op.TokenExchangeTokensVerifierStorage = &store{}

func (s *store) VerifyExchangeSubjectToken(_ context.Context, token string, kind oidc.TokenType) (string, string, map[string]any, error) {
	if kind != oidc.JWTTokenType {
		return "", "", nil, errors.New("no statement of a gateway")
	}
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return "", "", nil, err
	}
	var said jwt.Claims
	more := map[string]any{}
	if err := parsed.Claims(s.key, &said, &more); err != nil {
		return "", "", nil, err
	}
	expected := jwt.Expected{Issuer: gateway, AnyAudience: jwt.Audience{s.endpoint}, Time: time.Now()}
	if err := said.Validate(expected); err != nil {
		return "", "", nil, err
	}
	return token, said.Subject, more, nil
}

func (s *store) VerifyExchangeActorToken(context.Context, string, oidc.TokenType) (string, string, map[string]any, error) {
	return "", "", nil, errors.New("actors are part of the statement")
}

// What is asked for is given, to those whom the server knows.
func (s *store) ValidateTokenExchangeRequest(_ context.Context, request op.TokenExchangeRequest) error {
	if s.users.GetUserByID(request.GetExchangeSubject()) == nil {
		return oidc.ErrInvalidGrant()
	}
	return nil
}
