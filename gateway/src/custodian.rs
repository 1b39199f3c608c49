//! The operator's view of the vault and of what was minted.

use std::sync::Arc;

use async_trait::async_trait;

use crate::credentials::Revoker;
use crate::http::admin::AdminError;
use crate::http::admin::custody::{CredentialView, Custody, MasterKeyView, SecretView};
use crate::secrets::{SecretError, Secrets};
use crate::store::{CredentialRow, SecretRow};

/// See the module.
pub struct Custodian {
    secrets: Arc<Secrets>,
    revoker: Arc<Revoker>,
}

impl Custodian {
    /// Over an open vault.
    pub fn new(secrets: Arc<Secrets>, revoker: Arc<Revoker>) -> Arc<Self> {
        Arc::new(Self { secrets, revoker })
    }
}

#[async_trait]
impl Custody for Custodian {
    async fn set_secret(&self, name: &str, value: &[u8]) -> Result<SecretView, AdminError> {
        Ok(secret(self.secrets.set(name, value).await?))
    }

    fn secrets(&self) -> Vec<SecretView> {
        self.secrets.list().into_iter().map(secret).collect()
    }

    async fn remove_secret(&self, name: &str) -> Result<(), AdminError> {
        Ok(self.secrets.remove(name).await?)
    }

    async fn rotate_master_key(&self) -> Result<MasterKeyView, AdminError> {
        Ok(MasterKeyView { key_id: self.secrets.rotate().await? })
    }

    async fn credentials(&self, leaked: bool) -> Result<Vec<CredentialView>, AdminError> {
        let rows = if leaked { self.revoker.leaked().await } else { self.revoker.open().await };
        Ok(rows.map_err(|error| AdminError::Store(error.to_string()))?.into_iter().map(credential).collect())
    }
}

fn secret(row: SecretRow) -> SecretView {
    SecretView { name: row.name, version: row.version, created_at: row.created_at, updated_at: row.updated_at }
}

fn credential(row: CredentialRow) -> CredentialView {
    let CredentialRow { id, source, call_id, created_at, expires_at, attempts, error, .. } = row;
    CredentialView { id, source, call_id, created_at, expires_at, attempts, error }
}

impl From<SecretError> for AdminError {
    fn from(error: SecretError) -> Self {
        match error {
            SecretError::Unknown(name) => Self::UnknownSecret(name),
            SecretError::Name(_) | SecretError::Length { .. } | SecretError::KeyElsewhere => Self::Invalid(error.to_string()),
            other => Self::Store(other.to_string()),
        }
    }
}
