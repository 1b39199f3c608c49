//! Ceilings: how often an agent may ask, and how much may run at once. Nothing waits in here: what does not fit is told so.

mod flood;
mod running;

use std::num::NonZeroU32;
use std::sync::Arc;

use crate::caller::Caller;
use crate::error::CallError;

use flood::Flood;
pub use running::Admission;
use running::Running;

/// How often something may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// On average, in every second.
    pub per_second: NonZeroU32,
    /// At once, after a rest.
    pub burst: NonZeroU32,
}

/// The ceilings of this gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitSettings {
    /// Requests of one agent.
    pub agent: Rate,
    /// Failed authentications, from wherever they come: what is more is told to go away instead of what was wrong.
    pub failed_authentications: Rate,
    /// Most calls that run at once.
    pub running: NonZeroU32,
}

const fn at_least_one(n: u32) -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(n.saturating_sub(1))
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self {
            agent: Rate { per_second: at_least_one(1000), burst: at_least_one(2000) },
            failed_authentications: Rate { per_second: at_least_one(50), burst: at_least_one(200) },
            running: at_least_one(512),
        }
    }
}

/// Keeps the ceilings; shared as `Arc`.
#[derive(Debug)]
pub struct Limits {
    flood: Flood,
    running: Arc<Running>,
}

impl Limits {
    /// Nothing has happened and nothing runs.
    pub fn new(settings: LimitSettings) -> Self {
        Self { flood: Flood::new(settings), running: Arc::new(Running::new(settings.running)) }
    }

    /// Counts one request of `caller`.
    ///
    /// # Errors
    /// [`CallError::RateLimited`] when it asks too often.
    pub fn request(&self, caller: &Caller) -> Result<(), CallError> {
        self.flood.request(caller.agent_id())
    }

    /// Counts one failed authentication, and says what to answer: `error`, or that there were too many. Those who
    /// authenticate are not held up by those who cannot.
    pub fn failed_authentication(&self, error: CallError) -> CallError {
        self.flood.failed_authentication().err().unwrap_or(error)
    }

    /// Takes a place for one call of `tool`, of which at most `concurrency` may run at once. It is given back when the
    /// [`Admission`] is dropped.
    ///
    /// # Errors
    /// [`CallError::ToolBusy`] or [`CallError::Saturated`]; no place was taken.
    pub fn admit(&self, tool: &str, concurrency: Option<u32>) -> Result<Admission, CallError> {
        Running::admit(&self.running, tool, concurrency)
    }

    /// How many calls run.
    pub fn running(&self) -> u32 {
        self.running.total()
    }
}
