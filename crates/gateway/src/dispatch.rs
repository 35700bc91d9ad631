//! Which room a request is for, decided before any of its body is read.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use dunlin_model::RequestId;
use dunlin_tls::ServerConfig;
use http::header::{CONTENT_TYPE, EXPECT, HOST, HeaderValue, UPGRADE};
use http::{Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;

use crate::doors::Doors;
use crate::error::Problem;
use crate::framing::Violation;
use crate::host::Host;
use crate::url::{Functions, Ready, Room};
use crate::{Body, full};

/// The two ends of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) remote: SocketAddr,
    pub(crate) local: SocketAddr,
    /// The name that the handshake was for; nothing without TLS.
    pub(crate) tls: Option<Arc<str>>,
}

/// Sends each request to its room.
pub(crate) struct Dispatch {
    doors: Doors,
    /// `.fn.{domain}`.
    url_suffix: String,
    room: Room,
    ready: Ready,
}

impl Dispatch {
    pub(crate) fn new(mut doors: Doors, body_bytes_max: usize) -> Self {
        doors.domain = doors.domain.trim_matches('.').to_ascii_lowercase();
        let url_suffix = format!(".fn.{}", doors.domain);
        Self { doors, url_suffix, room: Room::new(body_bytes_max), ready: Ready::default() }
    }

    /// The last answer on a connection whose input broke a rule.
    #[expect(clippy::unused_self, reason = "everything the door answers is answered here")]
    pub(crate) fn refuse(&self, violation: Violation) -> Response<Body> {
        Problem::from(violation).response(&RequestId::random())
    }

    /// Answers one request.
    pub(crate) async fn request(&self, mut request: Request<Incoming>, peer: &Peer) -> Response<Body> {
        let host = match check(&mut request) {
            Ok(host) => host,
            Err(problem) => return problem.response(&RequestId::random()),
        };
        let functions = Functions { doors: &self.doors, room: &self.room, ready: &self.ready };
        if let Some(name) = &peer.tls {
            // One certificate vouches for one name, and its domain's versions of TLS were spoken for that name.
            if host.name() != &**name {
                let message = format!("the connection was made for {name}; connect anew for another host");
                return Problem::new(StatusCode::MISDIRECTED_REQUEST, "InvalidArgument", message)
                    .closing()
                    .response(&RequestId::random());
            }
            return match functions.by_domain(&host, true, request, peer.remote.ip()).await {
                Ok(response) => response,
                // It was there at the handshake.
                Err(request) => nothing(&host, &request).closing().response(&RequestId::random()),
            };
        }
        if let Some(prefix) = host.name().strip_suffix(&self.url_suffix) {
            // A function's own server may agree to another protocol.
            return functions.by_prefix(prefix, &host, request, peer.remote.ip()).await;
        }
        let own = self.is_own(&host, peer);
        if !own {
            // Before signatures: those of a domain's own callers are the domain's to check.
            request = match functions.by_domain(&host, false, request, peer.remote.ip()).await {
                Ok(response) => return response,
                Err(request) => request,
            };
        }
        if request.headers().contains_key(UPGRADE) {
            return Problem::invalid("a change of protocol is not served here; leave the Upgrade header out")
                .closing()
                .response(&RequestId::random());
        }
        let path = request.uri().path();
        if is_signed(&request) || (own && (path.starts_with("/2023-03-30/") || path.starts_with("/-/code/"))) {
            return self.doors.api.handle(request, peer.remote.ip()).await;
        }
        if own && path.starts_with("/-/") {
            return self.about(&request);
        }
        nothing(&host, &request).response(&RequestId::random())
    }

    /// What a handshake for `name` is answered with.
    pub(crate) fn tls(&self, name: &str) -> Option<Arc<ServerConfig>> {
        let view = self.doors.store.view();
        let (_, stored) = view.domain_by_name(name)?;
        match self.ready.domain(&self.doors, stored) {
            Ok(ready) => ready.tls.clone(),
            Err(invalid) => {
                tracing::error!(domain = name, %invalid, "a stored domain cannot be made ready");
                None
            }
        }
    }

    /// Whether the host is a name of this listener. The platform's own paths are served under these only, so that a
    /// page of somebody else's whose name resolves to here cannot reach them.
    fn is_own(&self, host: &Host, peer: &Peer) -> bool {
        let name = host.name();
        name == self.doors.domain
            || name == "localhost"
            || self.doors.names.iter().any(|own| own.eq_ignore_ascii_case(name))
            || host.address().is_some_and(|address| address == canonical(peer.local.ip()))
    }

    fn about(&self, request: &Request<Incoming>) -> Response<Body> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Problem::method_not_allowed(request.method().as_str(), "GET, HEAD".into()).response(&RequestId::random());
        }
        match request.uri().path() {
            "/-/ready" => match self.doors.status.ready() {
                Ok(()) => text(StatusCode::OK, "text/plain; charset=utf-8", "ready\n".into()),
                Err(missing) => {
                    text(StatusCode::SERVICE_UNAVAILABLE, "text/plain; charset=utf-8", format!("not ready: {missing}\n"))
                }
            },
            "/-/metrics" => {
                text(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", self.doors.status.metrics())
            }
            path => Problem::new(StatusCode::NOT_FOUND, "PathNotSupported", format!("nothing is served at {path}"))
                .response(&RequestId::random()),
        }
    }
}

fn nothing(host: &Host, request: &Request<Incoming>) -> Problem {
    let message = format!("nothing is served at {} of host {}", request.uri().path(), host.name());
    Problem::new(StatusCode::NOT_FOUND, "PathNotSupported", message)
}

/// Brings the request into the one form the rooms know, or says why it has none: one `Host`, a path, a known method,
/// no other protocol.
fn check(request: &mut Request<Incoming>) -> Result<Host, Problem> {
    let method = request.method();
    let known = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS];
    if !known.contains(method) {
        let allowed = known.map(|method| method.to_string()).join(", ");
        return Err(Problem::method_not_allowed(method.as_str(), allowed).closing());
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => {
            Host::parse(host.as_bytes()).ok_or_else(|| Problem::invalid("the Host header is malformed").closing())?
        }
        (None, _) => return Err(Problem::invalid("the Host header is missing").closing()),
        (Some(_), Some(_)) => return Err(Problem::invalid("there is more than one Host header").closing()),
    };
    if let Some(authority) = request.uri().authority() {
        if Host::parse(authority.as_str().as_bytes()).as_ref() != Some(&host) {
            return Err(Problem::invalid("the request target and the Host header name different hosts").closing());
        }
        *request.uri_mut() = origin_form(request.uri())?;
    }
    if !request.uri().path().starts_with('/') {
        return Err(Problem::invalid("the request target is not a path").closing());
    }
    if request.headers().get(EXPECT).is_some_and(|expected| !expected.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return Err(
            Problem::new(StatusCode::EXPECTATION_FAILED, "InvalidArgument", "only 'Expect: 100-continue' is served").closing()
        );
    }
    Ok(host)
}

fn origin_form(uri: &Uri) -> Result<Uri, Problem> {
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(Problem::invalid("the request target is of another scheme").closing());
    }
    let target = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    target.parse().map_err(|_| Problem::invalid("the request target is malformed").closing())
}

/// Whether the client speaks the signed API's dialect, judged by headers only: a path never decides against a signature.
fn is_signed(request: &Request<Incoming>) -> bool {
    let headers = request.headers();
    headers.contains_key("x-acs-action")
        || headers.contains_key("x-acs-version")
        || headers.get(http::header::AUTHORIZATION).is_some_and(|value| value.as_bytes().starts_with(b"ACS3-"))
}

fn text(status: StatusCode, content_type: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(full(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// An IPv4 address in IPv6 clothes is the IPv4 address.
pub(crate) fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}
