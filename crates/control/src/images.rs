//! Images of accounts' own, and the images that container functions run (contract section 8).
//!
//! Whichever way an image comes, it becomes one archive among the code packages, and its file system one tree under the same
//! digest: so it is shared, kept as long as a function or a name needs it, and removed, as packages are.

use std::sync::Arc;

use bytes::Bytes;
use dunlin_blobs::{BlobError, Upload};
use dunlin_model::{
    AccountScope, CodePackage, Digest, Function, FunctionConfig, ImageConfig, ImageKey, ImageReference, ImageUse, ImageVersion,
    LOCAL_REGISTRY, LocalImage,
};
use dunlin_outbound::registry::{Credentials, PullError, Pulled};
use dunlin_store::{CreateError, DeleteError, Stored};
use tokio::sync::OwnedSemaphorePermit;

use crate::control::Control;
use crate::error::Error;
use crate::packages::Held;

/// Where errors about a function's image point to.
const IMAGE: &str = "customContainerConfig.image";

/// An image on its way in, a chunk at a time. Dropped unfinished, it leaves nothing.
pub struct ImageUpload {
    control: Control,
    key: ImageKey,
    upload: Upload,
    _turn: OwnedSemaphorePermit,
}

impl ImageUpload {
    /// Adds a chunk.
    ///
    /// # Errors
    /// When the image is too large, or the disk full.
    pub async fn write(&mut self, chunk: Bytes) -> Result<(), Error> {
        let most = self.control.limits().image_bytes_max;
        if self.upload.bytes() + chunk.len() as u64 > most {
            return Err(Error::invalid("image", format!("is refused: an image has at most {most} bytes")));
        }
        self.upload.write(chunk).await.map_err(|error| stored(error, "store the image"))
    }

    /// Makes the account's image of the chunks, whose digest `check` is asked about first.
    ///
    /// # Errors
    /// When it is no image, or not the one that was announced.
    pub async fn finish<E: From<Error>>(
        self,
        check: impl FnOnce(&Digest) -> Result<(), E>,
    ) -> Result<Arc<Stored<LocalImage>>, E> {
        let Self { control, key, upload, _turn } = self;
        let size = upload.bytes();
        let digest = upload.finish(None).await.map_err(|error| stored(error, "store the image"))?;
        if let Err(wrong) = check(&digest) {
            control.inner.packages.forget(digest).await;
            return Err(wrong);
        }
        let (held, config, unpacked_bytes) = control.inner.packages.admit_image(digest, size, "image").await?;
        let image = LocalImage {
            name: key.name().clone(),
            package: held.package.clone(),
            unpacked_bytes,
            config,
            created: control.now(),
        };
        let before = control.inner.store.view().image(&key).map(|before| before.value.package.digest);
        match control.inner.store.put_image(&key, &image, control.limits().images_per_account_max).await {
            Ok(revision) => {
                if let Some(before) = before.filter(|before| *before != digest) {
                    control.inner.packages.release(before);
                }
                tracing::info!(image = %key, bytes = size, "image pushed");
                Ok(Arc::new(Stored { value: image, revision }))
            }
            Err(error) => {
                control.inner.packages.abandon(held).await;
                Err(match error {
                    CreateError::LimitExceeded { limit } => Error::LimitExceeded { what: "images of one account", limit },
                    CreateError::Store(error) => error.into(),
                    other => Error::platform("keep the image", other),
                }
                .into())
            }
        }
    }
}

fn stored(error: BlobError, doing: &'static str) -> Error {
    match error {
        BlobError::Full => Error::Busy { what: "its disk is full" },
        other => Error::platform(doing, other),
    }
}

impl Control {
    /// Begins to take in an image called `name`.
    ///
    /// # Errors
    /// When it cannot be called so, or too many images come in at a time.
    pub async fn push_image(&self, scope: &AccountScope, name: &str) -> Result<ImageUpload, Error> {
        let key = scope.image(name.parse()?);
        let _turn = self.turn()?;
        let upload = self.inner.packages.upload().await?;
        Ok(ImageUpload { control: self.clone(), key, upload, _turn })
    }

    /// Images take disk and time, so few come in at once.
    fn turn(&self) -> Result<OwnedSemaphorePermit, Error> {
        let busy = |_| Error::Busy { what: "too many images are coming in; try again in a moment" };
        Arc::clone(&self.inner.image_turns).try_acquire_owned().map_err(busy)
    }

    /// The account's images, by name.
    #[must_use]
    pub fn list_images(&self, scope: &AccountScope) -> Vec<Arc<Stored<LocalImage>>> {
        self.inner.store.view().images(scope.account()).cloned().collect()
    }

    /// Deletes an image. Functions that run it keep it until they are configured anew.
    ///
    /// # Errors
    /// When it does not exist.
    pub async fn delete_image(&self, scope: &AccountScope, name: &str) -> Result<(), Error> {
        let key = scope.image(name.parse()?);
        let missing = || Error::ImageNotFound { name: key.name().clone() };
        let digest = self.inner.store.view().image(&key).ok_or_else(missing)?.value.package.digest;
        match self.inner.store.delete_image(&key).await {
            Ok(()) => {
                self.inner.packages.release(digest);
                Ok(())
            }
            Err(DeleteError::NotFound) => Err(missing()),
            Err(DeleteError::Store(error)) => Err(error.into()),
            Err(other) => Err(Error::platform("delete the image", other)),
        }
    }

    /// Brings the image that a function of this configuration runs, and notes it there.
    pub(crate) async fn bring_image(&self, scope: &AccountScope, config: &mut FunctionConfig) -> Result<Held, Error> {
        let container = config.container()?;
        let reference: ImageReference = container.image.clone().unwrap_or_default().parse().map_err(|invalid| {
            let dunlin_model::InvalidId { rule, .. } = invalid;
            Error::invalid(IMAGE, format!("is invalid: {rule}"))
        })?;
        let (held, image) = if reference.registry == LOCAL_REGISTRY {
            self.local_image(scope, &reference).await?
        } else {
            let auth = container.registry_config.as_ref().and_then(|registry| registry.auth_config.as_ref());
            let text = |text: Option<&String>| text.cloned().filter(|text| !text.is_empty());
            let credentials = auth.and_then(|auth| {
                Some(Credentials { user: text(auth.user_name.as_ref())?, password: auth.password.clone().unwrap_or_default() })
            });
            self.pull(scope, &reference, credentials.as_ref()).await?
        };
        if container.arguments(&image.config).is_empty() {
            self.abandon(Some(held)).await;
            let why = "is required: the image has neither an entrypoint nor a command of its own";
            return Err(Error::invalid("customContainerConfig.entrypoint", why));
        }
        config.image = Some(image);
        Ok(held)
    }

    async fn local_image(&self, scope: &AccountScope, reference: &ImageReference) -> Result<(Held, ImageUse), Error> {
        let ImageReference { registry, repository, version } = reference;
        let view = self.inner.store.view();
        let found = match version {
            ImageVersion::Tag(tag) => view.image(&scope.image(format!("{repository}:{tag}").parse()?)),
            ImageVersion::Digest(digest) => {
                let prefix = format!("{repository}:");
                let is_it = |image: &&Arc<Stored<LocalImage>>| {
                    image.value.package.digest == *digest && image.value.name.as_str().starts_with(&prefix)
                };
                view.images(scope.account()).find(is_it)
            }
        };
        let missing = || {
            let name = match version {
                ImageVersion::Tag(tag) => format!("{repository}:{tag}"),
                digest @ ImageVersion::Digest(_) => format!("{repository}@{digest}"),
            };
            Error::invalid(
                IMAGE,
                format!(
                    "is not there: this account has no image '{name}'; push one with 'dunlin image push', or see 'dunlin image ls'"
                ),
            )
        };
        let image = Arc::clone(found.ok_or_else(missing)?);
        drop(view);
        let held = self.inner.packages.hold(&image.value.package).await?.ok_or_else(missing)?;
        let digest = image.value.package.digest;
        let resolved = format!("{registry}/{repository}@sha256:{digest}");
        Ok((held, ImageUse { resolved, config: image.value.config.clone() }))
    }

    /// Pulls an image, unless a function of the account has it already.
    async fn pull(
        &self,
        scope: &AccountScope,
        reference: &ImageReference,
        credentials: Option<&Credentials>,
    ) -> Result<(Held, ImageUse), Error> {
        let most = self.limits().image_bytes_max;
        let refused = |error: PullError| Error::invalid(IMAGE, format!("cannot be pulled: {error}"));
        let registry = self.inner.outbound.registry(reference, credentials, most);
        let manifest = registry.manifest().await.map_err(refused)?;
        let resolved = format!("{}/{}@sha256:{}", reference.registry, reference.repository, manifest.digest);
        if let Some((package, image)) = self.known_image(scope, &resolved)
            && let Some(held) = self.inner.packages.hold(&package).await?
        {
            return Ok((held, image));
        }
        let _turn = self.turn()?;
        let mut upload = self.inner.packages.upload().await?;
        let mut sink = Sink { upload: &mut upload, failure: None };
        let pulled: Result<Pulled, PullError> = registry.pull(&manifest, &mut sink).await;
        if let Some(failure) = sink.failure {
            return Err(stored(failure, "store the image"));
        }
        pulled.map_err(refused)?;
        let size = upload.bytes();
        let digest = upload.finish(None).await.map_err(|error| stored(error, "store the image"))?;
        let (held, config, _) = self.inner.packages.admit_image(digest, size, IMAGE).await?;
        tracing::info!(image = resolved, bytes = size, "image pulled");
        Ok((held, ImageUse { resolved, config }))
    }

    /// What a function of the account has of this name already. Other accounts' are theirs: whether they have it is not told.
    fn known_image(&self, scope: &AccountScope, resolved: &str) -> Option<(CodePackage, ImageUse)> {
        let view = self.inner.store.view();
        view.functions_of(scope.account()).find_map(|stored| {
            let Function { code, config, .. } = &stored.value;
            let image = config.image.as_ref().filter(|image| image.resolved == resolved)?;
            Some((code.clone(), image.clone()))
        })
    }
}

/// Takes a pulled image to where packages are kept.
struct Sink<'a> {
    upload: &'a mut Upload,
    /// Why it is not taken any more.
    failure: Option<BlobError>,
}

#[async_trait::async_trait]
impl dunlin_outbound::registry::Sink for Sink<'_> {
    async fn write(&mut self, chunk: Bytes) -> bool {
        match self.upload.write(chunk).await {
            Ok(()) => true,
            Err(error) => {
                self.failure = Some(error);
                false
            }
        }
    }
}

/// What an unpacker said of an image.
pub(crate) fn read_config(prepared: Option<Vec<String>>) -> Result<ImageConfig, Error> {
    let text = prepared.and_then(|prepared| prepared.into_iter().next()).unwrap_or_default();
    serde_json::from_str(&text).map_err(|error| Error::platform("read what the image says", error))
}
