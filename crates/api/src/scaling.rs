//! Operations on how many instances are kept ready.

use dunlin_control::Stands;
use dunlin_model::{Provision, Scaling, SettingContent, SettingKind};
use dunlin_runtime::Body;
use http::Response;
use serde::Serialize;
use serde_json::{Value, json};

use crate::api::{Api, Asked, json as answer, nothing};
use crate::error::ApiError;
use crate::functions::paging;
use crate::json::{read_body, read_optional_body};
use crate::wire;

impl Api {
    pub(crate) async fn put_provision(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        let input: Provision = read_body(&asked.body.bytes)?;
        let (function, qualifier) = (asked.found.variable(0), asked.query.text("qualifier"));
        let stands = self.inner.control.put_provision(&asked.verified.scope, function, qualifier, input).await?;
        Ok(answer(&self.show_ready(asked, &stands)?))
    }

    pub(crate) async fn put_scaling(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        let input: Scaling = read_optional_body(&asked.body.bytes)?;
        let (function, qualifier) = (asked.found.variable(0), asked.query.text("qualifier"));
        let stands = self.inner.control.put_scaling(&asked.verified.scope, function, qualifier, input).await?;
        Ok(answer(&self.show_ready(asked, &stands)?))
    }

    pub(crate) fn get_ready(&self, asked: &Asked, kind: SettingKind) -> Result<Response<Body>, ApiError> {
        let (function, qualifier) = (asked.found.variable(0), asked.query.text("qualifier"));
        let stands = self.inner.control.get_ready(&asked.verified.scope, function, qualifier, kind)?;
        Ok(answer(&self.show_ready(asked, &stands)?))
    }

    pub(crate) async fn delete_ready(&self, asked: &Asked, kind: SettingKind) -> Result<Response<Body>, ApiError> {
        let (function, qualifier) = (asked.found.variable(0), asked.query.text("qualifier"));
        self.inner.control.delete_ready(&asked.verified.scope, function, qualifier, kind).await?;
        Ok(nothing())
    }

    pub(crate) fn list_ready(&self, asked: &Asked, kind: SettingKind) -> Result<Response<Body>, ApiError> {
        let function = asked.query.text("functionName");
        let (listed, next) = self.inner.control.list_ready(&asked.verified.scope, function, kind, &paging(&asked.query)?)?;
        let configs = listed.iter().map(|stands| self.show_ready(asked, stands)).collect::<Result<_, _>>()?;
        let name = if kind == SettingKind::Scaling { "scalingConfigs" } else { "provisionConfigs" };
        Ok(answer(&wire::page(name, configs, next)))
    }

    /// What was said, with the defaults in the places of what was not, and how it stands.
    fn show_ready(&self, asked: &Asked, stands: &Stands) -> Result<Value, ApiError> {
        let standing = &stands.standing;
        let (current, target) = (standing.current, standing.target);
        let mut members = match (&stands.content, stands.key.kind()) {
            (Some(SettingContent::Scaling(said)), _) => over(
                json!({ "minInstances": 0, "enableOnDemandScaling": true, "horizontalScalingPolicies": [], "scheduledPolicies": [] }),
                said,
                json!({ "currentInstances": current, "targetInstances": target }),
            )?,
            (None, SettingKind::Scaling) => {
                // Clients read an empty name as that nothing was said.
                return Ok(json!({
                    "functionArn": "", "minInstances": 0, "currentInstances": current, "targetInstances": target,
                    "currentError": "", "enableOnDemandScaling": true, "horizontalScalingPolicies": [], "scheduledPolicies": [],
                }));
            }
            (said, _) => {
                let none = Provision::default();
                let said = if let Some(SettingContent::Provision(said)) = said { said } else { &none };
                let base = said.default_target.or(said.target).unwrap_or(0);
                over(
                    json!({
                        "alwaysAllocateCPU": true, "alwaysAllocateGPU": true, "scheduledActions": [], "targetTrackingPolicies": [],
                    }),
                    said,
                    json!({ "current": current, "target": target, "defaultTarget": base }),
                )?
            }
        };
        let arn = wire::arn(self.inner.control.region(), &asked.verified.scope, stands.key.function_name());
        members["functionArn"] = format!("{arn}/{}", stands.key.qualifier()).into();
        members["currentError"] = standing.problem.clone().unwrap_or_default().into();
        Ok(members)
    }
}

/// `said` laid over `defaults`, and `standing` over both.
fn over(mut defaults: Value, said: &impl Serialize, standing: Value) -> Result<Value, ApiError> {
    let said = serde_json::to_value(said).map_err(|error| ApiError::internal(format!("writing a setting: {error}")))?;
    for members in [said, standing] {
        if let (Value::Object(all), Value::Object(members)) = (&mut defaults, members) {
            all.extend(members);
        }
    }
    Ok(defaults)
}
