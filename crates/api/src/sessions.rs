//! Operations on sessions (contract sections 3.9 and 4.10).

use dunlin_control::{SessionFilter, SessionInput};
use dunlin_pool::{SessionInfo, SessionStatus};
use dunlin_runtime::Body;
use http::Response;
use serde_json::{Map, Value};

use crate::api::{Api, Asked, json as answer, nothing};
use crate::error::ApiError;
use crate::functions::paging;
use crate::json::read_optional_body;
use crate::wire;

impl Api {
    pub(crate) async fn create_session(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        let input: SessionInput = read_optional_body(&asked.body.bytes)?;
        let (function, qualifier) = (asked.found.variable(0), asked.query.text("qualifier"));
        let session = self.inner.control.create_session(&asked.verified.scope, function, qualifier, &input).await?;
        Ok(answer(&shown(&session)))
    }

    pub(crate) fn get_session(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        let (function, id) = (asked.found.variable(0), asked.found.variable(1));
        let qualifier = asked.query.text("qualifier");
        Ok(answer(&shown(&self.inner.control.get_session(&asked.verified.scope, function, qualifier, id)?)))
    }

    pub(crate) fn update_session(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        let input: SessionInput = read_optional_body(&asked.body.bytes)?;
        let (function, id) = (asked.found.variable(0), asked.found.variable(1));
        let qualifier = asked.query.text("qualifier");
        Ok(answer(&shown(&self.inner.control.update_session(&asked.verified.scope, function, qualifier, id, &input)?)))
    }

    pub(crate) fn delete_session(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        let (function, id) = (asked.found.variable(0), asked.found.variable(1));
        self.inner.control.delete_session(&asked.verified.scope, function, asked.query.text("qualifier"), id)?;
        Ok(nothing())
    }

    pub(crate) fn pause_session(&self, asked: &Asked, paused: bool) -> Result<Response<Body>, ApiError> {
        let (function, id) = (asked.found.variable(0), asked.found.variable(1));
        let qualifier = asked.query.text("qualifier");
        if asked.query.flag("fileSystemOnly")? {
            return Err(ApiError::invalid(
                "fileSystemOnly is not supported: a paused session keeps its instance, memory and all",
            ));
        }
        Ok(answer(&shown(&self.inner.control.pause_session(&asked.verified.scope, function, qualifier, id, paused)?)))
    }

    pub(crate) fn list_sessions(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        let query = &asked.query;
        let filter = SessionFilter {
            qualifier: query.owned("qualifier"),
            id: query.owned("sessionId"),
            status: query.owned("sessionStatus"),
        };
        let (scope, function, page) = (&asked.verified.scope, asked.found.variable(0), paging(query)?);
        let (sessions, next) = self.inner.control.list_sessions(scope, function, &filter, &page)?;
        Ok(answer(&wire::page("sessions", sessions.iter().map(shown).collect(), next)))
    }
}

fn shown(session: &SessionInfo) -> Value {
    let terms = &session.terms;
    // What is only kept is an object, or nothing.
    let mut members: Map<String, Value> = serde_json::from_str(&session.notes).unwrap_or_default();
    let mut put = |name: &str, value: Value| drop(members.insert(name.to_owned(), value));
    put("sessionId", session.key.id.as_str().into());
    put("functionName", session.key.function.name().as_str().into());
    put("qualifier", (*session.key.qualifier).into());
    put("sessionAffinityType", session.affinity.into());
    let status = match session.status {
        SessionStatus::Active => "Active",
        SessionStatus::Paused => "Paused",
        SessionStatus::Expired => "Expired",
    };
    put("sessionStatus", status.into());
    put("sessionTTLInSeconds", terms.ttl.as_secs().into());
    put("sessionIdleTimeoutInSeconds", terms.idle.map_or(0, |idle| idle.as_secs()).into());
    put("disableSessionIdReuse", terms.disable_id_reuse.into());
    put("enableAutoPause", terms.auto_pause.into());
    put("enableAutoResume", terms.auto_resume.into());
    put("createdTime", wire::time(session.created).into());
    put("lastModifiedTime", wire::time(session.modified).into());
    if let Some(instance) = &session.instance {
        put("containerId", instance.to_string().into());
    }
    Value::Object(members)
}
