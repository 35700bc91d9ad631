//! The event a built-in runtime gets for an HTTP request (contract section 9.2).

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, USER_AGENT};
use http::request::Parts;
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use serde::Serialize;

use super::{Hit, fields};
use crate::error::Problem;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    version: &'static str,
    raw_path: &'a str,
    body: Cow<'a, str>,
    is_base64_encoded: bool,
    headers: BTreeMap<String, String>,
    query_parameters: BTreeMap<String, String>,
    request_context: RequestContext<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RequestContext<'a> {
    account_id: &'a str,
    domain_name: &'a str,
    domain_prefix: &'a str,
    http: Http<'a>,
    request_id: &'a str,
    time: String,
    time_epoch: String,
    trigger_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Http<'a> {
    method: &'a str,
    path: Cow<'a, str>,
    protocol: &'static str,
    source_ip: String,
    user_agent: String,
}

/// Puts a request into an event.
pub(super) fn event(hit: &Hit<'_>, head: &Parts, body: &Bytes) -> Result<Bytes, Problem> {
    let now = Timestamp::now();
    let path = head.uri.path();
    let (is_base64_encoded, body) = match text(&head.headers, body) {
        Some(text) => (false, Cow::Borrowed(text)),
        None => (true, Cow::Owned(STANDARD.encode(body))),
    };
    let event = Event {
        version: "v1",
        raw_path: path,
        body,
        is_base64_encoded,
        headers: headers(&head.headers),
        query_parameters: query(head.uri.query().unwrap_or_default()),
        request_context: RequestContext {
            account_id: hit.function_key.account().as_str(),
            domain_name: hit.host.name(),
            domain_prefix: hit.entrance.prefix,
            http: Http {
                method: head.method.as_str(),
                path: percent_decode_str(path).decode_utf8_lossy(),
                protocol: "HTTP/1.1",
                source_ip: hit.peer.to_string(),
                user_agent: head.headers.get(USER_AGENT).map(latin1).unwrap_or_default(),
            },
            request_id: hit.request_id.as_str(),
            time: now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            time_epoch: now.as_millisecond().to_string(),
            trigger_id: hit.entrance.trigger_id,
        },
    };
    serde_json::to_vec(&event).map(Bytes::from).map_err(|_| Problem::invalid("the request cannot be written as an event"))
}

/// The body as text, if it says it is text and is; an empty body is text.
fn text<'a>(headers: &HeaderMap, body: &'a [u8]) -> Option<&'a str> {
    if body.is_empty() {
        return Some("");
    }
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_text = media.starts_with("text/")
        || media.ends_with("+json")
        || media.ends_with("+xml")
        || matches!(
            media.as_str(),
            "application/json"
                | "application/xml"
                | "application/javascript"
                | "application/x-javascript"
                | "application/ecmascript"
                | "application/x-www-form-urlencoded"
                | "application/x-ndjson"
        );
    if !is_text || escaped_bytes(body) > ESCAPED_BYTES_MAX {
        return None;
    }
    std::str::from_utf8(body).ok()
}

/// How large a text may become as JSON. One that is mostly control characters would grow sixfold; base64 keeps any body
/// under the contract's limit below this, and the event with it below what the wire carries.
const ESCAPED_BYTES_MAX: usize = 48 << 20;

/// How long a text is within a JSON string.
fn escaped_bytes(text: &[u8]) -> usize {
    if text.len() <= ESCAPED_BYTES_MAX / 6 {
        return text.len();
    }
    let size = |byte: &u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..0x20 => 6,
        _ => 1,
    };
    text.iter().map(size).sum()
}

/// `content-type` as `Content-Type`; a field that is there more than once is one value with commas.
fn headers(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut map = BTreeMap::new();
    for name in headers.keys().filter(|name| !fields::ends_here(name.as_str())) {
        let values: Vec<String> = headers.get_all(name).iter().map(latin1).collect();
        map.insert(canonical(name.as_str()), values.join(","));
    }
    map
}

fn canonical(name: &str) -> String {
    let mut upper = true;
    name.chars()
        .map(|c| {
            let c = if upper { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
            upper = c == '-';
            c
        })
        .collect()
}

/// A field's value as text: UTF-8 where it is, otherwise byte for character.
fn latin1(value: &http::HeaderValue) -> String {
    match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => text.to_owned(),
        Err(_) => value.as_bytes().iter().map(|byte| char::from(*byte)).collect(),
    }
}

/// A key that is there more than once is one value with commas, in the order of the query.
fn query(query: &str) -> BTreeMap<String, String> {
    let mut map = BTreeMap::<String, String>::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decoded(value);
        map.entry(decoded(key))
            .and_modify(|values| {
                values.push(',');
                values.push_str(&value);
            })
            .or_insert(value);
    }
    map
}

fn decoded(text: &str) -> String {
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use http::header::HeaderName;

    #[test]
    fn header_names_are_canonical_and_repeats_are_joined() {
        let mut given = HeaderMap::new();
        for (name, value) in
            [("content-type", "a/b"), ("x-a", "1"), ("x-a", "2"), ("connection", "close"), ("x-fc-request-id", "forged")]
        {
            given.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let expected = [("Content-Type", "a/b"), ("X-A", "1,2")];
        assert_eq!(headers(&given), expected.map(|(a, b)| (a.to_owned(), b.to_owned())).into());
    }

    #[test]
    fn query_keys_are_decoded_and_repeats_are_joined() {
        let expected = [("a", "1,2"), ("b c", "d e/"), ("flag", "")];
        assert_eq!(query("a=1&b+c=d%20e%2F&a=2&flag&"), expected.map(|(a, b)| (a.to_owned(), b.to_owned())).into());
    }

    #[test]
    fn a_body_is_text_if_it_says_so_and_is() {
        let is_text = |content_type: &'static str, body: &[u8]| {
            let mut headers = HeaderMap::new();
            if !content_type.is_empty() {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            }
            text(&headers, body).is_some()
        };
        for content_type in [
            "text/plain",
            "text/html; charset=utf-8",
            "application/json",
            "application/problem+json",
            "image/svg+xml",
            "APPLICATION/XML",
            "application/x-www-form-urlencoded",
        ] {
            assert!(is_text(content_type, b"{}"), "{content_type}");
            assert!(!is_text(content_type, b"\xff"), "{content_type}");
        }
        for content_type in ["", "image/png", "application/octet-stream", "multipart/form-data; boundary=x"] {
            assert!(!is_text(content_type, b"{}"), "{content_type}");
        }
        assert!(is_text("", b""));
    }

    #[test]
    fn a_text_that_would_burst_the_event_travels_as_base64() {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("text/plain"))]);
        let payload_bytes_max = 32 << 20;
        assert!(text(&headers, &vec![b'a'; payload_bytes_max]).is_some());
        assert!(text(&headers, &vec![b'"'; payload_bytes_max / 2]).is_some());
        assert!(text(&headers, &vec![1; payload_bytes_max]).is_none());
        let sample = "a\"\\\n\r\t\u{8}\u{c}\u{1}\u{7f}é".repeat(1 << 20);
        assert_eq!(escaped_bytes(sample.as_bytes()) + 2, serde_json::to_string(&sample).expect("a string").len());
    }
}
