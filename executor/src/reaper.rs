//! The reaper: destroys what nobody owns.
//!
//! # Flow
//! Each round lists every engine and compares with the ledger and with what this process runs. It destroys what carries our
//! instance and is neither live here nor being torn down, and what has expired, whosever it is. Then it closes ledger rows whose
//! sandbox no engine lists.
//!
//! # Guarantees
//! A round after a crash leaves nothing of ours. Another instance's living sandboxes are never touched. An engine that does not
//! answer delays its own sandboxes only, and its rows stay open.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use crate::{Dispatcher, Found, InstanceId};

/// Longest time between two rounds.
pub const INTERVAL: Duration = Duration::from_secs(10);

/// Whether a listed sandbox has to go. Pure, so that the rule can be read and tested.
pub fn is_orphan(found: &Found, instance: InstanceId, live: bool, now: SystemTime) -> bool {
    if found.expires_at <= now {
        return !live;
    }
    found.instance == instance && !live
}

/// One round. Returns how many sandboxes it destroyed.
pub async fn reap(dispatcher: &Dispatcher) -> u64 {
    let mut reaped = 0;
    // Rows are read before the engines are listed: a row that is older than the listing and not in it is gone.
    let rows = match dispatcher.ledger().open_rows().await {
        Ok(rows) => rows,
        Err(error) => {
            tracing::error!(%error, "the reaper cannot read the ledger");
            return 0;
        }
    };
    for (backend, counts) in dispatcher.backends() {
        // Live before the listing or now: a teardown that finishes in between made no orphan.
        let owned = dispatcher.live();
        let found = match backend.list().await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "the reaper cannot list an engine; its sandboxes wait for the next round");
                continue;
            }
        };
        let mut standing: HashSet<_> = found.iter().map(|f| f.id).collect();
        for orphan in found
            .iter()
            .filter(|f| is_orphan(f, dispatcher.instance(), owned.contains(&f.id) || dispatcher.is_live(f.id), SystemTime::now()))
        {
            match backend.destroy(orphan.id).await {
                Ok(()) => {
                    tracing::warn!(sandbox = %orphan.id, backend = %backend.kind(), "destroyed an orphan");
                    counts.orphans.fetch_add(1, Ordering::Relaxed);
                    standing.remove(&orphan.id);
                    reaped += 1;
                }
                Err(error) => tracing::warn!(sandbox = %orphan.id, %error, "an orphan could not be destroyed"),
            }
        }
        for row in rows.iter().filter(|r| r.backend == backend.kind()) {
            if !standing.contains(&row.id) && !dispatcher.is_live(row.id) {
                if let Err(error) = dispatcher.ledger().closed(row.id).await {
                    tracing::warn!(sandbox = %row.id, %error, "a row could not be closed");
                }
            }
        }
    }
    reaped
}

/// Rounds until `stop`, every [`INTERVAL`].
pub async fn run(dispatcher: Arc<Dispatcher>, stop: tokio_util::sync::CancellationToken) {
    let mut ticks = tokio::time::interval(INTERVAL);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => { reap(&dispatcher).await; }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SandboxId;

    #[test]
    fn only_ours_that_is_not_live_or_what_has_expired_is_an_orphan() {
        let (ours, theirs) = (InstanceId(uuid::Uuid::from_u128(1)), InstanceId(uuid::Uuid::from_u128(2)));
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        let at = |instance, offset: i64| Found {
            id: SandboxId::generate(),
            instance,
            expires_at: SystemTime::UNIX_EPOCH + Duration::from_secs((100 + offset) as u64),
        };
        assert!(is_orphan(&at(ours, 60), ours, false, now));
        assert!(!is_orphan(&at(ours, 60), ours, true, now));
        assert!(!is_orphan(&at(theirs, 60), ours, false, now));
        assert!(is_orphan(&at(theirs, 0), ours, false, now));
    }
}
