//! Operations on custom domains.

use dunlin_control::DomainInput;
use dunlin_runtime::Body;
use http::Response;

use crate::api::{Api, Asked, json as answer, nothing};
use crate::error::ApiError;
use crate::functions::paging;
use crate::json::read_body;
use crate::wire;

impl Api {
    pub(crate) async fn create_domain(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        let input: DomainInput = read_body(&asked.body.bytes)?;
        let scope = &asked.verified.scope;
        let created = self.inner.control.create_domain(scope, input).await?;
        Ok(answer(&wire::domain(scope, &created.value)))
    }

    pub(crate) fn get_domain(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        let scope = &asked.verified.scope;
        let domain = self.inner.control.get_domain(scope, asked.found.variable(0))?;
        Ok(answer(&wire::domain(scope, &domain.value)))
    }

    pub(crate) async fn update_domain(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        let patch: DomainInput = read_body(&asked.body.bytes)?;
        let scope = &asked.verified.scope;
        let updated = self.inner.control.update_domain(scope, asked.found.variable(0), patch).await?;
        Ok(answer(&wire::domain(scope, &updated.value)))
    }

    pub(crate) async fn delete_domain(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        self.inner.control.delete_domain(&asked.verified.scope, asked.found.variable(0)).await?;
        Ok(nothing())
    }

    pub(crate) fn list_domains(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        let scope = &asked.verified.scope;
        let (domains, next) = self.inner.control.list_domains(scope, &paging(&asked.query)?)?;
        let domains = domains.iter().map(|domain| wire::domain(scope, &domain.value)).collect();
        Ok(answer(&wire::page("customDomains", domains, next)))
    }
}
