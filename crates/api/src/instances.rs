//! Calls, instances and regions.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dunlin_control::{Error as ControlError, InstanceFilter};
use dunlin_invoke::{Refusal, Reply, session_of};
use dunlin_model::{FunctionKey, FunctionName, Invocation, LogType, Origin, Phases, Qualifier, SessionAsk, Target};
use dunlin_runtime::{Answer, Body, Payload};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, HeaderName, Method, Response};
use serde_json::{Value, json};

use crate::api::{Api, Asked, full, json as answer};
use crate::error::ApiError;
use crate::query::printable;
use crate::wire;

impl Api {
    /// Contract section 5.
    pub(crate) async fn invoke_function(&self, asked: Asked) -> Result<Response<Body>, ApiError> {
        let headers = &asked.head.headers;
        check_invocation_type(headers)?;
        let log_type = log_type(headers)?;
        let name: FunctionName = asked.found.variable(0).parse().map_err(dunlin_control::Error::from)?;
        let qualifier = Qualifier::from_wire(asked.query.text("qualifier"));
        let function = asked.verified.scope.function(name.clone());
        let (target, session) = self.session_of(asked.request_id.chance(), &function, &qualifier, headers)?;
        let invocation = Invocation {
            request_id: asked.request_id.clone(),
            function,
            qualifier: qualifier.clone(),
            target,
            origin: Origin::Api,
            trigger: None,
            log_type,
            session,
        };
        let reply = self.inner.calls.call(invocation, Payload::Event(asked.body.bytes.clone())).await;
        // The desk knows keys; the caller knows names.
        let reply = reply.map_err(|refusal| match refusal {
            Refusal::FunctionNotFound => ControlError::FunctionNotFound { name }.into(),
            Refusal::VersionNotFound { id } => ControlError::VersionNotFound { function: name, qualifier: id }.into(),
            Refusal::AliasNotFound => {
                ControlError::AliasNotFound { function: name, qualifier: printable(&qualifier.to_string()) }.into()
            }
            other => ApiError::from(other),
        })?;
        Ok(respond(reply))
    }

    /// What a call of a function with sessions says of its own, and what of the function that means.
    fn session_of(
        &self,
        chance: f64,
        function: &FunctionKey,
        qualifier: &Qualifier,
        headers: &HeaderMap,
    ) -> Result<(Option<Target>, Option<SessionAsk>), ApiError> {
        // What does not exist is the desk's to say.
        let Ok(target) = self.inner.store.view().resolve(function, qualifier, chance) else { return Ok((None, None)) };
        let Some(rules) = target.function().config.sessions() else { return Ok((Some(target), None)) };
        let ask = session_of(&rules, &Method::POST, None, headers)?;
        let stays = match qualifier {
            Qualifier::Named(_) => self.inner.calls.session_target(function, qualifier, &ask),
            Qualifier::Latest => None,
        };
        Ok((Some(stays.unwrap_or(target)), Some(ask)))
    }

    pub(crate) fn list_instances(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        let query = &asked.query;
        let filter = InstanceFilter {
            ids: query.list("instanceIds")?,
            qualifier: query.owned("qualifier"),
            created_from: query.time_ms("startTimeMs")?,
            created_to: query.time_ms("endTimeMs")?,
            start_key: query.owned("startKey"),
            limit: query.integer("limit")?,
        };
        query.flag("withAllActive")?;
        // Only live instances are known, and all of them are running.
        let statuses: Option<Vec<String>> = query.list("instanceStatus")?;
        let mut instances = self.inner.control.list_instances(&asked.verified.scope, asked.found.variable(0), &filter)?;
        if statuses
            .is_some_and(|statuses| !statuses.is_empty() && !statuses.iter().any(|status| status.eq_ignore_ascii_case("running")))
        {
            instances.clear();
        }
        let instances: Vec<Value> = instances.iter().map(wire::instance).collect();
        Ok(answer(&json!({ "instances": instances, "requestId": asked.request_id })))
    }

    pub(crate) fn describe_regions(&self) -> Response<Body> {
        answer(&wire::regions(&self.inner.control.describe_regions()))
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, ApiError> {
    match headers.get(name) {
        None => Ok(""),
        Some(value) => value.to_str().map_err(|_| ApiError::invalid(format!("header {name} is not ASCII"))),
    }
}

fn check_invocation_type(headers: &HeaderMap) -> Result<(), ApiError> {
    match text(headers, "x-fc-invocation-type")? {
        "" | "Sync" => Ok(()),
        "Async" | "Task" => Err(ApiError::invalid(
            "asynchronous invocation (x-fc-invocation-type: Async) is not supported yet by this platform; use Sync",
        )),
        other => Err(ApiError::invalid(format!(
            "InvocationType is set to an invalid value (allowed: Sync | Async, actual: '{}')",
            printable(other)
        ))),
    }
}

fn log_type(headers: &HeaderMap) -> Result<LogType, ApiError> {
    match text(headers, "x-fc-log-type")? {
        "" | "None" => Ok(LogType::None),
        "Tail" => Ok(LogType::Tail),
        other => Err(ApiError::invalid(format!(
            "LogType is set to an invalid value (allowed: Tail | None, actual: '{}')",
            printable(other)
        ))),
    }
}

/// A call's answer: 200 whether the function did well or not.
fn respond(reply: Reply) -> Response<Body> {
    let mut headers = HeaderMap::new();
    describe(&mut headers, &reply);
    let body = match reply.result {
        Ok(Answer::Event(bytes)) => full(bytes),
        Ok(Answer::Streamed(_, body)) => body,
        Ok(Answer::Http(response)) => response.into_body(),
        // An event is no request that could ask for another protocol.
        Ok(Answer::Upgraded(..)) => full(bytes::Bytes::new()),
        Err(error) => {
            headers.insert("x-fc-error-type", HeaderValue::from_static(error.error_type.as_str()));
            full(error.body.into())
        }
    };
    let mut response = Response::new(body);
    *response.headers_mut() = headers;
    response
}

/// What the platform says about a call besides its answer.
fn describe(headers: &mut HeaderMap, reply: &Reply) {
    let mut put = |name: &'static str, value: String| {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    };
    put(CONTENT_TYPE.as_str(), "application/octet-stream".to_owned());
    if let Some(instance) = &reply.instance {
        put("x-fc-instance-id", instance.to_string());
    }
    put("x-fc-code-checksum", reply.checksum.to_string());
    put("x-fc-invocation-service-version", reply.version.clone());
    put("x-fc-invocation-duration", format!("{:.2}", reply.phases.handler.as_secs_f64() * 1e3));
    #[expect(clippy::cast_precision_loss, reason = "two decimals of megabytes")]
    put("x-fc-max-memory-usage", format!("{:.2}", reply.memory_peak_bytes as f64 / f64::from(1 << 20)));
    put("server-timing", server_timing(&reply.phases));
    if let Some(tail) = &reply.log_tail {
        put("x-fc-log-result", STANDARD.encode(tail));
    }
    if let Some((name, value)) = reply.session.as_ref().map(dunlin_invoke::SessionMark::field)
        && let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(&value))
    {
        headers.insert(name, value);
    }
}

fn server_timing(phases: &Phases) -> String {
    let phases = [
        ("queue", phases.queue),
        ("bind", phases.bind),
        ("load", phases.load),
        ("init", phases.init),
        ("handler", phases.handler),
    ];
    phases.iter().fold(String::with_capacity(96), |mut text, (name, took)| {
        let comma = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{comma}{name};dur={:.3}", took.as_secs_f64() * 1e3);
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn server_timing_names_the_phases_in_milliseconds() {
        let phases = Phases { queue: Duration::from_micros(120), handler: Duration::from_millis(3), ..Phases::default() };
        assert_eq!(server_timing(&phases), "queue;dur=0.120, bind;dur=0.000, load;dur=0.000, init;dur=0.000, handler;dur=3.000");
    }

    #[test]
    fn a_wrong_log_type_is_refused_in_the_vendors_words() {
        let headers = HeaderMap::from_iter([(http::HeaderName::from_static("x-fc-log-type"), HeaderValue::from_static("x"))]);
        assert_eq!(
            log_type(&headers).unwrap_err().message,
            "LogType is set to an invalid value (allowed: Tail | None, actual: 'x')"
        );
    }
}
