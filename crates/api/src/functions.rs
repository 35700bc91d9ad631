//! Operations on functions.

use bytes::Bytes;
use dunlin_control::{FunctionFilter, InputCode, Paging};
use dunlin_model::{Function, FunctionPatch, Limits, Qualifier};
use dunlin_runtime::Body;
use http::Response;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::api::{Api, Asked, CODE_PATH, json as answer, nothing};
use crate::error::ApiError;
use crate::query::Query;
use crate::{json, wire};

/// The body of a create or an update: the code, which may be large and is not copied, and everything else.
#[derive(Deserialize)]
struct FunctionInput<'a> {
    #[serde(borrow, default)]
    code: Option<InputCode<'a>>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// Reads a create or an update. Its time is that of hashing and decoding the code, so it runs where it holds up nobody.
async fn read_input(body: Bytes, limits: Limits) -> Result<(FunctionPatch, Option<Bytes>), ApiError> {
    let reading = move || -> Result<_, ApiError> {
        json::check(&body)?;
        let FunctionInput { code, rest } = json::read(&body)?;
        let patch = json::read_value(Value::Object(rest), None)?;
        let code = code.filter(|code| !code.is_empty()).map(|code| code.decode(&limits)).transpose()?;
        Ok((patch, code))
    };
    tokio::task::spawn_blocking(reading).await.map_err(|error| ApiError::internal(format!("reading a body: {error}")))?
}

/// The page that is asked for.
pub(crate) fn paging(query: &Query) -> Result<Paging, ApiError> {
    Ok(Paging { prefix: query.owned("prefix"), limit: query.integer("limit")?, next_token: query.owned("nextToken") })
}

impl Api {
    pub(crate) async fn create_function(&self, asked: Asked) -> Result<Response<Body>, ApiError> {
        let control = &self.inner.control;
        let (patch, code) = read_input(asked.body.bytes.clone(), control.limits().clone()).await?;
        let created = control.create_function(&asked.verified.scope, patch, code).await?;
        Ok(answer(&self.show(&asked, &created.value)))
    }

    pub(crate) fn get_function(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        let qualifier = asked.query.text("qualifier");
        let target = self.inner.control.get_function(&asked.verified.scope, asked.found.variable(0), qualifier)?;
        let mut function = self.show(asked, target.function());
        if let Qualifier::Named(name) = Qualifier::from_wire(qualifier) {
            let arn = wire::qualified_arn(self.inner.control.region(), &asked.verified.scope, target.function(), &name);
            function["functionArn"] = arn.into();
        }
        Ok(answer(&function))
    }

    pub(crate) async fn update_function(&self, asked: Asked) -> Result<Response<Body>, ApiError> {
        let control = &self.inner.control;
        let (patch, code) = read_input(asked.body.bytes.clone(), control.limits().clone()).await?;
        let updated = control.update_function(&asked.verified.scope, asked.found.variable(0), patch, code).await?;
        Ok(answer(&self.show(&asked, &updated.value)))
    }

    pub(crate) async fn delete_function(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        self.inner.control.delete_function(&asked.verified.scope, asked.found.variable(0)).await?;
        Ok(nothing())
    }

    pub(crate) async fn list_functions(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        let query = &asked.query;
        let filter = FunctionFilter {
            name_contains: query.owned("functionName"),
            description_contains: query.owned("description"),
            runtime: query.owned("runtime"),
            tags: query.list("tags")?.unwrap_or_default(),
            gpu_type: query.owned("gpuType"),
            resource_group_id: query.owned("resourceGroupId"),
            fc_version: query.owned("fcVersion"),
        };
        let (functions, next) = self.inner.control.list_functions(&asked.verified.scope, &paging(query)?, &filter).await?;
        let functions = functions.iter().map(|stored| self.show(asked, &stored.value)).collect();
        Ok(answer(&wire::page("functions", functions, next)))
    }

    pub(crate) fn get_function_code(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        let link = self.inner.control.code_link(&asked.verified.scope, asked.found.variable(0), asked.query.text("qualifier"))?;
        let url = format!("{}{CODE_PATH}{}", asked.origin(), link.token);
        Ok(answer(&json!({ "url": url, "checksum": link.checksum.to_string() })))
    }

    fn show(&self, asked: &Asked, function: &Function) -> Value {
        let scope = &asked.verified.scope;
        let mut members = wire::function(self.inner.control.region(), scope, function, self.inner.control.interpreters());
        let restriction = self.inner.control.restriction(scope, function.config.function_name.as_str());
        if let Some(restriction) = restriction.and_then(|stored| wire::restriction(&stored.value)) {
            members["invocationRestriction"] = restriction;
        }
        members
    }
}
