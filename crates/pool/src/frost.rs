//! Whether an instance stands still, and who may say so.
//!
//! The engine decides that an idle instance is to be frozen; a task performs it, one instance after the other, so that
//! freezing a thousand never stands in the way of a bind. A call may be granted the instance at any moment in between,
//! so neither side goes by what the engine thinks: a freeze is carried out only while it is still wanted, and whoever
//! wants something of the instance lets it go on first.
//!
//! # Invariants
//! - Between the return of [`Frost::thaw`] and the next [`Frost::want`] the instance runs.
//! - An instance of which no freeze was ever wanted costs a call one load of a flag.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dunlin_sandbox::{BindError, Sandboxes};
use tokio::sync::Mutex;

use crate::worker::Worker;

/// Of one instance.
#[derive(Default)]
pub(crate) struct Frost {
    /// A freeze was decided and not undone. Set while the pool's table is locked, before the instance can be granted
    /// again; cleared only once the instance runs.
    wanted: AtomicBool,
    /// Whether the sandbox was asked for it, and not for its opposite since. Held while it is asked.
    frozen: Mutex<bool>,
}

impl Frost {
    /// The instance is to be frozen.
    pub(crate) fn want(&self) {
        self.wanted.store(true, Ordering::Release);
    }

    /// Whether the instance may stand still.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }

    /// Stops the instance's processes, if that is still wanted.
    pub(crate) async fn freeze(&self, sandboxes: &dyn Sandboxes, worker: &dyn Worker) {
        let mut frozen = self.frozen.lock().await;
        if *frozen || !self.is_wanted() {
            return;
        }
        worker.rest();
        // Whatever comes of it, the next call undoes it.
        *frozen = true;
        if let Err(error) = sandboxes.freeze(worker.cell(), true).await
            && worker.ended().borrow().is_none()
        {
            tracing::warn!(cell = %worker.cell(), error = %dunlin_model::chain(&error), "an idle instance could not be frozen");
        }
    }

    /// Lets the instance's processes go on. When the future is dropped, whoever comes next does it.
    pub(crate) async fn thaw(&self, sandboxes: &Arc<dyn Sandboxes>, worker: &dyn Worker) -> Result<(), BindError> {
        if !self.is_wanted() {
            return Ok(());
        }
        let mut frozen = self.frozen.lock().await;
        if *frozen {
            sandboxes.freeze(worker.cell(), false).await?;
            *frozen = false;
        }
        self.wanted.store(false, Ordering::Release);
        Ok(())
    }
}
