//! What the door needs from the rooms behind it.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use dunlin_api::Calls;
use dunlin_auth::Verifier;
use dunlin_model::Limits;
use dunlin_outbound::Outbound;
use dunlin_store::Store;
use http::{Request, Response};
use hyper::body::Incoming;

use crate::Body;

/// Everything behind the door.
pub struct Doors {
    /// The control plane's HTTP.
    pub api: Arc<dyn ControlPlane>,
    /// Calls of functions.
    pub calls: Arc<dyn Calls>,
    /// Who signed a request.
    pub verifier: Verifier,
    /// Where triggers and functions are looked up.
    pub store: Arc<dyn Store>,
    /// What fetches key sets.
    pub outbound: Outbound,
    /// What the platform says about itself.
    pub status: Arc<dyn Status>,
    /// What a call may weigh.
    pub limits: Limits,
    /// Function URLs are `{prefix}.fn.{domain}`.
    pub domain: String,
    /// Further names under which `/-/…` is served, besides the domain, `localhost` and the address that was connected to.
    pub names: Vec<String>,
}

/// Serves the Function Compute API, and packages by token under `/-/code/`. Answers every request, in its own dialect.
#[async_trait]
pub trait ControlPlane: Send + Sync + 'static {
    /// Serves one request that came from `peer`.
    async fn handle(&self, request: Request<Incoming>, peer: IpAddr) -> Response<Body>;
}

/// What the platform says about itself.
pub trait Status: Send + Sync + 'static {
    /// Whether calls can be served now; otherwise what is missing.
    fn ready(&self) -> Result<(), String>;
    /// All metrics, as OpenMetrics text.
    fn metrics(&self) -> String;
}
