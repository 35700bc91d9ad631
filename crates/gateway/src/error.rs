//! The only mapping from what went wrong to a status, a code and a sentence.

use bytes::Bytes;
use dunlin_auth::AuthError;
use dunlin_invoke::Refusal;
use dunlin_model::RequestId;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};

use crate::framing::Violation;
use crate::{Body, full};

/// A refusal in the contract's words (section 2.6).
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    code: &'static str,
    message: String,
    /// Whether the connection ends with this answer.
    close: bool,
    /// For `Allow`.
    allow: Option<String>,
    /// For `Retry-After`.
    retry_after_seconds: Option<u64>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let retry_after_seconds = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(1);
        Self { status, code, message: message.into(), close: false, allow: None, retry_after_seconds }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InvalidArgument", message)
    }

    pub(crate) fn bad_response(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "BadResponse", message)
    }

    pub(crate) fn method_not_allowed(method: &str, allowed: String) -> Self {
        let message = format!("the method {method} is not allowed here");
        Self { allow: Some(allowed), ..Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message) }
    }

    pub(crate) fn closing(self) -> Self {
        Self { close: true, ..self }
    }

    /// The answer. It carries `request_id` twice, for the clients that look for it in either place.
    pub(crate) fn response(&self, request_id: &RequestId) -> Response<Body> {
        let body = serde_json::json!({
            "Code": self.code,
            "Message": self.message,
            "RequestId": request_id.as_str(),
            "ErrorCode": self.code,
            "ErrorMessage": self.message,
        });
        let mut response = Response::new(full(Bytes::from(body.to_string())));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert("x-fc-request-id", HeaderValue::from_str(request_id.as_str()).expect("an id is ASCII"));
        if self.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(allow) = self.allow.as_deref().and_then(|allow| HeaderValue::from_str(allow).ok()) {
            headers.insert(ALLOW, allow);
        }
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<Violation> for Problem {
    fn from(violation: Violation) -> Self {
        let (status, code) = match violation {
            // A coding or a version that is not served is the client's doing as well, so it is no 5xx either.
            Violation::RequestLine
            | Violation::Version
            | Violation::HeaderLine(_)
            | Violation::Length(_)
            | Violation::Coding
            | Violation::Chunk(_) => (StatusCode::BAD_REQUEST, "InvalidArgument"),
            Violation::TargetTooLong { .. } => (StatusCode::URI_TOO_LONG, "InvalidArgument"),
            Violation::HeadTooLarge { .. } | Violation::TooManyHeaders { .. } => {
                (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "InvalidArgument")
            }
            Violation::HeadTooSlow => (StatusCode::REQUEST_TIMEOUT, "RequestTimeout"),
        };
        Self::new(status, code, violation.to_string()).closing()
    }
}

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        let (status, code) = dunlin_api::auth_refusal(&error);
        Self::new(status, code, error.to_string())
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let (status, code) = dunlin_api::call_refusal(&refusal);
        match &refusal {
            Refusal::Platform(detail) => {
                // The caller is told that it was not its fault; the detail is the operator's.
                tracing::error!(detail, "a call failed in the platform");
                Self::new(status, code, "the platform failed to run the call")
            }
            // The contract words it so for calls over HTTP.
            Refusal::PayloadTooLarge { .. } => Self::new(status, "InvalidArgument", refusal.to_string()),
            _ => Self { retry_after_seconds: refusal.retry_after_seconds(), ..Self::new(status, code, refusal.to_string()) },
        }
    }
}
