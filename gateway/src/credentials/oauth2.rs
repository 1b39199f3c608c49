//! An access token of an OAuth 2.0 server: for the gateway as a client (RFC 6749, 4.4), or in exchange for who the caller is
//! (RFC 8693).
//!
//! Tokens are kept and given out again as long as they outlive the call, each for its scopes and its caller; calls that want the
//! same one at the same time wait for one request.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use base64::prelude::{BASE64_STANDARD, Engine};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use moka::Expiry;
use moka::future::Cache;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;
use time::OffsetDateTime;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::own;
use super::source::{Keep, Minted, Order, Source, SourceError};
use super::web::{self, answer};
use crate::config::{ExchangeConfig, Oauth2Config};
use crate::secrets::Secrets;

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
/// How long what we sign of a caller holds.
const STATEMENT_SECONDS: i64 = 60;
/// How long a token is kept whose server does not say how long it lives.
const UNSAID: Duration = Duration::from_secs(60);
/// How long a token is kept at most, whatever its server says.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// Most tokens that are kept.
const KEPT: u64 = 10_000;

/// `kind: oauth2`.
pub(super) struct Oauth2 {
    config: Oauth2Config,
    secrets: Arc<Secrets>,
    client: Result<reqwest::Client, SourceError>,
    tokens: Cache<Wanted, Arc<Token>>,
}

/// What tells tokens apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Wanted {
    scopes: BTreeSet<String>,
    /// User and agent, where the token is in their name.
    caller: Option<(String, String)>,
}

struct Token {
    text: SecretString,
    had: Instant,
    life: Duration,
}

#[derive(Deserialize)]
struct Answer {
    access_token: Zeroizing<String>,
    expires_in: Option<u64>,
    scope: Option<String>,
}

/// A token goes when it has expired.
struct ItsOwnLife;

impl Expiry<Wanted, Arc<Token>> for ItsOwnLife {
    fn expire_after_create(&self, _: &Wanted, token: &Arc<Token>, _: Instant) -> Option<Duration> {
        Some(token.life)
    }
}

impl Oauth2 {
    pub(super) fn new(config: Oauth2Config, secrets: Arc<Secrets>) -> Self {
        let tokens = Cache::builder().max_capacity(KEPT).expire_after(ItsOwnLife).build();
        Self { config, secrets, client: web::client(), tokens }
    }

    /// Those of the configuration, as far as the order leaves them.
    fn scopes(&self, order: &Order) -> Result<BTreeSet<String>, SourceError> {
        let all: BTreeSet<_> = self.config.scopes.iter().cloned().collect();
        match &order.scopes {
            None => Ok(all),
            Some(fewer) if !fewer.is_empty() && fewer.is_subset(&all) => Ok(fewer.clone()),
            Some(_) => Err(SourceError("what is left of its scopes is nothing that it is configured with".into())),
        }
    }

    async fn fetch(&self, wanted: &Wanted) -> Result<Arc<Token>, SourceError> {
        let statement = match (&self.config.exchange, &wanted.caller) {
            (Some(exchange), Some((user, agent))) => Some(self.statement(exchange, user, agent)?),
            _ => None,
        };
        let scope = wanted.scopes.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
        let mut form = match &statement {
            Some(statement) => vec![
                ("grant_type", EXCHANGE),
                ("subject_token", statement),
                ("subject_token_type", JWT),
                ("requested_token_type", ACCESS_TOKEN),
            ],
            None => vec![("grant_type", "client_credentials")],
        };
        if !scope.is_empty() {
            form.push(("scope", &scope));
        }
        form.extend(self.config.audience.as_deref().map(|audience| ("audience", audience)));
        let mut request = self.client.clone()?.post(self.config.token_url.clone()).header(ACCEPT, "application/json");
        match self.authorization()? {
            Some(header) => request = request.header(AUTHORIZATION, header),
            None => form.push(("client_id", &self.config.client_id)),
        }
        let had = Instant::now();
        let (status, body) = answer(request.form(&form)).await?;
        if !status.is_success() {
            return Err(SourceError(format!("the server answered {status}{}", reason(&body))));
        }
        let answer: Answer =
            serde_json::from_slice(&body).map_err(|_| SourceError("the server's answer is no token of RFC 6749".into()))?;
        let given: Option<BTreeSet<_>> = answer.scope.map(|scope| scope.split(' ').map(str::to_owned).collect());
        if given.is_some_and(|given| !wanted.scopes.is_empty() && !given.is_subset(&wanted.scopes)) {
            return Err(SourceError("the server gave more scopes than it was asked for".into()));
        }
        if answer.access_token.is_empty() {
            return Err(SourceError("the server's token is empty".into()));
        }
        let text = SecretString::from(answer.access_token.as_str());
        Ok(Arc::new(Token { text, had, life: answer.expires_in.map_or(UNSAID, Duration::from_secs).min(LONGEST) }))
    }

    /// RFC 6749, 2.3.1: both are form-encoded first.
    fn authorization(&self) -> Result<Option<HeaderValue>, SourceError> {
        let Some(secret) = &self.config.client_secret else { return Ok(None) };
        let encoded = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let secret = Zeroizing::new(encoded(&own::text(secret, &self.secrets)?));
        let pair = Zeroizing::new(format!("{}:{}", encoded(&self.config.client_id), *secret));
        let value = Zeroizing::new(format!("Basic {}", BASE64_STANDARD.encode(pair.as_bytes())));
        let mut header = HeaderValue::from_str(&value).map_err(|_| SourceError("`client_secret` is no text".into()))?;
        header.set_sensitive(true);
        Ok(Some(header))
    }

    /// Who the call is for, signed.
    fn statement(&self, exchange: &ExchangeConfig, user: &str, agent: &str) -> Result<Zeroizing<String>, SourceError> {
        let wrong = || SourceError("`exchange.key` is no P-256 key as PKCS #8 in PEM".into());
        let key = own::text(&exchange.key, &self.secrets)?;
        let key = EncodingKey::from_ec_pem(key.as_bytes()).map_err(|_| wrong())?;
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let claims = json!({
            "iss": exchange.issuer,
            "sub": user,
            "act": {"sub": agent},
            "aud": self.config.token_url.as_str(),
            "iat": now,
            "exp": now + STATEMENT_SECONDS,
            "jti": Uuid::now_v7(),
        });
        let header = Header { kid: exchange.key_id.clone(), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, &claims, &key).map(Zeroizing::new).map_err(|_| wrong())
    }
}

#[async_trait]
impl Source for Oauth2 {
    fn narrows(&self) -> bool {
        true
    }

    async fn mint(&self, order: &Order, _: &dyn Keep) -> Result<Minted, SourceError> {
        // An agent of a user's name must not pass for that user.
        let nobody = || SourceError("`exchange` needs a user to speak for; register the agent with `--user`".into());
        let caller = match (&self.config.exchange, &order.user) {
            (None, _) => None,
            (Some(_), Some(user)) => Some((user.clone(), order.agent_id.clone())),
            (Some(_), None) => return Err(nobody()),
        };
        let wanted = Wanted { scopes: self.scopes(order)?, caller };
        let get = || async {
            self.tokens.try_get_with(wanted.clone(), self.fetch(&wanted)).await.map_err(|error| SourceError::clone(&error))
        };
        let asked = Instant::now();
        let mut token = get().await?;
        // One that was kept, and ends before the call may. A new one that is as short is all there is.
        if token.had < asked && token.had + token.life < Instant::now() + order.life {
            self.tokens.invalidate(&wanted).await;
            token = get().await?;
        }
        Ok(Minted::one("access_token", token.text.expose_secret().as_bytes().to_vec()))
    }
}

/// What RFC 6749 (5.2) has servers say of a refusal, if it is one of its own words.
fn reason(body: &[u8]) -> String {
    const WORDS: [&str; 7] = [
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
        "invalid_target",
    ];
    let said = serde_json::from_slice::<serde_json::Value>(body).unwrap_or_default();
    WORDS.iter().find(|word| said["error"] == **word).map(|word| format!(": {word}")).unwrap_or_default()
}

#[cfg(test)]
mod tests;
