//! Wiring: configuration, start, drain, stop. The only crate that knows all rooms.
//!
//! One binary is three programs. [`up`] is the supervisor, in the foreground, root; it re-executes itself as
//! [`server_main`] (unprivileged; everything that parses) and as [`spawner_main`] (makes cells' processes).
//!
//! ```text
//!  up ──▶ supervisor::run ──┬─▶ `dunlin server`    Platform::build → serve → drain → stop
//!                           └─▶ `dunlin spawner`   walls::serve → a launcher, or an unpacker
//! ```
//!
//! # Order of stopping
//! From the door inwards: the door closes and calls in flight end, instances are ended, then the ledger and the logs are
//! flushed, because every step before writes some.

mod adapters;
mod capacity;
mod platform;
mod spawner;
mod supervisor;

pub use capacity::{Capacity, Idle};
pub use platform::{ServerConfig, ServerError, server_main};
pub use spawner::spawner_main;
pub use supervisor::{UpConfig, UpError, up};

/// Starts the process's own log on standard error. `DUNLIN_LOG` chooses what is in it (`info` by default), and
/// `DUNLIN_LOG_FORMAT=json` how it looks.
fn start_log() {
    use dunlin_telemetry::tracing_setup::{Format, init};
    let filter = std::env::var("DUNLIN_LOG").unwrap_or_else(|_| "info".to_owned());
    let format =
        if std::env::var("DUNLIN_LOG_FORMAT").is_ok_and(|format| format == "json") { Format::Json } else { Format::Text };
    if let Err(error) = init(format, &filter) {
        eprintln!("dunlin: the platform's log could not be started: {error}");
    }
}
