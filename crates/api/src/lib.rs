//! The Function Compute API, version 2023-03-30: HTTP in, HTTP out, nothing decided here.
//!
//! [`Api::handle`] verifies the signature, finds the operation in [`ROUTES`], reads the body within the operation's
//! bound, compares it with what was signed, and only then translates: into `control`, `invoke`, the store's records or
//! the logs, and back.
//!
//! ```text
//!  Request ─▶ signature ─▶ route ─▶ body (bounded) ─▶ body hash ─▶ operation ─▶ Response
//!                 └──────────┴────────────┴───────────────┴────────────┴──▶ ApiError ─▶ JSON, always
//! ```
//!
//! # Invariants
//! - Nothing happens before the signature and the body's hash held. Packages by link (`/-/code/`) are the one exception;
//!   there the link is the proof.
//! - Every answer carries `X-Fc-Request-Id`; every refusal is JSON with code, message and the same request id.
//! - An operation sees an [`AccountScope`](dunlin_model::AccountScope), never a bare account.
//! - The table of routes is complete: an operation of the contract that is not served says so.
//! - Memory is bounded: by operation, and by a budget for all bodies together.
//!
//! Function URLs are the gateway's.

mod api;
mod body;
mod calls;
mod domains;
mod error;
mod functions;
mod images;
mod instances;
mod json;
mod layers;
mod own;
mod query;
mod routes;
mod scaling;
mod sessions;
mod settings;
mod tags;
mod triggers;
mod versions;
mod wire;

pub use api::{Api, Config, Parts};
pub use calls::Calls;
pub use error::{auth_refusal, call_refusal};
pub use routes::{Need, ROUTES, Route, Served};
