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

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use tokio::time::MissedTickBehavior;

use crate::lifecycle::in_time;
use crate::{Backend, Counts, Dispatcher, Found, InstanceId, SandboxId, SandboxRow};

/// Most orphans that are being destroyed at once.
const DESTROYED_AT_ONCE: usize = 16;
/// How far the clock of another gateway may be from ours.
const CLOCKS_APART: Duration = Duration::from_secs(60);
/// Longest time between two rounds.
pub const INTERVAL: Duration = Duration::from_secs(10);

/// Whether a listed sandbox has to go. Pure, so that the rule can be read and tested.
pub fn is_orphan(found: &Found, instance: InstanceId, live: bool, now: SystemTime) -> bool {
    !live && (found.instance == instance || found.expires_at + CLOCKS_APART <= now)
}

/// One round. Returns how many sandboxes it destroyed.
pub async fn reap(dispatcher: &Dispatcher) -> u64 {
    // Rows are read before the engines are listed: a row that is older than the listing and not in it is gone.
    let rows = match dispatcher.ledger().open_rows().await {
        Ok(rows) => rows,
        Err(error) => {
            tracing::error!(%error, "the reaper cannot read the ledger");
            return 0;
        }
    };
    let engines = dispatcher.backends().map(|(backend, counts)| reap_engine(dispatcher, &**backend, counts, &rows));
    join_all(engines).await.into_iter().sum()
}

async fn reap_engine(dispatcher: &Dispatcher, backend: &dyn Backend, counts: &Counts, rows: &[SandboxRow]) -> u64 {
    let mut reaped = 0;
    // Live before the listing or now: a teardown that finishes in between made no orphan. What a teardown gives up is so before it
    // leaves the live set, so it is looked up after.
    let owned = dispatcher.live();
    let given_up = counts.given_up();
    let found = match backend.list().await {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(%error, "the reaper cannot list an engine; its sandboxes wait for the next round");
            return 0;
        }
    };
    let mut standing: HashSet<_> = found.iter().map(|f| f.id).collect();
    let live = |id: SandboxId| owned.contains(&id) || dispatcher.is_live(id);
    let orphans: Vec<_> =
        found.iter().filter(|f| is_orphan(f, dispatcher.instance(), live(f.id), SystemTime::now())).map(|f| f.id).collect();
    // Some at once: an engine may take seconds to confirm that one is gone.
    let mut destroyed =
        stream::iter(orphans).map(async |id| (id, in_time(backend, id).await)).buffer_unordered(DESTROYED_AT_ONCE);
    while let Some((id, result)) = destroyed.next().await {
        match result {
            Ok(()) => {
                standing.remove(&id);
                reaped += 1;
                if given_up.contains(&id) {
                    tracing::info!(sandbox = %id, backend = %backend.kind(), "destroyed what a teardown gave up");
                } else {
                    tracing::warn!(sandbox = %id, backend = %backend.kind(), "destroyed an orphan");
                    counts.orphans.fetch_add(1, Ordering::Relaxed);
                }
            }
            Err(error) => tracing::warn!(sandbox = %id, %error, "an orphan could not be destroyed"),
        }
    }
    drop(destroyed);
    given_up.difference(&standing).for_each(|id| counts.gone_after_all(*id));
    for row in rows.iter().filter(|r| r.backend == backend.kind()) {
        if !standing.contains(&row.id)
            && !live(row.id)
            && let Err(error) = dispatcher.ledger().closed(row.id).await
        {
            tracing::warn!(sandbox = %row.id, %error, "a row could not be closed");
        }
    }
    reaped
}

/// Rounds until `stop`, every [`INTERVAL`].
pub async fn run(dispatcher: Arc<Dispatcher>, stop: tokio_util::sync::CancellationToken) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
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
    use crate::run::fake::{Caller, Engine, Ledger, Scenario, counted, dispatcher, order};

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
        assert!(is_orphan(&at(theirs, -60), ours, false, now));
        // Its clock may be behind ours.
        assert!(!is_orphan(&at(theirs, -59), ours, false, now));
    }

    #[tokio::test]
    async fn what_is_live_is_left_alone() {
        let (engine, ledger, caller) = (Engine::new(Scenario::RunsOn), Ledger::prompt(), Caller::default());
        let dispatcher = dispatcher(&engine, &ledger);
        let reaping = async {
            engine.reached().await;
            assert_eq!(reap(&dispatcher).await, 0);
            assert_eq!((engine.sandboxes().len(), ledger.open()), (1, 1));
            caller.cancel.cancel();
        };
        let (result, ()) = tokio::join!(dispatcher.run(order(), &caller), reaping);
        assert!(result.is_err());
        dispatcher.drain(Duration::from_secs(5)).await;
        assert_eq!((engine.sandboxes().len(), ledger.open()), (0, 0));
        assert_eq!(counted(&dispatcher), (1, 1, 0));
    }

    #[tokio::test]
    async fn a_row_that_is_being_opened_stays_open() {
        let (engine, ledger, caller) = (Engine::new(Scenario::StartsSlowly), Ledger::slow(), Caller::default());
        let dispatcher = dispatcher(&engine, &ledger);
        let reaping = async {
            ledger.written().await;
            assert_eq!(reap(&dispatcher).await, 0);
            assert_eq!(ledger.open(), 1);
            ledger.go_on();
            engine.reached().await;
            assert_eq!(reap(&dispatcher).await, 0);
            assert_eq!(ledger.open(), 1);
            engine.go_on();
        };
        let (result, ()) = tokio::join!(dispatcher.run(order(), &caller), reaping);
        assert!(result.is_ok(), "{result:?}");
    }

    #[tokio::test]
    async fn what_a_teardown_gave_up_is_destroyed_and_no_orphan() {
        let (engine, ledger) = (Engine::new(Scenario::HoldsOn), Ledger::prompt());
        let dispatcher = dispatcher(&engine, &ledger);
        dispatcher.run(order(), &Caller::default()).await.unwrap();
        dispatcher.drain(Duration::from_secs(5)).await;
        assert!(dispatcher.live().is_empty());
        // It still holds on.
        assert_eq!(reap(&dispatcher).await, 0);
        assert_eq!((counted(&dispatcher), ledger.open()), ((1, 0, 0), 1));

        engine.becomes(Scenario::Works);
        assert_eq!(reap(&dispatcher).await, 1);
        assert_eq!((counted(&dispatcher), ledger.open()), ((1, 1, 0), 0));
        assert_eq!(reap(&dispatcher).await, 0);
        assert_eq!(counted(&dispatcher), (1, 1, 0));
    }

    #[tokio::test]
    async fn what_was_given_up_and_went_by_itself_is_destroyed_too() {
        let (engine, ledger) = (Engine::new(Scenario::HoldsOn), Ledger::prompt());
        let dispatcher = dispatcher(&engine, &ledger);
        dispatcher.run(order(), &Caller::default()).await.unwrap();
        dispatcher.drain(Duration::from_secs(5)).await;
        engine.forget_all();
        assert_eq!(reap(&dispatcher).await, 0);
        assert_eq!((counted(&dispatcher), ledger.open()), ((1, 1, 0), 0));
    }

    #[tokio::test]
    async fn what_this_process_never_started_is_an_orphan_only() {
        let (engine, ledger) = (Engine::new(Scenario::Works), Ledger::prompt());
        let dispatcher = dispatcher(&engine, &ledger);
        engine.had_already(SandboxId::generate());
        assert_eq!(reap(&dispatcher).await, 1);
        assert_eq!((counted(&dispatcher), engine.sandboxes().len()), ((0, 0, 1), 0));
    }
}
