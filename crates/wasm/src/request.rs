//! Requests, as the wire carries them and as programs see them.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http_body::Frame;
use serde::{Deserialize, Serialize};
use wasmtime_wasi_http::Error;

use crate::stdio::Input;

/// A request that passes through, without its body.
#[derive(Debug, Deserialize)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) uri: String,
    /// Each byte of a value is the character of that number.
    pub(crate) headers: Vec<(String, String)>,
}

/// The head of a response.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    status_code: u16,
    headers: Vec<(String, String)>,
}

/// The head of a response as the wire carries it.
pub(crate) fn response_head(status: u16, headers: &http::HeaderMap) -> Vec<u8> {
    let headers = headers.iter().map(|(name, value)| (name.to_string(), latin1(value.as_bytes()))).collect();
    serde_json::to_vec(&Head { status_code: status, headers }).expect("texts and numbers are JSON")
}

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

/// The bytes of a text whose characters are bytes; others are lost.
fn bytes(text: &str) -> Vec<u8> {
    text.chars().filter_map(|character| u8::try_from(u32::from(character)).ok()).collect()
}

/// Puts headers where they belong; what is none is left out.
pub(crate) fn put(headers: &mut http::HeaderMap, pairs: &[(String, String)]) {
    for (name, value) in pairs {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(&bytes(value))) {
            headers.append(name, value);
        }
    }
}

impl Request {
    /// For a component.
    pub(crate) fn with_body<B>(&self, body: B) -> http::Result<http::Request<B>> {
        let mut request = http::Request::builder().method(self.method.as_str()).uri(&self.uri).body(body)?;
        put(request.headers_mut(), &self.headers);
        if !request.headers().contains_key(header::HOST) {
            request.headers_mut().insert(header::HOST, HeaderValue::from_static("localhost"));
        }
        Ok(request)
    }

    /// For a command: the meta-variables of CGI (RFC 3875, section 4.1).
    pub(crate) fn variables(&self) -> Vec<(String, String)> {
        let (path, query) = self.uri.split_once('?').unwrap_or((&self.uri, ""));
        let mut variables = vec![
            ("GATEWAY_INTERFACE".to_owned(), "CGI/1.1".to_owned()),
            ("SERVER_PROTOCOL".to_owned(), "HTTP/1.1".to_owned()),
            ("REQUEST_METHOD".to_owned(), self.method.clone()),
            ("SCRIPT_NAME".to_owned(), String::new()),
            ("PATH_INFO".to_owned(), path.to_owned()),
            ("QUERY_STRING".to_owned(), query.to_owned()),
        ];
        for (name, value) in &self.headers {
            let name = name.to_ascii_uppercase().replace('-', "_");
            match &*name {
                "CONTENT_TYPE" | "CONTENT_LENGTH" => variables.push((name, value.clone())),
                // Programs take this variable for the address of a proxy.
                "PROXY" => {}
                _ => variables.push((format!("HTTP_{name}"), value.clone())),
            }
        }
        variables
    }
}

impl http_body::Body for Input {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.get_mut().poll_part(context).map(|part| part.map(|part| Ok(Frame::data(part))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        let headers = [("content-type", "text/plain"), ("x-a", "\u{e9}"), ("proxy", "evil"), ("bad name", "1")];
        Request {
            method: "PUT".to_owned(),
            uri: "/a%20b?q=1&q=2".to_owned(),
            headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        }
    }

    #[test]
    fn a_component_sees_the_request_as_it_was_sent() {
        let request = request().with_body(()).unwrap();
        assert_eq!((request.method().as_str(), request.uri().to_string()), ("PUT", "/a%20b?q=1&q=2".to_owned()));
        assert_eq!(request.headers()["x-a"].as_bytes(), b"\xe9");
        assert_eq!(request.headers()["host"], "localhost");
        assert!(!request.headers().contains_key("bad name"));
    }

    #[test]
    fn a_command_sees_the_request_in_its_environment() {
        let variables = request().variables();
        let of = |name: &str| variables.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str());
        assert_eq!((of("REQUEST_METHOD"), of("PATH_INFO"), of("QUERY_STRING")), (Some("PUT"), Some("/a%20b"), Some("q=1&q=2")));
        assert_eq!((of("CONTENT_TYPE"), of("HTTP_X_A")), (Some("text/plain"), Some("\u{e9}")));
        assert_eq!(of("HTTP_PROXY"), None);
    }
}
