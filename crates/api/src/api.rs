//! The service, and the way every request takes through it.

use std::sync::Arc;

use bytes::Bytes;
use dunlin_auth::{Verified, Verifier};
use dunlin_control::{CodeDownload, Control};
use dunlin_model::{Limits, RequestId, SettingKind};
use dunlin_runtime::{Body, BoxError};
use dunlin_store::Store;
use dunlin_telemetry::Logs;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, ETAG, HOST, HeaderValue};
use http::request::Parts as Head;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full};
use serde_json::Value;

use crate::body::{self, Budget};
use crate::calls::Calls;
use crate::error::ApiError;
use crate::query::Query;
use crate::routes::{self, Found, Served};
use crate::wire;

/// Where packages are fetched by link, on the listener's own names.
pub(crate) const CODE_PATH: &str = "/-/code/";

/// What the operator may change.
#[derive(Clone, Debug)]
pub struct Config {
    /// Function URLs are `http://{prefix}.fn.{domain}:{port}`. Default `localhost`.
    pub domain: String,
    /// The port clients reach the listener at. Left out of URLs when it is 80. Default 7900.
    pub port: u16,
    /// Memory for all request bodies together, counted twice over while they are put together. Default 1 GiB.
    pub body_bytes_in_flight_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { domain: "localhost".to_owned(), port: 7900, body_bytes_in_flight_max: 1 << 30 }
    }
}

/// The rooms behind this door.
pub struct Parts {
    /// Who is calling.
    pub verifier: Verifier,
    /// Functions, code, triggers.
    pub control: Control,
    /// Calls.
    pub calls: Arc<dyn Calls>,
    /// Records of calls.
    pub store: Arc<dyn Store>,
    /// What functions print.
    pub logs: Logs,
}

/// The Function Compute API. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) verifier: Verifier,
    pub(crate) control: Control,
    pub(crate) calls: Arc<dyn Calls>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) logs: Logs,
    budget: Budget,
}

/// One verified request, on its way through an operation.
pub(crate) struct Asked {
    pub(crate) request_id: RequestId,
    pub(crate) verified: Verified,
    pub(crate) head: Head,
    pub(crate) found: Found,
    pub(crate) query: Query,
    pub(crate) body: body::Held,
}

impl Api {
    /// An API over `parts`.
    #[must_use]
    pub fn new(config: Config, parts: Parts) -> Self {
        let Parts { verifier, control, calls, store, logs } = parts;
        let budget = Budget::new(config.body_bytes_in_flight_max);
        Self { inner: Arc::new(Inner { config, verifier, control, calls, store, logs, budget }) }
    }

    /// Serves one request. Dropping the future cancels what it began as far as nothing was promised yet.
    pub async fn handle<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        let request_id = RequestId::random();
        let mut response = match self.answer(request, &request_id).await {
            Ok(response) => response,
            Err(error) => error.response(&request_id),
        };
        let id = HeaderValue::from_str(request_id.as_str()).expect("an id is ASCII");
        response.headers_mut().insert("x-fc-request-id", id);
        response
    }

    async fn answer<B>(&self, request: Request<B>, request_id: &RequestId) -> Result<Response<Body>, ApiError>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        let (head, body) = request.into_parts();
        if let Some(token) = head.uri.path().strip_prefix(CODE_PATH) {
            return self.download(&head.method, token).await;
        }
        let (route, verified) = match self.admit(&head) {
            Ok(admitted) => admitted,
            Err(error) => {
                body::drain(std::pin::pin!(body), 0).await;
                return Err(error);
            }
        };
        let served = match route.route.served {
            Some(served) => served,
            None => {
                body::drain(std::pin::pin!(body), 0).await;
                return Err(ApiError::operation_not_supported(route.route.name));
            }
        };
        if served == Served::DunlinPushImage {
            return self.push_image(verified, &route, body).await;
        }
        let query = Query::read(head.uri.query())?;
        let body = self.inner.budget.read(body, body_limit(served, self.inner.control.limits())).await?;
        body::check(verified.body, &body.bytes).await?;
        body::check_type(&head.headers, &body.bytes, served != Served::InvokeFunction)?;
        let asked = Asked { request_id: request_id.clone(), verified, head, found: route, query, body };
        tracing::debug!(%request_id, operation = asked.found.route.name, account = %asked.verified.scope.account(), "asked");
        self.serve(served, asked).await
    }

    /// Who asks, and for which operation.
    fn admit(&self, head: &Head) -> Result<(Found, Verified), ApiError> {
        let verified = self.inner.verifier.verify(head)?;
        let found = routes::find(head.method.as_str(), head.uri.path())?
            .ok_or_else(|| ApiError::path_not_supported(head.method.as_str(), head.uri.path()))?;
        Ok((found, verified))
    }

    async fn serve(&self, served: Served, asked: Asked) -> Result<Response<Body>, ApiError> {
        match served {
            Served::CreateFunction => self.create_function(asked).await,
            Served::GetFunction => self.get_function(&asked),
            Served::UpdateFunction => self.update_function(asked).await,
            Served::DeleteFunction => self.delete_function(&asked).await,
            Served::ListFunctions => self.list_functions(&asked).await,
            Served::GetFunctionCode => self.get_function_code(&asked),
            Served::InvokeFunction => self.invoke_function(asked).await,
            Served::PublishFunctionVersion => self.publish_version(&asked).await,
            Served::ListFunctionVersions => self.list_versions(&asked),
            Served::DeleteFunctionVersion => self.delete_version(&asked).await,
            Served::CreateAlias => self.create_alias(&asked).await,
            Served::GetAlias => self.get_alias(&asked),
            Served::UpdateAlias => self.update_alias(&asked).await,
            Served::DeleteAlias => self.delete_alias(&asked).await,
            Served::ListAliases => self.list_aliases(&asked),
            Served::CreateTrigger => self.create_trigger(&asked).await,
            Served::GetTrigger => self.get_trigger(&asked),
            Served::UpdateTrigger => self.update_trigger(&asked).await,
            Served::DeleteTrigger => self.delete_trigger(&asked).await,
            Served::ListTriggers => self.list_triggers(&asked).await,
            Served::CreateCustomDomain => self.create_domain(&asked).await,
            Served::GetCustomDomain => self.get_domain(&asked),
            Served::UpdateCustomDomain => self.update_domain(&asked).await,
            Served::DeleteCustomDomain => self.delete_domain(&asked).await,
            Served::ListCustomDomains => self.list_domains(&asked),
            Served::ListInstances => self.list_instances(&asked),
            Served::DisableFunctionInvocation => self.disable_invocation(&asked).await,
            Served::EnableFunctionInvocation => self.enable_invocation(&asked).await,
            Served::PutConcurrencyConfig => self.put_concurrency(&asked).await,
            Served::GetConcurrencyConfig => self.get_concurrency(&asked),
            Served::DeleteConcurrencyConfig => self.delete_concurrency(&asked).await,
            Served::ListConcurrencyConfigs => self.list_concurrency(&asked),
            Served::PutProvisionConfig => self.put_provision(&asked).await,
            Served::GetProvisionConfig => self.get_ready(&asked, SettingKind::Provision),
            Served::DeleteProvisionConfig => self.delete_ready(&asked, SettingKind::Provision).await,
            Served::ListProvisionConfigs => self.list_ready(&asked, SettingKind::Provision),
            Served::PutScalingConfig => self.put_scaling(&asked).await,
            Served::GetScalingConfig => self.get_ready(&asked, SettingKind::Scaling),
            Served::DeleteScalingConfig => self.delete_ready(&asked, SettingKind::Scaling).await,
            Served::ListScalingConfigs => self.list_ready(&asked, SettingKind::Scaling),
            Served::PutAsyncInvokeConfig => self.put_async_invoke(&asked).await,
            Served::GetAsyncInvokeConfig => self.get_async_invoke(&asked),
            Served::DeleteAsyncInvokeConfig => self.delete_async_invoke(&asked).await,
            Served::ListAsyncInvokeConfigs => self.list_async_invoke(&asked),
            Served::CreateSession => self.create_session(&asked).await,
            Served::GetSession => self.get_session(&asked),
            Served::UpdateSession => self.update_session(&asked),
            Served::DeleteSession => self.delete_session(&asked),
            Served::ListSessions => self.list_sessions(&asked),
            Served::PauseSession => self.pause_session(&asked, true),
            Served::ResumeSession => self.pause_session(&asked, false),
            Served::TagResources => self.tag_resources(&asked).await,
            Served::UntagResources => self.untag_resources(&asked).await,
            Served::ListTagResources => self.list_tag_resources(&asked),
            Served::ChangeResourceGroup => self.change_resource_group(&asked).await,
            Served::CreateVpcBinding => self.create_vpc_binding(&asked).await,
            Served::ListVpcBindings => self.list_vpc_bindings(&asked),
            Served::DeleteVpcBinding => self.delete_vpc_binding(&asked).await,
            Served::CreateLayerVersion => self.create_layer_version(asked).await,
            Served::GetLayerVersion => self.get_layer_version(&asked),
            Served::GetLayerVersionByArn => self.get_layer_version_by_arn(&asked),
            Served::ListLayers => self.list_layers(&asked),
            Served::ListLayerVersions => self.list_layer_versions(&asked),
            Served::DeleteLayerVersion => self.delete_layer_version(&asked).await,
            Served::PutLayerACL => self.put_layer_acl(&asked).await,
            Served::DescribeRegions => Ok(self.describe_regions()),
            Served::DunlinListLogs => self.list_logs(&asked).await,
            Served::DunlinListRecords => self.list_records(&asked).await,
            Served::DunlinListImages => Ok(self.list_images(&asked)),
            Served::DunlinPushImage => Err(ApiError::internal("an image's body is read as it comes".to_owned())),
            Served::DunlinDeleteImage => self.delete_image(&asked).await,
            Served::DunlinListRuntimes => Ok(json(&wire::runtimes(self.inner.control.interpreters()))),
        }
    }

    async fn download(&self, method: &Method, token: &str) -> Result<Response<Body>, ApiError> {
        if method != Method::GET && method != Method::HEAD {
            return Err(ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "a package is fetched with GET"));
        }
        let CodeDownload { bytes, digest } = self.inner.control.code_by_token(token).await?;
        let mut response = Response::new(full(bytes));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/zip"));
        headers.insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"code.zip\""));
        headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
        headers.insert(ETAG, HeaderValue::from_str(&format!("\"{digest}\"")).expect("a digest is ASCII"));
        Ok(response)
    }
}

impl Asked {
    /// `http://` and the name under which the client reached this listener. It is under the signature.
    pub(crate) fn origin(&self) -> String {
        let host = self.head.headers.get(HOST).and_then(|host| host.to_str().ok());
        let host = host.or_else(|| self.head.uri.authority().map(http::uri::Authority::as_str)).unwrap_or("localhost");
        format!("http://{host}")
    }
}

/// How large a body an operation takes.
fn body_limit(served: Served, limits: &Limits) -> usize {
    const JSON_BYTES_MAX: usize = 1 << 20;
    match served {
        // Base64 is four bytes for three; line breaks and the rest of the request come on top.
        Served::CreateFunction | Served::UpdateFunction | Served::CreateLayerVersion => {
            limits.code_bytes_max / 3 * 4 + limits.code_bytes_max / 16 + JSON_BYTES_MAX
        }
        Served::InvokeFunction => limits.payload_bytes_max,
        _ => JSON_BYTES_MAX,
    }
}

/// A body that is there already.
pub(crate) fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// 200 with JSON.
pub(crate) fn json(value: &Value) -> Response<Body> {
    let mut response = Response::new(full(Bytes::from(value.to_string())));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// 204.
pub(crate) fn nothing() -> Response<Body> {
    let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}
