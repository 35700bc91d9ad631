//! Requests to WebAssembly modules and their responses, in frames.
//!
//! The head of an `Invoke` that is a request has a member `http`; the head of its answer is the response's
//! (`docs/design/wire.md`). What crosses is what crosses to a custom runtime (contract sections 8.2 and 8.3).

use bytes::Bytes;
use http::header::HeaderMap;
use http::{Request, Response, StatusCode};
use serde::{Deserialize, Serialize};

use crate::call::{Body, CallContext, MarkedStatus};
use crate::error::CallError;
use crate::http_headers;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CallHead<'a> {
    request_id: &'a str,
    deadline_ms: i64,
    retry_count: u32,
    takes_parts: bool,
    http: RequestHead<'a>,
}

#[derive(Serialize)]
struct RequestHead<'a> {
    method: &'a str,
    uri: &'a str,
    headers: Vec<(String, String)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResponseHead {
    status_code: u16,
    headers: Vec<(String, String)>,
}

/// The head of the call that `request` is, and the request's body.
pub(crate) fn request_head(call: &CallContext, request: Request<Body>, common: &HeaderMap) -> (String, Body) {
    let (mut parts, body) = request.into_parts();
    http_headers::clean_request(&mut parts.headers);
    http_headers::add_common(&mut parts.headers, common, call, "/http-invoke");
    let head = CallHead {
        request_id: call.request_id.as_str(),
        deadline_ms: call.deadline_ms,
        retry_count: call.retry_count,
        takes_parts: true,
        http: RequestHead {
            method: parts.method.as_str(),
            uri: parts.uri.path_and_query().map_or("/", |path| path.as_str()),
            headers: http_headers::as_pairs(&parts.headers),
        },
    };
    (serde_json::to_string(&head).expect("texts and numbers are JSON"), body)
}

/// The response that a module gave.
pub(crate) fn response(head: &Bytes, body: Body) -> Result<Response<Body>, CallError> {
    let bad = |what: String| CallError::BadResponse(what);
    let head: ResponseHead =
        serde_json::from_slice(head).map_err(|_| CallError::Protocol("a Head that is no response".to_owned()))?;
    let status = StatusCode::from_u16(head.status_code).ok().filter(|status| (200..600).contains(&status.as_u16()));
    let status = status.ok_or_else(|| bad(format!("status {}", head.status_code)))?;
    let mut headers = http_headers::from_pairs(&head.headers).ok_or_else(|| bad("a header that is none".to_owned()))?;
    let mark = http_headers::status_mark(&headers);
    http_headers::clean_response(&mut headers).map_err(|bytes| bad(format!("response headers of {bytes} bytes")))?;
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    if let Some(status) = mark.and_then(|status| StatusCode::from_u16(status).ok()) {
        response.extensions_mut().insert(MarkedStatus(status));
    }
    Ok(response)
}
