//! The operator's view of the vault and of what was minted.

use std::sync::Arc;

use async_trait::async_trait;
use uuid::Uuid;
use zeroize::Zeroizing;

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
        let (secrets, name, value) = (self.secrets.clone(), name.to_owned(), Zeroizing::new(value.to_vec()));
        Ok(secret(whole(async move { secrets.set(&name, &value).await }).await?))
    }

    fn secrets(&self) -> Vec<SecretView> {
        self.secrets.list().into_iter().map(secret).collect()
    }

    async fn remove_secret(&self, name: &str) -> Result<(), AdminError> {
        let (secrets, name) = (self.secrets.clone(), name.to_owned());
        whole(async move { secrets.remove(&name).await }).await
    }

    async fn rotate_master_key(&self) -> Result<MasterKeyView, AdminError> {
        let secrets = self.secrets.clone();
        Ok(MasterKeyView { key_id: whole(async move { secrets.rotate().await }).await? })
    }

    async fn credentials(&self, leaked: bool) -> Result<Vec<CredentialView>, AdminError> {
        let rows = if leaked { self.revoker.leaked().await } else { self.revoker.open().await };
        Ok(rows.map_err(|error| AdminError::Store(error.to_string()))?.into_iter().map(credential).collect())
    }

    async fn forget_credential(&self, id: Uuid) -> Result<(), AdminError> {
        match self.revoker.forget(id).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(AdminError::UnknownCredential(id)),
            Err(error) => Err(AdminError::Store(error.to_string())),
        }
    }
}

/// Carries a change out whether or not whoever asked waits for it: cut between the store and the memory, the two would differ.
async fn whole<T: Send + 'static>(
    change: impl Future<Output = Result<T, SecretError>> + Send + 'static,
) -> Result<T, AdminError> {
    let changed = tokio::spawn(change).await.map_err(|error| AdminError::Store(error.to_string()))?;
    Ok(changed?)
}

fn secret(row: SecretRow) -> SecretView {
    SecretView { name: row.name, version: row.version, created_at: row.created_at, updated_at: row.updated_at }
}

fn credential(row: CredentialRow) -> CredentialView {
    let CredentialRow { id, source, target, call_id, created_at, expires_at, attempts, error, .. } = row;
    CredentialView { id, source, target, call_id, created_at, expires_at, attempts, error }
}

impl From<SecretError> for AdminError {
    fn from(error: SecretError) -> Self {
        match error {
            SecretError::Unknown(name) => Self::UnknownSecret(name),
            SecretError::Name(_) | SecretError::Length { .. } | SecretError::KeyElsewhere | SecretError::Rotated(_) => {
                Self::Invalid(error.to_string())
            }
            other => Self::Store(other.to_string()),
        }
    }
}
