//! The ledger: every call's record, from the end of the call to the store.
//!
//! [`Ledger::record`] puts a record into memory and returns; one task appends what has gathered to the store, in
//! batches. When the store fails the records stay and are tried again, and the ledger says that it is degraded.
//! Nothing is ever dropped. Memory stays bounded because the doors wait for [`Ledger::room`] before they admit a call:
//! at most [`Config::backlog_max`] records plus one per call in flight are held.
//!
//! # Invariants
//! - A record handed over is stored exactly once, or still held: the store takes no request id twice.
//! - `record` neither waits nor fails. `flush` returns only when all that was recorded before is durable.

mod ledger;

pub use ledger::{Config, Ledger, Status};
