//! Where credentials of calls come from, and what the vault rests on.

mod schema;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use mayfly_executor::spec::Destination;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use super::Config;
use crate::units::duration_text;
use schema::key_source_schema;

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
    /// Where tools find it, where that is not what `url` says: by the name that their `executor.network` lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advertise: Option<Destination>,
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

impl Config {
    /// The variables of the environment that hold secrets of the gateway's own.
    pub fn secret_variables(&self) -> Vec<String> {
        let keys = [&self.secrets.master_key, &self.secrets.previous_master_key].into_iter().flatten();
        let of_keys = keys.filter_map(|key| if let KeySource::Environment(name) = key { Some(name.clone()) } else { None });
        of_keys.chain(self.credentials.values().flat_map(SourceConfig::secret_variables)).collect()
    }
}
