//! The memory ceiling of one call, and the memory of having run into it.

use wasmtime::ResourceLimiter;

use super::config::{INSTANCES_PER_CALL, MEMORIES_PER_CALL, TABLE_ELEMENTS, TABLES_PER_CALL};

/// Bounds all linear memories of a store together.
///
/// A guest that is refused memory typically ends in `unreachable`, which says nothing: that it was refused is recorded here.
#[derive(Debug)]
pub(super) struct Ceiling {
    limit: usize,
    used: usize,
    peak: usize,
    denied: bool,
}

impl Ceiling {
    pub(super) const fn new(limit: usize) -> Self {
        Self { limit, used: 0, peak: 0, denied: false }
    }

    /// The most that all linear memories had together, in bytes.
    pub(super) const fn peak(&self) -> usize {
        self.peak
    }

    /// Whether a growth was refused.
    pub(super) const fn denied(&self) -> bool {
        self.denied
    }
}

impl ResourceLimiter for Ceiling {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.used.saturating_add(desired.saturating_sub(current));
        if total > self.limit {
            self.denied = true;
            return Ok(false);
        }
        if maximum.is_some_and(|maximum| desired > maximum) {
            // The module's own maximum: wasmtime refuses it after us, and it is no ceiling of ours.
            return Ok(false);
        }
        self.used = total;
        self.peak = self.peak.max(total);
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        // What was granted stays counted: wasmtime also says this of growth it never asked us about, and a guest must not be able
        // to talk the count down.
        self.denied = true;
        Ok(())
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let fits = desired <= TABLE_ELEMENTS;
        self.denied |= !fits;
        Ok(fits)
    }

    fn instances(&self) -> usize {
        INSTANCES_PER_CALL as usize
    }

    fn tables(&self) -> usize {
        TABLES_PER_CALL as usize
    }

    fn memories(&self) -> usize {
        MEMORIES_PER_CALL as usize
    }
}
