//! What a pool has done, in numbers.

use std::collections::VecDeque;
use std::time::Duration;

use super::Warm;
use crate::BackendKind;

/// How many start times are kept.
const STARTS: usize = 64;

/// A pool as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolStatus {
    /// Whose it is.
    pub tool: String,
    /// Where its sandboxes run.
    pub backend: BackendKind,
    /// How many it is to hold.
    pub size: u32,
    /// How many wait.
    pub idle: usize,
    /// How many are being started.
    pub starting: u32,
    /// Calls that got one, since the pool was opened.
    pub claims: u64,
    /// Calls that found none.
    pub misses: u64,
    /// Sandboxes that died before a call had them.
    pub lost: u64,
    /// How long the oldest has waited.
    pub oldest: Option<Duration>,
    /// Median of the last start times.
    pub start_p50: Option<Duration>,
    /// The longest of the last start times.
    pub start_max: Option<Duration>,
    /// Why the last start failed, if none has succeeded since.
    pub failure: Option<String>,
}

#[derive(Debug, Default)]
pub(super) struct Figures {
    claims: u64,
    misses: u64,
    lost: u64,
    starts: VecDeque<Duration>,
    failure: Option<String>,
}

impl Figures {
    pub(super) fn claimed(&mut self, found: bool) {
        if found {
            self.claims += 1;
        } else {
            self.misses += 1;
        }
    }

    pub(super) fn lost(&mut self) {
        self.lost += 1;
    }

    pub(super) fn started(&mut self, took: Duration) {
        self.failure = None;
        self.starts.push_back(took);
        if self.starts.len() > STARTS {
            self.starts.pop_front();
        }
    }

    pub(super) fn failed(&mut self, why: String) {
        self.failure = Some(why);
    }

    pub(super) fn status(
        &self,
        warm: &Warm,
        backend: BackendKind,
        idle: usize,
        starting: u32,
        oldest: Option<Duration>,
    ) -> PoolStatus {
        let mut starts: Vec<_> = self.starts.iter().copied().collect();
        starts.sort_unstable();
        PoolStatus {
            tool: warm.tool.clone(),
            backend,
            size: warm.size,
            idle,
            starting,
            claims: self.claims,
            misses: self.misses,
            lost: self.lost,
            oldest,
            start_p50: starts.get(starts.len() / 2).copied(),
            start_max: starts.last().copied(),
            failure: self.failure.clone(),
        }
    }
}
