//! What belongs to one call: its view of the world, and its share of the instance's memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use wasmtime::{ResourceLimiter, Result};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::outgoing::Outgoing;

/// Bytes of an element of a table.
const ELEMENT_BYTES: usize = 8;

/// The memory that all calls of one instance share.
#[derive(Debug)]
pub(crate) struct Memory {
    left: AtomicUsize,
}

impl Memory {
    pub(crate) fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self { left: AtomicUsize::new(bytes) })
    }

    fn take(&self, bytes: usize) -> bool {
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes)).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.left.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// What one call has of it. Given back when the call's store is dropped.
pub(crate) struct Share {
    memory: Arc<Memory>,
    taken: usize,
    /// Outlives the store: whether there was once too little.
    refused: Arc<AtomicBool>,
}

impl Share {
    pub(crate) fn new(memory: &Arc<Memory>, refused: &Arc<AtomicBool>) -> Self {
        Self { memory: Arc::clone(memory), taken: 0, refused: Arc::clone(refused) }
    }

    fn grow(&mut self, bytes: usize) -> bool {
        let granted = self.memory.take(bytes);
        if granted {
            self.taken += bytes;
        } else {
            self.refused.store(true, Ordering::Relaxed);
        }
        granted
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.memory.give_back(self.taken);
    }
}

impl ResourceLimiter for Share {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> Result<bool> {
        Ok(self.grow(desired.saturating_sub(current)))
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> Result<bool> {
        Ok(self.grow(desired.saturating_sub(current).saturating_mul(ELEMENT_BYTES)))
    }

    // How many there may be is what the engine has slots for; those of one call are few.
    fn instances(&self) -> usize {
        1000
    }

    fn tables(&self) -> usize {
        100
    }

    fn memories(&self) -> usize {
        50
    }
}

/// The data of a call's store.
pub(crate) struct State {
    pub(crate) wasi: WasiP1Ctx,
    pub(crate) share: Share,
    http: WasiHttpCtx,
    outgoing: Outgoing,
}

impl State {
    pub(crate) fn new(wasi: WasiP1Ctx, share: Share) -> Self {
        Self { wasi, share, http: WasiHttpCtx::new(), outgoing: Outgoing }
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.wasi.ctx()
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.outgoing, table: self.wasi.ctx().table, ctx: &mut self.http }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_call_takes_another_lacks_until_it_is_over() {
        let memory = Memory::new(100);
        let refused = Arc::new(AtomicBool::new(false));
        let mut first = Share::new(&memory, &refused);
        let mut second = Share::new(&memory, &refused);
        assert!(first.memory_growing(0, 60, None).unwrap() && first.memory_growing(60, 80, None).unwrap());
        assert!(!refused.load(Ordering::Relaxed));
        assert!(!second.memory_growing(0, 30, None).unwrap() && !second.table_growing(0, 3, None).unwrap());
        assert!(refused.load(Ordering::Relaxed));
        drop(first);
        assert!(second.table_growing(0, 12, None).unwrap() && !second.memory_growing(0, 5, None).unwrap());
        drop(second);
        assert_eq!(memory.left.load(Ordering::Relaxed), 100);
    }
}
