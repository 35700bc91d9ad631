//! The right to one call in an instance.

use std::sync::Arc;
use std::time::Duration;

use dunlin_model::{InstanceId, Phases};
use dunlin_sandbox::BindError;
use tokio::time::Instant;

use crate::api::StartOutput;
use crate::engine::{CellNo, Event};
use crate::service::{Inner, Slot};
use crate::sessions::SessionCall;
use crate::worker::Worker;

/// The right to one call in an instance. Dropping it gives the instance to the oldest waiter, or lets it idle.
#[must_use = "dropping a lease gives the instance back"]
pub struct Lease {
    pool: Arc<Inner>,
    slot: Arc<Slot>,
    cell: CellNo,
    cold: bool,
    phases: Phases,
    output: StartOutput,
    granted: Instant,
    discard: bool,
    /// The call's part in its session, which is over when the lease is. Dropped last.
    _session: Option<Arc<SessionCall>>,
}

impl Lease {
    pub(crate) fn new(pool: &Arc<Inner>, slot: &Arc<Slot>, session: Option<Arc<SessionCall>>, cell: CellNo, cold: bool) -> Self {
        let (phases, output) = if cold { slot.how_started() } else { Default::default() };
        Self {
            pool: Arc::clone(pool),
            slot: Arc::clone(slot),
            cell,
            cold,
            phases,
            output,
            granted: Instant::now(),
            discard: false,
            _session: session,
        }
    }

    /// Notes that the call waited `waited` in all; what was not its start was its queue.
    pub(crate) fn waited(&mut self, waited: Duration) {
        let start = self.phases.bind + self.phases.load + self.phases.init;
        self.phases.queue = waited.saturating_sub(start);
    }

    /// Whether the instance may stand still.
    pub(crate) fn is_frozen(&self) -> bool {
        self.slot.frost.is_wanted()
    }

    /// Lets the instance go on, if it stands still.
    pub(crate) async fn thaw(&self) -> Result<(), BindError> {
        self.slot.frost.thaw(&self.pool.sandboxes, &*self.slot.worker).await
    }

    /// What runs in the instance.
    #[must_use]
    pub fn guest(&self) -> &dyn Worker {
        &*self.slot.worker
    }

    /// The instance.
    #[must_use]
    pub fn instance(&self) -> &InstanceId {
        &self.slot.id
    }

    /// Whether the instance was started for this call.
    #[must_use]
    pub fn cold(&self) -> bool {
        self.cold
    }

    /// Queue, bind, load and init of this call.
    #[must_use]
    pub fn phases(&self) -> Phases {
        self.phases
    }

    /// What the start that was made for this call printed.
    #[must_use]
    pub fn start_output(&self) -> &StartOutput {
        &self.output
    }

    /// Whether the instance is known to be dead: a call to it would never arrive.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.slot.worker.is_spent()
    }

    /// Ends the instance: it timed out, exited or broke the protocol. Other calls in it may finish.
    pub fn discard(mut self) {
        self.discard = true;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let memory_bytes = self.slot.worker.memory_peak();
        // An answer does not say that its process lives on: a fatal error is reported before it kills.
        let discard = self.discard || self.slot.worker.is_spent();
        self.pool.feed(Event::Released { cell: self.cell, memory_bytes, took: self.granted.elapsed(), discard });
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease").field("instance", &self.slot.id).field("cold", &self.cold).finish_non_exhaustive()
    }
}
