//! Signed requests to the platform.
//!
//! One connection for each request: a command makes few of them, and nothing has to be kept alive in between.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use dunlin_auth::SigningKey;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use crate::credentials::Credentials;
use crate::failure::{Failure, Kind};
use crate::upload::{Outgoing, Upload};

const VERSION: &str = "2023-03-30";
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// How long the platform may take to answer anything but a call, which has a limit of its own.
const ANSWER_PATIENCE: Duration = Duration::from_secs(120);
/// What a name in a path keeps.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// One request, before it is signed.
pub(crate) struct Call<'a> {
    pub(crate) action: &'a str,
    pub(crate) method: &'a str,
    /// Below the version, percent-encoded; see [`segment`].
    pub(crate) path: String,
    pub(crate) query: Vec<(&'a str, String)>,
    pub(crate) headers: Vec<(&'a str, String)>,
    pub(crate) body: Bytes,
    /// Sent instead of `body`.
    pub(crate) upload: Option<Upload>,
    /// Whether the answer may take as long as a function does.
    pub(crate) patient: bool,
}

impl<'a> Call<'a> {
    pub(crate) fn new(action: &'a str, method: &'a str, path: impl Into<String>) -> Self {
        let (query, headers) = (Vec::new(), Vec::new());
        Self { action, method, path: path.into(), query, headers, body: Bytes::new(), upload: None, patient: false }
    }

    pub(crate) fn query(mut self, name: &'a str, value: Option<impl ToString>) -> Self {
        self.query.extend(value.map(|value| (name, value.to_string())));
        self
    }

    pub(crate) fn json(mut self, body: &Value) -> Self {
        self.body = body.to_string().into();
        self.headers.push(("content-type", "application/json; charset=utf-8".to_owned()));
        self
    }
}

/// A name as one segment of a path.
pub(crate) fn segment(name: &str) -> String {
    utf8_percent_encode(name, SEGMENT).to_string()
}

/// Speaks to one platform with one key.
pub(crate) struct Client {
    credentials: Credentials,
    runtime: Runtime,
    debug: bool,
}

impl Client {
    pub(crate) fn new(credentials: Credentials, debug: bool) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::of("cannot start", &error))?;
        Ok(Self { credentials, runtime, debug })
    }

    /// What requests are signed with.
    pub(crate) fn key(&self) -> &SigningKey {
        &self.credentials.key
    }

    /// Sends `call` and reads the whole answer. A refusal is a failure to do `what`.
    pub(crate) fn send(&self, what: &str, call: Call<'_>) -> Result<Response<Bytes>, Failure> {
        self.runtime.block_on(async {
            tokio::select! {
                answered = self.exchange(what, call) => answered,
                _ = tokio::signal::ctrl_c() => Err(Failure::new(Kind::Interrupted, what, "interrupted")),
            }
        })
    }

    /// Sends `call` and reads the answer as JSON.
    pub(crate) fn json(&self, what: &str, call: Call<'_>) -> Result<Value, Failure> {
        let response = self.send(what, call)?;
        if response.body().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(response.body()).map_err(|error| Failure::of(what, &error))
    }

    /// Sends `call` for each page of a list and hands on its items, at most `most` of them.
    pub(crate) fn list(
        &self,
        what: &str,
        member: &str,
        most: usize,
        call: impl Fn(Option<String>) -> Call<'static>,
    ) -> Result<Vec<Value>, Failure> {
        let (mut items, mut token) = (Vec::new(), None);
        loop {
            let mut page = self.json(what, call(token.take()))?;
            if let Some(Value::Array(found)) = page.get_mut(member).map(Value::take) {
                items.extend(found);
            }
            token = page["nextToken"].as_str().filter(|token| !token.is_empty()).map(str::to_owned);
            if token.is_none() || items.len() >= most {
                items.truncate(most);
                return Ok(items);
            }
        }
    }

    /// Sends `call` and hands on each JSON line of the answer as it comes, until the platform ends it.
    pub(crate) fn follow(&self, what: &str, call: Call<'_>, mut each: impl FnMut(Value)) -> Result<(), Failure> {
        let following = async {
            let request = self.signed(call).map_err(|error| Failure::of(what, &error))?;
            let (mut response, connection) = self.begin(what, request).await?;
            let reading = async {
                if !response.status().is_success() {
                    let response = self.collect(what, response).await?;
                    let request_id = header(&response, "x-fc-request-id").map(str::to_owned);
                    return Err(refused(what, &response, request_id));
                }
                let mut waiting = Vec::new();
                while let Some(frame) = response.body_mut().frame().await {
                    let frame = frame.map_err(|error| self.lost(what, &error))?;
                    waiting.extend_from_slice(frame.data_ref().map(Bytes::as_ref).unwrap_or_default());
                    while let Some(end) = waiting.iter().position(|byte| *byte == b'\n') {
                        let line: Vec<u8> = waiting.drain(..=end).collect();
                        // Empty lines only show that the platform is still there.
                        if let Ok(line) = serde_json::from_slice(&line) {
                            each(line);
                        }
                    }
                }
                Ok(())
            };
            beside(connection, reading).await
        };
        self.runtime.block_on(async {
            tokio::select! {
                ended = following => ended,
                _ = tokio::signal::ctrl_c() => Err(Failure::new(Kind::Interrupted, what, "interrupted")),
            }
        })
    }

    async fn exchange(&self, what: &str, call: Call<'_>) -> Result<Response<Bytes>, Failure> {
        let (line, patient) = (format!("{} {}", call.method, call.path), call.patient);
        let request = self.signed(call).map_err(|error| Failure::of(what, &error))?;
        let answering = self.round_trip(what, request);
        let response = if patient {
            answering.await?
        } else {
            let late = || {
                Failure::new(Kind::TimedOut, what, format!("the platform did not answer within {} s", ANSWER_PATIENCE.as_secs()))
            };
            tokio::time::timeout(ANSWER_PATIENCE, answering).await.map_err(|_| late())??
        };
        let request_id = header(&response, "x-fc-request-id").map(str::to_owned);
        if self.debug {
            eprintln!("debug: {line} -> {} {}", response.status().as_u16(), request_id.as_deref().unwrap_or("-"));
        }
        if response.status().is_success() { Ok(response) } else { Err(refused(what, &response, request_id)) }
    }

    fn signed(&self, call: Call<'_>) -> Result<Request<Outgoing>, http::Error> {
        let mut target = format!("/{VERSION}{}", call.path);
        for (index, (name, value)) in call.query.iter().enumerate() {
            target.push(if index == 0 { '?' } else { '&' });
            target.push_str(&format!("{name}={}", segment(value)));
        }
        let mut headers = vec![
            ("host".to_owned(), self.credentials.authority.clone()),
            ("accept".to_owned(), "application/json".to_owned()),
            ("user-agent".to_owned(), concat!("dunlin/", env!("CARGO_PKG_VERSION")).to_owned()),
            ("x-acs-action".to_owned(), call.action.to_owned()),
            ("x-acs-version".to_owned(), VERSION.to_owned()),
        ];
        headers.extend(call.headers.into_iter().map(|(name, value)| (name.to_owned(), value)));
        headers.extend(call.upload.as_ref().map(|upload| ("x-acs-content-sha256".to_owned(), upload.sha256.clone())));
        let headers = dunlin_auth::sign(&self.credentials.key, call.method, &target, &headers, &call.body);
        let request = headers
            .into_iter()
            .fold(Request::builder().method(call.method).uri(target), |request, (name, value)| request.header(name, value));
        request.body(call.upload.map_or_else(|| Outgoing::Held(Full::new(call.body)), Outgoing::from))
    }

    async fn round_trip(&self, what: &str, request: Request<Outgoing>) -> Result<Response<Bytes>, Failure> {
        let (response, connection) = self.begin(what, request).await?;
        beside(connection, self.collect(what, response)).await
    }

    /// Sends the request and waits for the answer's head.
    async fn begin(&self, what: &str, request: Request<Outgoing>) -> Result<(Response<Incoming>, Pin<Box<Connection>>), Failure> {
        let authority = &self.credentials.authority;
        let unreachable = |why: String| {
            Failure::new(Kind::Unreachable, what, format!("cannot reach the platform at {authority}: {why}"))
                .next("start one with 'dunlin up', or say where it is with --endpoint or --data")
        };
        let socket = tokio::time::timeout(CONNECT_PATIENCE, TcpStream::connect(authority)).await;
        let socket = socket.map_err(|_| unreachable("no answer".into()))?.map_err(|error| unreachable(error.to_string()))?;
        let _ = socket.set_nodelay(true);
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await;
        let (mut sender, connection) = handshake.map_err(|error| unreachable(error.to_string()))?;
        let mut connection = Box::pin(connection);
        let sending = async { sender.send_request(request).await.map_err(|error| self.lost(what, &error)) };
        let response = beside(&mut connection, sending).await?;
        Ok((response, connection))
    }

    async fn collect(&self, what: &str, response: Response<Incoming>) -> Result<Response<Bytes>, Failure> {
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| self.lost(what, &error))?.to_bytes();
        Ok(Response::from_parts(head, body))
    }

    fn lost(&self, what: &str, error: &hyper::Error) -> Failure {
        let why = format!("the connection to {} was lost: {}", self.credentials.authority, crate::failure::chain(error));
        Failure::new(Kind::Unreachable, what, why)
    }
}

type Connection = hyper::client::conn::http1::Connection<TokioIo<TcpStream>, Outgoing>;

/// Does `work` while the connection carries its bytes. How the connection ends shows in the work.
async fn beside<T>(connection: impl Future + Unpin, work: impl Future<Output = T>) -> T {
    let mut connection = connection;
    tokio::pin!(work);
    let mut open = true;
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = &mut connection, if open => open = false,
        }
    }
}

/// A header's value, if it is there and text.
pub(crate) fn header<'a, T>(response: &'a Response<T>, name: &str) -> Option<&'a str> {
    response.headers().get(name).and_then(|value| value.to_str().ok())
}

/// The platform's refusal in our words: its message, its code, its request id.
fn refused(what: &str, response: &Response<Bytes>, request_id: Option<String>) -> Failure {
    let status = response.status();
    let body: Value = serde_json::from_slice(response.body()).unwrap_or_default();
    let text = |name: &str| body[name].as_str().map(str::to_owned);
    let message = text("Message").unwrap_or_else(|| status.canonical_reason().unwrap_or("no reason given").to_owned());
    let why = match text("Code") {
        Some(code) => format!("{message} ({code})"),
        None => format!("{message} (status {})", status.as_u16()),
    };
    let failure = Failure {
        request_id: request_id.or_else(|| text("RequestId")),
        ..Failure::new(Kind::of_status(status.as_u16()), what, why)
    };
    match status {
        StatusCode::NOT_FOUND if text("Code").is_some_and(|code| code.starts_with("Layer")) => failure.next("dunlin layer ls"),
        StatusCode::NOT_FOUND => failure.next("dunlin fn ls"),
        StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => {
            failure.next("check --data, or DUNLIN_ACCESS_KEY_ID and DUNLIN_ACCESS_KEY_SECRET")
        }
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => failure.next("try again in a moment"),
        StatusCode::INTERNAL_SERVER_ERROR => failure.next("look for the request id in what 'dunlin up' printed"),
        _ => failure,
    }
}
