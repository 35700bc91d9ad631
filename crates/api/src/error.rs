//! The only mapping from what went wrong to a status, a code and a sentence (contract section 2.6).

use bytes::Bytes;
use dunlin_auth::AuthError;
use dunlin_control::Error as ControlError;
use dunlin_invoke::Refusal;
use dunlin_model::{InvalidField, RequestId};
use dunlin_pool::SessionRefusal;
use dunlin_runtime::Body;
use dunlin_store::StoreError;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};

use crate::api::full;

/// A refusal, in the contract's words. The message is the user's; what only the operator may know is in `detail`.
#[derive(Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    /// For the platform's log.
    pub(crate) detail: Option<String>,
    /// When to come again, where that is known.
    pub(crate) retry_after_seconds: Option<u64>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), detail: None, retry_after_seconds: None }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InvalidArgument", message)
    }

    pub(crate) fn path_not_supported(method: &str, path: &str) -> Self {
        let path: String = path.chars().take(200).collect();
        Self::new(StatusCode::BAD_REQUEST, "PathNotSupported", format!("there is no operation {method} {path}"))
    }

    pub(crate) fn operation_not_supported(name: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "NotSupported", format!("operation {name} is not supported yet by this platform"))
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "EntityTooLarge", format!("the request's body is larger than {limit} bytes"))
    }

    pub(crate) fn internal(detail: impl Into<String>) -> Self {
        let message = "the platform failed; the request id helps its operator to find out why";
        Self { detail: Some(detail.into()), ..Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", message) }
    }

    /// The answer, for every client's way of reading it.
    pub(crate) fn response(&self, request_id: &RequestId) -> Response<Body> {
        if let Some(detail) = &self.detail {
            tracing::error!(%request_id, code = self.code, detail, "a request failed in the platform");
        } else {
            tracing::debug!(%request_id, code = self.code, message = self.message, "refused");
        }
        let body = serde_json::json!({
            "Code": self.code,
            "Message": self.message,
            "RequestId": request_id.as_str(),
            "ErrorCode": self.code,
            "ErrorMessage": self.message,
        });
        let mut response = Response::new(full(Bytes::from(body.to_string())));
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE || self.status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(self.retry_after_seconds.unwrap_or(1)));
        }
        response
    }
}

/// Status and code of a request whose signature does not hold.
#[must_use]
pub fn auth_refusal(error: &AuthError) -> (StatusCode, &'static str) {
    match error {
        AuthError::Unsigned => (StatusCode::FORBIDDEN, "AccessDenied"),
        AuthError::MissingHeader { .. } => (StatusCode::BAD_REQUEST, "MissingRequiredHeader"),
        AuthError::SchemeNotSupported { .. } => (StatusCode::FORBIDDEN, "NotSupported"),
        AuthError::UnknownAccessKey => (StatusCode::FORBIDDEN, "InvalidAccessKeyID"),
        AuthError::Malformed { .. }
        | AuthError::HeaderNotSigned { .. }
        | AuthError::SignatureMismatch
        | AuthError::BodyMismatch => (StatusCode::FORBIDDEN, "SignatureNotMatch"),
        AuthError::Skewed { .. } => (StatusCode::FORBIDDEN, "RequestTimeTooSkewed"),
        AuthError::Replayed => (StatusCode::FORBIDDEN, "SignatureNonceUsed"),
    }
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        let (status, code) = auth_refusal(&error);
        Self::new(status, code, error.to_string())
    }
}

impl From<InvalidField> for ApiError {
    fn from(invalid: InvalidField) -> Self {
        Self::invalid(invalid.to_string())
    }
}

impl From<ControlError> for ApiError {
    fn from(error: ControlError) -> Self {
        let (status, code) = match &error {
            ControlError::Invalid(_) => (StatusCode::BAD_REQUEST, "InvalidArgument"),
            ControlError::FunctionNotFound { .. } => (StatusCode::NOT_FOUND, "FunctionNotFound"),
            ControlError::VersionNotFound { .. } => (StatusCode::NOT_FOUND, "VersionNotFound"),
            ControlError::AliasNotFound { .. } => (StatusCode::NOT_FOUND, "AliasNotFound"),
            ControlError::TriggerNotFound { .. } => (StatusCode::NOT_FOUND, "TriggerNotFound"),
            ControlError::FunctionExists { .. } => (StatusCode::CONFLICT, "FunctionAlreadyExists"),
            ControlError::TriggerExists { .. } => (StatusCode::CONFLICT, "TriggerAlreadyExists"),
            ControlError::AliasExists { .. } => (StatusCode::CONFLICT, "AliasAlreadyExists"),
            ControlError::DomainNotFound { .. } => (StatusCode::NOT_FOUND, "DomainNameNotFound"),
            ControlError::DomainExists { .. } => (StatusCode::CONFLICT, "DomainNameAlreadyExists"),
            ControlError::AdditionalIsMajor { .. } => (StatusCode::BAD_REQUEST, "AdditionalVersionContainsMajorVersion"),
            ControlError::AsyncInvokeNotFound { .. } => (StatusCode::NOT_FOUND, "AsyncConfigNotExists"),
            ControlError::ConcurrencyNotFound { .. } => (StatusCode::NOT_FOUND, "OnDemandConfigNotFound"),
            ControlError::ReservationExceeded { .. } => (StatusCode::BAD_REQUEST, "InvalidArgument"),
            ControlError::ProvisionExists { .. } => (StatusCode::CONFLICT, "ProvisionConfigExist"),
            ControlError::ScalingExists { .. } => (StatusCode::CONFLICT, "ResidentScalingConfigExists"),
            ControlError::VpcBindingNotFound { .. } => (StatusCode::NOT_FOUND, "VpcBindingNotFound"),
            ControlError::LayerNotFound { .. } => (StatusCode::NOT_FOUND, "LayerNotFound"),
            ControlError::ImageNotFound { .. } => (StatusCode::NOT_FOUND, "ImageNotFound"),
            ControlError::LayerVersionNotFound { .. } | ControlError::LayerArnNotFound { .. } => {
                (StatusCode::NOT_FOUND, "LayerVersionNotFound")
            }
            ControlError::Session(refusal) => session_refusal(refusal),
            ControlError::NoSessions { .. } => (StatusCode::BAD_REQUEST, "InvalidArgument"),
            ControlError::FunctionNotEmpty { .. } => (StatusCode::CONFLICT, "FunctionNotEmpty"),
            ControlError::ConcurrentUpdate => (StatusCode::CONFLICT, "ConcurrentUpdateError"),
            ControlError::LimitExceeded { .. } => (StatusCode::BAD_REQUEST, "LimitExceededError"),
            ControlError::BadLink => (StatusCode::FORBIDDEN, "AccessDenied"),
            ControlError::Busy { .. } => (StatusCode::SERVICE_UNAVAILABLE, "ResourceThrottled"),
            ControlError::Platform { .. } => return Self::internal(dunlin_model::chain(&error)),
        };
        Self::new(status, code, error.to_string())
    }
}

/// Status and code of what cannot be done with a session. The protocol for model contexts has its clients begin anew
/// on 404.
fn session_refusal(refusal: &SessionRefusal) -> (StatusCode, &'static str) {
    match refusal {
        SessionRefusal::NotFound { .. } => (StatusCode::NOT_FOUND, "SessionNotFound"),
        SessionRefusal::Expired { .. } => (StatusCode::GONE, "SessionExpired"),
        SessionRefusal::Paused { .. } => (StatusCode::CONFLICT, "SessionPaused"),
        SessionRefusal::Exists { .. } => (StatusCode::CONFLICT, "SessionAlreadyExists"),
    }
}

/// Status and code of a call that was refused, at every door alike.
#[must_use]
pub fn call_refusal(refusal: &Refusal) -> (StatusCode, &'static str) {
    match refusal {
        Refusal::FunctionNotFound => (StatusCode::NOT_FOUND, "FunctionNotFound"),
        Refusal::VersionNotFound { .. } => (StatusCode::NOT_FOUND, "VersionNotFound"),
        Refusal::AliasNotFound => (StatusCode::NOT_FOUND, "AliasNotFound"),
        Refusal::NoInterpreter(_) => (StatusCode::PRECONDITION_FAILED, "RuntimeNotInstalled"),
        Refusal::LayerWithdrawn { .. } => (StatusCode::FORBIDDEN, "AccessDenied"),
        Refusal::Disabled => (StatusCode::FORBIDDEN, "FunctionInvocationDisabled"),
        Refusal::Throttled(throttled) if throttled.is_callers() => (StatusCode::TOO_MANY_REQUESTS, "ResourceExhausted"),
        Refusal::Throttled(_) => (StatusCode::SERVICE_UNAVAILABLE, "ResourceThrottled"),
        Refusal::Session(refusal) => session_refusal(refusal),
        Refusal::SessionEnded => (StatusCode::CONFLICT, "SessionEnded"),
        Refusal::PayloadTooLarge { .. } => (StatusCode::BAD_REQUEST, "EntityTooLarge"),
        Refusal::BadResponse(_) => (StatusCode::BAD_GATEWAY, "BadResponse"),
        Refusal::RuntimeExited(_) => (StatusCode::PRECONDITION_FAILED, "CAExited"),
        Refusal::RuntimeFileNotFound => (StatusCode::PRECONDITION_FAILED, "CAFileNotFound"),
        Refusal::RuntimeFilePermission => (StatusCode::PRECONDITION_FAILED, "CAFilePermission"),
        Refusal::Backlogged | Refusal::ShuttingDown => (StatusCode::SERVICE_UNAVAILABLE, "ResourceThrottled"),
        Refusal::Platform(_) => (StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError"),
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        if let Refusal::Platform(detail) = refusal {
            return Self::internal(detail);
        }
        let (status, code) = call_refusal(&refusal);
        Self { retry_after_seconds: refusal.retry_after_seconds(), ..Self::new(status, code, refusal.to_string()) }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::internal(dunlin_model::chain(&error))
    }
}
