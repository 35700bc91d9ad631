//! What a guest has used: the highest memory seen and the CPU time at the last look.

use std::sync::atomic::{AtomicU64, Ordering};

use dunlin_sandbox::Usage;

/// Figures of one guest. They only grow: an instance that is gone keeps its last ones.
pub(crate) struct Peak {
    usage: Usage,
    memory_bytes: AtomicU64,
    cpu_us: AtomicU64,
}

impl Peak {
    pub(crate) fn new(usage: Usage) -> Self {
        Self { usage, memory_bytes: AtomicU64::new(0), cpu_us: AtomicU64::new(0) }
    }

    /// Looks. A cell that is gone has nothing to be read any more, and that is fine.
    pub(crate) fn look(&self) {
        if let Ok(sample) = self.usage.sample() {
            self.memory_bytes.fetch_max(sample.memory_bytes, Ordering::Relaxed);
            self.cpu_us.fetch_max(sample.cpu_us, Ordering::Relaxed);
        }
    }

    /// Counts what the supervisor said at the end.
    pub(crate) fn note_cpu(&self, cpu_us: u64) {
        self.cpu_us.fetch_max(cpu_us, Ordering::Relaxed);
    }

    pub(crate) fn memory_bytes(&self) -> u64 {
        self.memory_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn cpu_us(&self) -> u64 {
        self.cpu_us.load(Ordering::Relaxed)
    }
}
