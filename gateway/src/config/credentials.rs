//! Where credentials of calls come from, and what the vault rests on.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::units::duration_text;

/// The vault of `mayfly secret`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SecretsConfig {
    /// Where the key is that everything in the vault is sealed with: `{file: ...}`, `{environment: ...}` or `{command: [...]}`. Left
    /// out: `master.key` in `data_dir`, made at the first start.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "key_source_schema")]
    pub master_key: Option<KeySource>,
    /// The one before it, until one start has sealed everything with the new one: written like `master_key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "key_source_schema")]
    pub previous_master_key: Option<KeySource>,
}

/// Where 32 bytes in base64 are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeySource {
    /// In a file that not everybody may read.
    File(PathBuf),
    /// In a variable of the gateway's environment.
    Environment(String),
    /// In what a program prints: a client of a key management service.
    Command(Vec<String>),
}

/// A source of credentials. Its name, which `tool.yaml` uses, is the key in front of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum SourceConfig {
    /// The same value for every call, from the vault.
    Static {
        /// The secret's name, as in `mayfly secret set NAME`.
        secret: String,
    },
    /// What a program prints for this call.
    Command {
        /// The program and its arguments; no shell.
        command: Vec<String>,
        /// The program that ends what it gave; empty: nothing has to.
        #[serde(default)]
        revoke: Vec<String>,
    },
    /// A role of a PostgreSQL database, made for this call.
    Postgres(PostgresConfig),
    /// A path of HashiCorp Vault or OpenBao.
    Vault(VaultConfig),
    /// An access token of an OAuth 2.0 server.
    Oauth2(Oauth2Config),
    /// A token of a service account of the cluster that `kubernetes` in the configuration names.
    Kubernetes(TokenConfig),
}

impl SourceConfig {
    /// What a tool may ask of it.
    pub fn offer(&self) -> Offer {
        let fields = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
        match self {
            Self::Static { .. } => Offer { scopes: Scopes::None, fields: fields(&["value"]) },
            Self::Command { .. } => Offer { scopes: Scopes::Any, fields: None },
            Self::Postgres(_) => {
                let parts = ["url", "password", "username", "host", "port", "database"];
                Offer { scopes: Scopes::None, fields: fields(&parts) }
            }
            Self::Vault(_) => Offer { scopes: Scopes::None, fields: None },
            Self::Oauth2(config) => {
                Offer { scopes: Scopes::These(config.scopes.iter().cloned().collect()), fields: fields(&["access_token"]) }
            }
            Self::Kubernetes(_) => Offer { scopes: Scopes::None, fields: fields(&["token"]) },
        }
    }

    /// The variables of the environment that hold what it is let in with.
    pub fn secret_variables(&self) -> Vec<String> {
        let own = match self {
            Self::Static { .. } | Self::Command { .. } | Self::Kubernetes(_) => Vec::new(),
            Self::Postgres(config) => vec![config.password.as_ref()],
            Self::Vault(config) => vec![Some(&config.token)],
            Self::Oauth2(config) => vec![config.client_secret.as_ref(), config.exchange.as_ref().map(|exchange| &exchange.key)],
        };
        let variable = |of: &SecretRef| if let SecretRef::Environment(name) = of { Some(name.clone()) } else { None };
        own.into_iter().flatten().filter_map(variable).collect()
    }
}

/// A token of a Kubernetes service account, bound to an empty Secret that goes with the call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenConfig {
    /// Where the service account is, and the Secrets come: not the sandboxes' namespace.
    pub namespace: String,
    /// The service account.
    pub service_account: String,
    /// For whom the token is; empty: the API server.
    #[serde(default)]
    pub audiences: Vec<String>,
}

/// What a tool may ask of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The scopes to choose from.
    pub scopes: Scopes,
    /// The parts that its credentials have; `None`: only its server knows.
    pub fields: Option<BTreeSet<String>>,
}

/// The scopes of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scopes {
    /// It has none.
    None,
    /// It makes of them what it likes.
    Any,
    /// These.
    These(BTreeSet<String>),
}

/// An access token of an OAuth 2.0 server: for the gateway as a client (RFC 6749, 4.4), or in exchange for who the caller is
/// (RFC 8693).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Oauth2Config {
    /// Where tokens are asked for.
    pub token_url: Url,
    /// Who the gateway is there.
    pub client_id: String,
    /// Its secret, sent by HTTP Basic authentication.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<SecretRef>,
    /// The scopes that are asked for; a tool, and a decision, may ask for fewer.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// What the token is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// Asks in the name of the call's user and agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchange: Option<ExchangeConfig>,
}

/// How the gateway tells an OAuth server for whom a call is: by a JWT (RFC 7519) that it signs, with the user as `sub` and the agent as
/// `act.sub`. Calls without a user have none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExchangeConfig {
    /// The private key it is signed with: PKCS #8 in PEM, on the curve P-256 (ES256).
    pub key: SecretRef,
    /// The name under which the server knows the public key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// The JWT's `iss`.
    pub issuer: String,
}

/// A path of HashiCorp Vault or OpenBao: a secret of a KV store (version 2), or one that an engine makes and leases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaultConfig {
    /// The server: `https://host:port`.
    pub address: Url,
    /// The gateway's own token there, read anew each time: an agent of Vault's may keep it fresh in a file.
    pub token: SecretRef,
    /// The namespace, where the server has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// What is read, as the API has it: `secret/data/github`, `database/creds/readonly`.
    pub path: String,
    /// The longest lease that is taken: what a gateway that is killed at the wrong moment may leave behind lives no longer.
    #[serde(default = "an_hour", with = "duration_text")]
    pub max_ttl: Duration,
}

const fn an_hour() -> Duration {
    Duration::from_secs(3600)
}

/// A PostgreSQL database, and the role that a call gets in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresConfig {
    /// Who makes and drops roles, and where: `postgres://user@host:port/database?sslmode=verify-full`, without a password.
    pub url: String,
    /// That user's password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<SecretRef>,
    /// Roles of the database that the call's role becomes a member of.
    #[serde(default)]
    pub member_of: Vec<String>,
    /// What is done besides once the role is made: statements in which `{role}` stands for its quoted name.
    #[serde(default)]
    pub statements: Vec<String>,
}

/// Where a secret of a source's own is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SecretRef {
    /// In the vault.
    Secret(String),
    /// In a file.
    File(PathBuf),
    /// In a variable of the gateway's environment.
    Environment(String),
}

impl JsonSchema for SourceConfig {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SourceConfig".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let kinds = [
            ("static", static_schema()),
            ("command", command_schema()),
            ("postgres", postgres_schema()),
            ("vault", vault_schema()),
            ("oauth2", oauth2_schema()),
            ("kubernetes", kubernetes_schema()),
        ];
        let names: Vec<_> = kinds.iter().map(|(name, _)| *name).collect();
        // One condition a kind, and no `anyOf`: so that a mistake is told for the kind that was meant.
        let each = |(name, then): (&str, serde_json::Value)| serde_json::json!({"if": {"required": ["kind"], "properties": {"kind": {"const": name}}}, "then": then});
        let all: Vec<_> = kinds.into_iter().map(each).collect();
        json_schema!({
            "type": "object",
            "description": "a source: `{kind: ...}` and what that kind needs",
            "properties": {"kind": {"enum": names, "description": "what it is:"}},
            "required": ["kind"],
            "allOf": all,
        })
    }
}

fn static_schema() -> serde_json::Value {
    let secret = serde_json::json!({"type": "string", "minLength": 1, "maxLength": 63, "description": "the secret's name"});
    serde_json::json!({
        "properties": {"kind": {"const": "static"}, "secret": secret},
        "required": ["secret"],
        "additionalProperties": false,
    })
}

fn command_schema() -> serde_json::Value {
    serde_json::json!({
        "properties": {
            "kind": {"const": "command"},
            "command": program_schema(1, "the program that prints the credential as a JSON object of strings, and its arguments"),
            "revoke": program_schema(0, "the program that ends the credential again, and its arguments"),
        },
        "required": ["command"],
        "additionalProperties": false,
    })
}

fn postgres_schema() -> serde_json::Value {
    serde_json::json!({
        "properties": {
            "kind": {"const": "postgres"},
            "url": {
                "type": "string",
                "pattern": "^postgres(ql)?://[^:/@]+@[^@]+$",
                "description": "postgres://user@host:port/database, without a password",
            },
            "password": secret_ref_schema("that user's password"),
            "member_of": {
                "type": "array",
                "description": "roles that the call's role is a member of",
                "items": {"type": "string", "minLength": 1, "maxLength": 63},
                "maxItems": 16,
            },
            "statements": {
                "type": "array",
                "description": "SQL that is done besides; `{role}` is the quoted name of the call's role",
                "items": {"type": "string", "minLength": 1, "maxLength": 4096},
                "maxItems": 16,
            },
        },
        "required": ["url"],
        "additionalProperties": false,
    })
}

fn vault_schema() -> serde_json::Value {
    serde_json::json!({
        "properties": {
            "kind": {"const": "vault"},
            "address": {"type": "string", "pattern": "^https?://[^/@]+/?$", "description": "https://host:port"},
            "token": secret_ref_schema("the gateway's own token there"),
            "namespace": {"type": "string", "minLength": 1, "maxLength": 256, "description": "a namespace of the server"},
            "path": {
                "type": "string",
                "pattern": "^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)+$",
                "description": "what is read, such as secret/data/github or database/creds/readonly",
            },
            "max_ttl": {"type": "string", "format": "mayfly-duration", "description": "the longest lease that is taken: 1h if left out"},
        },
        "required": ["address", "token", "path"],
        "additionalProperties": false,
    })
}

fn oauth2_schema() -> serde_json::Value {
    let text =
        |description: &str| serde_json::json!({"type": "string", "minLength": 1, "maxLength": 2048, "description": description});
    let url = serde_json::json!({"type": "string", "pattern": "^https?://[^@]+$", "description": "where tokens are asked for"});
    serde_json::json!({
        "properties": {
            "kind": {"const": "oauth2"},
            "token_url": url,
            "client_id": text("who the gateway is there"),
            "client_secret": secret_ref_schema("its secret there"),
            "scopes": {
                "type": "array",
                "description": "the scopes that are asked for",
                "items": {"type": "string", "pattern": "^[!#-\\[\\]-~]+$", "maxLength": 256},
                "maxItems": 64,
            },
            "audience": text("what the token is for"),
            "exchange": {
                "type": "object",
                "description": "asks in the name of the call's user and agent (RFC 8693)",
                "properties": {
                    "key": secret_ref_schema("the private key that signs who they are, P-256 as PKCS #8 in PEM"),
                    "key_id": text("the name under which the server knows the public key"),
                    "issuer": text("the `iss` of what is signed"),
                },
                "required": ["key", "issuer"],
                "additionalProperties": false,
            },
        },
        "required": ["token_url", "client_id"],
        "additionalProperties": false,
    })
}

fn kubernetes_schema() -> serde_json::Value {
    let name = |description: &str| {
        let pattern = "^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$";
        serde_json::json!({"type": "string", "pattern": pattern, "description": description})
    };
    serde_json::json!({
        "properties": {
            "kind": {"const": "kubernetes"},
            "namespace": name("where the service account is"),
            "service_account": name("whose token it is"),
            "audiences": {
                "type": "array",
                "description": "for whom the token is; left out: the API server",
                "items": {"type": "string", "minLength": 1, "maxLength": 512},
                "maxItems": 16,
            },
        },
        "required": ["namespace", "service_account"],
        "additionalProperties": false,
    })
}

fn secret_ref_schema(description: &str) -> serde_json::Value {
    serde_json::json!({
        "type": "object",
        "description": format!("{description}: `{{secret: NAME}}` of the vault, `{{file: PATH}}` or `{{environment: NAME}}`"),
        "properties": {
            "secret": {"type": "string", "minLength": 1, "maxLength": 63, "description": "a secret of the vault"},
            "file": {"type": "string", "minLength": 1, "description": "a file"},
            "environment": {"type": "string", "minLength": 1, "description": "a variable of the environment"},
        },
        "minProperties": 1,
        "maxProperties": 1,
        "additionalProperties": false,
    })
}

fn program_schema(least: u32, description: &str) -> serde_json::Value {
    serde_json::json!({
        "type": "array",
        "description": description,
        "items": {"type": "string", "maxLength": 4096},
        "minItems": least,
        "maxItems": 256,
    })
}

fn key_source_schema(_: &mut SchemaGenerator) -> Schema {
    let one = |name: &str, of: serde_json::Value| {
        serde_json::json!({
            "type": "object",
            "properties": {name: of},
            "required": [name],
            "additionalProperties": false,
        })
    };
    json_schema!({"anyOf": [
        one("file", serde_json::json!({"type": "string", "minLength": 1, "description": "a file"})),
        one("environment", serde_json::json!({"type": "string", "minLength": 1, "description": "a variable of the environment"})),
        one("command", program_schema(1, "a program that prints it")),
    ]})
}
