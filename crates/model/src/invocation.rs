//! One call of a function, from the door's view, and the ways a function can fail.

use serde::{Deserialize, Serialize};

use crate::ids::{FunctionKey, Qualifier, RequestId, random_u128};
use crate::session::SessionAsk;
use crate::version::Target;

/// Proof that an answer belongs to an attempt: 128 random bits that only the instance serving it has seen.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AttemptToken(pub [u8; 16]);

impl AttemptToken {
    /// A fresh token.
    #[must_use]
    pub fn random() -> Self {
        Self(random_u128().to_le_bytes())
    }
}

impl std::fmt::Debug for AttemptToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AttemptToken(…)")
    }
}

/// Where a call came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Origin {
    /// The `InvokeFunction` operation.
    Api,
    /// A function URL.
    Http,
}

/// Whether the caller wants the end of the call's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogType {
    /// No.
    #[default]
    None,
    /// The last 4 KB.
    Tail,
}

/// A call that a door let in: authenticated, bounded, and nothing about HTTP left in it.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// Made by the door.
    pub request_id: RequestId,
    /// What to call.
    pub function: FunctionKey,
    /// Which version, as the caller asked for it.
    pub qualifier: Qualifier,
    /// What the qualifier meant when the door looked, if it had to: an alias is asked once for each call.
    pub target: Option<Target>,
    /// Where it came from.
    pub origin: Origin,
    /// The trigger that was hit, if one was.
    pub trigger: Option<String>,
    /// Whether a log tail was asked for.
    pub log_type: LogType,
    /// What the caller said of the session it belongs to, where the function has any.
    pub session: Option<SessionAsk>,
}

/// The value of `X-Fc-Error-Type` (contract section 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ErrorType {
    /// The function reported an error by itself, through Node's callback.
    HandledInvocationError,
    /// Exception, missing module or handler, timeout, out of memory, process exit.
    UnhandledInvocationError,
    /// The initializer or the start of the instance failed.
    InitializationError,
}

impl ErrorType {
    /// The header's value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HandledInvocationError => "HandledInvocationError",
            Self::UnhandledInvocationError => "UnhandledInvocationError",
            Self::InitializationError => "InitializationError",
        }
    }
}

/// How a function failed: the header's value, the body the caller gets, and the class the record keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionError {
    /// For `X-Fc-Error-Type`.
    pub error_type: ErrorType,
    /// JSON with `errorMessage` and what else the runtime gives.
    pub body: Vec<u8>,
}

impl FunctionError {
    /// An error the platform words: only `errorMessage` and optionally `errorType`.
    #[must_use]
    pub fn worded(error_type: ErrorType, kind: Option<&str>, message: &str) -> Self {
        let body = match kind {
            Some(kind) => serde_json::json!({ "errorMessage": message, "errorType": kind }),
            None => serde_json::json!({ "errorMessage": message }),
        };
        Self { error_type, body: body.to_string().into_bytes() }
    }
}
