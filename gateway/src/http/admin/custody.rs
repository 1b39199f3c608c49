//! The vault and what was minted, for the operator. A value goes in and never comes out.

use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::{FromRef, Path, State};
use axum::http::StatusCode;
use axum::routing::{delete, get, post, put};
use axum::{Json, Router};
use base64::prelude::{BASE64_STANDARD, Engine};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::AdminError;
use crate::call::CallId;
use crate::http::body::{BodyLimits, JsonBody};

/// What this part of the door asks of the gateway.
#[async_trait]
pub trait Custody: Send + Sync {
    /// Stores a value as the next version of a secret.
    async fn set_secret(&self, name: &str, value: &[u8]) -> Result<SecretView, AdminError>;
    /// The secrets, by name.
    fn secrets(&self) -> Vec<SecretView>;
    /// Removes a secret.
    async fn remove_secret(&self, name: &str) -> Result<(), AdminError>;
    /// Puts a fresh master key in the old one's place.
    async fn rotate_master_key(&self) -> Result<MasterKeyView, AdminError>;
    /// What was minted and is not known to be gone; `leaked`: what should be.
    async fn credentials(&self, leaked: bool) -> Result<Vec<CredentialView>, AdminError>;
    /// Takes it that a credential is gone: the operator ended it by hand.
    async fn forget_credential(&self, id: Uuid) -> Result<(), AdminError>;
}

/// A secret, without its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretView {
    /// Its name.
    pub name: String,
    /// How often it was set.
    pub version: u32,
    /// When it was set first.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it was set last.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// Which master key is in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasterKeyView {
    /// Its id: a fingerprint.
    pub key_id: String,
}

/// A credential of a call that is not known to be gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialView {
    /// Its id.
    pub id: Uuid,
    /// The source it is from.
    pub source: String,
    /// What it has to be revoked at.
    pub target: String,
    /// The call it was minted for.
    pub call_id: CallId,
    /// When it was asked for.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it is worth nothing, revoked or not.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
    /// Attempts to revoke it that failed.
    pub attempts: u32,
    /// What the last one said.
    pub error: Option<String>,
}

#[derive(Clone)]
struct Door(Arc<dyn Custody>);

impl FromRef<Door> for BodyLimits {
    fn from_ref(_: &Door) -> Self {
        // The longest secret, in base64.
        Self { bytes: 128 << 10, ..Self::default() }
    }
}

/// Its routes.
pub(super) fn routes(custody: Arc<dyn Custody>) -> Router {
    Router::new()
        .route("/admin/v1/secrets", get(async |State(Door(custody)): State<Door>| Json(custody.secrets())))
        .route("/admin/v1/secrets/{name}", put(set_secret).delete(remove_secret))
        .route("/admin/v1/master-key/rotate", post(rotate))
        .route("/admin/v1/credentials", get(async |door: State<Door>| credentials(door, false).await))
        .route("/admin/v1/credentials/leaked", get(async |door: State<Door>| credentials(door, true).await))
        .route("/admin/v1/credentials/{id}", delete(forget))
        .with_state(Door(custody))
}

/// Takes `{"value": "base64"}`.
async fn set_secret(
    State(Door(custody)): State<Door>,
    Path(name): Path<String>,
    JsonBody(mut body): JsonBody,
) -> Result<Json<SecretView>, AdminError> {
    // Nothing of this body is repeated, whatever is wrong with it.
    let wrong = || AdminError::Invalid("the body is one member, `value`: the secret in base64".into());
    let alone = body.as_object().is_some_and(|members| members.len() == 1);
    let text = match body.get_mut("value").map(serde_json::Value::take) {
        Some(serde_json::Value::String(text)) if alone => Zeroizing::new(text),
        _ => return Err(wrong()),
    };
    let value = BASE64_STANDARD.decode(text.as_bytes()).map(Zeroizing::new).map_err(|_| wrong())?;
    custody.set_secret(&name, &value).await.map(Json)
}

async fn remove_secret(State(Door(custody)): State<Door>, Path(name): Path<String>) -> Result<StatusCode, AdminError> {
    custody.remove_secret(&name).await.map(|()| StatusCode::NO_CONTENT)
}

async fn rotate(State(Door(custody)): State<Door>) -> Result<Json<MasterKeyView>, AdminError> {
    custody.rotate_master_key().await.map(Json)
}

async fn credentials(State(Door(custody)): State<Door>, leaked: bool) -> Result<Json<Vec<CredentialView>>, AdminError> {
    custody.credentials(leaked).await.map(Json)
}

async fn forget(State(Door(custody)): State<Door>, Path(id): Path<Uuid>) -> Result<StatusCode, AdminError> {
    custody.forget_credential(id).await.map(|()| StatusCode::NO_CONTENT)
}
