//! A token of a Kubernetes service account for one call, bound to an object that goes with the call.

use std::time::Duration;

use async_trait::async_trait;
use mayfly_executor::kubernetes::{Issue, SHORTEST_LIFE, TokenIssuer};
use uuid::Uuid;

use super::source::{Keep, Minted, Order, Source, SourceError};

/// `kind: kubernetes`.
pub(super) struct Kubernetes {
    pub(super) issuer: TokenIssuer,
    pub(super) issue: Issue,
    pub(super) target: String,
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

    /// No token is worth something for less.
    fn longest_life(&self, asked: Duration) -> Duration {
        asked.max(SHORTEST_LIFE)
    }

    fn target(&self) -> String {
        self.target.clone()
    }

    async fn mint(&self, order: &Order, _: &dyn Keep) -> Result<Minted, SourceError> {
        let token = self.issuer.issue(&self.issue, &binding(order.id), order.life).await;
        let token = token.map_err(|error| SourceError(error.to_string()))?;
        Ok(Minted::one("token", token.as_bytes().to_vec()))
    }

    async fn revoke(&self, id: Uuid, _: Option<&str>) -> Result<(), SourceError> {
        self.issuer.revoke(&binding(id)).await.map_err(|error| SourceError(error.to_string()))
    }
}
