//! The right to one call in an instance.

use dunlin_model::{InstanceId, Phases};
use crate::worker::Worker;

/// The right to one call in an instance.
pub struct Lease {}

impl Lease {
    /// The instance's guest.
    #[must_use]
    pub fn guest(&self) -> &dyn Worker {
        unreachable!()
    }
    /// The instance.
    #[must_use]
    pub fn instance(&self) -> &InstanceId {
        unreachable!()
    }
    /// Whether the instance was started for this call.
    #[must_use]
    pub fn cold(&self) -> bool {
        false
    }
    /// Queue, bind, load and init of this call.
    #[must_use]
    pub fn phases(&self) -> Phases {
        Phases::default()
    }
    /// Ends the instance.
    pub fn discard(self) {}
}
