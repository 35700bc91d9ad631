//! Custom runtimes: the user's own HTTP server (contract section 8).
//!
//! An event becomes `POST /invoke`, hooks become `POST /initialize` and `GET /pre-stop`, and a request that came over
//! HTTP passes through with its method, path, headers and body, both ways streamed.
//!
//! # Invariants
//! - A response is bounded: 8 KB of headers, and 32 MiB of body where the body is collected.
//! - A body that passes through ends by the deadline of its call. Its error is a [`CallError`] then.
//! - A call is over in the log's eyes when its body is: read to the end, failed or dropped.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use dunlin_model::{CellId, CustomHealthCheckConfig, ErrorType, FunctionError};
use dunlin_sandbox::Sandboxes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt, Empty, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use crate::call::{Answer, Answered, Body, BoxError, CallContext};
use crate::error::{CallError, Failed, StartError};
use crate::frame::ANSWER_BYTES_MAX;
use crate::guest::{Cut, InFlight, LoadSpec, Watched};
use crate::http_client::{Connection, Connections, SendError};
use crate::http_headers;
use crate::tunnel::{Tunnel, Upgrade};

/// Bytes of a failing hook's response that go into the error message.
const HOOK_BODY_BYTES_MAX: usize = 64 << 10;
/// How long the end of a cell may stay unknown after its server stopped answering.
const END_GRACE: Duration = Duration::from_millis(500);

/// The user's server in one cell.
pub(crate) struct Server {
    connections: Arc<Connections>,
    common: HeaderMap,
    host: HeaderValue,
    health: Option<CustomHealthCheckConfig>,
    watched: Arc<Watched>,
    /// A call ran out of time: the server may still be busy with it.
    spent: Arc<AtomicBool>,
    /// Whether the server takes several calls at a time, so that one that was given up is no reason to give it up.
    concurrent: bool,
}

impl Server {
    pub(crate) fn new(sandboxes: Arc<dyn Sandboxes>, cell: CellId, spec: &LoadSpec, watched: Arc<Watched>) -> Self {
        let config = &spec.function.config;
        let custom = config.server_in_force();
        let port = custom.port_in_force();
        let keep_max = config.concurrency_in_force() as usize;
        Self {
            connections: Arc::new(Connections::new(sandboxes, cell, port, keep_max)),
            common: http_headers::common(spec),
            host: HeaderValue::try_from(format!("127.0.0.1:{port}")).expect("an address is a header's value"),
            health: custom.health_check_config.filter(|health| health.http_get_url.as_deref().is_some_and(|url| !url.is_empty())),
            watched,
            spent: Arc::default(),
            concurrent: config.concurrency_in_force() > 1,
        }
    }

    pub(crate) fn is_spent(&self) -> bool {
        self.spent.load(Ordering::Relaxed)
    }

    /// No call is in flight, and the server is about to stand still.
    pub(crate) fn rest(&self) {
        self.connections.close_idle();
    }

    /// Waits until the server listens and, when a check is configured, is healthy. The caller has the deadline.
    pub(crate) async fn up(&self) -> Result<(), StartError> {
        self.connections.wait_for_port().await?;
        match &self.health {
            Some(health) => self.healthy(health).await,
            None => Ok(()),
        }
    }

    async fn healthy(&self, health: &CustomHealthCheckConfig) -> Result<(), StartError> {
        let whole = |given: Option<i64>, default: u64| given.and_then(|value| u64::try_from(value).ok()).unwrap_or(default);
        let seconds = |given, default| Duration::from_secs(whole(given, default));
        let url = health.http_get_url.as_deref().unwrap_or("/");
        let url = if url.starts_with('/') { url.to_owned() } else { format!("/{url}") };
        let refused = |what: String| {
            StartError::Function(FunctionError::worded(ErrorType::InitializationError, Some("HealthCheckFailed"), &what))
        };
        let uri = Uri::try_from(&url).map_err(|_| refused(format!("The health check's path '{url}' is no path")))?;
        tokio::time::sleep(seconds(health.initial_delay_seconds, 0)).await;
        let (mut good, mut bad) = (0, 0);
        loop {
            let mut request = Request::new(empty());
            *request.uri_mut() = uri.clone();
            request.headers_mut().insert(header::HOST, self.host.clone());
            request.headers_mut().extend(self.common.clone());
            let seen =
                match tokio::time::timeout(seconds(health.timeout_seconds, 1), self.send_collected(request, HOOK_BODY_BYTES_MAX))
                    .await
                {
                    Ok(Ok(response)) if response.status().is_success() || response.status().is_redirection() => None,
                    Ok(Ok(response)) => Some(format!("it answered status {}", response.status().as_u16())),
                    Ok(Err(Failure::Send(SendError::Socket(error)))) => return Err(StartError::Sandbox(error)),
                    Ok(Err(failure)) => Some(failure.to_string()),
                    Err(_) => Some("it did not answer in time".to_owned()),
                };
            match seen {
                None => (good, bad) = (good + 1, 0),
                Some(_) => (good, bad) = (0, bad + 1),
            }
            if good >= whole(health.success_threshold, 1) {
                return Ok(());
            }
            if let Some(why) = seen.filter(|_| bad >= whole(health.failure_threshold, 3)) {
                return Err(refused(format!("The health check GET {url} failed {bad} times: {why}")));
            }
            tokio::time::sleep(seconds(health.period_seconds, 3)).await;
        }
    }

    pub(crate) async fn initialize(&self, call: &CallContext, deadline: Instant) -> Result<Vec<u8>, Failed<CallError>> {
        self.hook(call, Method::POST, "/initialize", deadline).await
    }

    pub(crate) async fn pre_stop(&self, call: &CallContext, deadline: Instant) -> Result<Vec<u8>, Failed<CallError>> {
        self.hook(call, Method::GET, "/pre-stop", deadline).await
    }

    async fn hook(
        &self,
        call: &CallContext,
        method: Method,
        path: &'static str,
        deadline: Instant,
    ) -> Result<Vec<u8>, Failed<CallError>> {
        let in_flight = InFlight::begin(&self.watched.output, &call.request_id, call.capture_tail);
        let request = self.own_request(call, method, path, Bytes::new());
        let result = self.bounded(deadline, self.send_collected(request, HOOK_BODY_BYTES_MAX)).await;
        let response = match result {
            Ok(response) if response.status().is_success() => return Ok(in_flight.end()),
            Ok(response) => response,
            Err(error) => return Err(in_flight.fail(error)),
        };
        let body = String::from_utf8_lossy(&response.body()[..response.body().len().min(4 << 10)]).into_owned();
        let message = format!("{path} answered status {}: {body}", response.status().as_u16());
        Err(in_flight.fail(CallError::Function(FunctionError::worded(ErrorType::InitializationError, None, &message))))
    }

    /// An event in, a result out.
    pub(crate) async fn invoke(
        &self,
        call: &CallContext,
        event: Bytes,
        deadline: Instant,
    ) -> Result<Answered, Failed<CallError>> {
        let in_flight = InFlight::begin(&self.watched.output, &call.request_id, call.capture_tail);
        let request = self.own_request(call, Method::POST, "/invoke", event);
        let result = self.bounded(deadline, self.send_collected(request, ANSWER_BYTES_MAX)).await;
        let (head, body) = match result {
            Ok(response) => response.into_parts(),
            Err(error) => return Err(in_flight.fail(error)),
        };
        // The mark says it when there is one, whatever the status is.
        let good = http_headers::status_mark(&head.headers).unwrap_or(head.status.as_u16()) == 200;
        if good {
            Ok(Answered { answer: Answer::Event(body), log_tail: in_flight.end() })
        } else {
            let error = FunctionError { error_type: ErrorType::UnhandledInvocationError, body: body.into() };
            Err(in_flight.fail(CallError::Function(error)))
        }
    }

    /// A request in, a response out, both as they are.
    pub(crate) async fn pass_through(
        &self,
        call: &CallContext,
        request: Request<Body>,
        deadline: Instant,
    ) -> Result<Answered, Failed<CallError>> {
        let in_flight = InFlight::begin(&self.watched.output, &call.request_id, call.capture_tail);
        let (mut head, body) = request.into_parts();
        let upgrade = head.extensions.remove::<Upgrade>();
        head.version = http::Version::HTTP_11;
        head.extensions.clear();
        head.uri = head.uri.path_and_query().map_or_else(|| Uri::from_static("/"), |path| Uri::from(path.clone()));
        http_headers::clean_request(&mut head.headers);
        http_headers::add_common(&mut head.headers, &self.common, call, "/http-invoke");
        head.headers.entry(header::HOST).or_insert_with(|| self.host.clone());
        if let Some(Upgrade(protocol)) = &upgrade {
            head.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            head.headers.insert(header::UPGRADE, protocol.clone());
        }
        let sent = async { self.connections.send(Request::from_parts(head, body)).await.map_err(Failure::Send) };
        let (response, connection) = match self.bounded(deadline, sent).await {
            Ok(sent) => sent,
            Err(error) => return Err(in_flight.fail(error)),
        };
        if let Some(Upgrade(protocol)) = upgrade.filter(|_| response.status() == StatusCode::SWITCHING_PROTOCOLS) {
            return self.changed_protocol(response, &protocol, deadline, in_flight).await;
        }
        let (mut head, incoming) = response.into_parts();
        if head.status.as_u16() < 200 || head.status.as_u16() > 599 {
            return Err(in_flight.fail(CallError::BadResponse(format!("status {}", head.status.as_u16()))));
        }
        let mark = http_headers::status_mark(&head.headers);
        if let Err(bytes) = http_headers::clean_response(&mut head.headers) {
            return Err(in_flight.fail(CallError::BadResponse(format!("response headers of {bytes} bytes"))));
        }
        let mut passed = Response::new(Body::new(PassedBody {
            incoming,
            deadline: Box::pin(tokio::time::sleep_until(deadline)),
            connection: Some((connection, Arc::clone(&self.connections))),
            in_flight: Some(in_flight),
            watched: Arc::clone(&self.watched),
            spent: Arc::clone(&self.spent),
            over: false,
        }));
        *passed.status_mut() = head.status;
        *passed.headers_mut() = head.headers;
        if let Some(status) = mark.and_then(|status| StatusCode::from_u16(status).ok()) {
            passed.extensions_mut().insert(crate::call::MarkedStatus(status));
        }
        Ok(Answered { answer: Answer::Http(passed), log_tail: Vec::new() })
    }

    /// The server agreed to another protocol.
    async fn changed_protocol(
        &self,
        mut response: Response<Incoming>,
        protocol: &HeaderValue,
        deadline: Instant,
        in_flight: InFlight,
    ) -> Result<Answered, Failed<CallError>> {
        let named = response.headers().get(header::UPGRADE);
        if !named.is_some_and(|named| named.as_bytes().eq_ignore_ascii_case(protocol.as_bytes())) {
            return Err(in_flight.fail(CallError::BadResponse("a change to a protocol that was not asked for".to_owned())));
        }
        let taken = hyper::upgrade::on(&mut response);
        let failed = |error: hyper::Error| Failure::Body(error.to_string());
        let server = match self.bounded(deadline, async { taken.await.map_err(failed) }).await {
            Ok(server) => server,
            Err(error) => return Err(in_flight.fail(error)),
        };
        let (mut head, _) = response.into_parts();
        if let Err(bytes) = http_headers::clean_response(&mut head.headers) {
            return Err(in_flight.fail(CallError::BadResponse(format!("response headers of {bytes} bytes"))));
        }
        head.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(header::UPGRADE, protocol.clone());
        let mut passed = Response::new(());
        *passed.status_mut() = head.status;
        *passed.headers_mut() = head.headers;
        let tunnel = Tunnel::new(server, deadline, in_flight, Arc::clone(&self.watched), Arc::clone(&self.spent));
        Ok(Answered { answer: Answer::Upgraded(passed, tunnel), log_tail: Vec::new() })
    }

    /// A request the platform makes itself.
    fn own_request(&self, call: &CallContext, method: Method, path: &'static str, body: Bytes) -> Request<Body> {
        let mut request =
            Request::new(if body.is_empty() { empty() } else { Full::new(body).map_err(|never| match never {}).boxed_unsync() });
        *request.method_mut() = method;
        *request.uri_mut() = Uri::from_static(path);
        http_headers::add_common(request.headers_mut(), &self.common, call, path);
        request.headers_mut().insert(header::HOST, self.host.clone());
        if path == "/invoke" {
            request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        }
        request
    }

    async fn send_collected(&self, request: Request<Body>, limit: usize) -> Result<Response<Bytes>, Failure> {
        let (response, connection) = self.connections.send(request).await.map_err(Failure::Send)?;
        let (mut head, incoming) = response.into_parts();
        let mark = head.headers.remove(http_headers::STATUS_MARK);
        http_headers::clean_response(&mut head.headers).map_err(Failure::Headers)?;
        if let Some(mark) = mark {
            head.headers.insert(http_headers::STATUS_MARK, mark);
        }
        let body = Limited::new(incoming, limit).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() { Failure::TooLarge(limit) } else { Failure::Body(error.to_string()) }
        })?;
        self.connections.keep(connection);
        Ok(Response::from_parts(head, body.to_bytes()))
    }

    /// Waits for the server, no longer than the deadline and the cell's life, and words what went wrong.
    async fn bounded<T>(&self, deadline: Instant, future: impl Future<Output = Result<T, Failure>>) -> Result<T, CallError> {
        let mut unfinished = SpentUnlessFinished { spent: &self.spent, finished: self.concurrent };
        let result = self.watched.until(deadline, future).await;
        unfinished.finished = !matches!(result, Err(Cut::Deadline) | Ok(Err(Failure::TooLarge(_))));
        self.watched.peak.look();
        let failure = match result {
            Ok(Ok(value)) => return Ok(value),
            Err(Cut::Deadline) => return Err(CallError::TimedOut),
            Err(Cut::Ended(ended)) => return Err(CallError::Exited(ended)),
            Ok(Err(Failure::TooLarge(limit))) => return Err(CallError::TooLarge { limit }),
            Ok(Err(failure)) => failure,
        };
        // A broken connection is most often a dead server: then that is the news.
        match self.watched.end_within(END_GRACE).await {
            // Nobody took the connection, so nobody has read the call.
            Some(_) if matches!(failure, Failure::Send(SendError::Connect(_) | SendError::Socket(_))) => {
                Err(CallError::NotDelivered)
            }
            Some(ended) => Err(CallError::Exited(ended)),
            None => Err(CallError::BadResponse(failure.to_string())),
        }
    }
}

/// Why there is no whole response.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Send(SendError),
    #[error("response headers of {0} bytes")]
    Headers(usize),
    #[error("the response's body broke off: {0}")]
    Body(String),
    #[error("a response over {0} bytes")]
    TooLarge(usize),
}

struct SpentUnlessFinished<'s> {
    spent: &'s AtomicBool,
    finished: bool,
}

impl Drop for SpentUnlessFinished<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.spent.store(true, Ordering::Relaxed);
        }
    }
}

fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// The body of a response that passes through.
struct PassedBody {
    incoming: Incoming,
    deadline: Pin<Box<Sleep>>,
    connection: Option<(Connection, Arc<Connections>)>,
    in_flight: Option<InFlight>,
    watched: Arc<Watched>,
    spent: Arc<AtomicBool>,
    over: bool,
}

impl PassedBody {
    /// The call is over. The connection is good for another only when the response was read to its end.
    fn finish(&mut self, whole: bool) {
        self.over = true;
        if let Some((connection, connections)) = self.connection.take()
            && whole
        {
            connections.keep(connection);
        }
        if let Some(in_flight) = self.in_flight.take() {
            in_flight.end();
            self.watched.peak.look();
        }
    }
}

impl http_body::Body for PassedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if this.over {
            return Poll::Ready(None);
        }
        if this.deadline.as_mut().poll(cx).is_ready() {
            this.spent.store(true, Ordering::Relaxed);
            this.finish(false);
            return Poll::Ready(Some(Err(Box::new(CallError::TimedOut))));
        }
        match ready!(Pin::new(&mut this.incoming).poll_frame(cx)) {
            Some(Ok(frame)) => {
                if this.incoming.is_end_stream() {
                    this.finish(true);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                this.finish(false);
                let error = CallError::BadResponse(format!("the response's body broke off: {error}"));
                Poll::Ready(Some(Err(Box::new(error))))
            }
            None => {
                this.finish(true);
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for PassedBody {
    fn drop(&mut self) {
        if !self.over {
            // An empty body is at its end without ever being polled.
            let whole = self.incoming.is_end_stream();
            // A caller that hangs up is everyday HTTP: the server sees its connection close and is fit for the next.
            self.finish(whole);
        }
    }
}
