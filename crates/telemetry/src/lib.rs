//! What the platform tells about itself and about the functions it runs.
//!
//! - [`Logs`]: the lines functions print, kept per function in append-only segments, read back by time, call and text.
//! - [`Metrics`]: counters and histograms, given out as OpenMetrics text.
//! - [`tracing_setup`]: the platform's own log.
//!
//! # Invariants
//! - Telling never holds up a call: queues are bounded, what does not fit or cannot be written is dropped and counted.
//! - What a function prints is data. Which call a line belongs to comes from the platform, never from the line.
//! - Labels of metrics come from validated ids and closed enums only, and their number is bounded.

pub mod logs;
pub mod metrics;
pub mod tracing_setup;

pub use logs::{Follow, Followed, FunctionLogs, LogEntry, LogQuery, Logs, LogsConfig, LogsError};
pub use metrics::{CONTENT_TYPE, InstanceState, Metrics};
