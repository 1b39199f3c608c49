//! What a tool says of the credentials that its calls are given.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A credential of each call, and how the tool gets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CredentialUse {
    /// The name of a source in the gateway's configuration. What is said of one source twice is one credential, delivered twice.
    #[schemars(regex(pattern = "^[a-z0-9][a-z0-9._-]{0,62}$"))]
    pub source: String,
    /// Which part of the credential, such as `password`. Left out: its main one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", regex(pattern = "^[a-z][a-z0-9_]{0,62}$"))]
    pub field: Option<String>,
    /// The only scopes that it is for, where its source has scopes. Left out: all that the source is configured with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(regex(pattern = r"^[!#-\[\]-~]{1,256}$")))]
    pub scopes: Vec<String>,
    /// How the tool gets it.
    pub deliver: Delivery,
    /// `deliver: env`: the variable of the tool's process, upper-case letters, digits and underscores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", regex(pattern = "^[A-Z_][A-Z0-9_]{0,127}$"))]
    pub variable: Option<String>,
    /// `deliver: file`: the file, directly in /tmp, such as /tmp/token. It is in memory, read-only, and the tool's alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", regex(pattern = "^/tmp/[A-Za-z0-9._-]{1,128}$"))]
    pub path: Option<String>,
}

/// How a tool gets a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Delivery {
    /// As a variable of its own process's environment.
    Env,
    /// As a file in memory (docker, kubernetes).
    File,
}
