//! What a tool says of the credentials that its calls are given.

use mayfly_executor::egress::Pattern;
use mayfly_executor::spec::Destination;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
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
    /// How the tool gets it, or how it is used without the tool ever getting it.
    pub deliver: Delivery,
    /// `deliver: env`: the variable of the tool's process, upper-case letters, digits and underscores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", regex(pattern = "^[A-Z_][A-Z0-9_]{0,127}$"))]
    pub variable: Option<String>,
    /// `deliver: file`: the file, directly in /tmp, such as /tmp/token. It is in memory, read-only, and the tool's alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", regex(pattern = "^/tmp/[A-Za-z0-9._-]{1,128}$"))]
    pub path: Option<String>,
    /// `deliver: egress`: what the gateway adds to the tool's requests, and to which of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inject: Option<Inject>,
}

/// A credential that the gateway adds to requests on their way out. The tool speaks plain HTTP to its destination, by the name that it
/// has anyway; the gateway speaks TLS, and adds the header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Inject {
    /// Where the requests lead: host:port, as `executor.network` lists it.
    #[schemars(schema_with = "place_schema")]
    pub to: Destination,
    /// What the destination expects.
    #[serde(rename = "as")]
    pub scheme: Scheme,
    /// `as: header`: the header, such as X-Api-Key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", regex(pattern = "^[A-Za-z][A-Za-z0-9-]{0,63}$"))]
    pub header: Option<String>,
    /// The methods of the requests that get it. Left out: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(regex(pattern = "^[A-Z]{3,16}$")))]
    pub methods: Vec<String>,
    /// The paths of the requests that get it: /v1/refunds, /repos/*/issues for any one segment, /repos/** for all below. Left out: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "paths_schema")]
    pub paths: Vec<Pattern>,
    /// Whether the destination speaks plain HTTP; true or false (the default). The credential can then be read on its way there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub plaintext: bool,
}

/// How a destination takes a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// `Authorization: Bearer ...` (RFC 6750).
    Bearer,
    /// `Authorization: Basic ...` (RFC 7617): of the fields `username` (or `user`) and `password`, or of one that is user:password.
    Basic,
    /// As the whole value of `header`.
    Header,
}

/// How a tool gets a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Delivery {
    /// As a variable of its own process's environment.
    Env,
    /// As a file in memory (docker, kubernetes).
    File,
    /// Not at all: the gateway adds it to the tool's requests.
    Egress,
}

/// The schema of one [`Destination`].
fn place_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "mayfly-place", "description": "host:port, such as api.example.com:443"})
}

fn paths_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "maxItems": 64, "items": {"type": "string", "format": "mayfly-path", "description": "a path such as /v1/refunds, /repos/*/issues or /repos/**"}})
}
