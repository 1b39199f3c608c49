//! Rates: token buckets by the generic cell rate algorithm.

use std::fmt;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, NotUntil, Quota, RateLimiter};

use super::{LimitSettings, Rate};
use crate::error::CallError;

/// One bucket for each agent, and one for everybody who is none. Only names of registered agents become keys.
pub(super) struct Flood {
    agents: DefaultKeyedRateLimiter<String>,
    failed_authentications: DefaultDirectRateLimiter,
    clock: DefaultClock,
}

impl fmt::Debug for Flood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flood").field("agents", &self.agents.len()).finish_non_exhaustive()
    }
}

impl Flood {
    pub(super) fn new(settings: LimitSettings) -> Self {
        Self {
            agents: RateLimiter::keyed(quota(settings.agent)),
            failed_authentications: RateLimiter::direct(quota(settings.failed_authentications)),
            clock: DefaultClock::default(),
        }
    }

    pub(super) fn request(&self, agent: &str) -> Result<(), CallError> {
        self.agents.check_key(&agent.to_owned()).map_err(|until| self.limited(&until))
    }

    pub(super) fn failed_authentication(&self) -> Result<(), CallError> {
        self.failed_authentications.check().map_err(|until| self.limited(&until))
    }

    fn limited(&self, until: &NotUntil<<DefaultClock as Clock>::Instant>) -> CallError {
        CallError::RateLimited { retry_after: until.wait_time_from(self.clock.now()) }
    }
}

fn quota(rate: Rate) -> Quota {
    Quota::per_second(rate.per_second).allow_burst(rate.burst)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use super::*;

    fn settings(burst: u32) -> LimitSettings {
        let rate = Rate { per_second: NonZeroU32::MIN, burst: NonZeroU32::new(burst).unwrap() };
        LimitSettings { agent: rate, failed_authentications: rate, ..LimitSettings::default() }
    }

    #[test]
    fn an_agent_that_floods_is_told_when_to_come_back_and_others_are_not_held_up() {
        let flood = Flood::new(settings(3));
        for _ in 0..3 {
            flood.request("a").unwrap();
        }
        let error = flood.request("a").unwrap_err();
        let CallError::RateLimited { retry_after } = error else { panic!("{error}") };
        assert!(retry_after > Duration::ZERO && retry_after <= Duration::from_secs(1), "{retry_after:?}");
        flood.request("b").unwrap();
    }

    #[test]
    fn failed_authentications_share_one_bucket_of_their_own() {
        let flood = Flood::new(settings(2));
        flood.failed_authentication().unwrap();
        flood.failed_authentication().unwrap();
        assert!(matches!(flood.failed_authentication(), Err(CallError::RateLimited { .. })));
        flood.request("a").unwrap();
    }
}
