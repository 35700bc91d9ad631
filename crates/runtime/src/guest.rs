//! A booted cell.

use std::sync::Arc;

use dunlin_model::{CellId, Function, InstanceId, VersionKey};
use dunlin_sandbox::{Cell, Ended, Sandboxes};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::call::{Answered, CallContext, Payload};
use crate::error::{BootError, CallError, StartError};
use crate::log::LogSink;

/// What follows the making of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BootPlan {
    /// Forked from the Python zygote: it says `Ready` by itself.
    Zygote,
    /// The launcher is told to start Node's bootstrap, with a heap for instances of `memory_mb`.
    Node {
        /// The memory class, in MB.
        memory_mb: u32,
    },
    /// Nothing yet: the program comes with the code.
    Custom,
}

/// What an instance is to be.
#[derive(Clone)]
pub struct LoadSpec {
    /// Its name.
    pub instance: InstanceId,
    /// What it runs.
    pub function: Arc<Function>,
    /// What it is bound to.
    pub key: VersionKey,
    /// What the caller asked for, `LATEST` or a version's or alias's text.
    pub qualifier: String,
    /// The platform's region.
    pub region: String,
    /// Where its output goes.
    pub logs: Arc<dyn LogSink>,
}

/// A booted cell: owns its channel, the reader of its output and its usage figures.
pub struct Guest {}

impl Guest {
    /// Waits until the bootstrap in `cell` is there.
    ///
    /// # Errors
    /// See [`BootError`]; the cell is for the caller to end.
    pub async fn boot(_cell: Cell, _plan: BootPlan, _deadline: Instant) -> Result<Self, BootError> {
        todo!()
    }
    /// Makes an instance of the guest: user code is in `/code` already.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn load(&self, _sandboxes: &Arc<dyn Sandboxes>, _spec: &LoadSpec, _deadline: Instant) -> Result<(), StartError> {
        todo!()
    }
    /// Runs the initializer.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn initialize(&self, _call: &CallContext, _deadline: Instant) -> Result<(), CallError> {
        todo!()
    }
    /// Carries one call in and its answer out.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn invoke(&self, _call: &CallContext, _payload: Payload, _deadline: Instant) -> Result<Answered, CallError> {
        todo!()
    }
    /// Runs the pre-stop hook.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn pre_stop(&self, _call: &CallContext, _deadline: Instant) -> Result<(), CallError> {
        todo!()
    }
    /// Whether the guest must not get another call: it broke the wire, announced its end, or a call was abandoned.
    /// Ask before reusing it; a function error alone does not say so.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        todo!()
    }
    /// The cell.
    #[must_use]
    pub fn cell(&self) -> CellId {
        todo!()
    }
    /// Highest memory seen so far, in bytes, page cache left out.
    #[must_use]
    pub fn memory_peak(&self) -> u64 {
        todo!()
    }
    /// CPU time used so far, in microseconds.
    #[must_use]
    pub fn cpu_us(&self) -> u64 {
        todo!()
    }
    /// How the cell ended, once it has.
    #[must_use]
    pub fn ended(&self) -> watch::Receiver<Option<Ended>> {
        todo!()
    }
}
