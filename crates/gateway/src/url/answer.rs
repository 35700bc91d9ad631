//! The HTTP response that a built-in runtime's answer stands for (contract section 9.3).
//!
//! An object with a `statusCode` is a response; any other value is the body of one. What claims to be a response and
//! is none becomes 502 `BadResponse` with a sentence that says which member is wrong.

use std::pin::Pin;
use std::task::{Context, Poll};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use dunlin_model::FunctionError;
use dunlin_runtime::BoxError;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, SET_COOKIE};
use http::{Method, Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt as _;
use serde_json::{Map, Value};

use super::fields;
use crate::error::Problem;
use crate::{Body, full};

/// Most bytes of all headers of a response.
const HEADER_BYTES_MAX: usize = 8 << 10;
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// Reads `value` for a request with `method` to `host`.
pub(super) fn response(value: &Bytes, host: &str, method: &Method) -> Result<Response<Body>, Problem> {
    match structured(value) {
        Some(members) => made(&members, host, method),
        None => {
            let mut response = Response::new(full(value.clone()));
            response.headers_mut().insert(CONTENT_TYPE, JSON);
            Ok(response)
        }
    }
}

/// The response of a handler that answers in parts. `head` is a response object without its body, or empty; then the
/// parts make up what a handler would have returned at once, and an object among such is held whole and read.
pub(super) async fn streamed(
    head: &Bytes,
    mut body: Body,
    host: &str,
    method: &Method,
    limit: usize,
) -> Result<Response<Body>, Problem> {
    let members: Map<String, Value> =
        serde_json::from_slice(head).map_err(|_| Problem::bad_response("the answer's head is no JSON object"))?;
    if members.contains_key("statusCode") {
        let response = made(&members, host, method)?;
        if bodiless(response.status()) {
            return Ok(response);
        }
        return Ok(response.map(|_| body));
    }
    let mut first = BytesMut::new();
    while first.trim_ascii_start().is_empty() {
        match part(&mut body).await? {
            Some(data) => first.extend_from_slice(&data),
            None => return response(&first.freeze(), host, method),
        }
        if first.len() > limit {
            break;
        }
    }
    if first.trim_ascii_start().first() == Some(&b'{') {
        while let Some(data) = part(&mut body).await? {
            if first.len() + data.len() > limit {
                return Err(Problem::bad_response(format!("a response object of more than {limit} bytes")));
            }
            first.extend_from_slice(&data);
        }
        return response(&first.freeze(), host, method);
    }
    let mut response = Response::new(Body::new(Following { first: Some(first.freeze()), rest: body }));
    response.headers_mut().insert(CONTENT_TYPE, OCTETS);
    Ok(response)
}

async fn part(body: &mut Body) -> Result<Option<Bytes>, Problem> {
    match body.frame().await {
        None => Ok(None),
        Some(Ok(frame)) => Ok(Some(frame.into_data().unwrap_or_default())),
        Some(Err(error)) => Err(Problem::bad_response(format!("the answer broke off: {error}"))),
    }
}

/// A body whose beginning was looked at.
struct Following {
    first: Option<Bytes>,
    rest: Body,
}

impl http_body::Body for Following {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        match this.first.take() {
            Some(first) => Poll::Ready(Some(Ok(Frame::data(first)))),
            None => Pin::new(&mut this.rest).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }
}

/// A failed function: 502 with the error as it would be given to a caller of the API.
pub(super) fn function_error(error: &FunctionError) -> Response<Body> {
    let mut response = Response::new(full(Bytes::from(error.body.clone())));
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

fn structured(value: &[u8]) -> Option<Map<String, Value>> {
    // Anything but an object is a body; do not build a tree of 32 MB to find that out.
    if value.trim_ascii_start().first() != Some(&b'{') {
        return None;
    }
    match serde_json::from_slice(value) {
        Ok(Value::Object(members)) if members.contains_key("statusCode") => Some(members),
        _ => None,
    }
}

fn made(members: &Map<String, Value>, host: &str, method: &Method) -> Result<Response<Body>, Problem> {
    let status = status(&members["statusCode"])?;
    let headers = headers(members.get("headers"), host)?;
    let encoded = match members.get("isBase64Encoded") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(encoded)) => *encoded,
        Some(_) => return Err(wrong("isBase64Encoded", "must be true or false")),
    };
    let body = match members.get("body") {
        None | Some(Value::Null) => Bytes::new(),
        Some(Value::String(text)) if encoded => {
            STANDARD.decode(text).map(Bytes::from).map_err(|_| wrong("body", "is not base64 although isBase64Encoded is true"))?
        }
        Some(Value::String(text)) => Bytes::from(text.clone()),
        Some(_) => return Err(wrong("body", "must be a string")),
    };
    let bodiless = bodiless(status);
    let mut response = Response::new(full(if bodiless { Bytes::new() } else { body }));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    if !bodiless && *method != Method::OPTIONS && !response.headers().contains_key(CONTENT_TYPE) {
        response.headers_mut().insert(CONTENT_TYPE, JSON);
    }
    Ok(response)
}

/// Whether a response with this status has no body.
fn bodiless(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED)
}

fn status(value: &Value) -> Result<StatusCode, Problem> {
    // 1xx would be no final answer, and what lies above 599 has no meaning.
    let number = value.as_u64().filter(|number| (200..=599).contains(number)).and_then(|number| u16::try_from(number).ok());
    number
        .and_then(|number| StatusCode::from_u16(number).ok())
        .ok_or_else(|| wrong("statusCode", "must be a whole number from 200 to 599"))
}

fn headers(value: Option<&Value>, host: &str) -> Result<HeaderMap, Problem> {
    let mut headers = HeaderMap::new();
    let members = match value {
        None | Some(Value::Null) => return Ok(headers),
        Some(Value::Object(members)) => members,
        Some(_) => return Err(wrong("headers", "must be an object")),
    };
    let mut bytes = 0;
    for (name, value) in members {
        let parsed =
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong("headers", &format!("has an invalid name {name:?}")))?;
        let values = match value {
            Value::Array(values) => values.as_slice(),
            single => std::slice::from_ref(single),
        };
        for value in values {
            let text = text(name, value)?;
            // Also of a field that will be dropped: a value that would end the line is an attack, not a slip.
            let value = HeaderValue::from_bytes(text.as_bytes())
                .map_err(|_| wrong("headers", &format!("has an invalid value for {name:?}")))?;
            if fields::is_reserved(parsed.as_str()) || (parsed == SET_COOKIE && !fields::cookie_stays(value.as_bytes(), host)) {
                continue;
            }
            bytes += name.len() + value.len() + 4;
            if bytes > HEADER_BYTES_MAX {
                return Err(wrong("headers", &format!("must be at most {HEADER_BYTES_MAX} bytes in total")));
            }
            headers.append(&parsed, value);
        }
    }
    Ok(headers)
}

fn text(name: &str, value: &Value) -> Result<String, Problem> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(flag) => Ok(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => {
            Err(wrong("headers", &format!("must give a string or a list of strings for {name:?}")))
        }
    }
}

fn wrong(member: &str, problem: &str) -> Problem {
    Problem::bad_response(format!("the function's answer is malformed: {member} {problem}"))
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    /// Status, headers and body.
    type Read = (u16, Vec<(String, String)>, String);

    fn read(value: &str) -> Result<Read, String> {
        let response = response(&Bytes::from(value.to_owned()), "key-a.fn.localhost", &Method::GET)
            .map_err(|problem| format!("{problem:?}"))?;
        let (head, body) = response.into_parts();
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers = head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime needs nothing");
        let body = runtime.block_on(body.collect()).expect("the body is there").to_bytes();
        Ok((head.status.as_u16(), headers, String::from_utf8_lossy(&body).into_owned()))
    }

    fn check(value: &str, status: u16, headers: &[(&str, &str)], body: &str) {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        assert_eq!(read(value), Ok((status, headers, body.to_owned())), "{value}");
    }

    #[test]
    fn an_object_with_a_status_is_a_response() {
        let json = ("content-type", "application/json");
        check(
            r#"{"statusCode":201,"headers":{"X-A":"1","content-type":"text/plain"},"body":"hi"}"#,
            201,
            &[("x-a", "1"), ("content-type", "text/plain")],
            "hi",
        );
        check(r#"{"statusCode":200,"isBase64Encoded":true,"body":"aGk="}"#, 200, &[json], "hi");
        check(r#"{"statusCode":200}"#, 200, &[json], "");
        check(r#"{"statusCode":204,"body":"dropped"}"#, 204, &[], "");
        check(
            r#" {"statusCode":302,"headers":{"Location":"http://169.254.169.254/"}}"#,
            302,
            &[("location", "http://169.254.169.254/"), json],
            "",
        );
        check(
            r#"{"statusCode":200,"headers":{"Set-Cookie":["a=1","b=2; Domain=localhost","c=3"],"x-n":7}}"#,
            200,
            &[("set-cookie", "a=1"), ("set-cookie", "c=3"), ("x-n", "7"), json],
            "",
        );
    }

    #[test]
    fn any_other_value_is_a_body() {
        let json = [("content-type", "application/json")];
        for value in [r#"{"a":1}"#, "[1]", "\"text\"", "plain text", "{broken", "", "7"] {
            check(value, 200, &json, value);
        }
    }

    #[test]
    fn the_platforms_headers_are_not_the_functions_to_set() {
        let value = r#"{"statusCode":200,"headers":{"Content-Length":"9","Transfer-Encoding":"chunked","Connection":"x","X-Fc-Request-Id":"f","Date":"d","Server":"s","X-Dunlin-Cost":"0","content-type":"a/b"}}"#;
        check(value, 200, &[("content-type", "a/b")], "");
    }

    #[test]
    fn a_malformed_response_is_refused_by_name() {
        for (value, member) in [
            (r#"{"statusCode":"200"}"#, "statusCode"),
            (r#"{"statusCode":0}"#, "statusCode"),
            (r#"{"statusCode":100}"#, "statusCode"),
            (r#"{"statusCode":999}"#, "statusCode"),
            (r#"{"statusCode":-1}"#, "statusCode"),
            (r#"{"statusCode":200,"headers":[]}"#, "headers"),
            (r#"{"statusCode":200,"headers":{"a b":"c"}}"#, "headers"),
            (r#"{"statusCode":200,"headers":{":status":"c"}}"#, "headers"),
            (r#"{"statusCode":200,"headers":{"a":"b\r\nset-cookie: x=y"}}"#, "headers"),
            (r#"{"statusCode":200,"headers":{"connection":"b\r\nset-cookie: x=y"}}"#, "headers"),
            (r#"{"statusCode":200,"headers":{"a\r\nb":"c"}}"#, "headers"),
            (r#"{"statusCode":200,"headers":{"a":"\u0000"}}"#, "headers"),
            (r#"{"statusCode":200,"headers":{"a":{}}}"#, "headers"),
            (r#"{"statusCode":200,"body":{}}"#, "body"),
            (r#"{"statusCode":200,"isBase64Encoded":"yes"}"#, "isBase64Encoded"),
            (r#"{"statusCode":200,"isBase64Encoded":true,"body":"%"}"#, "body"),
        ] {
            let refused = read(value).expect_err(value);
            assert!(refused.contains("502") && refused.contains(member), "{value}: {refused}");
        }
        let large = format!(r#"{{"statusCode":200,"headers":{{"a":"{}"}}}}"#, "x".repeat(9000));
        assert!(read(&large).is_err());
    }
}
