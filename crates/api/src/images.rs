//! The platform's own operations on images that come without a registry.
//!
//! `PUT /2023-03-30/dunlin/images/{NAME:TAG}` takes the archive of an image as its body, a tar in the OCI's image layout or as
//! `docker save` writes it, and answers `{"name","image","digest","size","unpackedSize","createdTime"}`: `image` is what a
//! function's `customContainerConfig.image` says. `GET /2023-03-30/dunlin/images` answers `{"images":[…]}`, by name, and
//! `DELETE` on an image's path 204.

use std::pin::{Pin, pin};
use std::time::Duration;

use bytes::Bytes;
use dunlin_auth::Verified;
use dunlin_control::ImageUpload;
use dunlin_model::{LOCAL_REGISTRY, LocalImage};
use dunlin_runtime::{Body, BoxError};
use http::{Response, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::api::{Api, Asked, json as answer, nothing};
use crate::error::ApiError;
use crate::routes::Found;
use crate::{body, wire};

/// How long a client may say nothing in the middle of an image.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How long an image may take as a whole: few come in at once, and who is slow holds up others.
const PUSH_MAX: Duration = Duration::from_secs(1800);

impl Api {
    /// The body goes to disk as it comes: it is not held whole, and has no share in the memory for bodies.
    pub(crate) async fn push_image<B>(&self, verified: Verified, found: &Found, body: B) -> Result<Response<Body>, ApiError>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        let mut body = pin!(body);
        let receive = async {
            let mut upload = self.inner.control.push_image(&verified.scope, found.variable(0)).await?;
            timeout(PUSH_MAX, receive(body.as_mut(), &mut upload)).await.unwrap_or_else(|_| Err(late()))?;
            Ok::<_, ApiError>(upload)
        };
        match receive.await {
            Ok(upload) => {
                let image = upload.finish(|digest| Ok::<_, ApiError>(verified.body.check_digest(&digest.0)?)).await?;
                Ok(answer(&show(&image.value)))
            }
            Err(error) => {
                body::drain(body, 0).await;
                Err(error)
            }
        }
    }

    pub(crate) fn list_images(&self, asked: &Asked) -> Response<Body> {
        let images = self.inner.control.list_images(&asked.verified.scope);
        answer(&json!({ "images": images.iter().map(|image| show(&image.value)).collect::<Vec<_>>() }))
    }

    pub(crate) async fn delete_image(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        self.inner.control.delete_image(&asked.verified.scope, asked.found.variable(0)).await?;
        Ok(nothing())
    }
}

async fn receive<B>(mut body: Pin<&mut B>, upload: &mut ImageUpload) -> Result<(), ApiError>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Into<BoxError>,
{
    loop {
        match timeout(SILENCE_MAX, body.frame()).await {
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    upload.write(data).await?;
                }
            }
            Ok(None) => return Ok(()),
            Ok(Some(Err(error))) => {
                let error: BoxError = error.into();
                return Err(ApiError::invalid(format!("the request's body is broken: {error}")));
            }
            Err(_) => return Err(late()),
        }
    }
}

fn late() -> ApiError {
    ApiError::new(StatusCode::REQUEST_TIMEOUT, "RequestTimeout", "the request's body did not arrive in time")
}

fn show(image: &LocalImage) -> Value {
    json!({
        "name": image.name,
        "image": format!("{LOCAL_REGISTRY}/{}", image.name),
        "digest": format!("sha256:{}", image.package.digest),
        "size": image.package.size,
        "unpackedSize": image.unpacked_bytes,
        "createdTime": wire::time(image.created),
    })
}
