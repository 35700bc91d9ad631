//! How many instances of a version are kept ready at each moment.
//!
//! ```text
//!  settings ─▶ Plan ─┐
//!  aliases ──▶ parts ├─▶ engine ─▶ Keep of each version ─▶ pool
//!  pool ─────▶ Load ─┤
//!  clock ────────────┘
//! ```
//!
//! [`Engine::step`](engine::Engine::step) decides, a pure state machine without a clock: what was due last, or what the
//! load asks for, or the number that was given. [`Scaler`] reads the store and the pool once a second, or at once when told
//! that something changed, lets the engine decide, and tells the pool.
//!
//! # Invariants
//! - Of what is in force at a moment, the largest number counts; while nothing is in force, the number that was given.
//! - A policy's number is never below its smallest and never above its largest.
//! - When a name moves to other versions, those it leaves keep their instances until the ones it comes to have theirs, or
//!   cannot have them, or a minute is over.
//! - What is reported as there is what the pool has at that moment.
//!
//! How instances are started and spared is the pool's; who may say how many there are, `control`'s.

pub mod engine;
mod service;

pub use engine::Config;
pub use service::{Clock, Readiness, Scaler};
