//! The JSON Schema of credential sources: by hand, so that a mistake is told for the kind that was meant.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::SourceConfig;

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
            "advertise": {
                "type": "string",
                "pattern": "^[a-z0-9][a-z0-9.-]*:[0-9]{1,5}$",
                "description": "where tools find it, by name, if not as `url` says: db.internal:5432",
            },
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

pub(super) fn key_source_schema(_: &mut SchemaGenerator) -> Schema {
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
