//! Function URLs: an HTTP request becomes a call of the trigger's function (contract section 9).
//!
//! A built-in runtime gets the request as a JSON event and answers with one ([`event`], [`answer`]). A custom runtime gets the
//! request itself and its response goes back, both streamed ([`pass`]), or the connection itself ([`upgrade`]).
//!
//! The order of the checks is the order of what they cost: the trigger, its switch, cross-origin, the method, sizes, the
//! signature's head, and only then the body.

mod answer;
mod auth;
mod body;
mod cors;
mod event;
mod fields;
mod pass;
mod upgrade;

use std::net::IpAddr;

use bytes::Bytes;
use dunlin_auth::ExpectedBody;
use dunlin_invoke::{Refusal, Reply};
use dunlin_model::{FunctionKey, Invocation, LogType, Origin, Qualifier, RequestId, Target, Trigger};
use dunlin_runtime::{Answer, Payload};
use http::header::UPGRADE;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use tracing::Instrument as _;

use crate::Body;
use crate::doors::Doors;
use crate::error::Problem;
use crate::host::Host;

pub(crate) use body::Room;
pub(crate) use upgrade::Handover;

/// The function URLs behind one door.
pub(crate) struct FunctionUrls<'a> {
    pub(crate) doors: &'a Doors,
    pub(crate) room: &'a Room,
}

/// What is known of a request once its trigger was found.
struct Hit<'a> {
    doors: &'a Doors,
    room: &'a Room,
    request_id: &'a RequestId,
    host: &'a Host,
    peer: IpAddr,
    function_key: &'a FunctionKey,
    /// What the trigger's qualifier means for this call.
    target: Target,
    trigger: &'a Trigger,
}

impl FunctionUrls<'_> {
    /// Answers a request to the function URL with `prefix`.
    pub(crate) async fn call(&self, prefix: &str, host: &Host, request: Request<Incoming>, peer: IpAddr) -> Response<Body> {
        let request_id = RequestId::random();
        let span = tracing::info_span!("gateway", request_id = request_id.as_str(), prefix);
        async {
            let view = self.doors.store.view();
            let Some((function_key, trigger)) = view.trigger_by_prefix(prefix) else {
                return Problem::new(
                    StatusCode::NOT_FOUND,
                    "TriggerNotFound",
                    format!("no function has the URL prefix '{prefix}'"),
                )
                .response(&request_id);
            };
            let trigger = &trigger.value;
            let qualifier = Qualifier::from_wire(Some(&trigger.qualifier));
            let target = match view.resolve(function_key, &qualifier, request_id.chance()) {
                Ok(target) => target,
                Err(unresolved) => return Problem::from(Refusal::from(unresolved)).response(&request_id),
            };
            let hit = Hit {
                doors: self.doors,
                room: self.room,
                request_id: &request_id,
                host,
                peer: peer.to_canonical(),
                function_key,
                target,
                trigger,
            };
            let cors = trigger.http.cors_config.as_ref().and_then(|rules| cors::Cors::of(rules, request.headers()));
            let mut response = match &cors {
                Some(cors) if cors.is_preflight(request.method()) && !trigger.http.disable_url_internet => cors.preflight(),
                _ => hit.serve(request).await.unwrap_or_else(|problem| problem.response(&request_id)),
            };
            if let Some(cors) = &cors {
                cors.allow(response.headers_mut());
            }
            fields::put(response.headers_mut(), "x-fc-request-id", request_id.as_str());
            response
        }
        .instrument(span)
        .await
    }
}

impl Hit<'_> {
    async fn serve(&self, request: Request<Incoming>) -> Result<Response<Body>, Problem> {
        let (head, body) = request.into_parts();
        let limit = self.doors.limits.payload_bytes_max;
        let (log_type, caller) = match self.admit(&head, &body) {
            Ok(admitted) => admitted,
            Err(problem) => {
                body::drain(&head, body, limit).await;
                return Err(problem);
            }
        };
        let invocation = Invocation {
            request_id: self.request_id.clone(),
            function: self.function_key.clone(),
            qualifier: Qualifier::from_wire(Some(&self.trigger.qualifier)),
            target: Some(self.target.clone()),
            origin: Origin::Http,
            trigger: Some(self.trigger.name.to_string()),
            // What a function prints is its owner's: a caller nobody knows does not get to read it.
            log_type: if caller.is_some() { log_type } else { LogType::None },
        };
        let (payload, _share) = if self.passes() {
            let mut request = pass::request(self, head.clone(), body::streamed(body, self.body_limit(), caller));
            if let Some(protocol) = upgrade::asked_for(&head) {
                request.extensions_mut().insert(protocol);
            }
            (Payload::Http(request), None)
        } else if self.target.function().config.streams_requests() {
            let event = event::event(self, &head, &Bytes::new())?;
            (Payload::Streaming(event, body::streamed(body, self.body_limit(), caller)), None)
        } else {
            let (body, share) = body::collected(self.room, body, limit, caller).await?;
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

    /// Everything that can be refused before the body.
    fn admit(&self, head: &Parts, body: &Incoming) -> Result<(LogType, Option<ExpectedBody>), Problem> {
        let log_type = self.check(head, body)?;
        Ok((log_type, auth::check(self, head)?))
    }

    /// Everything that can be refused without a signature as well.
    fn check(&self, head: &Parts, body: &Incoming) -> Result<LogType, Problem> {
        let (limits, method) = (&self.doors.limits, &head.method);
        if self.trigger.http.disable_url_internet {
            return Err(Problem::new(StatusCode::FORBIDDEN, "AccessDenied", "the function's URL is disabled"));
        }
        if !self.trigger.http.serves(method.as_str()) {
            let allowed: Vec<&str> = self.trigger.http.methods.iter().map(|method| method.as_str()).collect();
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
