//! Layers: packages that functions share.

use std::sync::Arc;

use bytes::Bytes;
use dunlin_model::{AccountScope, FunctionConfig, InvalidId, LayerArn, LayerKey, LayerUse, LayerVersion, Stored, VersionId};
use dunlin_store::{CreateError, DeleteError, View};
use serde::Deserialize;
use serde_json::Value;

use crate::code::CodeLink;
use crate::control::Control;
use crate::error::Error;
use crate::listing::{Paging, page};

/// Most runtimes a layer says it is meant for.
const RUNTIMES_MAX: usize = 30;

const LICENSE_BYTES_MAX: usize = 1024;

/// What a layer version is made from, in the wire's spelling, code apart.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LayerInput {
    /// Free text.
    pub description: Option<String>,
    /// Under which terms it may be used.
    pub license: Option<String>,
    /// What it is meant for.
    pub compatible_runtime: Option<Vec<String>>,
}

/// A layer version and whether it is public.
#[derive(Clone, Debug)]
pub struct LayerShown {
    /// Whose it is.
    pub key: LayerKey,
    /// What it is.
    pub version: Arc<Stored<LayerVersion>>,
    /// Whether functions of other accounts may use it.
    pub public: bool,
}

impl Control {
    /// Makes a new version of a layer, and the layer if need be.
    ///
    /// # Errors
    /// Nothing is left of a version that was not made.
    pub async fn create_layer_version(
        &self,
        scope: &AccountScope,
        name: &str,
        input: LayerInput,
        code: Option<Bytes>,
    ) -> Result<LayerShown, Error> {
        let key = scope.layer(name.parse()?);
        let description = self.check_description(input.description.unwrap_or_default())?;
        let license = input.license.filter(|license| !license.is_empty());
        if license.as_ref().is_some_and(|license| license.len() > LICENSE_BYTES_MAX) {
            return Err(Error::invalid("license", format!("must be at most {LICENSE_BYTES_MAX} bytes")));
        }
        let compatible_runtime = input.compatible_runtime.filter(|runtimes| !runtimes.is_empty());
        check_runtimes(compatible_runtime.as_deref().unwrap_or_default())?;
        let code = code.ok_or_else(|| Error::invalid("code.zipFile", "is required: the base64 of a zip archive"))?;
        let held = self.inner.packages.admit_layer(code).await?;
        let version = LayerVersion {
            name: key.name().clone(),
            version: 0,
            description,
            license,
            compatible_runtime,
            code: held.package.clone(),
            created: self.now(),
        };
        let limit = self.limits().layer_versions_max;
        match self.inner.store.create_layer_version(&key, &version, limit).await {
            Ok(number) => {
                drop(held);
                tracing::info!(layer = %key, version = number, "layer version created");
                self.layer_version(&key, number)
            }
            Err(error) => {
                self.inner.packages.abandon(held).await;
                Err(match error {
                    CreateError::LimitExceeded { limit } => Error::LimitExceeded { what: "versions of one layer", limit },
                    CreateError::Store(error) => error.into(),
                    other => Error::platform("create a layer version", other),
                })
            }
        }
    }

    /// A layer version of the account's own.
    ///
    /// # Errors
    /// When it does not exist.
    pub fn get_layer_version(&self, scope: &AccountScope, name: &str, version: &str) -> Result<LayerShown, Error> {
        let key = scope.layer(name.parse()?);
        self.layer_version(&key, number(version)?)
    }

    /// A layer version by its resource name: the account's own, or a public one.
    ///
    /// # Errors
    /// When it does not exist, or belongs to another account that does not share it, which look the same.
    pub fn get_layer_version_by_arn(&self, scope: &AccountScope, arn: &str) -> Result<LayerShown, Error> {
        let arn: LayerArn = arn.parse()?;
        self.find(&self.inner.store.view(), scope, &arn).ok_or_else(|| Error::LayerArnNotFound { field: "arn".to_owned(), arn })
    }

    /// The layer version of this name, if the account may use it.
    fn find(&self, view: &View, scope: &AccountScope, arn: &LayerArn) -> Option<LayerShown> {
        let (key, layer) = view.usable_layer(scope, arn).filter(|_| arn.region == self.region())?;
        let version = Arc::clone(view.layer_version(&key, arn.version)?);
        Some(LayerShown { key, version, public: layer.public })
    }

    fn layer_version(&self, key: &LayerKey, version: u64) -> Result<LayerShown, Error> {
        let view = self.inner.store.view();
        let layer = view.layer(key).ok_or_else(|| Error::LayerNotFound { name: key.name().clone() })?;
        match view.layer_version(key, version) {
            Some(found) => Ok(LayerShown { key: key.clone(), version: Arc::clone(found), public: layer.public }),
            None => Err(Error::LayerVersionNotFound { name: key.name().clone(), version }),
        }
    }

    /// A short-lived way to what a layer version holds.
    #[must_use]
    pub fn layer_link(&self, layer: &LayerShown) -> CodeLink {
        self.link_to(&layer.version.value.code)
    }

    /// Deletes a layer version. Functions that use it keep it until they are configured anew.
    ///
    /// # Errors
    /// When it does not exist.
    pub async fn delete_layer_version(&self, scope: &AccountScope, name: &str, version: &str) -> Result<(), Error> {
        let key = scope.layer(name.parse()?);
        let shown = self.layer_version(&key, number(version)?)?;
        let version = shown.version.value.version;
        match self.inner.store.delete_layer_version(&key, version).await {
            Ok(()) => {
                self.inner.packages.release(shown.version.value.code.digest);
                Ok(())
            }
            Err(DeleteError::NotFound) => Err(Error::LayerVersionNotFound { name: key.name().clone(), version }),
            Err(DeleteError::Store(error)) => Err(error.into()),
            Err(other) => Err(Error::platform("delete a layer version", other)),
        }
    }

    /// Says whether functions of other accounts may use a layer.
    ///
    /// # Errors
    /// When it does not exist.
    pub async fn put_layer_acl(&self, scope: &AccountScope, name: &str, public: bool) -> Result<(), Error> {
        let key = scope.layer(name.parse()?);
        match self.inner.store.put_layer_acl(&key, public).await {
            Ok(()) => Ok(()),
            Err(DeleteError::NotFound) => Err(Error::LayerNotFound { name: key.name().clone() }),
            Err(DeleteError::Store(error)) => Err(error.into()),
            Err(other) => Err(Error::platform("change a layer", other)),
        }
    }

    /// One page of the account's layers by name, each by its newest version, and the token of the next page.
    ///
    /// # Errors
    /// When the page makes no sense.
    pub fn list_layers(
        &self,
        scope: &AccountScope,
        only_public: bool,
        paging: &Paging,
    ) -> Result<(Vec<LayerShown>, Option<String>), Error> {
        let view = self.inner.store.view();
        let newest = view.newest_layers(scope.account()).filter(|(key, _)| {
            key.name().as_str().starts_with(paging.prefix())
                && (!only_public || view.layer(key).is_some_and(|layer| layer.public))
        });
        let purpose = ["layers", scope.account().as_str()];
        let is_after = |version: &Stored<LayerVersion>, last: &str| version.value.name.as_str() > last;
        let newest = newest.map(|(_, version)| version);
        let mark = |version: &Stored<LayerVersion>| version.value.name.to_string();
        let (found, next) = page(&self.inner.seal, &purpose, paging, newest, is_after, mark)?;
        Ok((found.into_iter().map(|version| self.shown(scope, &view, version)).collect(), next))
    }

    /// The versions of a layer from `start` on, oldest first, and the number the next page begins with.
    ///
    /// # Errors
    /// When the layer does not exist or the page makes no sense.
    pub fn list_layer_versions(
        &self,
        scope: &AccountScope,
        name: &str,
        start: Option<i64>,
        paging: &Paging,
    ) -> Result<(Vec<LayerShown>, Option<u64>), Error> {
        let key = scope.layer(name.parse()?);
        let limit = paging.limit_in_force()?;
        let start = match start {
            None => 0,
            Some(start) => u64::try_from(start)
                .map_err(|_| Error::invalid("startVersion", format!("must be at least 0 (actual: {start})")))?,
        };
        let view = self.inner.store.view();
        view.layer(&key).ok_or_else(|| Error::LayerNotFound { name: key.name().clone() })?;
        let mut versions = view.layer_versions(&key).filter(|version| version.value.version >= start);
        let found: Vec<_> = versions.by_ref().take(limit).map(|version| self.shown(scope, &view, Arc::clone(version))).collect();
        let next = versions.next().map(|version| version.value.version);
        Ok((found, next))
    }

    #[expect(clippy::unused_self, reason = "called beside the others")]
    fn shown(&self, scope: &AccountScope, view: &View, version: Arc<Stored<LayerVersion>>) -> LayerShown {
        let key = scope.layer(version.value.name.clone());
        let public = view.layer(&key).is_some_and(|layer| layer.public);
        LayerShown { key, version, public }
    }

    /// What a function's `layers` member means: absent leaves what there is, an empty list takes all layers away.
    pub(crate) fn bind_layers(
        &self,
        scope: &AccountScope,
        given: Option<Value>,
        config: &mut FunctionConfig,
    ) -> Result<(), Error> {
        let Some(given) = given.filter(|given| !given.is_null()) else { return Ok(()) };
        let arns: Vec<String> = serde_json::from_value(given)
            .map_err(|_| Error::invalid("layers", "must be a list of resource names of layer versions"))?;
        let (most, most_bytes) = (self.limits().layers_per_function_max, self.limits().layers_bytes_max);
        if arns.len() > most {
            return Err(Error::invalid("layers", format!("must be at most {most} (actual: {})", arns.len())));
        }
        let view = self.inner.store.view();
        let mut layers: Vec<LayerUse> = Vec::new();
        for (index, text) in arns.into_iter().enumerate() {
            let field = format!("layers.{index}");
            if layers.iter().any(|other| other.arn == text) {
                return Err(Error::invalid(field, "names the same layer version as one before it"));
            }
            let arn: LayerArn =
                text.parse().map_err(|invalid: InvalidId| Error::invalid(&field, format!("is invalid: {}", invalid.rule)))?;
            let layer = self.usable(&view, scope, &arn, config).ok_or(Error::LayerArnNotFound { field, arn })?;
            layers.push(layer);
        }
        let bytes = layers.iter().map(|layer| layer.size).sum::<u64>();
        if bytes > most_bytes {
            return Err(Error::invalid(
                "layers",
                format!("must be at most {most_bytes} bytes of zip together (actual: {bytes})"),
            ));
        }
        // As an earlier release kept them.
        config.kept.remove("layers");
        config.layers = Some(layers).filter(|layers| !layers.is_empty());
        Ok(())
    }

    /// What a resource name means for a function of this account: what it was given, also when that version was deleted
    /// meanwhile, else what there is.
    fn usable(&self, view: &View, scope: &AccountScope, arn: &LayerArn, config: &FunctionConfig) -> Option<LayerUse> {
        let text = arn.to_string();
        let known = config.layers.iter().flatten().find(|known| known.arn == text);
        match known.filter(|_| view.usable_layer(scope, arn).is_some()) {
            Some(known) => Some(known.clone()),
            None => {
                let code = &self.find(view, scope, arn)?.version.value.code;
                Some(LayerUse { arn: text, digest: code.digest, size: code.size })
            }
        }
    }
}

/// The names are advice, and may be of runtimes that this platform has never heard of.
fn check_runtimes(names: &[String]) -> Result<(), Error> {
    if names.len() > RUNTIMES_MAX {
        return Err(Error::invalid(
            "compatibleRuntime",
            format!("must be at most {RUNTIMES_MAX} names (actual: {})", names.len()),
        ));
    }
    let is_name = |name: &String| {
        let is_of_names = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        (1..=64).contains(&name.len()) && name.bytes().all(is_of_names)
    };
    match names.iter().position(|name| !is_name(name)) {
        Some(index) => {
            Err(Error::invalid(format!("compatibleRuntime.{index}"), "must be the name of a runtime, for example python3.10"))
        }
        None => Ok(()),
    }
}

fn number(text: &str) -> Result<u64, Error> {
    let number: VersionId = text.parse().map_err(|_| Error::invalid("version", "must be the number of a layer version"))?;
    Ok(number.0)
}
