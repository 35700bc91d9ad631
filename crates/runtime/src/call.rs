//! One call, as this crate takes it and hands it back.

use bytes::Bytes;
use dunlin_model::RequestId;

use crate::tunnel::Tunnel;

/// The error a streamed body ends with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A streamed body.
pub type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>;

/// What the platform says about a call besides its payload.
#[derive(Clone, Debug)]
pub struct CallContext {
    /// The call.
    pub request_id: RequestId,
    /// Wall-clock end of the call in milliseconds since 1970, for the user's information.
    pub deadline_ms: i64,
    /// How often this event was tried before.
    pub retry_count: u32,
    /// Whether the last 4 KB of the call's output are wanted back.
    pub capture_tail: bool,
    /// Whether the caller takes an answer in parts, [`Answer::Streamed`]; otherwise they are put together.
    pub takes_parts: bool,
    /// What only the HTTP door knows; absent for calls that did not come through it.
    pub http_base: Option<HttpBase>,
}

/// Facts about a pass-through request that go into the common request headers (contract section 8.2).
#[derive(Clone, Debug, Default)]
pub struct HttpBase {
    /// The address the caller came from.
    pub client_ip: String,
    /// The prefix of the path that a route removed; empty for function URLs.
    pub base_path: String,
}

/// What a call carries in.
pub enum Payload {
    /// An event, for any runtime.
    Event(Bytes),
    /// An event that stands for a request, and the body of that request, for built-in runtimes.
    Streaming(Bytes, Body),
    /// A request that passes through, for custom runtimes only.
    Http(http::Request<Body>),
}

/// What a call carries out.
pub enum Answer {
    /// The handler's result.
    Event(Bytes),
    /// The handler's result in parts: the JSON object that goes before them, and the parts. The call ends when they end
    /// or are dropped; their error is a [`CallError`](crate::CallError).
    Streamed(Bytes, Body),
    /// The response of the user's server. Its body is still running: the call ends when it ends or is dropped.
    Http(http::Response<Body>),
    /// The user's server changed the protocol: its response's head, and the tunnel that is the call from now on.
    Upgraded(http::Response<()>, Tunnel),
}

/// What a custom runtime's server said with `x-fc-status`, which counts for metrics only: an extension of the response
/// in [`Answer::Http`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkedStatus(pub http::StatusCode);

/// A call that was answered.
pub struct Answered {
    /// What the function said.
    pub answer: Answer,
    /// The user's lines of this call, last 4 KB; empty unless [`CallContext::capture_tail`].
    pub log_tail: Vec<u8>,
}

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Event(event) => write!(f, "Event({} bytes)", event.len()),
            Self::Streaming(event, _) => write!(f, "Streaming({} bytes, …)", event.len()),
            Self::Http(request) => write!(f, "Http({} {})", request.method(), request.uri()),
        }
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Event(result) => write!(f, "Event({} bytes)", result.len()),
            Self::Streamed(..) => f.write_str("Streamed"),
            Self::Http(response) => write!(f, "Http({})", response.status()),
            Self::Upgraded(..) => f.write_str("Upgraded"),
        }
    }
}

impl std::fmt::Debug for Answered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answered").field("answer", &self.answer).field("log_tail", &self.log_tail.len()).finish()
    }
}
