//! Operations on what is said about a function beside its configuration.

use dunlin_control::{ConcurrencyInput, DisableInput, Listed};
use dunlin_model::{AsyncInvoke, FunctionName, Setting, SettingContent, SettingKey, Stored};
use dunlin_runtime::Body;
use http::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{Api, Asked, json as answer, nothing};
use crate::error::ApiError;
use crate::functions::paging;
use crate::json::{read_body, read_optional_body};
use crate::wire;

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct VpcBindingInput {
    vpc_id: Option<String>,
}

impl Api {
    pub(crate) async fn put_concurrency(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        let input: ConcurrencyInput = read_body(&asked.body.bytes)?;
        let stored = self.inner.control.put_concurrency(&asked.verified.scope, asked.found.variable(0), input).await?;
        Ok(answer(&self.show_concurrency(asked, asked.found.variable(0), &stored)?))
    }

    pub(crate) fn get_concurrency(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        let stored = self.inner.control.get_concurrency(&asked.verified.scope, asked.found.variable(0))?;
        Ok(answer(&self.show_concurrency(asked, asked.found.variable(0), &stored)?))
    }

    pub(crate) async fn delete_concurrency(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        self.inner.control.delete_concurrency(&asked.verified.scope, asked.found.variable(0)).await?;
        Ok(nothing())
    }

    pub(crate) fn list_concurrency(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        let function = asked.query.text("functionName");
        let (listed, next) = self.inner.control.list_concurrency(&asked.verified.scope, function, &paging(&asked.query)?)?;
        let shown = |(key, stored): &Listed| self.show_concurrency(asked, key.function_name().as_str(), stored);
        let configs = listed.iter().map(shown).collect::<Result<_, _>>()?;
        Ok(answer(&wire::page("configs", configs, next)))
    }

    fn show_concurrency(&self, asked: &Asked, function: &str, stored: &Stored<Setting>) -> Result<Value, ApiError> {
        let SettingContent::Concurrency(concurrency) = &stored.value.content else { return Err(mixed_up()) };
        let function: FunctionName = function.parse().map_err(dunlin_control::Error::from)?;
        let arn = wire::arn(self.inner.control.region(), &asked.verified.scope, &function);
        Ok(json!({ "functionArn": arn, "reservedConcurrency": concurrency.reserved_concurrency }))
    }

    pub(crate) async fn put_async_invoke(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        let input: AsyncInvoke = read_optional_body(&asked.body.bytes)?;
        let (function, qualifier) = (asked.found.variable(0), asked.query.text("qualifier"));
        let (key, stored) = self.inner.control.put_async_invoke(&asked.verified.scope, function, qualifier, input).await?;
        Ok(answer(&self.show_async_invoke(asked, &key, &stored)?))
    }

    pub(crate) fn get_async_invoke(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        let (function, qualifier) = (asked.found.variable(0), asked.query.text("qualifier"));
        let (key, stored) = self.inner.control.get_async_invoke(&asked.verified.scope, function, qualifier)?;
        Ok(answer(&self.show_async_invoke(asked, &key, &stored)?))
    }

    pub(crate) async fn delete_async_invoke(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        let (function, qualifier) = (asked.found.variable(0), asked.query.text("qualifier"));
        self.inner.control.delete_async_invoke(&asked.verified.scope, function, qualifier).await?;
        Ok(nothing())
    }

    pub(crate) fn list_async_invoke(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        let function = asked.query.text("functionName");
        let (listed, next) = self.inner.control.list_async_invoke(&asked.verified.scope, function, &paging(&asked.query)?)?;
        let configs = listed.iter().map(|(key, stored)| self.show_async_invoke(asked, key, stored)).collect::<Result<_, _>>()?;
        Ok(answer(&wire::page("configs", configs, next)))
    }

    fn show_async_invoke(&self, asked: &Asked, key: &SettingKey, stored: &Stored<Setting>) -> Result<Value, ApiError> {
        let SettingContent::AsyncInvoke(config) = &stored.value.content else { return Err(mixed_up()) };
        let mut members =
            serde_json::to_value(config).map_err(|error| ApiError::internal(format!("writing a setting: {error}")))?;
        let arn = wire::arn(self.inner.control.region(), &asked.verified.scope, key.function_name());
        members["functionArn"] = format!("{arn}/{}", key.qualifier()).into();
        members["createdTime"] = wire::time(stored.value.created).into();
        members["lastModifiedTime"] = wire::time(stored.value.modified).into();
        Ok(members)
    }

    pub(crate) async fn disable_invocation(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        let input: DisableInput = read_optional_body(&asked.body.bytes)?;
        self.inner.control.disable_invocation(&asked.verified.scope, asked.found.variable(0), input).await?;
        Ok(answer(&json!({ "success": true })))
    }

    pub(crate) async fn enable_invocation(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        self.inner.control.enable_invocation(&asked.verified.scope, asked.found.variable(0)).await?;
        Ok(answer(&json!({ "success": true })))
    }

    pub(crate) async fn create_vpc_binding(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        let input: VpcBindingInput = read_body(&asked.body.bytes)?;
        let (scope, function) = (&asked.verified.scope, asked.found.variable(0));
        self.inner.control.create_vpc_binding(scope, function, input.vpc_id.as_deref()).await?;
        Ok(nothing())
    }

    pub(crate) fn list_vpc_bindings(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        let bound = self.inner.control.list_vpc_bindings(&asked.verified.scope, asked.found.variable(0))?;
        Ok(answer(&json!({ "vpcIds": bound })))
    }

    pub(crate) async fn delete_vpc_binding(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        let (function, vpc_id) = (asked.found.variable(0), asked.found.variable(1));
        self.inner.control.delete_vpc_binding(&asked.verified.scope, function, vpc_id).await?;
        Ok(nothing())
    }
}

/// A setting is stored under the kind of what it says; this would be the platform's mistake.
fn mixed_up() -> ApiError {
    ApiError::internal("a setting says something else than its kind".to_owned())
}
