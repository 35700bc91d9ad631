//! The door: bytes from the network become authenticated, bounded calls, and answers go back.
//!
//! [`serve`] is the one place that frames messages. Every byte of input passes a strict reader before hyper sees it, so
//! that no two parsers behind one another can read two requests where we read one.
//!
//! ```text
//!  socket [─▶ TLS] ─▶ guarded (framing, deadlines) ─▶ hyper ─▶ dispatch ─┬▶ url       {prefix}.fn.{domain}: a function's HTTP trigger
//!                                                               ├▶ url       a custom domain: the route of a path
//!                                                               ├▶ api       signed, or /2023-03-30/ under our own names
//!                                                               └▶ /-/ready, /-/metrics under our own names
//! ```
//!
//! # Invariants
//! - A message whose end could be read in two ways is answered 400 and the connection closed; what follows is never read.
//! - Nothing is kept without a limit: connections, heads, headers, bodies and the time each may take.
//! - Every answer of a function URL carries `X-Fc-Request-Id`, and no function can set a header of the platform's.
//! - What came over TLS is served for the name that the handshake was for, and for no other.
//! - A client that goes away takes its call with it: the call's future is dropped.
//! - When [`serve`] returns, no connection is left.
//!
//! Signatures and tokens are checked in `auth`, certificates in `tls`; the control plane's routes are in `api`; calls run in `invoke`.

mod compiled;
mod config;
mod dispatch;
mod doors;
mod error;
mod framing;
mod guarded;
mod handshake;
mod host;
mod serve;
mod url;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};

pub use config::Config;
pub use doors::{ControlPlane, Doors, Status};
pub use dunlin_api::Calls;
pub use dunlin_runtime::{Body, BoxError};
pub use serve::{Closed, Listener, serve};

/// A body that is there already.
fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}
