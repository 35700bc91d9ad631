//! Operations on layers.

use bytes::Bytes;
use dunlin_control::{InputCode, LayerInput, LayerShown};
use dunlin_model::{InvalidField, LayerArn, Limits};
use dunlin_runtime::Body;
use http::Response;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::api::{Api, Asked, CODE_PATH, json as answer, nothing};
use crate::error::ApiError;
use crate::functions::paging;
use crate::query::Query;
use crate::{json, wire};

/// The body of a create: the code, which may be large and is not copied, and everything else.
#[derive(Deserialize)]
struct LayerBody<'a> {
    #[serde(borrow, default)]
    code: Option<InputCode<'a>>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// Its time is that of hashing and decoding the code, so it runs where it holds up nobody.
async fn read_input(body: Bytes, limits: Limits) -> Result<(LayerInput, Option<Bytes>), ApiError> {
    let reading = move || -> Result<_, ApiError> {
        json::check(&body)?;
        let LayerBody { code, rest } = json::read(&body)?;
        let input = json::read_value(Value::Object(rest), None)?;
        let code = code.filter(|code| !code.is_empty()).map(|code| code.decode(&limits)).transpose()?;
        Ok((input, code))
    };
    tokio::task::spawn_blocking(reading).await.map_err(|error| ApiError::internal(format!("reading a body: {error}")))?
}

impl Api {
    pub(crate) async fn create_layer_version(&self, asked: Asked) -> Result<Response<Body>, ApiError> {
        let control = &self.inner.control;
        let (input, code) = read_input(asked.body.bytes.clone(), control.limits().clone()).await?;
        let made = control.create_layer_version(&asked.verified.scope, asked.found.variable(0), input, code).await?;
        Ok(answer(&self.show_layer(&asked, &made, true)))
    }

    pub(crate) fn get_layer_version(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        let (name, version) = (asked.found.variable(0), asked.found.variable(1));
        let layer = self.inner.control.get_layer_version(&asked.verified.scope, name, version)?;
        Ok(answer(&self.show_layer(asked, &layer, true)))
    }

    pub(crate) fn get_layer_version_by_arn(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        let layer = self.inner.control.get_layer_version_by_arn(&asked.verified.scope, asked.found.variable(0))?;
        Ok(answer(&self.show_layer(asked, &layer, true)))
    }

    pub(crate) async fn delete_layer_version(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        let (name, version) = (asked.found.variable(0), asked.found.variable(1));
        self.inner.control.delete_layer_version(&asked.verified.scope, name, version).await?;
        Ok(nothing())
    }

    pub(crate) async fn put_layer_acl(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        let public = public_of(&asked.query)?;
        self.inner.control.put_layer_acl(&asked.verified.scope, asked.found.variable(0), public).await?;
        Ok(nothing())
    }

    pub(crate) fn list_layers(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        let (page, only_public) = (paging(&asked.query)?, asked.query.flag("public")?);
        // The vendor's own layers are not here.
        if asked.query.flag("official")? {
            return Ok(answer(&wire::page("layers", Vec::new(), None)));
        }
        let (layers, next) = self.inner.control.list_layers(&asked.verified.scope, only_public, &page)?;
        let layers = layers.iter().map(|layer| self.show_layer(asked, layer, false)).collect();
        Ok(answer(&wire::page("layers", layers, next)))
    }

    pub(crate) fn list_layer_versions(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        let (page, start) = (paging(&asked.query)?, asked.query.integer("startVersion")?);
        let (scope, name) = (&asked.verified.scope, asked.found.variable(0));
        let (layers, next) = self.inner.control.list_layer_versions(scope, name, start, &page)?;
        let layers = layers.iter().map(|layer| self.show_layer(asked, layer, false)).collect();
        let mut members = wire::page("layers", layers, None);
        if let Some(next) = next {
            members["nextVersion"] = next.into();
        }
        Ok(answer(&members))
    }

    /// `with_code`: whether a link to what it holds is wanted.
    fn show_layer(&self, asked: &Asked, layer: &LayerShown, with_code: bool) -> Value {
        let version = &layer.version.value;
        let arn = LayerArn {
            region: self.inner.control.region().to_owned(),
            account: layer.key.account().clone(),
            name: version.name.clone(),
            version: version.version,
        };
        let mut members = json!({
            "layerName": version.name,
            "version": version.version,
            "layerVersionArn": arn.to_string(),
            "description": version.description,
            "acl": if layer.public { "1" } else { "0" },
            "codeSize": version.code.size,
            "codeChecksum": version.code.checksum,
            "createTime": wire::time(version.created),
        });
        if let Some(license) = &version.license {
            members["license"] = license.clone().into();
        }
        if let Some(runtimes) = &version.compatible_runtime {
            members["compatibleRuntime"] = runtimes.clone().into();
        }
        if with_code {
            let link = self.inner.control.layer_link(layer);
            let location = format!("{}{CODE_PATH}{}", asked.origin(), link.token);
            members["code"] = json!({ "location": location, "repositoryType": "OSS" });
        }
        members
    }
}

/// `acl` is 0 or 1; older clients say `public`.
fn public_of(query: &Query) -> Result<bool, InvalidField> {
    match query.text("acl") {
        Some("1") => Ok(true),
        Some("0") => Ok(false),
        Some(_) => Err(InvalidField::new("acl", "must be 0 (private) or 1 (public)")),
        None if query.text("public").is_some() => query.flag("public"),
        None => Err(InvalidField::new("acl", "is required: 0 (private) or 1 (public)")),
    }
}
