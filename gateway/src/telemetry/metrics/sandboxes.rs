//! Counting sandboxes: those of calls as their events come, the rest from the dispatcher's own counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use mayfly_executor::{BackendKind, Dispatcher, Event};
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;

use super::{Metrics, SandboxLabels, StartLabels};

/// A call asks for a warm sandbox; there is none that counts.
const CLAIMING: &str = "claiming";
const STARTING: &str = "starting";
const WARM: &str = "warm";
const RUNNING: &str = "running";
const ENDING: &str = "ending";

/// What a backend's counters said when they were last read.
#[derive(Debug, Default)]
pub(super) struct Seen {
    orphans: u64,
}

/// Follows the one sandbox of a call through its events, and leaves the gauges right when it is dropped.
pub struct SandboxWatch {
    metrics: Arc<Metrics>,
    backend: BackendKind,
    state: Mutex<Option<(&'static str, Instant)>>,
    warm: AtomicBool,
}

impl SandboxWatch {
    /// For a call that will run on `backend`.
    pub const fn new(metrics: Arc<Metrics>, backend: BackendKind) -> Self {
        Self { metrics, backend, state: Mutex::new(None), warm: AtomicBool::new(false) }
    }

    /// Takes an event of the call. Those that say nothing about the sandbox are passed over.
    pub fn observe(&self, event: &Event) {
        let mut state = self.state.lock();
        let next = match event {
            Event::Claiming => Some(CLAIMING),
            Event::Claimed(_) => {
                self.warm.store(true, Ordering::Relaxed);
                return;
            }
            Event::Starting(_) => {
                self.warm.store(false, Ordering::Relaxed);
                Some(STARTING)
            }
            Event::Started => {
                if let Some((_, since)) = *state {
                    let temperature = if self.warm.load(Ordering::Relaxed) { "warm" } else { "cold" };
                    self.metrics.sandbox_started(self.backend, temperature, since);
                }
                Some(RUNNING)
            }
            Event::Ended => None,
            Event::Accepted | Event::Progress(_) | Event::Log(_) => return,
        };
        let next = next.map(|name| (name, Instant::now()));
        self.enter(&mut state, next);
    }

    fn enter(&self, state: &mut Option<(&'static str, Instant)>, next: Option<(&'static str, Instant)>) {
        if let Some((name, _)) = next.filter(|(name, _)| *name != CLAIMING) {
            self.metrics.in_state(self.backend, name).inc();
        }
        if let Some((name, _)) = std::mem::replace(state, next).filter(|(name, _)| *name != CLAIMING) {
            self.metrics.in_state(self.backend, name).dec();
        }
    }
}

impl Drop for SandboxWatch {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        self.enter(&mut state, None);
    }
}

impl Metrics {
    /// Everything, as of now. One scraper at a time: what is shown of pools is put together anew.
    pub fn scrape(&self, dispatcher: &Dispatcher) -> String {
        let _one = self.scraping.lock();
        self.look_at(dispatcher);
        self.render()
    }

    /// Reads the dispatcher's counters: orphans, sandboxes that are being removed, pools.
    pub fn look_at(&self, dispatcher: &Dispatcher) {
        let pools = dispatcher.pools();
        self.pools.look(&pools);
        for (backend, counts) in dispatcher.backends() {
            // Destroyed is read first: a sandbox that ends in between counts as being removed, never as less than none.
            let orphans = counts.orphans.load(Ordering::Acquire);
            let destroyed = counts.destroyed.load(Ordering::Acquire);
            let started = counts.started.load(Ordering::Acquire);
            let of_this = pools.iter().filter(|pool| pool.backend == backend.kind());
            let warm = of_this.map(|pool| pool.idle as u64 + u64::from(pool.starting)).sum();
            self.look(backend.kind(), started, destroyed, orphans, warm);
        }
    }

    pub(super) fn look(&self, backend: BackendKind, started: u64, destroyed: u64, orphans: u64, warm: u64) {
        let mut seen = self.seen.lock();
        let seen = seen.entry(backend).or_default();
        self.orphans.inc_by(orphans.saturating_sub(seen.orphans));
        seen.orphans = orphans.max(seen.orphans);
        let warm = i64::try_from(warm).unwrap_or(i64::MAX);
        self.in_state(backend, WARM).set(warm);
        let held = warm + self.in_state(backend, STARTING).get() + self.in_state(backend, RUNNING).get();
        let exist = i64::try_from(started.saturating_sub(destroyed)).unwrap_or(i64::MAX);
        self.in_state(backend, ENDING).set(exist.saturating_sub(held).max(0));
    }

    fn sandbox_started(&self, backend: BackendKind, temperature: &'static str, since: Instant) {
        let labels = StartLabels { backend: backend.as_str(), temperature };
        self.start_seconds.get_or_create(&labels).observe(since.elapsed().as_secs_f64());
    }

    fn in_state(&self, backend: BackendKind, state: &'static str) -> Gauge {
        self.sandboxes.get_or_create_owned(&SandboxLabels { backend: backend.as_str(), state })
    }
}
