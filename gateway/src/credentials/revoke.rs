//! Ends what was minted, and does not give up.
//!
//! A credential that has an owner in this process is revoked when its call ends: a few times at once, then by the sweep. The sweep
//! goes over the durable rows: whatever has no owner is revoked, also what an earlier process left.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::held::Minting;
use super::source::{Minted, Source, SourceError};
use crate::store::{CredentialRow, Store, StoreError};

/// How long a minting that nobody waits for any more may go on.
const LATE: Duration = Duration::from_secs(30);
/// Pauses before each attempt right after the call.
const ATTEMPTS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(300), Duration::from_secs(2)];
/// How long one attempt may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two sweeps.
const SWEEP: Duration = Duration::from_secs(15);

/// See the module. Shared as `Arc`.
pub struct Revoker {
    sources: BTreeMap<String, Arc<dyn Source>>,
    store: Arc<Store>,
    /// What a call of this process holds, or is being revoked right after it.
    owned: Mutex<HashSet<Uuid>>,
    tasks: TaskTracker,
}

impl Revoker {
    pub(super) fn new(sources: BTreeMap<String, Arc<dyn Source>>, store: Arc<Store>) -> Arc<Self> {
        Arc::new(Self { sources, store, owned: Mutex::default(), tasks: TaskTracker::new() })
    }

    pub(super) fn own(&self, id: Uuid) {
        self.owned.lock().insert(id);
    }

    /// Revokes what its owner lets go of; not waited for.
    pub(super) fn end(self: Arc<Self>, id: Uuid, source: Arc<dyn Source>, handle: Option<String>, minting: Option<Minting>) {
        let tasks = self.tasks.clone();
        tasks.spawn(async move {
            let late = finish(minting).await;
            let handle = handle.or_else(|| late?.handle);
            for pause in ATTEMPTS {
                tokio::time::sleep(pause).await;
                if self.attempt(id, Some(&source), handle.as_deref()).await {
                    break;
                }
            }
            self.owned.lock().remove(&id);
        });
    }

    /// Sweeps until `stop`: at once, and then again and again.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            self.sweep().await;
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(SWEEP) => {}
            }
        }
    }

    /// One round over what has no owner.
    pub async fn sweep(&self) {
        // Owners first: whoever lets go between the two reads has a row that is merely tried twice.
        let owned = self.owned.lock().clone();
        let rows = match self.store.credentials().await {
            Ok(rows) => rows,
            Err(error) => return tracing::error!(%error, "what has to be revoked cannot be read; trying again"),
        };
        let now = OffsetDateTime::now_utc();
        for row in rows.iter().filter(|row| !owned.contains(&row.id) && !self.owned.lock().contains(&row.id)) {
            let source = self.sources.get(&row.source);
            if !self.attempt(row.id, source, row.handle.as_deref()).await
                && row.expires_at < now
                && source.is_none_or(|source| !source.outlives_expiry())
            {
                self.close(row.id).await;
            }
        }
    }

    /// Whether it is gone.
    async fn attempt(&self, id: Uuid, source: Option<&Arc<dyn Source>>, handle: Option<&str>) -> bool {
        let revoked = match source {
            Some(source) => tokio::time::timeout(PATIENCE, source.revoke(id, handle))
                .await
                .unwrap_or_else(|_| Err(SourceError(format!("no answer within {} s", PATIENCE.as_secs())))),
            None => Err(SourceError("its source is not configured any more".into())),
        };
        let Err(error) = revoked else {
            self.close(id).await;
            return true;
        };
        tracing::error!(credential_id = %id, %error, "a credential could not be revoked; trying again");
        if let Err(error) = self.store.credential_failed(id, &error.to_string()).await {
            tracing::error!(credential_id = %id, %error, "that could not be recorded");
        }
        false
    }

    async fn close(&self, id: Uuid) {
        if let Err(error) = self.store.close_credential(id).await {
            tracing::warn!(credential_id = %id, %error, "a credential that is gone could not be closed; it will be revoked once more");
        }
    }

    /// What is not known to be gone, oldest first.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn open(&self) -> Result<Vec<CredentialRow>, StoreError> {
        self.store.credentials().await
    }

    /// What should be gone and is not known to be, oldest first.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn leaked(&self) -> Result<Vec<CredentialRow>, StoreError> {
        let rows = self.store.credentials().await?;
        let owned = self.owned.lock();
        Ok(rows.into_iter().filter(|row| row.attempts > 0 || !owned.contains(&row.id)).collect())
    }

    /// Waits for what is being revoked, at most so long.
    pub async fn drain(&self, patience: Duration) {
        self.tasks.close();
        let _ = tokio::time::timeout(patience, self.tasks.wait()).await;
    }
}

/// Waits for a minting that was given up; what comes of it is to be revoked.
async fn finish(minting: Option<Minting>) -> Option<Minted> {
    let mut minting = minting?;
    if let Ok(minted) = tokio::time::timeout(LATE, &mut minting).await {
        return minted.ok()?.ok();
    }
    minting.abort();
    None
}
