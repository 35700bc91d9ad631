//! Operations on triggers.

use dunlin_control::{TriggerInput, TriggerPatch};
use dunlin_model::{FunctionName, Trigger};
use dunlin_runtime::Body;
use http::Response;
use serde_json::Value;

use crate::api::{Api, Asked, json as answer, nothing};
use crate::error::ApiError;
use crate::functions::paging;
use crate::json::read_body;
use crate::wire;

impl Api {
    pub(crate) async fn create_trigger(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        let input: TriggerInput = read_body(&asked.body.bytes)?;
        let created = self.inner.control.create_trigger(&asked.verified.scope, asked.found.variable(0), input).await?;
        self.show_trigger(asked, &created.value).map(|trigger| answer(&trigger))
    }

    pub(crate) fn get_trigger(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        let stored = self.inner.control.get_trigger(&asked.verified.scope, asked.found.variable(0), asked.found.variable(1))?;
        self.show_trigger(asked, &stored.value).map(|trigger| answer(&trigger))
    }

    pub(crate) async fn update_trigger(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        let patch: TriggerPatch = read_body(&asked.body.bytes)?;
        let (function, name) = (asked.found.variable(0), asked.found.variable(1));
        let updated = self.inner.control.update_trigger(&asked.verified.scope, function, name, patch).await?;
        self.show_trigger(asked, &updated.value).map(|trigger| answer(&trigger))
    }

    pub(crate) async fn delete_trigger(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        self.inner.control.delete_trigger(&asked.verified.scope, asked.found.variable(0), asked.found.variable(1)).await?;
        Ok(nothing())
    }

    pub(crate) async fn list_triggers(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        let (triggers, next) =
            self.inner.control.list_triggers(&asked.verified.scope, asked.found.variable(0), &paging(&asked.query)?).await?;
        let triggers = triggers.iter().map(|stored| self.show_trigger(asked, &stored.value)).collect::<Result<_, _>>()?;
        Ok(answer(&wire::page("triggers", triggers, next)))
    }

    fn show_trigger(&self, asked: &Asked, trigger: &Trigger) -> Result<Value, ApiError> {
        let function: FunctionName = asked.found.variable(0).parse().map_err(dunlin_control::Error::from)?;
        let config = &self.inner.config;
        let port = if config.port == 80 { String::new() } else { format!(":{}", config.port) };
        let url = format!("http://{}.fn.{}{port}", trigger.url_prefix, config.domain);
        Ok(wire::trigger(self.inner.control.region(), &asked.verified.scope, &function, trigger, &url))
    }
}
