//! Versions: copies of a function that never change.

use std::sync::Arc;

use dunlin_model::{AccountScope, FunctionKey, FunctionName, Qualifier, Stored, Target, Version, VersionId};
use dunlin_store::{CreateError, DeleteError, Unresolved, View};
use serde::Deserialize;

use crate::control::Control;
use crate::error::Error;
use crate::listing::{Listing, Paging, page};

/// What a version is published with, in the wire's spelling.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VersionInput {
    /// Free text.
    pub description: Option<String>,
}

/// In which order versions are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// Newest first.
    #[default]
    Backward,
    /// Oldest first.
    Forward,
}

impl Direction {
    /// Reads the wire form; absent means newest first.
    ///
    /// # Errors
    /// When it is neither.
    pub fn from_wire(text: Option<&str>) -> Result<Self, Error> {
        match text {
            None | Some("" | "BACKWARD") => Ok(Self::Backward),
            Some("FORWARD") => Ok(Self::Forward),
            Some(_) => Err(Error::invalid("direction", "must be BACKWARD (newest first) or FORWARD")),
        }
    }

    /// As the wire spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Backward => "BACKWARD",
            Self::Forward => "FORWARD",
        }
    }
}

impl Control {
    /// Copies the function as it is now into a new version.
    ///
    /// # Errors
    /// When the function does not exist or has as many versions as it may.
    pub async fn publish_version(
        &self,
        scope: &AccountScope,
        function: &str,
        input: VersionInput,
    ) -> Result<Arc<Stored<Version>>, Error> {
        let (key, _) = self.function(scope, function)?;
        let description = self.check_description(input.description.unwrap_or_default())?;
        let limit = self.limits().versions_per_function_max;
        let id = self.inner.store.publish_version(&key, &description, self.now(), limit).await.map_err(|error| match error {
            CreateError::LimitExceeded { limit } => Error::LimitExceeded { what: "versions of one function", limit },
            CreateError::FunctionNotFound => Error::FunctionNotFound { name: key.name().clone() },
            CreateError::Store(error) => error.into(),
            other => Error::platform("publish a version", other),
        })?;
        tracing::info!(function = %key, version = %id, "published");
        // Gone again only if somebody deleted it already.
        let published = self.inner.store.view().version(&key, id).map(Arc::clone);
        published.ok_or_else(|| version_not_found(&key, id.to_string()))
    }

    /// Deletes a version. Aliases and triggers that point to it stay, and answer that it does not exist.
    ///
    /// # Errors
    /// When it or its function does not exist.
    pub async fn delete_version(&self, scope: &AccountScope, function: &str, id: &str) -> Result<(), Error> {
        let (key, _) = self.function(scope, function)?;
        let number: VersionId = id.parse()?;
        let package = self.inner.store.view().version(&key, number).map(|version| version.value.function.code.digest);
        match self.inner.store.delete_version(&key, number).await {
            Ok(()) => {}
            Err(DeleteError::NotFound) => return Err(version_not_found(&key, number.to_string())),
            Err(DeleteError::Store(error)) => return Err(error.into()),
            Err(other) => return Err(Error::platform("delete the version", other)),
        }
        if let Some(package) = package {
            self.inner.packages.release(package);
        }
        self.inner.scaling.refresh();
        self.inner.instances.retire(&key, Some(&number.to_string()));
        tracing::info!(function = %key, version = %number, "version deleted");
        Ok(())
    }

    /// One page of a function's versions, and the token of the next page.
    ///
    /// # Errors
    /// When the function does not exist or the page makes no sense.
    pub fn list_versions(
        &self,
        scope: &AccountScope,
        function: &str,
        direction: Direction,
        paging: &Paging,
    ) -> Result<Listing<Version>, Error> {
        let (key, _) = self.function(scope, function)?;
        let purpose = ["versions", scope.account().as_str(), key.name().as_str(), direction.as_str()];
        let view = self.inner.store.view();
        let mut versions: Vec<_> = view.versions(&key).collect();
        if direction == Direction::Backward {
            versions.reverse();
        }
        let is_after = |version: &Stored<Version>, last: &str| {
            let last = last.parse().unwrap_or(VersionId(0));
            if direction == Direction::Forward { version.value.id > last } else { version.value.id < last }
        };
        page(&self.inner.seal, &purpose, paging, versions.into_iter(), is_after, |version| version.value.id.to_string())
    }

    /// What `qualifier` means: an alias means its own version, whatever share another one has.
    pub(crate) fn target(
        &self,
        scope: &AccountScope,
        function: &str,
        qualifier: Option<&str>,
    ) -> Result<(FunctionKey, Target), Error> {
        let key = scope.function(function.parse()?);
        let target = resolve(&self.inner.store.view(), &key, qualifier)?;
        Ok((key, target))
    }
}

/// See [`Control::target`].
pub(crate) fn resolve(view: &View, key: &FunctionKey, qualifier: Option<&str>) -> Result<Target, Error> {
    let qualifier = Qualifier::from_wire(qualifier);
    view.resolve(key, &qualifier, 1.0).map_err(|unresolved| match unresolved {
        Unresolved::FunctionNotFound => Error::FunctionNotFound { name: key.name().clone() },
        Unresolved::VersionNotFound { id } => version_not_found(key, id.chars().take(128).collect()),
        Unresolved::AliasNotFound => alias_not_found(key.name(), &qualifier.to_string()),
    })
}

pub(crate) fn version_not_found(key: &FunctionKey, id: String) -> Error {
    Error::VersionNotFound { function: key.name().clone(), qualifier: id }
}

pub(crate) fn alias_not_found(function: &FunctionName, name: &str) -> Error {
    Error::AliasNotFound { function: function.clone(), qualifier: name.chars().take(128).collect() }
}
