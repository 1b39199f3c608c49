//! How much runs at once.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::CallError;

/// Counts what runs. A tool has an entry only while a call of it runs, so the map is never larger than the total.
#[derive(Debug)]
pub(super) struct Running {
    limit: u32,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    total: u32,
    by_tool: HashMap<String, u32>,
}

/// A call's place among those that run. Dropping it gives the place back, however the call ends.
#[derive(Debug)]
#[must_use = "dropping it gives the place back at once"]
pub struct Admission {
    running: Arc<Running>,
    tool: String,
}

impl Running {
    pub(super) fn new(limit: NonZeroU32) -> Self {
        Self { limit: limit.get(), counts: Mutex::default() }
    }

    /// Both ceilings are looked at under one lock: a call takes both places or none. The tool's limit is the caller's to
    /// give each time, since a reload may change it.
    pub(super) fn admit(this: &Arc<Self>, tool: &str, concurrency: Option<u32>) -> Result<Admission, CallError> {
        let mut counts = this.counts.lock();
        let of_tool = counts.by_tool.get(tool).copied().unwrap_or(0);
        if let Some(limit) = concurrency.filter(|limit| of_tool >= *limit) {
            return Err(CallError::ToolBusy { tool: tool.to_owned(), limit });
        }
        if counts.total >= this.limit {
            return Err(CallError::Saturated);
        }
        counts.total += 1;
        *counts.by_tool.entry(tool.to_owned()).or_default() += 1;
        Ok(Admission { running: this.clone(), tool: tool.to_owned() })
    }

    pub(super) fn total(&self) -> u32 {
        self.counts.lock().total
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut counts = self.running.counts.lock();
        counts.total = counts.total.saturating_sub(1);
        if let Some(of_tool) = counts.by_tool.get_mut(&self.tool) {
            *of_tool = of_tool.saturating_sub(1);
            if *of_tool == 0 {
                counts.by_tool.remove(&self.tool);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(limit: u32) -> Arc<Running> {
        Arc::new(Running::new(NonZeroU32::new(limit).unwrap()))
    }

    #[test]
    fn a_tool_at_its_limit_is_busy_until_a_call_of_it_ends() {
        let running = running(10);
        let first = Running::admit(&running, "probe", Some(2)).unwrap();
        let _second = Running::admit(&running, "probe", Some(2)).unwrap();
        let error = Running::admit(&running, "probe", Some(2)).unwrap_err();
        assert_eq!(error, CallError::ToolBusy { tool: "probe".into(), limit: 2 });
        let _other = Running::admit(&running, "query", Some(2)).unwrap();
        drop(first);
        let _third = Running::admit(&running, "probe", Some(2)).unwrap();
    }

    #[test]
    fn a_refused_call_takes_no_place() {
        let running = running(1);
        let only = Running::admit(&running, "probe", None).unwrap();
        assert_eq!(Running::admit(&running, "query", None).unwrap_err(), CallError::Saturated);
        assert_eq!(running.counts.lock().by_tool.len(), 1);
        drop(only);
        assert_eq!(running.total(), 0);
        assert!(running.counts.lock().by_tool.is_empty());
        let _next = Running::admit(&running, "query", None).unwrap();
    }

    #[test]
    fn a_limit_that_was_lowered_counts_at_once_and_zero_admits_nothing() {
        let running = running(10);
        let _first = Running::admit(&running, "probe", Some(5)).unwrap();
        assert!(Running::admit(&running, "probe", Some(1)).is_err());
        assert!(Running::admit(&running, "query", Some(0)).is_err());
    }

    #[test]
    fn many_threads_never_pass_the_limit_and_leave_nothing() {
        let running = running(3);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let admission = Running::admit(&running, "probe", None);
                        assert!(running.total() <= 3);
                        drop(admission);
                    }
                });
            }
        });
        assert_eq!(running.total(), 0);
    }
}
