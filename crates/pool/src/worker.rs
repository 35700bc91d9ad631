//! The seam to a booted cell: what the pool and the desk need of a [`Guest`], as a trait that a test can script.

use std::sync::Arc;

use async_trait::async_trait;
use dunlin_model::{CellId, InstanceId, VersionKey};
use dunlin_runtime::{
    Answered, BootError, BootPlan, CallContext, CallError, Failed, Guest, LoadSpec, LogSink, Payload, StartError,
};
use dunlin_sandbox::{Cell, Ended, Sandboxes};
use tokio::sync::watch;
use tokio::time::Instant;

/// A booted cell. The methods mean what [`Guest`]'s methods of the same name mean.
#[async_trait]
pub trait Worker: Send + Sync + 'static {
    /// Has it go through a load and a call before there is a function.
    async fn rehearse(&self);
    /// Tells it what it is to be, before its code is there.
    async fn prepare(&self, spec: &LoadSpec);
    /// Makes an instance of it.
    async fn load(
        &self,
        sandboxes: &Arc<dyn Sandboxes>,
        spec: &LoadSpec,
        deadline: Instant,
    ) -> Result<Vec<u8>, Failed<StartError>>;
    /// Runs the initializer.
    async fn initialize(&self, call: &CallContext, deadline: Instant) -> Result<Vec<u8>, Failed<CallError>>;
    /// Carries one call in and its answer out.
    async fn invoke(&self, call: &CallContext, payload: Payload, deadline: Instant) -> Result<Answered, Failed<CallError>>;
    /// Runs the pre-stop hook.
    async fn pre_stop(&self, call: &CallContext, deadline: Instant) -> Result<(), CallError>;
    /// Prepares for standing still, without a call in flight.
    fn rest(&self);
    /// The cell.
    fn cell(&self) -> CellId;
    /// Highest memory seen so far, in bytes.
    fn memory_peak(&self) -> u64;
    /// CPU time so far, in microseconds.
    fn cpu_us(&self) -> u64;
    /// How the cell ended, once it has.
    fn ended(&self) -> watch::Receiver<Option<Ended>>;
    /// Whether it must not get another call.
    fn is_spent(&self) -> bool;
}

#[async_trait]
impl Worker for Guest {
    async fn rehearse(&self) {
        Self::rehearse(self).await;
    }
    async fn prepare(&self, spec: &LoadSpec) {
        Self::prepare(self, spec).await;
    }
    async fn load(
        &self,
        sandboxes: &Arc<dyn Sandboxes>,
        spec: &LoadSpec,
        deadline: Instant,
    ) -> Result<Vec<u8>, Failed<StartError>> {
        Self::load(self, sandboxes, spec, deadline).await
    }
    async fn initialize(&self, call: &CallContext, deadline: Instant) -> Result<Vec<u8>, Failed<CallError>> {
        Self::initialize(self, call, deadline).await
    }
    async fn invoke(&self, call: &CallContext, payload: Payload, deadline: Instant) -> Result<Answered, Failed<CallError>> {
        Self::invoke(self, call, payload, deadline).await
    }
    async fn pre_stop(&self, call: &CallContext, deadline: Instant) -> Result<(), CallError> {
        Self::pre_stop(self, call, deadline).await
    }
    fn rest(&self) {
        Self::rest(self);
    }
    fn cell(&self) -> CellId {
        Self::cell(self)
    }
    fn memory_peak(&self) -> u64 {
        Self::memory_peak(self)
    }
    fn cpu_us(&self) -> u64 {
        Self::cpu_us(self)
    }
    fn ended(&self) -> watch::Receiver<Option<Ended>> {
        Self::ended(self)
    }
    fn is_spent(&self) -> bool {
        Self::is_spent(self)
    }
}

/// Brings a fresh cell to the point where it can be bound.
#[async_trait]
pub trait Boot: Send + Sync + 'static {
    /// Waits until what runs in `cell` is ready.
    ///
    /// # Errors
    /// See [`BootError`]; the cell is for the caller to end.
    async fn boot(&self, cell: Cell, plan: BootPlan, deadline: Instant) -> Result<Arc<dyn Worker>, BootError>;
}

/// [`Guest::boot`].
#[derive(Clone, Copy, Debug, Default)]
pub struct GuestBoot;

#[async_trait]
impl Boot for GuestBoot {
    async fn boot(&self, cell: Cell, plan: BootPlan, deadline: Instant) -> Result<Arc<dyn Worker>, BootError> {
        Ok(Arc::new(Guest::boot(cell, plan, deadline).await?))
    }
}

/// Opens the place where one instance's output goes. The server adapts `telemetry` to it; a closure will do.
pub trait LogSinks: Send + Sync + 'static {
    /// The sink for `instance`, which runs `key`.
    fn open(&self, key: &VersionKey, instance: &InstanceId) -> Arc<dyn LogSink>;
}

impl<F> LogSinks for F
where
    F: Fn(&VersionKey, &InstanceId) -> Arc<dyn LogSink> + Send + Sync + 'static,
{
    fn open(&self, key: &VersionKey, instance: &InstanceId) -> Arc<dyn LogSink> {
        self(key, instance)
    }
}
