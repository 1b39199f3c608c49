//! Warm pools, as monitoring sees them. The pools count for themselves; here their figures are only shown.

use std::time::Duration;

use mayfly_executor::pool::PoolStatus;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::enter;
use crate::telemetry::names::metric;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolLabels {
    tool: String,
    backend: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolStateLabels {
    tool: String,
    backend: &'static str,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClaimLabels {
    tool: String,
    backend: &'static str,
    result: &'static str,
}

type Seconds = Gauge<f64, std::sync::atomic::AtomicU64>;

/// The families.
pub(super) struct Pools {
    size: Family<PoolLabels, Gauge>,
    sandboxes: Family<PoolStateLabels, Gauge>,
    claims: Family<ClaimLabels, Counter>,
    lost: Family<PoolLabels, Counter>,
    oldest: Family<PoolLabels, Seconds>,
}

impl Pools {
    pub(super) fn new(r: &mut Registry) -> Self {
        Self {
            size: enter(r, metric::POOL_SIZE, "Warm sandboxes that a pool is to hold", Family::default()),
            sandboxes: enter(r, metric::POOL_SANDBOXES, "Warm sandboxes that wait or are being started", Family::default()),
            claims: enter(r, metric::POOL_CLAIMS, "Calls that asked a pool, by whether it had a sandbox", Family::default()),
            lost: enter(r, metric::POOL_LOST, "Warm sandboxes that died before a call had them", Family::default()),
            oldest: enter(r, metric::POOL_OLDEST, "How long the oldest warm sandbox has waited", Family::default()),
        }
    }

    /// Shows exactly these. A pool that is gone is shown no more.
    pub(super) fn look(&self, pools: &[PoolStatus]) {
        self.size.clear();
        self.sandboxes.clear();
        self.claims.clear();
        self.lost.clear();
        self.oldest.clear();
        for pool in pools {
            let (tool, backend) = (pool.tool.clone(), pool.backend.as_str());
            let labels = PoolLabels { tool, backend };
            self.size.get_or_create(&labels).set(i64::from(pool.size));
            self.lost.get_or_create(&labels).inc_by(pool.lost);
            self.oldest.get_or_create(&labels).set(pool.oldest.unwrap_or(Duration::ZERO).as_secs_f64());
            for (state, count) in [("idle", pool.idle as u64), ("starting", u64::from(pool.starting))] {
                let labels = PoolStateLabels { tool: pool.tool.clone(), backend, state };
                self.sandboxes.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
            }
            for (result, count) in [("hit", pool.claims), ("miss", pool.misses)] {
                let labels = ClaimLabels { tool: pool.tool.clone(), backend, result };
                self.claims.get_or_create(&labels).inc_by(count);
            }
        }
    }
}
