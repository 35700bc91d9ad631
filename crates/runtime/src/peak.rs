//! What a guest has used: the highest memory seen and the CPU time at the last look.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dunlin_sandbox::Usage;

/// A call as short as this cannot have touched more than a few megabytes.
const SHORT: Duration = Duration::from_millis(2);
/// How long short calls may follow each other without a look at the memory.
const UNSEEN_MAX: Duration = Duration::from_millis(20);

/// Figures of one guest. They only grow: an instance that is gone keeps its last ones.
pub(crate) struct Peak {
    usage: Usage,
    made: Instant,
    /// When memory was last looked at, in microseconds since `made`.
    looked_us: AtomicU64,
    memory_bytes: AtomicU64,
    cpu_us: AtomicU64,
}

impl Peak {
    pub(crate) fn new(usage: Usage) -> Self {
        Self {
            usage,
            made: Instant::now(),
            looked_us: AtomicU64::new(0),
            memory_bytes: AtomicU64::new(0),
            cpu_us: AtomicU64::new(0),
        }
    }

    /// Looks. A cell that is gone has nothing to be read any more, and that is fine.
    pub(crate) fn look(&self) {
        if let Ok(sample) = self.usage.sample() {
            self.looked_us.store(self.age_us(), Ordering::Relaxed);
            self.memory_bytes.fetch_max(sample.memory_bytes, Ordering::Relaxed);
            self.cpu_us.fetch_max(sample.cpu_us, Ordering::Relaxed);
        }
    }

    /// Looks at the end of a call that began `began`. The kernel writes a page of text to say what memory is used, so
    /// that after a short call this is left out as long as the last look was not long ago.
    pub(crate) fn look_after(&self, began: Instant) {
        let unseen = Duration::from_micros(self.age_us().saturating_sub(self.looked_us.load(Ordering::Relaxed)));
        if began.elapsed() > SHORT || unseen > UNSEEN_MAX {
            return self.look();
        }
        if let Ok(cpu_us) = self.usage.cpu_us() {
            self.cpu_us.fetch_max(cpu_us, Ordering::Relaxed);
        }
    }

    fn age_us(&self) -> u64 {
        u64::try_from(self.made.elapsed().as_micros()).unwrap_or(u64::MAX)
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
