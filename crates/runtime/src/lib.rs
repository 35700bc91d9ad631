//! Host side of the wire spoken with the bootstrap inside the walls, and of the user's own HTTP server.
//!
//! A [`Guest`] is a booted cell. [`Guest::boot`] takes a cell from `sandbox` and waits until its bootstrap is there;
//! [`Guest::load`] makes an instance of it; [`Guest::invoke`] carries one event in and one answer out. What speaks
//! inside the cell is either a bootstrap from `runtimes/` (frames on descriptor 3, `docs/design/wire.md`) or a
//! program of the user's that listens on a port ([`BootPlan::Custom`]).
//!
//! ```text
//!            ┌ channel ── flights ── frame    built-in languages: frames on a stream socket
//!  Guest ────┤
//!            ├ custom ─── http                custom runtimes: HTTP over sockets opened inside the cell
//!            └ runtime_api                    programs that fetch their calls, over a listener inside the cell
//!      └──── log                              stdout and stderr of either, cut into lines
//! ```
//!
//! # Invariants
//! - Every byte from a guest is hostile: lengths are capped before memory is reserved, an answer counts only for the
//!   attempt whose token it carries, and a guest that breaks the wire is dead for this crate from then on.
//! - Every call ends by its deadline, whatever the guest does.
//! - What a call printed before it answered is in the log sink before the answer is handed on; what it printed before
//!   it failed comes back with the failure.
//! - A guest that prints without end is delayed, never blocked for ever: output over the limit is dropped and counted.
//!
//! Which instance serves which call is decided in `pool`; killing and tearing down in `sandbox`. This crate never
//! kills: it reports, and the owner of the lease discards.

mod call;
mod channel;
mod context;
mod custom;
mod error;
mod exec;
mod flights;
mod frame;
mod guest;
mod http_client;
mod http_headers;
mod log;
mod module;
mod peak;
mod runtime_api;
mod streamed;
mod tunnel;

pub use call::{Answer, Answered, Body, BoxError, CallContext, HttpBase, MarkedStatus, Payload};
pub use error::{BootError, CallError, Failed, StartError};
pub use guest::{BootPlan, Guest, LoadSpec};
pub use log::{LogLine, LogSink};
pub use tunnel::{Carried, Tunnel, TunnelEnd, Upgrade};
