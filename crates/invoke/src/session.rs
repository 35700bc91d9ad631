//! What a call has to do with its session: where it is served, and what its answer says.
//!
//! The platform names sessions of cookies and header fields. A server for the Model Context Protocol names its own: in the
//! field `Mcp-Session-Id` of its answer, or, with SSE, in the `endpoint` event that a connection begins with.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use dunlin_model::{Affinity, InvalidField, Qualifier, SessionAsk, SessionId, SessionRules};
use dunlin_pool::{SessionCall, SessionKey};
use dunlin_runtime::{Body, BoxError};
use http::header::COOKIE;
use http::{HeaderMap, Method, Response, Uri};
use http_body::{Frame, SizeHint};

use crate::{SESSION_COOKIE, SessionMark};

/// How much of a connection is looked at for its `endpoint` event.
const ENDPOINT_WITHIN: usize = 16 << 10;

/// What a request says of its session. `uri` is nothing where the request's own address is not the function's.
///
/// # Errors
/// It names a session by what cannot be an id.
pub fn session_of(
    rules: &SessionRules,
    method: &Method,
    uri: Option<&Uri>,
    headers: &HeaderMap,
) -> Result<SessionAsk, InvalidField> {
    Ok(match &rules.affinity {
        // A cookie that cannot be ours is nobody's mistake: browsers send what they have.
        Affinity::Cookie => cookie(headers).map_or(SessionAsk::Begin, SessionAsk::In),
        Affinity::Header(name) => match one(headers, name)? {
            None => SessionAsk::Begin,
            Some(text) => {
                let wrong = |_| {
                    let rule = "must have 1 to 64 letters, digits, '_' and '-' and not begin with '-'";
                    InvalidField::new(format!("the header {name}"), rule)
                };
                SessionAsk::In(text.parse().map_err(wrong)?)
            }
        },
        Affinity::McpStreamable => match one(headers, "mcp-session-id")? {
            None => SessionAsk::Alone,
            Some(text) => {
                let wrong = || InvalidField::new("the header mcp-session-id", "must have 1 to 256 visible ASCII characters");
                let id = SessionId::foreign(text).ok_or_else(wrong)?;
                if *method == Method::DELETE { SessionAsk::End(id) } else { SessionAsk::In(id) }
            }
        },
        Affinity::McpSse { path } => match uri {
            Some(uri) if *method == Method::GET && uri.path() == &**path => SessionAsk::Connection,
            Some(uri) => uri.query().and_then(session_in).map_or(SessionAsk::Alone, SessionAsk::In),
            None => SessionAsk::Alone,
        },
    })
}

fn one<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, InvalidField> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            value.to_str().map(Some).map_err(|_| InvalidField::new(format!("the header {name}"), "must be ASCII"))
        }
        (Some(_), Some(_)) => Err(InvalidField::new(format!("the header {name}"), "must be there once")),
    }
}

fn cookie(headers: &HeaderMap) -> Option<SessionId> {
    let pairs = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(';'));
    let mut named = pairs.filter_map(|pair| pair.trim().split_once('=')).filter(|(name, _)| *name == SESSION_COOKIE);
    named.find_map(|(_, value)| value.parse().ok())
}

/// What the caller is told of a session that its call began.
pub(crate) fn mark(rules: &SessionRules, call: &SessionCall) -> Option<SessionMark> {
    let id = call.begun()?.clone();
    match &rules.affinity {
        Affinity::Cookie => Some(SessionMark::Cookie { id, max_age_s: rules.ttl_s }),
        Affinity::Header(name) => Some(SessionMark::Header { name: name.clone(), id }),
        Affinity::McpSse { .. } | Affinity::McpStreamable => None,
    }
}

/// Learns from a server's answer what it calls the session. Answers the key of a session that the call has ended.
pub(crate) fn learn(
    rules: &SessionRules,
    call: &Arc<SessionCall>,
    ask: Option<&SessionAsk>,
    response: Response<Body>,
) -> (Response<Body>, bool) {
    match (&rules.affinity, ask) {
        (Affinity::McpStreamable, Some(SessionAsk::End(_))) => {
            let ended = response.status().is_success();
            (response, ended)
        }
        (Affinity::McpStreamable, _) => {
            let id = response.headers().get("mcp-session-id").and_then(|id| SessionId::foreign(id.to_str().ok()?));
            if let Some(id) = id {
                call.name(id);
            }
            (response, false)
        }
        (Affinity::McpSse { .. }, Some(SessionAsk::Connection)) if response.status().is_success() => {
            let call = Arc::clone(call);
            (response.map(|inner| Body::new(Listening { inner, call: Some(call), seen: Vec::new() })), false)
        }
        _ => (response, false),
    }
}

/// The session's key, of a call that says which it belongs to.
pub(crate) fn key_of(call: &SessionCall, qualifier: &Qualifier, ask: Option<&SessionAsk>) -> Option<SessionKey> {
    let Some(SessionAsk::End(id) | SessionAsk::In(id)) = ask else { return None };
    let function = call.spec().key().function.clone();
    Some(SessionKey { function, qualifier: qualifier.to_string().into(), id: id.clone() })
}

/// Passes an SSE connection on and looks for the address that it tells its client to post to.
struct Listening {
    inner: Body,
    /// Until the session has its name, or it is clear that it gets none.
    call: Option<Arc<SessionCall>>,
    seen: Vec<u8>,
}

impl Listening {
    fn hear(&mut self, data: &Bytes) {
        let Some(call) = &self.call else { return };
        let room = ENDPOINT_WITHIN.saturating_sub(self.seen.len());
        self.seen.extend_from_slice(&data[..data.len().min(room)]);
        if let Some(id) = endpoint(&self.seen) {
            match id {
                Some(id) => call.name(id),
                None => tracing::debug!("an endpoint event names no session"),
            }
        } else if self.seen.len() < ENDPOINT_WITHIN {
            return;
        }
        (self.call, self.seen) = (None, Vec::new());
    }
}

impl http_body::Body for Listening {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let frame = std::task::ready!(Pin::new(&mut this.inner).poll_frame(context));
        if this.call.is_some()
            && let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            this.hear(data);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The id in the first `endpoint` event of a stream: nothing while it has not come, and an inner nothing when it has none.
fn endpoint(stream: &[u8]) -> Option<Option<SessionId>> {
    let text = String::from_utf8_lossy(stream).replace("\r\n", "\n").replace('\r', "\n");
    // What follows the last empty line is not a whole event yet.
    let (whole, _) = text.rsplit_once("\n\n")?;
    let event = whole.split("\n\n").find(|event| field(event, "event") == Some("endpoint"))?;
    Some(field(event, "data").and_then(posted_to))
}

fn field<'a>(event: &'a str, name: &str) -> Option<&'a str> {
    event.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
}

fn posted_to(address: &str) -> Option<SessionId> {
    let (_, query) = address.split_once('?')?;
    session_in(query)
}

/// The session's id in a query: what servers call `sessionId` or `session_id`.
fn session_in(query: &str) -> Option<SessionId> {
    let query = query.split('#').next().unwrap_or_default();
    query.split('&').filter_map(|pair| pair.split_once('=')).find_map(|(name, value)| {
        let name = name.replace(['_', '-'], "");
        SessionId::foreign(value).filter(|_| name.eq_ignore_ascii_case("sessionid"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_tells_its_session_as_its_function_says() {
        let rules = |affinity| SessionRules { affinity, per_instance: 1, ttl_s: 1, idle_s: 1, disable_id_reuse: false };
        let of = |affinity: &Affinity, method: Method, uri: &str, fields: &[(&'static str, &str)]| {
            let fields =
                fields.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().expect("a value")));
            let (uri, headers) = (uri.parse().expect("an address"), HeaderMap::from_iter(fields));
            session_of(&rules(affinity.clone()), &method, Some(&uri), &headers).map_err(|invalid| invalid.field)
        };
        let in_session = |id: &str| Ok(SessionAsk::In(SessionId::foreign(id).expect("an id")));
        let get = |affinity: &Affinity, uri: &str, fields: &[(&'static str, &str)]| of(affinity, Method::GET, uri, fields);
        let by_cookie = Affinity::Cookie;
        assert_eq!(get(&by_cookie, "/", &[]), Ok(SessionAsk::Begin));
        assert_eq!(get(&by_cookie, "/", &[("cookie", "a=b; x-fc-cookie-session-id=q1; c=d")]), in_session("q1"));
        assert_eq!(get(&by_cookie, "/", &[("cookie", "x-fc-cookie-session-id=not ours")]), Ok(SessionAsk::Begin));
        let by_header = Affinity::Header("my-session".into());
        assert_eq!(get(&by_header, "/", &[]), Ok(SessionAsk::Begin));
        assert_eq!(get(&by_header, "/", &[("my-session", "q1")]), in_session("q1"));
        assert_eq!(get(&by_header, "/", &[("my-session", "a b")]), Err("the header my-session".to_owned()));
        let streamable = Affinity::McpStreamable;
        assert_eq!(of(&streamable, Method::POST, "/mcp", &[]), Ok(SessionAsk::Alone));
        assert_eq!(of(&streamable, Method::POST, "/mcp", &[("mcp-session-id", "a/b=")]), in_session("a/b="));
        let end = SessionAsk::End(SessionId::foreign("q1").expect("an id"));
        assert_eq!(of(&streamable, Method::DELETE, "/mcp", &[("mcp-session-id", "q1")]), Ok(end));
        let sse = Affinity::McpSse { path: "/sse".into() };
        assert_eq!(get(&sse, "/sse", &[]), Ok(SessionAsk::Connection));
        assert_eq!(of(&sse, Method::POST, "/messages?session_id=q1", &[]), in_session("q1"));
        assert_eq!(get(&sse, "/health", &[]), Ok(SessionAsk::Alone));
    }

    #[test]
    fn the_endpoint_event_names_the_session_once_it_is_whole() {
        let id = |text: &str| SessionId::foreign(text);
        for (stream, expected) in [
            ("event: endpoint\ndata: /messages/?session_id=abc\n\n", Some(id("abc"))),
            ("event: endpoint\r\ndata: /m?sessionId=a-1&x=2\r\n\r\n", Some(id("a-1"))),
            (": hello\n\nevent:endpoint\ndata:http://h/m?x=1&sessionId=q\n\nevent: message\n", Some(id("q"))),
            ("event: endpoint\ndata: /messages/abc\n\n", Some(None)),
            ("event: endpoint\ndata: /messages/?session_id=ab", None),
            ("event: endpoint\ndata: /messages/?session_id=ab\n", None),
            ("data: /messages/?session_id=ab\n\n", None),
            ("", None),
        ] {
            assert_eq!(endpoint(stream.as_bytes()), expected, "{stream:?}");
        }
    }
}
