//! HTTP for the desk, in both dialects.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dunlin_model::{ErrorType, FunctionError};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::desk::{Delivery, Desk, Verdict};
use super::{Dialect, Facts, Purpose};
use crate::frame::ANSWER_BYTES_MAX;

/// Connections beside those that calls need: libraries fetch ahead, and some open one per request.
const SPARE_CONNECTIONS: usize = 16;
/// Most bytes of an error's body.
const ERROR_BYTES_MAX: usize = 256 << 10;
/// Most bytes of a request's head. AWS Lambda's clients put the whole stack of an error into a header, and one that does not
/// get through ends them: a thousand frames have to fit.
const HEAD_BYTES_MAX: usize = 256 << 10;

const LAMBDA_ERROR_TYPE: &str = "lambda-runtime-function-error-type";
const LAMBDA_ERROR_BODY: &str = "lambda-runtime-function-error-body";

/// Serves until it is aborted. Nobody who is over the bound waits outside: the kernel's queue is short.
pub(super) async fn serve(listener: TcpListener, desk: Arc<Desk>, facts: Arc<Facts>, concurrency: u32) {
    let room = Arc::new(Semaphore::new(2 * concurrency as usize + SPARE_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let Ok((socket, _)) = listener.accept().await else {
            // The machine is short of descriptors; the guest tries again.
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let _ = socket.set_nodelay(true);
        let (desk, facts) = (Arc::clone(&desk), Arc::clone(&facts));
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let (desk, facts) = (Arc::clone(&desk), Arc::clone(&facts));
                async move { Ok::<_, Infallible>(answer(&desk, &facts, request).await) }
            });
            // How a connection ends is the guest's affair.
            let _ = hyper::server::conn::http1::Builder::new()
                // A guest that dawdles keeps nobody waiting but itself.
                .header_read_timeout(None)
                .max_buf_size(HEAD_BYTES_MAX)
                .serve_connection(TokioIo::new(socket), service)
                .await;
            drop(permit);
        });
    }
}

async fn answer(desk: &Desk, facts: &Facts, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let mut words = head.uri.path().trim_start_matches('/').splitn(3, '/');
    let dialect = match (words.next(), words.next()) {
        (Some("2020-11-11"), Some("runtime")) => Dialect::Fc,
        (Some("2018-06-01"), Some("runtime")) => Dialect::Lambda,
        _ => return refused(StatusCode::NOT_FOUND, "ResourceNotFound", "this runtime API has no such version"),
    };
    let rest: Vec<&str> = words.next().unwrap_or_default().split('/').collect();
    match (&head.method, rest.as_slice()) {
        (&Method::GET, ["invocation", "next"]) => {
            // The connection may close while the question is held: then no call is taken from the queue.
            next(desk.next(dialect).await, dialect, facts)
        }
        (&Method::POST, ["invocation", id, "response"]) => respond(desk, dialect, id, body).await,
        (&Method::POST, ["invocation", id, "error"]) => fail(desk, dialect, id, body).await,
        (&Method::POST, ["init", "error"]) if dialect == Dialect::Lambda => cannot_start(desk, body).await,
        _ => refused(StatusCode::NOT_FOUND, "ResourceNotFound", "this runtime API has no such path"),
    }
}

fn next(delivery: Delivery, dialect: Dialect, facts: &Facts) -> Response<Full<Bytes>> {
    let event = match dialect {
        // Lambda calls a function without an event with an empty object, and its clients read nothing but JSON.
        Dialect::Lambda if delivery.event.is_empty() => Bytes::from_static(b"{}"),
        _ => delivery.event,
    };
    let mut response = Response::new(Full::new(event));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let mut put = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    let deadline = delivery.deadline_ms.to_string();
    match dialect {
        Dialect::Fc => {
            put("x-fc-request-id", delivery.id.as_str());
            put("x-fc-function-deadline", &deadline);
            put("x-fc-retry-count", &delivery.retry_count.to_string());
            put(
                "x-fc-function-type",
                match delivery.purpose {
                    Purpose::Handler => "0",
                    Purpose::Initializer => "1",
                    Purpose::PreStop => "2",
                },
            );
            headers.extend(facts.common.clone());
        }
        Dialect::Lambda => {
            put("lambda-runtime-aws-request-id", delivery.id.as_str());
            put("lambda-runtime-deadline-ms", &deadline);
            put("lambda-runtime-invoked-function-arn", &facts.arn);
            put("lambda-runtime-trace-id", &trace_id(delivery.deadline_ms));
        }
    }
    response
}

/// A trace nobody samples: libraries parse the header, so that it has to be there and well formed.
fn trace_id(milliseconds: i64) -> String {
    format!("Root=1-{:08x}-000000000000000000000000;Parent=0000000000000000;Sampled=0", (milliseconds / 1000) & 0xffff_ffff)
}

async fn respond(desk: &Desk, dialect: Dialect, id: &str, body: Incoming) -> Response<Full<Bytes>> {
    // Claimed before it is read: two answers cannot be held at a time.
    let Some(claim) = desk.claim(id) else { return unknown_id() };
    match Limited::new(body, ANSWER_BYTES_MAX).collect().await {
        Ok(collected) => {
            let verdict = match collected.trailers().and_then(failed_on_the_way) {
                Some(error) => Verdict::Failed(error),
                None => Verdict::Done(collected.to_bytes()),
            };
            claim.answer(verdict);
            accepted(dialect)
        }
        Err(error) if error.is::<LengthLimitError>() => {
            claim.answer(Verdict::TooLarge);
            let message = format!("an answer is at most {ANSWER_BYTES_MAX} bytes");
            refused(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", &message)
        }
        Err(_) => refused(StatusCode::BAD_REQUEST, "InvalidRequest", "the body broke off"),
    }
}

/// A streamed answer says in its trailers that it failed.
fn failed_on_the_way(trailers: &HeaderMap) -> Option<FunctionError> {
    let error_type = trailers.get(LAMBDA_ERROR_TYPE)?.to_str().unwrap_or("Error");
    let body = trailers.get(LAMBDA_ERROR_BODY).map(HeaderValue::as_bytes).unwrap_or_default();
    let body = base64_text(body).unwrap_or_else(|| body.to_vec());
    Some(error_of(&body, error_type))
}

/// Lambda's clients encode the trailer; what is no base64 is taken as it is.
fn base64_text(text: &[u8]) -> Option<Vec<u8>> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

async fn fail(desk: &Desk, dialect: Dialect, id: &str, body: Incoming) -> Response<Full<Bytes>> {
    let Some(claim) = desk.claim(id) else { return unknown_id() };
    match Limited::new(body, ERROR_BYTES_MAX).collect().await {
        Ok(collected) => {
            claim.answer(Verdict::Failed(error_of(&collected.to_bytes(), "FunctionError")));
            accepted(dialect)
        }
        Err(error) if error.is::<LengthLimitError>() => {
            let message = format!("The function's error is larger than {ERROR_BYTES_MAX} bytes");
            claim.answer(Verdict::Failed(FunctionError::worded(ErrorType::UnhandledInvocationError, None, &message)));
            refused(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", &message)
        }
        Err(_) => refused(StatusCode::BAD_REQUEST, "InvalidRequest", "the body broke off"),
    }
}

async fn cannot_start(desk: &Desk, body: Incoming) -> Response<Full<Bytes>> {
    let Ok(collected) = Limited::new(body, ERROR_BYTES_MAX).collect().await else {
        return refused(StatusCode::BAD_REQUEST, "InvalidRequest", "the body is too large or broke off");
    };
    let error = FunctionError { error_type: ErrorType::InitializationError, ..error_of(&collected.to_bytes(), "InitError") };
    if desk.cannot_start(error) {
        accepted(Dialect::Lambda)
    } else {
        refused(StatusCode::FORBIDDEN, "InvalidStateTransition", "the program has started already")
    }
}

/// The error as the program worded it, which is an object with `errorMessage` in either dialect; anything else is put
/// into one.
fn error_of(body: &[u8], error_type: &str) -> FunctionError {
    let is_error = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(body)
        .is_ok_and(|members| members.contains_key("errorMessage"));
    if is_error {
        return FunctionError { error_type: ErrorType::UnhandledInvocationError, body: body.to_vec() };
    }
    let message = String::from_utf8_lossy(body);
    FunctionError::worded(ErrorType::UnhandledInvocationError, Some(error_type), &message)
}

fn accepted(dialect: Dialect) -> Response<Full<Bytes>> {
    // The vendor's library takes 200 only.
    let (status, body) = match dialect {
        Dialect::Fc => (StatusCode::OK, ""),
        Dialect::Lambda => (StatusCode::ACCEPTED, r#"{"status":"OK"}"#),
    };
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn unknown_id() -> Response<Full<Bytes>> {
    refused(StatusCode::BAD_REQUEST, "InvalidRequestID", "no call with this id waits for an answer")
}

fn refused(status: StatusCode, error_type: &str, message: &str) -> Response<Full<Bytes>> {
    let body = serde_json::json!({"errorType": error_type, "errorMessage": message}).to_string();
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
