//! Operations on versions and aliases.

use dunlin_control::{AliasInput, Direction, VersionInput};
use dunlin_runtime::Body;
use http::Response;

use crate::api::{Api, Asked, json as answer, nothing};
use crate::error::ApiError;
use crate::functions::paging;
use crate::json::{read_body, read_optional_body};
use crate::wire;

impl Api {
    pub(crate) async fn publish_version(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        let input: VersionInput = read_optional_body(&asked.body.bytes)?;
        let published = self.inner.control.publish_version(&asked.verified.scope, asked.found.variable(0), input).await?;
        Ok(answer(&wire::version(&published.value)))
    }

    pub(crate) fn list_versions(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        let direction = Direction::from_wire(asked.query.text("direction"))?;
        let (scope, function, page) = (&asked.verified.scope, asked.found.variable(0), paging(&asked.query)?);
        let (versions, next) = self.inner.control.list_versions(scope, function, direction, &page)?;
        let versions = versions.iter().map(|version| wire::version(&version.value)).collect();
        let mut members = wire::page("versions", versions, next);
        members["direction"] = direction.as_str().into();
        Ok(answer(&members))
    }

    pub(crate) async fn delete_version(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        self.inner.control.delete_version(&asked.verified.scope, asked.found.variable(0), asked.found.variable(1)).await?;
        Ok(nothing())
    }

    pub(crate) async fn create_alias(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        let input: AliasInput = read_body(&asked.body.bytes)?;
        let created = self.inner.control.create_alias(&asked.verified.scope, asked.found.variable(0), input).await?;
        Ok(answer(&wire::alias(&created.value)))
    }

    pub(crate) fn get_alias(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        let alias = self.inner.control.get_alias(&asked.verified.scope, asked.found.variable(0), asked.found.variable(1))?;
        Ok(answer(&wire::alias(&alias.value)))
    }

    pub(crate) async fn update_alias(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        let patch: AliasInput = read_body(&asked.body.bytes)?;
        let (function, name) = (asked.found.variable(0), asked.found.variable(1));
        let updated = self.inner.control.update_alias(&asked.verified.scope, function, name, patch).await?;
        Ok(answer(&wire::alias(&updated.value)))
    }

    pub(crate) async fn delete_alias(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        self.inner.control.delete_alias(&asked.verified.scope, asked.found.variable(0), asked.found.variable(1)).await?;
        Ok(nothing())
    }

    pub(crate) fn list_aliases(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        let page = paging(&asked.query)?;
        let (aliases, next) = self.inner.control.list_aliases(&asked.verified.scope, asked.found.variable(0), &page)?;
        let aliases = aliases.iter().map(|alias| wire::alias(&alias.value)).collect();
        Ok(answer(&wire::page("aliases", aliases, next)))
    }
}
