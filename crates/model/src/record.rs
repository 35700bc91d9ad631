//! The one record every call leaves: what a bill, a metric and a console page are made of.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{AccountId, FunctionName, InstanceId, RequestId};
use crate::invocation::Origin;

/// How long each phase of a call took, on the platform's monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    /// Waiting for an instance or a cell.
    pub queue: Duration,
    /// Mounting code and setting limits.
    pub bind: Duration,
    /// Loading user code.
    pub load: Duration,
    /// The initializer.
    pub init: Duration,
    /// The handler.
    pub handler: Duration,
}

impl Phases {
    /// What the caller is charged for: initializer and handler, rounded up to whole milliseconds.
    #[must_use]
    pub fn billed_ms(&self) -> u64 {
        let nanos = (self.init + self.handler).as_nanos();
        u64::try_from(nanos.div_ceil(1_000_000)).unwrap_or(u64::MAX)
    }
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// The handler answered.
    Succeeded,
    /// The handler reported or raised an error.
    FunctionError,
    /// The handler ran longer than its limit.
    TimedOut,
    /// The instance went over its memory.
    OutOfMemory,
    /// The instance's process ended by itself.
    Exited,
    /// The instance could not be started or initialised.
    InitFailed,
    /// The call was refused for lack of capacity.
    Throttled,
    /// The caller went away.
    Cancelled,
    /// The platform failed.
    PlatformError,
}

/// One call, complete: written once, when the call has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The call.
    pub request_id: RequestId,
    /// Who pays.
    pub account: AccountId,
    /// What ran.
    pub function: FunctionName,
    /// `LATEST` or the version's number.
    pub version: String,
    /// What the caller asked for.
    pub qualifier: String,
    /// Where it ran; absent when it never reached an instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceId>,
    /// Where it came from.
    pub origin: Origin,
    /// The trigger, if one was hit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<String>,
    /// When the platform accepted it.
    pub started: Timestamp,
    /// Whether it started its instance.
    pub cold: bool,
    /// Microseconds waiting for an instance or a cell.
    pub queue_us: u64,
    /// Microseconds mounting code and setting limits.
    pub bind_us: u64,
    /// Microseconds loading user code.
    pub load_us: u64,
    /// Microseconds in the initializer.
    pub init_us: u64,
    /// Microseconds in the handler.
    pub handler_us: u64,
    /// Milliseconds charged.
    pub billed_ms: u64,
    /// Configured memory.
    pub memory_mb: u32,
    /// Highest memory seen so far in the instance, page cache left out.
    pub memory_peak_bytes: u64,
    /// Configured vCPUs, in thousandths.
    pub cpu_millis: u32,
    /// CPU time the instance used during the call, in microseconds.
    pub cpu_us: u64,
    /// Bytes of the event.
    pub bytes_in: u64,
    /// Bytes of the answer.
    pub bytes_out: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// `X-Fc-Error-Type` or an API error code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_type: Option<String>,
}
