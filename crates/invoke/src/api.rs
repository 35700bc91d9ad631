//! What [`crate::Invoker::call`] answers, and where it leaves its records.

use dunlin_model::{Crc64, FunctionError, InstanceId, Outcome, Phases, Record, SessionId};
use dunlin_pool::{NoInterpreter, SessionRefusal, Throttled};
use dunlin_runtime::Answer;
use dunlin_store::Unresolved;

/// Takes the one record every call leaves. Plugged in by the server; must not block.
pub trait OutcomeSink: Send + Sync + 'static {
    /// Keeps `record`. Called exactly once per call, when it has ended.
    fn record(&self, record: Record);
}

/// A call that reached its function.
#[derive(Debug)]
pub struct Reply {
    /// What the function answered, or how it failed.
    pub result: Result<Answer, FunctionError>,
    /// How it ended. For a streamed answer: how it went so far; the record has the final word.
    pub outcome: Outcome,
    /// Where it ran; absent only when no instance could be started.
    pub instance: Option<InstanceId>,
    /// `LATEST` or the version's number.
    pub version: String,
    /// The checksum of the code that ran.
    pub checksum: Crc64,
    /// How long each part took.
    pub phases: Phases,
    /// Highest memory seen so far in the instance.
    pub memory_peak_bytes: u64,
    /// The text of contract section 5.2, when a tail was asked for.
    pub log_tail: Option<Vec<u8>>,
    /// What the caller is told of the session that this call began.
    pub session: Option<SessionMark>,
}

/// How a caller learns of its session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionMark {
    /// By a cookie.
    Cookie {
        /// Its value.
        id: SessionId,
        /// How long it is kept.
        max_age_s: u32,
    },
    /// By a response field.
    Header {
        /// The field's name, in lower case.
        name: Box<str>,
        /// Its value.
        id: SessionId,
    },
}

/// The name of the cookie.
pub const SESSION_COOKIE: &str = "x-fc-cookie-session-id";

impl SessionMark {
    /// The response field, as a name and a value.
    #[must_use]
    pub fn field(&self) -> (&str, String) {
        match self {
            Self::Cookie { id, max_age_s } => ("set-cookie", format!("{SESSION_COOKIE}={id}; Max-Age={max_age_s}")),
            Self::Header { name, id } => (name, id.to_string()),
        }
    }
}

/// Why a call did not get an answer of its function. None of these is billed.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No such function, now.
    #[error("the function does not exist")]
    FunctionNotFound,
    /// The version that was asked for, or that the alias points to, does not exist.
    #[error("version '{id}' does not exist")]
    VersionNotFound {
        /// Which.
        id: String,
    },
    /// The qualifier is no number and no such alias exists.
    #[error("the alias does not exist")]
    AliasNotFound,
    /// Its language has lost its interpreter since the function was created.
    #[error(transparent)]
    NoInterpreter(NoInterpreter),
    /// The owner has switched calls of the function off.
    #[error("calls of the function are disabled by its owner")]
    Disabled,
    /// Another account has withdrawn a layer of it.
    #[error("layer '{arn}' of the function is not shared by its owner any more")]
    LayerWithdrawn {
        /// The layer version's resource name.
        arn: String,
    },
    /// There is too much to do: a limit was met, or the platform has no room.
    #[error(transparent)]
    Throttled(Throttled),
    /// The session that the call says it belongs to is not there, or takes no calls.
    #[error(transparent)]
    Session(SessionRefusal),
    /// The session was ended while the call waited for its instance.
    #[error("the session was ended while the call waited for its instance")]
    SessionEnded,
    /// The event is too large.
    #[error("the payload is larger than {limit} bytes")]
    PayloadTooLarge {
        /// In bytes.
        limit: usize,
    },
    /// The function answered something that is no answer.
    #[error("bad response: {0}")]
    BadResponse(String),
    /// The custom runtime's program ended instead of serving (`CAExited`).
    #[error("the function's process ended before it could serve: {0}")]
    RuntimeExited(String),
    /// The custom runtime's program is not there (`CAFileNotFound`).
    #[error("the function's start command was not found")]
    RuntimeFileNotFound,
    /// The custom runtime's program may not be run (`CAFilePermission`).
    #[error("the function's start command is not executable")]
    RuntimeFilePermission,
    /// Records of calls wait for a store that does not take them, and there is no room for more.
    #[error("the platform cannot keep records of more calls at the moment; try again")]
    Backlogged,
    /// The platform is going away and lets nobody in any more.
    #[error("the platform is shutting down")]
    ShuttingDown,
    /// The platform failed; the text is for the operator.
    #[error("the platform failed: {0}")]
    Platform(String),
}

impl From<Unresolved> for Refusal {
    fn from(unresolved: Unresolved) -> Self {
        match unresolved {
            Unresolved::FunctionNotFound => Self::FunctionNotFound,
            Unresolved::VersionNotFound { id } => Self::VersionNotFound { id },
            Unresolved::AliasNotFound => Self::AliasNotFound,
        }
    }
}

impl Refusal {
    /// After how many seconds the caller should come again, where that makes sense.
    #[must_use]
    pub fn retry_after_seconds(&self) -> Option<u64> {
        match self {
            Self::Throttled(throttled) => Some(throttled.retry_after_seconds()),
            Self::Backlogged | Self::ShuttingDown => Some(1),
            _ => None,
        }
    }
}
