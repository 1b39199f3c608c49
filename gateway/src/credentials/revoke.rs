//! Ends what was minted, and does not give up.
//!
//! A credential that has an owner in this process is revoked when its call ends: a few times at once, then by the sweep. The sweep
//! goes over the durable rows: whatever has no owner is revoked, also what an earlier process left. What keeps failing is tried less
//! and less often, and holds up nobody else.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::bounded::Bounded;
use super::held::{Handle, Minting};
use super::source::SourceError;
use crate::store::{CredentialRow, Store, StoreError};
use crate::telemetry::Telemetry;

/// How long a minting that nobody waits for any more may go on.
const LATE: Duration = Duration::from_secs(30);
/// Pauses before each attempt right after the call.
const ATTEMPTS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(300), Duration::from_secs(2)];
/// How long one attempt may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two sweeps.
const SWEEP: Duration = Duration::from_secs(15);
/// The longest pause between two attempts of the sweep at the same credential.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// What has no owner for so long should be gone.
const OWED: time::Duration = time::Duration::minutes(1);

/// See the module. Shared as `Arc`.
pub struct Revoker {
    sources: BTreeMap<String, Arc<Bounded>>,
    store: Arc<Store>,
    /// What a call of this process holds, or is being revoked right after it.
    owned: Mutex<HashSet<Uuid>>,
    /// What failed: when it is tried next.
    next: Mutex<HashMap<Uuid, Instant>>,
    tasks: TaskTracker,
    telemetry: Arc<Telemetry>,
    /// What has a row from before that is of an earlier process.
    since: OffsetDateTime,
}

impl Revoker {
    pub(super) fn new(sources: BTreeMap<String, Arc<Bounded>>, store: Arc<Store>, telemetry: Arc<Telemetry>) -> Arc<Self> {
        let since = OffsetDateTime::now_utc();
        Arc::new(Self {
            sources,
            store,
            owned: Mutex::default(),
            next: Mutex::default(),
            tasks: TaskTracker::new(),
            telemetry,
            since,
        })
    }

    pub(super) fn own(&self, id: Uuid) {
        self.owned.lock().insert(id);
    }

    /// Revokes what its owner lets go of; not waited for.
    pub(super) fn end(self: Arc<Self>, id: Uuid, source: Arc<Bounded>, handle: Arc<Handle>, minting: Option<Minting>) {
        let tasks = self.tasks.clone();
        tasks.spawn(async move {
            if let Some(mut minting) = minting
                && tokio::time::timeout(LATE, &mut minting).await.is_err()
            {
                minting.abort();
            }
            for pause in ATTEMPTS {
                tokio::time::sleep(pause).await;
                match source.revoke(id, handle.get(), PATIENCE).await {
                    Ok(()) => {
                        self.close(id).await;
                        break;
                    }
                    Err(error) => self.failed(id, &error).await,
                }
            }
            self.owned.lock().remove(&id);
        });
    }

    /// Sweeps until `stop`: at once, and then again and again.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let sweeping = async {
            loop {
                self.sweep().await;
                tokio::time::sleep(SWEEP).await;
            }
        };
        // Whatever it is at may be begun anew.
        stop.run_until_cancelled(sweeping).await;
    }

    /// One round over what has no owner and is not resting.
    pub async fn sweep(&self) {
        let rows = match self.store.credentials().await {
            Ok(rows) => rows,
            Err(error) => return tracing::error!(%error, "what has to be revoked cannot be read; trying again"),
        };
        // After the rows: whoever lets go in between has a row that is merely tried twice, and whoever came is known.
        let owned = self.owned.lock().clone();
        let listed: HashSet<_> = rows.iter().map(|row| row.id).collect();
        self.next.lock().retain(|id, _| listed.contains(id));
        let is_due = |row: &&CredentialRow| {
            !owned.contains(&row.id) && self.next.lock().get(&row.id).is_none_or(|next| *next <= Instant::now())
        };
        let rounds: FuturesUnordered<_> = rows.iter().filter(is_due).map(|row| self.visit(row)).collect();
        rounds.collect::<()>().await;
        self.tell().await;
    }

    /// Keeps the figure that alerts rest on.
    async fn tell(&self) {
        let Ok(leaked) = self.leaked().await else { return };
        let mut owed = BTreeMap::new();
        leaked.into_iter().for_each(|row| *owed.entry(row.source).or_default() += 1);
        self.telemetry.metrics().owed(owed);
    }

    async fn visit(&self, row: &CredentialRow) {
        let (now, lag) = (OffsetDateTime::now_utc(), self.lag(row));
        match self.revoke(row).await {
            // Whoever the dead process asked may be at it still: once more, when that cannot be.
            Ok(()) if now < row.created_at + lag => {}
            Ok(()) => self.close(row.id).await,
            Err(error) => {
                let expired = row.expires_at < now;
                if expired && self.source(row).is_ok_and(|source| !source.source.outlives_expiry()) {
                    return self.close(row.id).await;
                }
                let pause = SWEEP.saturating_mul(1 << row.attempts.min(6)).min(LONGEST_PAUSE);
                self.next.lock().insert(row.id, Instant::now() + pause);
                tracing::error!(source = %row.source, call_id = %row.call_id, credential_id = %row.id, %error, "a credential is still owed to its source");
                self.failed(row.id, &error).await;
            }
        }
    }

    async fn revoke(&self, row: &CredentialRow) -> Result<(), SourceError> {
        self.source(row)?.revoke(row.id, row.handle.as_deref(), PATIENCE).await
    }

    fn lag(&self, row: &CredentialRow) -> Duration {
        if row.created_at >= self.since {
            return Duration::ZERO;
        }
        self.source(row).map_or(Duration::ZERO, |source| source.source.lag())
    }

    /// The source that a credential is from, as long as it leads where it led then.
    fn source(&self, row: &CredentialRow) -> Result<&Arc<Bounded>, SourceError> {
        let source = self.sources.get(&row.source).filter(|source| source.source.target() == row.target);
        source.ok_or_else(|| {
            SourceError(format!(
                "there is no source `{}` at `{}` any more: put it back under `credentials`, or end it there by hand and then \
                 `mayfly credential forget {}`",
                row.source, row.target, row.id
            ))
        })
    }

    async fn failed(&self, id: Uuid, error: &SourceError) {
        tracing::warn!(credential_id = %id, %error, "a credential could not be revoked; trying again");
        if let Err(error) = self.store.credential_failed(id, &error.to_string()).await {
            tracing::error!(credential_id = %id, %error, "that could not be recorded");
        }
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
        let (owned, now) = (self.owned.lock(), OffsetDateTime::now_utc());
        let owed = |row: &CredentialRow| row.attempts > 0 || !owned.contains(&row.id) && row.created_at + OWED < now;
        Ok(rows.into_iter().filter(owed).collect())
    }

    /// Takes it that a credential is gone: its operator ended it by hand. Says whether there was one that no call holds.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn forget(&self, id: Uuid) -> Result<bool, StoreError> {
        let known = self.store.credentials().await?.iter().any(|row| row.id == id);
        if !known || self.owned.lock().contains(&id) {
            return Ok(false);
        }
        self.store.close_credential(id).await.map(|()| true)
    }

    /// Lets nothing rest any more.
    #[cfg(test)]
    pub(crate) fn wake(&self) {
        self.next.lock().clear();
    }

    /// Waits for what is being revoked, at most so long.
    pub async fn drain(&self, patience: Duration) {
        self.tasks.close();
        let _ = tokio::time::timeout(patience, self.tasks.wait()).await;
    }
}
