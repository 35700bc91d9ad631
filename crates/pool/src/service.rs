//! stub
use std::sync::Arc;
use dunlin_model::{FunctionConfig, FunctionKey, RequestId};
use dunlin_sandbox::Sandboxes;
use tokio::time::Instant;
use crate::api::{Config, InstanceInfo, InstanceSpec, LeaseError, Observer, Stats};
use crate::lease::Lease;
use crate::worker::LogSinks;

/// The pool. Cheap to clone.
#[derive(Clone)]
pub struct Pool {}

impl Pool {
    /// A pool over `sandboxes`. Must be called inside a tokio runtime.
    #[must_use]
    pub fn new(_config: Config, _sandboxes: Arc<dyn Sandboxes>, _logs: Arc<dyn LogSinks>, _observer: Arc<dyn Observer>) -> Self {
        Self {}
    }
    /// An instance for one call.
    ///
    /// # Errors
    /// See [`LeaseError`].
    pub async fn lease(&self, _spec: &Arc<InstanceSpec>, _request: &RequestId, _deadline: Instant) -> Result<Lease, LeaseError> {
        Err(LeaseError::ShuttingDown)
    }
    /// Says that a function of this configuration exists, so that a cell waits for its first call.
    pub fn expect(&self, _config: &FunctionConfig) {}
    /// The function's instances, oldest first.
    #[must_use]
    pub fn instances(&self, _function: &FunctionKey) -> Vec<InstanceInfo> {
        Vec::new()
    }
    /// The function changed or is gone.
    pub fn retire(&self, _function: &FunctionKey) {}
    /// How full the pool is.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats::default()
    }
    /// Ends everything.
    pub async fn drain(&self) {}
}

pub(crate) fn machine_memory_bytes() -> u64 {
    4 << 30
}
