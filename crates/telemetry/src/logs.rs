//! The lines functions print.
//!
//! ```text
//!   FunctionLogs::line ──▶ rate limit ──▶ bounded queue ──▶ writer thread ──▶ folder/account/function/….log
//!                              │ (follow)                                        sealed: ….zst, kept by size and age
//!                              ▼
//!                           followers
//! ```
//!
//! A line is a length-prefixed, checksummed record with the ids the platform knows in front of the function's bytes
//! ([`segment`]): no line can forge another. Lines are not synced: a power loss may take the last seconds of them.

mod door;
mod query;
mod retention;
mod segment;
mod writer;

use std::path::PathBuf;
use std::time::Duration;

use dunlin_model::{InstanceId, RequestId};
use jiff::Timestamp;

pub use door::{Follow, FunctionLogs, Logs};

/// Where lines are kept, for how long, and how many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogsConfig {
    /// The folder; made if it is not there.
    pub folder: PathBuf,
    /// A segment is sealed and compressed at this many bytes. Default 4 MiB.
    pub segment_bytes: u64,
    /// Most bytes kept of one function; the oldest segments go first. Default 256 MiB.
    pub function_bytes_max: u64,
    /// Most bytes kept of all functions together; the oldest segments go first. Default 4 GiB.
    pub total_bytes_max: u64,
    /// Lines older than this go, a segment at a time. Default 7 days.
    pub age_max: Duration,
    /// Lines that may wait for the disk; further ones are dropped and counted. Default 16384.
    pub queue_lines_max: usize,
    /// Bytes that may wait for the disk. Default 16 MiB.
    pub queue_bytes_max: usize,
    /// Most bytes one function may print in a second, with bursts of twice as much. Default 4 MiB.
    pub function_bytes_per_second: u64,
    /// Longest line; what is longer is cut and marked. Default 32 KiB.
    pub line_bytes_max: usize,
}

impl LogsConfig {
    /// The defaults, in `folder`.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            segment_bytes: 4 << 20,
            function_bytes_max: 256 << 20,
            total_bytes_max: 4 << 30,
            age_max: Duration::from_secs(7 * 24 * 3600),
            queue_lines_max: 16_384,
            queue_bytes_max: 16 << 20,
            function_bytes_per_second: 4 << 20,
            line_bytes_max: 32 << 10,
        }
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// When the platform read it.
    pub time: Timestamp,
    /// The call it belongs to; absent between calls.
    pub request: Option<RequestId>,
    /// Where it was printed.
    pub instance: InstanceId,
    /// The bytes, without the line's end. Not necessarily UTF-8.
    pub text: Box<[u8]>,
}

/// Which lines to read. They come oldest first; when there are more than `limit`, the newest of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogQuery {
    /// Only lines at or after this time.
    pub since: Option<Timestamp>,
    /// Only lines before this time.
    pub until: Option<Timestamp>,
    /// Only this call's.
    pub request: Option<RequestId>,
    /// Only lines with these bytes in them.
    pub contains: Option<String>,
    /// Most lines; 0 means 1,000, and 10,000 is the most.
    pub limit: usize,
}

/// Why lines could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// The disk refused.
    #[error("cannot use {}", path.display())]
    Io {
        /// What was used.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The writer has ended.
    #[error("the log is closed")]
    Closed,
}

/// What a follower gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Followed {
    /// A line.
    Entry(LogEntry),
    /// The follower was too slow for this many lines; they are stored, not sent.
    Missed(u64),
}
