package main

import (
	"context"
	"net/http"
	"os"

	"github.com/hashicorp/go-hclog"
	kv "github.com/hashicorp/vault-plugin-secrets-kv"
	"github.com/hashicorp/vault/builtin/logical/database"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/plugins/database/postgresql"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical/inmem"
	"github.com/hashicorp/vault/vault"
)

// The one database that the engine knows.
const plugin = "postgresql-database-plugin"

// A Vault in memory, unsealed: secret engines `kv` and `database` can be mounted by its API.
func vaultServer(string, []string) (http.Handler, map[string]string, error) {
	logger := hclog.New(&hclog.LoggerOptions{Output: os.Stderr, Level: hclog.Warn})
	storage, err := inmem.NewInmem(nil, logger)
	if err != nil {
		return nil, nil, err
	}
	core, err := vault.NewCore(&vault.CoreConfig{
		Physical:        storage,
		DisableMlock:    true,
		Logger:          logger,
		BuiltinRegistry: registry{},
		LogicalBackends: map[string]logical.Factory{"kv": kv.Factory, "database": database.Factory},
	})
	if err != nil {
		return nil, nil, err
	}
	ctx := context.Background()
	one := &vault.SealConfig{SecretShares: 1, SecretThreshold: 1}
	made, err := core.Initialize(ctx, &vault.InitParams{BarrierConfig: one, RecoveryConfig: one})
	if err != nil {
		return nil, nil, err
	}
	if _, err := core.Unseal(made.SecretShares[0]); err != nil {
		return nil, nil, err
	}
	handler := vaulthttp.Handler.Handler(&vault.HandlerProperties{Core: core})
	return handler, map[string]string{"token": made.RootToken}, nil
}

// What is built in.
type registry struct{}

func (registry) Contains(name string, kind consts.PluginType) bool {
	return name == plugin && kind == consts.PluginTypeDatabase
}

func (r registry) Get(name string, kind consts.PluginType) (func() (interface{}, error), bool) {
	return postgresql.New, r.Contains(name, kind)
}

func (registry) Keys(consts.PluginType) []string { return []string{plugin} }

func (r registry) DeprecationStatus(name string, kind consts.PluginType) (consts.DeprecationStatus, bool) {
	return consts.Supported, r.Contains(name, kind)
}
