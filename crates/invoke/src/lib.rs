//! The desk: what happens to a call between the door and an instance.
//!
//! [`Invoker::call`] resolves which version is meant, bounds the payload, leases an instance, hands the event over under
//! the function's own deadline and says how it went: a [`Reply`] when the function ran (well or not), a [`Refusal`] when
//! it could not be asked.
//!
//! ```text
//!  Invocation ─▶ resolve ─▶ admit ─▶ lease ─▶ call ─▶ Reply        Record ─▶ OutcomeSink, once, whatever happened
//!                   └─────────┴────────┴──▶ Refusal
//! ```
//!
//! # Invariants
//! - Every call leaves exactly one [`dunlin_model::Record`]: also one that was refused, one whose caller went away (its
//!   future was dropped) and one whose streamed answer was never read to its end.
//! - The function's deadline runs from the moment its handler is started, on the monotonic clock; time spent waiting for
//!   an instance has a limit of its own and is never billed.
//! - An instance that timed out, exited or broke the protocol serves no further call.
//! - A call that an instance never saw, because the instance died between calls, is tried on another; a call that may
//!   have reached a handler is never repeated.
//! - Nothing a guest says is used for billing.
//!
//! Instances live in `pool`; the bytes in `runtime`; statuses and headers at the doors.

mod answer;
mod api;
mod invoker;
mod run;
mod session;
mod specs;
mod text;

pub use api::{OutcomeSink, Refusal, Reply, SESSION_COOKIE, SessionMark};
pub use dunlin_pool::{Limit, Room, Throttled};
pub use invoker::{Config, Invoker};
pub use session::session_of;
