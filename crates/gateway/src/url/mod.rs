//! Function URLs and custom domains: an HTTP request becomes a call of a function (contract section 9).
//!
//! A built-in runtime gets the request as a JSON event and answers with one ([`event`], [`answer`]). A custom runtime gets the
//! request itself and its response goes back, both streamed ([`pass`]), or the connection itself ([`upgrade`]).
//!
//! Where the two differ is the [`entrance`]: who is called, who may call, and what becomes of the path.
//!
//! The order of the checks is the order of what they cost: the entrance, its switch, cross-origin, the method, sizes, the
//! signature's head, and only then the body.

mod answer;
mod auth;
mod body;
mod cors;
mod entrance;
mod event;
mod fields;
mod jwt;
mod keys;
mod pass;
mod upgrade;

use std::net::IpAddr;

use bytes::Bytes;
use dunlin_auth::Claims;
use dunlin_invoke::{Refusal, Reply, session_of};
use dunlin_model::domain::{Routed, canonical_path};
use dunlin_model::{AccountScope, FunctionKey, InvalidField, Invocation, LogType, Origin, Qualifier, RequestId, Target};
use dunlin_runtime::{Answer, Payload};
use http::header::UPGRADE;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body::Body as _;
use hyper::body::Incoming;
use tracing::Instrument as _;

use self::auth::Caller;
use self::entrance::{Auth, Entrance};
use crate::Body;
use crate::doors::Doors;
use crate::error::Problem;
use crate::host::Host;

pub(crate) use body::Room;
pub(crate) use entrance::Ready;
pub(crate) use upgrade::Handover;

/// The functions behind one door.
pub(crate) struct Functions<'a> {
    pub(crate) doors: &'a Doors,
    pub(crate) room: &'a Room,
    pub(crate) ready: &'a Ready,
}

/// What is known of a request once its way in was found.
struct Hit<'a> {
    doors: &'a Doors,
    room: &'a Room,
    request_id: &'a RequestId,
    host: &'a Host,
    peer: IpAddr,
    function_key: &'a FunctionKey,
    /// What the entrance's qualifier means for this call.
    target: Target,
    entrance: Entrance<'a>,
}

impl Functions<'_> {
    /// Answers a request to the function URL with `prefix`.
    pub(crate) async fn by_prefix(&self, prefix: &str, host: &Host, request: Request<Incoming>, peer: IpAddr) -> Response<Body> {
        let request_id = RequestId::random();
        let span = tracing::info_span!("gateway", request_id = request_id.as_str(), prefix);
        async {
            let view = self.doors.store.view();
            let Some((function_key, trigger)) = view.trigger_by_prefix(prefix) else {
                let message = format!("no function has the URL prefix '{prefix}'");
                return Problem::new(StatusCode::NOT_FOUND, "TriggerNotFound", message).response(&request_id);
            };
            match self.ready.auth(trigger) {
                Ok(auth) => {
                    let entrance = Entrance::trigger(&trigger.value, auth);
                    self.through(&request_id, function_key, entrance, host, request, peer).await
                }
                Err(invalid) => not_ready(&invalid).response(&request_id),
            }
        }
        .instrument(span)
        .await
    }

    /// Answers a request to the custom domain that the host is; nothing when it is none.
    pub(crate) async fn by_domain(
        &self,
        host: &Host,
        is_tls: bool,
        request: Request<Incoming>,
        peer: IpAddr,
    ) -> Result<Response<Body>, Request<Incoming>> {
        let view = self.doors.store.view();
        let Some((key, stored)) = view.domain_by_name(host.name()) else { return Err(request) };
        let request_id = RequestId::random();
        let span = tracing::info_span!("gateway", request_id = request_id.as_str(), domain = host.name());
        let domain = &stored.value;
        let answer = async {
            if !is_tls && !domain.protocol.serves_http() {
                return Err(Problem::new(StatusCode::FORBIDDEN, "AccessDenied", "this domain is served over https:// only"));
            }
            let ready = self.ready.domain(self.doors, stored).map_err(|invalid| not_ready(&invalid))?;
            let path = canonical_path(request.uri().path())
                .ok_or_else(|| Problem::invalid("the path has a malformed percent-escape"))?;
            // A preflight asks on behalf of another method; any route of the path will do for an answer.
            let cors = domain.cors_config.as_ref().and_then(|rules| cors::Cors::of(rules, request.headers()));
            if let Some(cors) = cors.filter(|cors| cors.is_preflight(request.method())) {
                let mut response = cors.preflight();
                cors.allow(response.headers_mut());
                return Ok(response);
            }
            let route = match ready.table.find(&path, request.method().as_str()) {
                Routed::To(route) => route,
                Routed::OtherMethods(methods) => {
                    let allowed: Vec<&str> = methods.iter().map(|method| method.as_str()).collect();
                    return Err(Problem::method_not_allowed(request.method().as_str(), allowed.join(", ")));
                }
                Routed::Nowhere => {
                    let message = format!("no route of domain {} leads to {}", domain.domain_name, request.uri().path());
                    return Err(Problem::new(StatusCode::NOT_FOUND, "PathNotSupported", message));
                }
            };
            let function_key = AccountScope::of_domain(key).function(route.function.clone());
            let entrance = Entrance::route(domain, route, ready.auth.clone());
            Ok(self.through(&request_id, &function_key, entrance, host, request, peer).await)
        };
        let mut response = answer.instrument(span).await.unwrap_or_else(|problem: Problem| problem.response(&request_id));
        fields::put(response.headers_mut(), "x-fc-request-id", request_id.as_str());
        Ok(response)
    }

    /// Answers a request whose way in was found.
    async fn through(
        &self,
        request_id: &RequestId,
        function_key: &FunctionKey,
        entrance: Entrance<'_>,
        host: &Host,
        request: Request<Incoming>,
        peer: IpAddr,
    ) -> Response<Body> {
        let resolved = self.doors.store.view().resolve(function_key, &entrance.qualifier, request_id.chance());
        let target = match resolved {
            Ok(target) => target,
            Err(unresolved) => return Problem::from(Refusal::from(unresolved)).response(request_id),
        };
        let target = self.session_target(function_key, &entrance, &target, &request).unwrap_or(target);
        let peer = peer.to_canonical();
        let hit = Hit { doors: self.doors, room: self.room, request_id, host, peer, function_key, target, entrance };
        let cors = hit.entrance.cors.and_then(|rules| cors::Cors::of(rules, request.headers()));
        let mut response = match &cors {
            Some(cors) if cors.is_preflight(request.method()) && !hit.entrance.is_disabled => cors.preflight(),
            _ => hit.serve(request).await.unwrap_or_else(|problem| problem.response(request_id)),
        };
        if let Some(cors) = &cors {
            cors.allow(response.headers_mut());
        }
        fields::put(response.headers_mut(), "x-fc-request-id", request_id.as_str());
        response
    }

    /// What a call means that says it belongs to a session, where that is not what its qualifier means: an alias is asked
    /// once for each session.
    fn session_target(
        &self,
        function: &FunctionKey,
        entrance: &Entrance<'_>,
        target: &Target,
        request: &Request<Incoming>,
    ) -> Option<Target> {
        let Qualifier::Named(_) = &entrance.qualifier else { return None };
        let rules = target.function().config.sessions()?;
        let ask = session_of(&rules, request.method(), Some(request.uri()), request.headers()).ok()?;
        self.doors.calls.session_target(function, &entrance.qualifier, &ask)
    }
}

/// What is stored was checked when it was written: that it is of no use now is nobody's fault but the platform's.
fn not_ready(invalid: &InvalidField) -> Problem {
    tracing::error!(%invalid, "a stored entrance cannot be made ready");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", "the platform failed to read what was configured here")
}

impl Hit<'_> {
    async fn serve(&self, request: Request<Incoming>) -> Result<Response<Body>, Problem> {
        let (mut head, body) = request.into_parts();
        let limit = self.doors.limits.payload_bytes_max;
        let admitted = match self.check(&head, &body) {
            Ok(log_type) => auth::check(self, &head).await.map(|caller| (log_type, caller)),
            Err(problem) => Err(problem),
        };
        let (log_type, Caller { signed, claims }) = match admitted {
            Ok(admitted) => admitted,
            Err(problem) => {
                body::drain(&head, body, limit).await;
                return Err(problem);
            }
        };
        if let Err(problem) = self.tell(&mut head, claims.as_ref()) {
            body::drain(&head, body, limit).await;
            return Err(problem);
        }
        let session = match self.target.function().config.sessions() {
            None => None,
            Some(rules) => match session_of(&rules, &head.method, Some(&head.uri), &head.headers) {
                Ok(ask) => Some(ask),
                Err(invalid) => {
                    body::drain(&head, body, limit).await;
                    return Err(Problem::invalid(invalid.to_string()));
                }
            },
        };
        let invocation = Invocation {
            request_id: self.request_id.clone(),
            function: self.function_key.clone(),
            qualifier: self.entrance.qualifier.clone(),
            target: Some(self.target.clone()),
            origin: Origin::Http,
            trigger: Some(self.entrance.name.clone()),
            // What a function prints is its owner's: a caller nobody knows does not get to read it.
            log_type: if signed.is_some() { log_type } else { LogType::None },
            session,
        };
        let (payload, _share) = if self.passes() {
            let mut request = pass::request(self, head.clone(), body::streamed(body, self.body_limit(), signed));
            if let Some(protocol) = upgrade::asked_for(&head) {
                request.extensions_mut().insert(protocol);
            }
            (Payload::Http(request), None)
        } else if self.target.function().config.streams_requests() {
            let event = event::event(self, &head, &Bytes::new())?;
            (Payload::Streaming(event, body::streamed(body, self.body_limit(), signed)), None)
        } else {
            let (body, share) = body::collected(self.room, body, limit, signed).await?;
            // The share is held until the call has ended: so long the event is in memory.
            (Payload::Event(event::event(self, &head, &body)?), share)
        };
        let reply = self.doors.calls.call(invocation, payload).await?;
        self.answer(reply, &head.method).await
    }

    /// Whether the request itself goes to the function, as it is.
    fn passes(&self) -> bool {
        self.target.function().config.runtime.protocol().passes_requests()
    }

    /// Most bytes of a request's body. One that streams is never held, so that it may be larger.
    fn body_limit(&self) -> usize {
        let limits = &self.doors.limits;
        let streams = self.passes() || self.target.function().config.streams_requests();
        if streams { limits.streamed_bytes_max } else { limits.payload_bytes_max }
    }

    /// Everything that can be refused without knowing the caller.
    fn check(&self, head: &Parts, body: &Incoming) -> Result<LogType, Problem> {
        let (limits, method) = (&self.doors.limits, &head.method);
        if self.entrance.is_disabled {
            return Err(Problem::new(StatusCode::FORBIDDEN, "AccessDenied", "the function's URL is disabled"));
        }
        if !self.entrance.serves(method.as_str()) {
            let allowed: Vec<&str> = self.entrance.methods.iter().map(|method| method.as_str()).collect();
            return Err(Problem::method_not_allowed(method.as_str(), allowed.join(", ")));
        }
        let header_bytes: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        if header_bytes > limits.header_bytes_max {
            return Err(Problem::invalid(format!(
                "the headers are larger than {} bytes (actual: {header_bytes})",
                limits.header_bytes_max
            )));
        }
        let target_bytes = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
        if target_bytes > limits.path_bytes_max {
            return Err(Problem::invalid(format!(
                "the path is longer than {} bytes (actual: {target_bytes})",
                limits.path_bytes_max
            )));
        }
        if !fields::is_well_escaped(head.uri.path()) {
            return Err(Problem::invalid("the path has a malformed percent-escape"));
        }
        if body.size_hint().lower() > self.body_limit() as u64 {
            return Err(body::too_large(self.body_limit()));
        }
        if head.headers.contains_key(UPGRADE) {
            upgrade::check(head, body, self.passes())?;
        }
        match fields::one(&head.headers, "x-fc-invocation-type")? {
            None | Some("Sync") => {}
            Some("Async") => {
                return Err(Problem::invalid(
                    "asynchronous calls are not supported by function URLs; leave x-fc-invocation-type out",
                ));
            }
            Some(other) => {
                return Err(Problem::invalid(format!(
                    "InvocationType is set to an invalid value (allowed: Sync | Async, actual: '{other}')"
                )));
            }
        }
        match fields::one(&head.headers, "x-fc-log-type")? {
            None | Some("None") => Ok(LogType::None),
            Some("Tail") => Ok(LogType::Tail),
            Some(other) => {
                Err(Problem::invalid(format!("LogType is set to an invalid value (allowed: Tail | None, actual: '{other}')")))
            }
        }
    }

    /// Makes the head what the function gets: rewritten as the route says, with what the caller's token says. Whatever was
    /// decided before was decided about the head as it came.
    fn tell(&self, head: &mut Parts, claims: Option<&Claims>) -> Result<(), Problem> {
        let rewritten = self.entrance.rewrite.and_then(|rewrite| rewrite.apply(head.uri.path(), head.uri.query()));
        if let Some(target) = rewritten {
            let limit = self.doors.limits.path_bytes_max;
            if target.len() > limit {
                let problem = format!("the path is longer than {limit} bytes when it is rewritten (actual: {})", target.len());
                return Err(Problem::invalid(problem));
            }
            match target.parse::<Uri>() {
                Ok(uri) if uri.authority().is_none() && fields::is_well_escaped(uri.path()) => head.uri = uri,
                _ => return Err(Problem::invalid("the path cannot be rewritten as the route says")),
            }
        }
        match &self.entrance.auth {
            Auth::Jwt(jwt) => jwt.tell(head, claims),
            Auth::Anonymous | Auth::Function => Ok(()),
        }
    }

    async fn answer(&self, reply: Reply, method: &Method) -> Result<Response<Body>, Problem> {
        let streamed = matches!(reply.result, Ok(Answer::Http(_) | Answer::Streamed(..) | Answer::Upgraded(..)));
        let facts = fields::Facts::of(&reply, streamed);
        let made = match reply.result {
            Ok(Answer::Event(value)) => answer::response(&value, self.host.name(), method),
            Ok(Answer::Streamed(head, body)) => {
                answer::streamed(&head, body, self.host.name(), method, self.doors.limits.payload_bytes_max).await
            }
            Ok(Answer::Http(response)) => pass::response(response, self.host.name()),
            Ok(Answer::Upgraded(head, tunnel)) => upgrade::response(head, tunnel, self.host.name()),
            Err(error) => Ok(answer::function_error(&error)),
        };
        // A response nobody can use still ran somewhere and took its time.
        let mut response = made.unwrap_or_else(|problem| problem.response(self.request_id));
        facts.put(response.headers_mut());
        Ok(response)
    }
}
