//! The traces of the last calls, in memory, for a waterfall without a trace store.
//!
//! Bounded twice, by number and by bytes; the oldest go first. The lock is held for a look-up or a push, never for building
//! a view or freeing a trace. Whose call it is, is for the one who asks the ledger to say: nothing here checks.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;

use super::trace::CallTrace;
use crate::call::CallId;
use crate::view::SpanView;

/// How many traces are kept.
pub(super) const MAX_TRACES: usize = 1_000;
/// How many bytes they may take together.
pub(super) const MAX_BYTES: usize = 32 << 20;

/// The last traces, by call.
pub(super) struct Recent {
    ring: Mutex<Ring>,
    max_traces: usize,
    max_bytes: usize,
}

#[derive(Default)]
struct Ring {
    traces: HashMap<CallId, CallTrace>,
    /// Oldest first, each with what it was counted as.
    order: VecDeque<(CallId, usize)>,
    bytes: usize,
}

impl Recent {
    pub(super) fn new(max_traces: usize, max_bytes: usize) -> Self {
        Self { ring: Mutex::default(), max_traces, max_bytes }
    }

    /// Keeps a finished trace. One that is kept already stays.
    pub(super) fn keep(&self, id: CallId, trace: &CallTrace) {
        let bytes = trace.max_bytes();
        let mut ring = self.ring.lock();
        if ring.traces.insert(id, trace.clone()).is_some() {
            return;
        }
        ring.order.push_back((id, bytes));
        ring.bytes += bytes;
        let mut gone = Vec::new();
        while ring.order.len() > self.max_traces || ring.bytes > self.max_bytes {
            let Some((oldest, bytes)) = ring.order.pop_front() else { break };
            ring.bytes -= bytes;
            gone.extend(ring.traces.remove(&oldest));
        }
        drop(ring);
        drop(gone);
    }

    /// The spans of a call, if they are still here.
    pub(super) fn view(&self, id: CallId) -> Option<Vec<SpanView>> {
        let trace = self.ring.lock().traces.get(&id).cloned();
        trace.map(|trace| trace.view())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn finished(padding: usize) -> CallTrace {
        let trace = CallTrace::begin("execute_tool", None, Instant::now(), None);
        for _ in 0..padding {
            trace.record("authorize", Instant::now(), Instant::now());
        }
        trace.finish(false);
        trace
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many() {
        let recent = Recent::new(2, usize::MAX);
        let ids = [CallId::generate(), CallId::generate(), CallId::generate()];
        for id in ids {
            recent.keep(id, &finished(0));
        }
        assert!(recent.view(ids[0]).is_none());
        assert_eq!(recent.view(ids[1]).unwrap().len(), 1);
        assert_eq!(recent.view(ids[2]).unwrap().len(), 1);
    }

    #[test]
    fn the_oldest_go_when_they_take_too_much() {
        let one = finished(100).max_bytes();
        assert!(
            one > finished(0).max_bytes() && one < super::super::trace::MAX_TRACE_BYTES / 4,
            "a trace counts as what it takes"
        );
        let recent = Recent::new(100, 2 * one + one / 2);
        let ids: Vec<_> = (0..5).map(|_| CallId::generate()).collect();
        for id in &ids {
            recent.keep(*id, &finished(100));
        }
        assert_eq!(ids.iter().filter(|id| recent.view(**id).is_some()).count(), 2);
        let ring = recent.ring.lock();
        assert!(ring.bytes <= 2 * one + one / 2 && ring.order.len() == ring.traces.len());
    }

    #[test]
    fn keeping_a_call_twice_counts_it_once() {
        let recent = Recent::new(2, usize::MAX);
        let (id, other) = (CallId::generate(), CallId::generate());
        let trace = finished(0);
        for _ in 0..5 {
            recent.keep(id, &trace);
        }
        recent.keep(other, &trace);
        assert!(recent.view(id).is_some() && recent.view(other).is_some());
    }
}
