//! Instances: who gets one, who waits, and when one ends.
//!
//! [`Pool::lease`] hands out a [`Lease`] on an instance of exactly one version of one function: an idle one if there is
//! one, else a waiting cell bound on the spot, else a new cell. Dropping the lease gives the instance to the oldest
//! waiter or lets it idle.
//!
//! ```text
//!  lease ─▶ idle? ──yes──▶ Lease                                   cells   make ─▶ waiting ─▶ bound ─▶ ended
//!             │no                                                  instances        starting ─▶ live ─▶ ending
//!             ▼
//!  queue of the version ─▶ waiting cell? ─▶ bind · load · init ─▶ Lease
//!                              │no
//!                              ▼ make
//! ```
//!
//! Every decision is taken by [`engine::Engine`], a pure state machine `on(event, now) -> actions`; [`Pool`] performs the
//! actions over [`dunlin_sandbox::Sandboxes`] and reports back. Both sit behind one short mutex, so that a lease of an
//! idle instance is one lock and no task hop.
//!
//! # Invariants
//! - An instance serves one [`dunlin_model::VersionKey`] for its whole life, never another.
//! - No waiter is forgotten: each is granted, refused or cancelled, at the latest when its deadline passes.
//! - As many instances of a version are ready as were said to be kept, as far as the limits allow.
//! - No limit is passed: instances of an account, memory of the node, starts and makes under way, calls waiting.
//! - No idle instance outlives its time, and none of a superseded revision stays idle.
//! - Calls of one session meet one instance for as long as both live.
//! - An instance is forgotten only after its walls are down.
//! - No instance is frozen while a call is in it.
//! - A cell is made in a task of its own: a caller that goes away leaks nothing and stops nothing.
//!
//! What a call is lives in `invoke`; how a cell is made in `sandbox`; what is said to a guest in `runtime`.

mod api;
mod class;
pub mod engine;
mod frost;
mod lease;
mod service;
mod sessions;
mod start;
#[cfg(feature = "testing")]
pub mod testing;
mod throttle;
mod worker;

pub use api::{
    Config, InstanceInfo, InstanceSpec, InstanceState, Kept, LeaseError, Observer, Refusals, Seen, StartFailure, StartOutput,
    Stats,
};
pub use class::{Class, NoInterpreter, Program};
pub use engine::Keep;
pub use lease::Lease;
pub use service::Pool;
pub use sessions::{SessionCall, SessionInfo, SessionKey, SessionRefusal, SessionStatus, SessionTerms};
pub use throttle::{Limit, Room, Throttled};
pub use worker::{Boot, GuestBoot, LogSinks, Worker};
