//! All pools, by spec: which there are, and when each is opened and closed.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::Semaphore;

use super::{Pool, PoolStatus, STARTS_AT_ONCE, Warm};
use crate::lifecycle::{Engine, Lifecycle};
use crate::spec::SandboxSpec;

/// All pools.
pub(crate) struct Pools {
    lifecycle: Arc<Lifecycle>,
    /// `None` once they are closed for good: a reload that comes late opens none.
    by_spec: RwLock<Option<HashMap<SandboxSpec, Arc<Pool>>>>,
    starts: Arc<Semaphore>,
}

impl Pools {
    pub(crate) fn new(lifecycle: Arc<Lifecycle>) -> Self {
        Self { lifecycle, by_spec: RwLock::new(Some(HashMap::new())), starts: Arc::new(Semaphore::new(STARTS_AT_ONCE)) }
    }

    pub(crate) fn get(&self, spec: &SandboxSpec) -> Option<Arc<Pool>> {
        self.by_spec.read().as_ref()?.get(spec).cloned()
    }

    /// Keeps exactly these from here on: pools of other specs are emptied, pools that stay the same are left alone.
    pub(crate) fn keep(&self, wanted: Vec<(Warm, Engine)>) {
        // A spec that two tools share is kept as the last one says.
        let wanted: HashMap<_, _> = wanted
            .into_iter()
            .filter(|(warm, _)| warm.size > 0)
            .map(|(warm, engine)| (warm.spec.clone(), (warm, engine)))
            .collect();
        let mut by_spec = self.by_spec.write();
        let Some(pools) = &mut *by_spec else { return };
        pools.retain(|spec, pool| {
            let stays = wanted.get(spec).is_some_and(|(warm, _)| pool.warm == *warm);
            if !stays {
                pool.close();
            }
            stays
        });
        for (spec, (warm, engine)) in wanted {
            pools.entry(spec).or_insert_with(|| Pool::open(warm, engine, self.lifecycle.clone(), self.starts.clone()));
        }
    }

    /// Empties all of them, now and for good.
    pub(crate) fn close(&self) {
        let pools = self.by_spec.write().take();
        pools.into_iter().flatten().for_each(|(_, pool)| pool.close());
    }

    pub(crate) fn status(&self) -> Vec<PoolStatus> {
        let mut all: Vec<_> = self.by_spec.read().iter().flatten().map(|(_, pool)| pool.status()).collect();
        all.sort_by(|a, b| a.tool.cmp(&b.tool));
        all
    }
}
