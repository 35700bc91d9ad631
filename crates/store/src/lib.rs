//! What the control plane remembers: functions, versions, aliases, settings, triggers, custom domains, access keys, nonces and the records of calls.
//!
//! [`Store`] is the question list, one method per question a caller asks. [`Sqlite`] answers it durably, [`Memory`]
//! forgets on drop; the same contract suite (`contract`) runs over both. Calls read a [`View`]: an immutable snapshot
//! swapped atomically after every commit, so that a warm call touches no disk and takes no lock.
//!
//! ```text
//!   create/replace/delete ──▶ decide on the draft View ──▶ rows in one transaction ──▶ fsync ──▶ swap View ──▶ ack
//!   request path ───────────▶ view()                      (group commit, one writer)
//! ```
//!
//! # Invariants
//! - A write that returned `Ok` survives kill -9 and power loss, and is in every later [`Store::view`].
//! - A write stands alone: it is there wholly or not at all, whatever else failed in the same batch.
//! - Revisions come from one counter that only rises; none is ever used twice, not even across a delete.
//! - No key is without its account.
//!
//! Who may ask is decided in `auth`; bytes of code packages live in `blobs`; log lines in `telemetry`.

mod change;
#[cfg(any(test, feature = "testing"))]
pub mod contract;
mod error;
mod memory;
mod sorted;
mod sqlite;
mod store;
mod view;

pub use error::{CreateError, DeleteError, OpenError, PutError, ReplaceError, StoreError};
pub use memory::Memory;
pub use sqlite::{Sqlite, Statistics};
pub use store::{AccessKey, Page, RecordQuery, Store, Stored};
pub use view::{Unresolved, View};
