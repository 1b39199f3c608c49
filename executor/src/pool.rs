//! Warm sandboxes: started ahead, each blocked on its first frame, each used once.
//!
//! What is slow is starting a container, not talking to one. So for every spec that is to be kept warm there is a [`Pool`]: a
//! keeper that starts what is missing, and one watcher a waiting sandbox that notices when it dies. A call claims one, and the
//! sandbox is the call's from then on; what the call leaves is destroyed, never put back.
//!
//! # Guarantees
//! - Only a sandbox of exactly the wanted spec is claimed, with more life left than the call can need.
//! - Starting happens beside the calls, at most [`STARTS_AT_ONCE`] at a time over all pools, and slower and slower while it fails.
//!   It makes way for calls: as long as half of a pool waits, one at a time is started, and none right after a claim.
//! - A pool that is not wanted any more is emptied at once; a sandbox that was just claimed is not touched.
//!
//! # Assumptions
//! A backend's sandbox answers [`Sandbox::idle`] when it is lost: the end of its stream, or its silence, says so.

mod figures;
mod pools;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use crate::backend::REPORT_GRACE;
use crate::error::StartError;
use crate::lifecycle::{Engine, Life, Lifecycle, NotStarted};
use crate::spec::SandboxSpec;
use crate::{Sandbox, SandboxId};
use figures::Figures;

pub use figures::PoolStatus;
pub(crate) use pools::Pools;

/// Most sandboxes that are being started for pools at once.
pub const STARTS_AT_ONCE: usize = 4;
/// How long a pool rests after a start that failed; doubled each time, up to [`LONGEST_REST`].
const FIRST_REST: Duration = Duration::from_millis(500);
/// The longest rest.
const LONGEST_REST: Duration = Duration::from_secs(30);
/// The moments around a call's delivery and its answer are the call's: to start or to remove a sandbox takes an engine's whole
/// attention.
pub(crate) const MAKE_WAY: Duration = Duration::from_millis(20);
/// A sandbox that is lost sooner than this after its start counts as one that did not start.
const SOON: Duration = Duration::from_secs(5);

/// What is to be kept warm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warm {
    /// Whose sandboxes, for people: the tool's name.
    pub tool: String,
    /// The tool's version: another one gets sandboxes of its own, even from the same spec.
    pub version: String,
    /// Of exactly this spec. Its life must leave room for waiting beside the longest call.
    pub spec: SandboxSpec,
    /// How many wait at most.
    pub size: u32,
    /// The longest call, without grace. A sandbox with less life than this left is replaced.
    pub timeout: Duration,
    /// What a call does that finds none.
    pub when_empty: WhenEmpty,
}

/// What a call does that finds no warm sandbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WhenEmpty {
    /// It starts one of its own.
    #[default]
    Start,
    /// It waits for the next one, as long as a start may take.
    Wait,
}

/// A sandbox that is ready, and its life.
pub(crate) type Ready = (Life, Box<dyn Sandbox>);

/// The waiting sandboxes of one spec.
pub(crate) struct Pool {
    warm: Warm,
    engine: Engine,
    lifecycle: Arc<Lifecycle>,
    starts: Arc<Semaphore>,
    state: Mutex<State>,
    /// Something is missing, or may be.
    changed: Notify,
    /// A sandbox was put in.
    ready: Notify,
    closed: CancellationToken,
}

#[derive(Default)]
struct State {
    /// Oldest first.
    idle: VecDeque<Idle>,
    starting: u32,
    rest: Duration,
    rest_until: Option<Instant>,
    claimed: Option<Instant>,
    figures: Figures,
}

/// A waiting sandbox, as the pool sees it: its watcher holds it.
struct Idle {
    id: SandboxId,
    since: Instant,
    /// The end of its life.
    until: Instant,
    /// Dropped: the watcher destroys it.
    claim: oneshot::Sender<oneshot::Sender<Ready>>,
}

impl Pool {
    fn open(warm: Warm, engine: Engine, lifecycle: Arc<Lifecycle>, starts: Arc<Semaphore>) -> Arc<Self> {
        let (changed, ready, closed) = (Notify::new(), Notify::new(), CancellationToken::new());
        let pool = Arc::new(Self { warm, engine, lifecycle, starts, state: Mutex::default(), changed, ready, closed });
        tokio::spawn(pool.clone().keep());
        pool
    }

    /// Empties it, now and for good.
    fn close(&self) {
        self.closed.cancel();
        self.state.lock().idle.clear();
    }

    /// A warm sandbox for a call that may take `timeout`; `None` when there is none to be had.
    pub(crate) async fn claim(&self, timeout: Duration, canceled: &CancellationToken) -> Option<Ready> {
        let found = self.take(timeout).await;
        if found.is_some() || self.warm.when_empty == WhenEmpty::Start {
            self.count(found.is_some());
            return found;
        }
        let until = Instant::now() + self.lifecycle.start_timeout();
        let found = loop {
            let ready = self.ready.notified();
            // Never given up half-way: what it has taken would have no owner.
            if let Some(found) = self.take(timeout).await {
                break Some(found);
            }
            // Why nothing starts is told by a start of the call's own.
            if self.rests() {
                break None;
            }
            tokio::select! {
                () = canceled.cancelled() => break None,
                () = self.closed.cancelled() => break None,
                () = sleep_until(until.into()) => break None,
                () = ready => {}
            }
        };
        self.count(found.is_some());
        found
    }

    pub(crate) fn has_idle(&self) -> bool {
        !self.state.lock().idle.is_empty()
    }

    fn rests(&self) -> bool {
        self.state.lock().rest_until.is_some_and(|until| until > Instant::now())
    }

    fn count(&self, found: bool) {
        self.state.lock().figures.claimed(found);
    }

    async fn take(&self, timeout: Duration) -> Option<Ready> {
        loop {
            let idle = self.state.lock().pop()?;
            self.changed.notify_one();
            if idle.until.saturating_duration_since(Instant::now()) < timeout + REPORT_GRACE {
                continue;
            }
            let (give, given) = oneshot::channel();
            // Its watcher may be noticing its end at this moment; then the next one is asked.
            if idle.claim.send(give).is_ok()
                && let Ok(ready) = given.await
            {
                self.state.lock().rest = Duration::ZERO;
                return Some(ready);
            }
        }
    }

    /// Starts what is missing until the pool is closed.
    async fn keep(self: Arc<Self>) {
        loop {
            let (missing, again) = self.look();
            for _ in 0..missing {
                self.lifecycle.spawn(self.clone().start_one());
            }
            tokio::select! {
                () = self.closed.cancelled() => break,
                () = self.changed.notified() => {}
                () = sleep_until(again.into()) => {}
            }
        }
        // What was put in while it was being closed.
        self.state.lock().idle.clear();
    }

    /// How many to start now, and when to look again. Lets go of those with too little life left.
    fn look(&self) -> (u32, Instant) {
        let (now, mut state) = (Instant::now(), self.state.lock());
        let needed = self.warm.timeout + REPORT_GRACE;
        while state.idle.front().is_some_and(|idle| idle.until < now + needed) {
            state.idle.pop_front();
        }
        let renew = state.idle.front().map_or(now + LONGEST_REST, |idle| idle.until.checked_sub(needed).unwrap_or(now));
        if let Some(until) = state.rest_until.filter(|until| *until > now) {
            return (0, renew.min(until));
        }
        let idle = u32::try_from(state.idle.len()).unwrap_or(u32::MAX);
        let missing = self.warm.size.saturating_sub(idle.saturating_add(state.starting));
        let at_ease = idle >= self.warm.size.div_ceil(2);
        if let Some(claimed) = state.claimed.filter(|claimed| at_ease && missing > 0 && claimed.elapsed() < MAKE_WAY) {
            return (0, renew.min(claimed + MAKE_WAY));
        }
        // After a failure one goes ahead, and the others follow when it stands.
        let one = at_ease || state.rest_until.is_some();
        let missing = if one { missing.min(1 - state.starting.min(1)) } else { missing };
        state.starting += missing;
        (missing, renew)
    }

    async fn start_one(self: Arc<Self>) {
        let started = tokio::select! {
            () = self.closed.cancelled() => Ok(None),
            started = self.starts.clone().acquire_owned() => match started {
                // While it waited for its turn, another start may have failed.
                Ok(_turn) if !self.rests() => self.start().await,
                _ => Ok(None),
            },
        };
        match started {
            Ok(Some((ready, took))) => self.put(ready, took),
            Ok(None) => self.state.lock().starting -= 1,
            Err(why) => {
                tracing::warn!(tool = %self.warm.tool, %why, "a warm sandbox could not be started");
                let mut state = self.state.lock();
                state.starting -= 1;
                state.fail(why);
                drop(state);
                self.ready.notify_waiters();
            }
        }
        self.changed.notify_one();
    }

    async fn start(&self) -> Result<Option<(Ready, Duration)>, String> {
        let (begun, id, spec) = (Instant::now(), SandboxId::generate(), &self.warm.spec);
        let mut life = self.lifecycle.begin(&self.engine, id, spec, None).await.map_err(|e: StartError| e.to_string())?;
        match self.lifecycle.start(&mut life, spec, &self.closed).await {
            Ok(sandbox) => Ok(Some(((life, sandbox), begun.elapsed()))),
            Err(not_started) => {
                self.lifecycle.tear_down(life, Box::new(())).await;
                match not_started {
                    NotStarted::Canceled => Ok(None),
                    NotStarted::Failed(error) => Err(error.to_string()),
                }
            }
        }
    }

    fn put(self: &Arc<Self>, (life, sandbox): Ready, took: Duration) {
        let (claim, claimed) = oneshot::channel();
        let now = Instant::now();
        // Its life began before it was ready.
        let until = now + self.warm.spec.life.saturating_sub(took);
        let idle = Idle { id: life.id, since: now, until, claim };
        let mut state = self.state.lock();
        state.starting -= 1;
        // How long it rests is forgotten only when a sandbox has proved itself.
        state.rest_until = None;
        state.figures.started(took);
        if !self.closed.is_cancelled() {
            state.idle.push_back(idle);
        }
        drop(state);
        // Entered first: who watches it may see its end at once.
        self.lifecycle.spawn(self.clone().watch(life, sandbox, claimed));
        self.ready.notify_one();
    }

    /// Holds a sandbox until it is claimed, let go, or lost.
    async fn watch(
        self: Arc<Self>,
        life: Life,
        mut sandbox: Box<dyn Sandbox>,
        claimed: oneshot::Receiver<oneshot::Sender<Ready>>,
    ) {
        let id = life.id;
        let claim = tokio::select! {
            biased;
            claim = claimed => claim.ok(),
            why = sandbox.idle() => {
                self.lost(id, &why);
                None
            }
        };
        let left = match claim {
            Some(give) => match give.send((life, sandbox)) {
                Ok(()) => return,
                Err((life, _)) => life,
            },
            None => life,
        };
        self.lifecycle.tear_down(left, Box::new(())).await;
    }

    fn lost(&self, id: SandboxId, why: &str) {
        tracing::info!(tool = %self.warm.tool, sandbox = %id, %why, "a warm sandbox was lost before a call had it");
        let mut state = self.state.lock();
        state.figures.lost();
        if let Some(at) = state.idle.iter().position(|idle| idle.id == id) {
            let idle = state.idle.remove(at);
            if idle.is_some_and(|idle| idle.since.elapsed() < SOON) {
                state.fail(format!("it did not stay: {why}"));
            } else {
                state.rest = Duration::ZERO;
            }
        }
        drop(state);
        self.changed.notify_one();
    }

    fn status(&self) -> PoolStatus {
        let state = self.state.lock();
        state.figures.status(&self.warm, self.engine.backend.kind(), state.idle.len(), state.starting, oldest(&state.idle))
    }
}

impl State {
    fn pop(&mut self) -> Option<Idle> {
        let idle = self.idle.pop_front()?;
        self.claimed = Some(Instant::now());
        Some(idle)
    }

    fn fail(&mut self, why: String) {
        self.rest = (self.rest * 2).clamp(FIRST_REST, LONGEST_REST);
        self.rest_until = Some(Instant::now() + self.rest);
        self.figures.failed(why);
    }
}

fn oldest(idle: &VecDeque<Idle>) -> Option<Duration> {
    idle.front().map(|idle| idle.since.elapsed())
}

#[cfg(test)]
mod tests;
