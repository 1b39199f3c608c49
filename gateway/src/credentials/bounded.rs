//! A source, and how much at once is asked of it: callers that come and go must not pile up work behind a server that is slow.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

use super::source::{Source, SourceError};

/// Most credentials that one source mints at once, those that nobody waits for any more among them.
const MINTING: usize = 32;
/// Most that are being revoked at once.
const REVOKING: usize = 16;

/// See the module.
pub(super) struct Bounded {
    pub(super) source: Box<dyn Source>,
    minting: Arc<Semaphore>,
    revoking: Semaphore,
}

impl Bounded {
    pub(super) fn new(source: Box<dyn Source>) -> Arc<Self> {
        Arc::new(Self { source, minting: Arc::new(Semaphore::new(MINTING)), revoking: Semaphore::new(REVOKING) })
    }

    /// A place among those that mint.
    pub(super) async fn place(&self, patience: Duration) -> Result<OwnedSemaphorePermit, SourceError> {
        let busy = || SourceError(format!("it is busy: {MINTING} credentials were being made for {} s", patience.as_secs()));
        match tokio::time::timeout(patience, self.minting.clone().acquire_owned()).await {
            Ok(place) => place.map_err(|_| busy()),
            Err(_) => Err(busy()),
        }
    }

    /// Revokes, in turn.
    pub(super) async fn revoke(&self, id: Uuid, handle: Option<&str>, patience: Duration) -> Result<(), SourceError> {
        let _turn = self.revoking.acquire().await.map_err(|error| SourceError(error.to_string()))?;
        let late = || SourceError(format!("no answer within {} s", patience.as_secs()));
        tokio::time::timeout(patience, self.source.revoke(id, handle)).await.unwrap_or_else(|_| Err(late()))
    }
}
