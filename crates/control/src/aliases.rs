//! Aliases: names for versions, and how calls are shared between two of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use dunlin_model::{AccountScope, Additional, Alias, AliasKey, Stored, VersionId};
use dunlin_store::{CreateError, DeleteError, ReplaceError};
use serde::Deserialize;

use crate::control::Control;
use crate::error::Error;
use crate::listing::{Listing, Paging, page};
use crate::versions::{alias_not_found, version_not_found};

/// How often a delete looks again when somebody writes at the same moment.
const DELETE_TRIES: usize = 5;

/// What an alias is made from, in the wire's spelling. On an update only present members apply.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AliasInput {
    /// Its name; only on create.
    pub alias_name: Option<String>,
    /// The version it points to.
    pub version_id: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// At most one other version and its share of the calls; an empty map takes the share away.
    pub additional_version_weight: Option<BTreeMap<String, f64>>,
}

impl Control {
    /// Creates an alias.
    ///
    /// # Errors
    /// When a member is wrong, the name is taken, or a version does not exist.
    pub async fn create_alias(
        &self,
        scope: &AccountScope,
        function: &str,
        input: AliasInput,
    ) -> Result<Arc<Stored<Alias>>, Error> {
        let (function, _) = self.function(scope, function)?;
        let name = input.alias_name.as_deref().ok_or_else(|| Error::invalid("aliasName", "is required"))?.parse()?;
        let version = input.version_id.as_deref().ok_or_else(|| Error::invalid("versionId", "is required"))?.parse()?;
        let now = self.now();
        let description = self.check_description(input.description.unwrap_or_default())?;
        let mut alias = Alias { name, version, additional: None, description, created: now, modified: now };
        if let Some(weights) = &input.additional_version_weight {
            alias.additional = additional(weights)?;
        }
        check(&alias)?;
        let key = scope.alias(function.name().clone(), alias.name.clone());
        let limit = self.limits().aliases_per_function_max;
        match self.inner.store.create_alias(&key, &alias, limit).await {
            Ok(revision) => {
                tracing::info!(%function, alias = %alias.name, version = %alias.version, "alias created");
                Ok(Arc::new(Stored { value: alias, revision }))
            }
            Err(CreateError::AlreadyExists) => Err(Error::AliasExists { function: function.name().clone(), name: alias.name }),
            Err(CreateError::LimitExceeded { limit }) => Err(Error::LimitExceeded { what: "aliases of one function", limit }),
            Err(CreateError::FunctionNotFound) => Err(Error::FunctionNotFound { name: function.name().clone() }),
            Err(CreateError::VersionNotFound { id }) => Err(version_not_found(&function, id.to_string())),
            Err(CreateError::Store(error)) => Err(error.into()),
            Err(other @ CreateError::PrefixTaken) => Err(Error::platform("create the alias", other)),
        }
    }

    /// An alias as it is now.
    ///
    /// # Errors
    /// When it or its function does not exist.
    pub fn get_alias(&self, scope: &AccountScope, function: &str, name: &str) -> Result<Arc<Stored<Alias>>, Error> {
        self.alias(scope, function, name).map(|(_, stored)| stored)
    }

    fn alias(&self, scope: &AccountScope, function: &str, name: &str) -> Result<(AliasKey, Arc<Stored<Alias>>), Error> {
        let (function, _) = self.function(scope, function)?;
        let key = scope.alias(function.name().clone(), name.parse()?);
        match self.inner.store.view().alias(&key) {
            Some(stored) => Ok((key, Arc::clone(stored))),
            None => Err(alias_not_found(function.name(), name)),
        }
    }

    /// Changes the members that are present. Calls that came before end on the version they began on.
    ///
    /// # Errors
    /// [`Error::ConcurrentUpdate`] when somebody else wrote since this call began.
    pub async fn update_alias(
        &self,
        scope: &AccountScope,
        function: &str,
        name: &str,
        patch: AliasInput,
    ) -> Result<Arc<Stored<Alias>>, Error> {
        let (key, current) = self.alias(scope, function, name)?;
        if patch.alias_name.as_deref().is_some_and(|given| given != name) {
            return Err(Error::invalid("aliasName", "cannot be changed"));
        }
        let mut alias = current.value.clone();
        if let Some(version) = &patch.version_id {
            alias.version = version.parse()?;
        }
        if let Some(description) = patch.description {
            alias.description = self.check_description(description)?;
        }
        if let Some(weights) = &patch.additional_version_weight {
            alias.additional = additional(weights)?;
        }
        check(&alias)?;
        if alias == current.value {
            return Ok(current);
        }
        alias.modified = self.now();
        match self.inner.store.replace_alias(&key, &alias, current.revision).await {
            Ok(revision) => {
                tracing::info!(function = %key.function, alias = %alias.name, version = %alias.version, "alias switched");
                self.inner.scaling.refresh();
                Ok(Arc::new(Stored { value: alias, revision }))
            }
            Err(ReplaceError::NotFound) => Err(alias_not_found(key.function.name(), name)),
            Err(ReplaceError::VersionNotFound { id }) => Err(version_not_found(&key.function, id.to_string())),
            Err(ReplaceError::Conflict { .. }) => Err(Error::ConcurrentUpdate),
            Err(ReplaceError::Store(error)) => Err(error.into()),
        }
    }

    /// Deletes an alias. Its versions stay.
    ///
    /// # Errors
    /// When it or its function does not exist.
    pub async fn delete_alias(&self, scope: &AccountScope, function: &str, name: &str) -> Result<(), Error> {
        for _ in 0..DELETE_TRIES {
            let (key, current) = self.alias(scope, function, name)?;
            match self.inner.store.delete_alias(&key, current.revision).await {
                Ok(()) => {
                    self.inner.scaling.refresh();
                    return Ok(());
                }
                Err(DeleteError::Conflict { .. }) => {}
                Err(DeleteError::NotFound) => return Err(alias_not_found(key.function.name(), name)),
                Err(DeleteError::Store(error)) => return Err(error.into()),
                Err(error @ DeleteError::NotEmpty) => return Err(Error::platform("delete the alias", error)),
            }
        }
        Err(Error::ConcurrentUpdate)
    }

    /// One page of a function's aliases by name, and the token of the next page.
    ///
    /// # Errors
    /// When the function does not exist or the page makes no sense.
    pub fn list_aliases(&self, scope: &AccountScope, function: &str, paging: &Paging) -> Result<Listing<Alias>, Error> {
        let (key, _) = self.function(scope, function)?;
        let purpose = ["aliases", scope.account().as_str(), key.name().as_str()];
        let view = self.inner.store.view();
        let aliases = view.aliases(&key).filter(|alias| alias.value.name.as_str().starts_with(paging.prefix()));
        let is_after = |alias: &Stored<Alias>, last: &str| alias.value.name.as_str() > last;
        page(&self.inner.seal, &purpose, paging, aliases, is_after, |alias| alias.value.name.to_string())
    }
}

fn additional(weights: &BTreeMap<String, f64>) -> Result<Option<Additional>, Error> {
    let mut entries = weights.iter();
    let first = entries.next();
    if entries.next().is_some() {
        return Err(Error::invalid(
            "additionalVersionWeight",
            format!("must name at most one version (actual: {})", weights.len()),
        ));
    }
    let Some((version, weight)) = first else { return Ok(None) };
    let version: VersionId = version.parse().map_err(|_| {
        let shown: String = version.chars().flat_map(char::escape_debug).take(64).collect();
        Error::invalid("additionalVersionWeight", format!("must have the number of a version as its key (actual: '{shown}')"))
    })?;
    Ok(Some(Additional::new(version, *weight)?))
}

fn check(alias: &Alias) -> Result<(), Error> {
    match alias.additional {
        Some(additional) if additional.version == alias.version => Err(Error::AdditionalIsMajor { version: alias.version }),
        _ => Ok(()),
    }
}
