//! A token of a Kubernetes service account for one call, bound to an object that goes with the call.

use async_trait::async_trait;
use mayfly_executor::kubernetes::{Issue, TokenIssuer};
use uuid::Uuid;

use super::source::{Minted, Order, Source, SourceError};

/// `kind: kubernetes`.
pub(super) struct Kubernetes {
    pub(super) issuer: TokenIssuer,
    pub(super) issue: Issue,
}

/// Known before it is made, so that whatever was made is found again.
fn binding(id: Uuid) -> String {
    format!("mayfly-call-{}", id.simple())
}

#[async_trait]
impl Source for Kubernetes {
    fn revocable(&self) -> bool {
        true
    }

    /// The object does.
    fn outlives_expiry(&self) -> bool {
        true
    }

    async fn mint(&self, order: &Order) -> Result<Minted, SourceError> {
        let token = self.issuer.issue(&self.issue, &binding(order.id), order.life).await;
        let token = token.map_err(|error| SourceError(error.to_string()))?;
        Ok(Minted::one("token", token.as_bytes().to_vec()))
    }

    async fn revoke(&self, id: Uuid, _: Option<&str>) -> Result<(), SourceError> {
        self.issuer.revoke(&binding(id)).await.map_err(|error| SourceError(error.to_string()))
    }
}
