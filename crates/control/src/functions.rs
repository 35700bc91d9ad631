//! Functions.

use std::sync::Arc;

use bytes::Bytes;
use dunlin_model::{AccountScope, Function, FunctionConfig, FunctionPatch, Tag, Target};
use dunlin_store::{CreateError, DeleteError, ReplaceError, Stored};
use serde_json::Value;

use crate::control::{Control, random_id};
use crate::error::Error;
use crate::listing::Paging;
use crate::packages::Held;

/// Most bytes of a function's configuration as it is stored, code not counted.
const CONFIG_BYTES_MAX: usize = 128 << 10;

/// How often a delete looks again when somebody writes at the same moment.
const DELETE_TRIES: usize = 5;

/// Which functions to list; an absent member excludes none.
#[derive(Clone, Debug, Default)]
pub struct FunctionFilter {
    /// Only those with this in their name.
    pub name_contains: Option<String>,
    /// Only those with this in their description.
    pub description_contains: Option<String>,
    /// Only those of exactly this runtime.
    pub runtime: Option<String>,
    /// Only those with all of these tags.
    pub tags: Vec<Tag>,
    /// Only those with this GPU.
    pub gpu_type: Option<String>,
    /// Only those of this resource group.
    pub resource_group_id: Option<String>,
    /// `v3`, which all are, or `v2`, which none is.
    pub fc_version: Option<String>,
}

impl FunctionFilter {
    fn admits(&self, config: &FunctionConfig) -> bool {
        let set = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let kept = |member: &str| config.kept.get(member);
        set(&self.name_contains).is_none_or(|part| config.function_name.as_str().contains(&part))
            && set(&self.description_contains).is_none_or(|part| config.description.contains(&part))
            && set(&self.runtime).is_none_or(|runtime| config.runtime.as_str() == runtime)
            && self.tags.iter().all(|tag| config.tags.iter().flatten().any(|own| own == tag))
            && set(&self.gpu_type).is_none_or(|gpu| {
                kept("gpuConfig").and_then(|config| config.get("gpuType")).and_then(Value::as_str) == Some(&gpu)
            })
            && set(&self.resource_group_id).is_none_or(|group| kept("resourceGroupId").and_then(Value::as_str) == Some(&group))
            && set(&self.fc_version).is_none_or(|version| version.eq_ignore_ascii_case("v3"))
    }
}

impl Control {
    /// Creates a function out of its configuration and the bytes of a zip.
    ///
    /// # Errors
    /// Nothing is left of a function that was not created.
    pub async fn create_function(
        &self,
        scope: &AccountScope,
        patch: FunctionPatch,
        code: Option<Bytes>,
    ) -> Result<Arc<Stored<Function>>, Error> {
        let limits = self.limits();
        let layers = patch.rest.get("layers").cloned();
        let mut config = patch.create(limits)?;
        self.bind_layers(scope, layers, &mut config)?;
        check_size(&config)?;
        self.check_runtime(&config)?;
        let key = scope.function(config.function_name.clone());
        let exists = || Error::FunctionExists { name: key.name().clone() };
        let full = |limit| Error::LimitExceeded { what: "functions", limit };
        // Cheap refusals first; the store decides again when it writes.
        let view = self.inner.store.view();
        if view.function(&key).is_some() {
            return Err(exists());
        }
        if view.count_of(scope.account()) >= limits.functions_per_account_max {
            return Err(full(limits.functions_per_account_max));
        }
        drop(view);
        let held = self.bring_code(scope, code, &mut config).await?;

        let now = self.now();
        let function = Function { config, code: held.package.clone(), function_id: random_id(), created: now, modified: now };
        match self.inner.store.create_function(&key, &function, limits.functions_per_account_max).await {
            Ok(revision) => {
                self.inner.instances.expect(&function.config);
                tracing::info!(function = %key, package = %function.code.digest, "created");
                Ok(Arc::new(Stored { value: function, revision }))
            }
            Err(error) => {
                self.inner.packages.abandon(held).await;
                Err(match error {
                    CreateError::AlreadyExists => exists(),
                    CreateError::LimitExceeded { limit } => full(limit),
                    CreateError::Store(error) => error.into(),
                    other => Error::platform("create the function", other),
                })
            }
        }
    }

    /// A function as it is now, or as it was when a version was published.
    ///
    /// # Errors
    /// When it, or the version that is asked for, does not exist.
    pub fn get_function(&self, scope: &AccountScope, name: &str, qualifier: Option<&str>) -> Result<Target, Error> {
        Ok(self.target(scope, name, qualifier)?.1)
    }

    /// Changes the members that are present, and the code if there is any.
    ///
    /// # Errors
    /// [`Error::ConcurrentUpdate`] when somebody else wrote since this call began.
    pub async fn update_function(
        &self,
        scope: &AccountScope,
        name: &str,
        patch: FunctionPatch,
        code: Option<Bytes>,
    ) -> Result<Arc<Stored<Function>>, Error> {
        let (key, current) = self.function(scope, name)?;
        if patch.function_name.as_deref().is_some_and(|given| given != name) {
            return Err(Error::invalid("functionName", "cannot be changed"));
        }
        let limits = self.limits();
        let layers = patch.rest.get("layers").cloned();
        let was_container = current.value.config.runtime.is_container();
        let names_image = patch.rest.contains_key("customContainerConfig") || !was_container;
        let mut config = patch.apply(current.value.config.clone(), limits)?;
        self.bind_layers(scope, layers, &mut config)?;
        check_size(&config)?;
        self.check_runtime(&config)?;
        let is_container = config.runtime.is_container();
        let held = match code {
            // A tag may mean another image by now.
            code if is_container && (names_image || code.is_some()) => Some(self.bring_code(scope, code, &mut config).await?),
            None if is_container || !was_container => None,
            code => Some(self.bring_code(scope, code, &mut config).await?),
        };
        let package = held.as_ref().map_or_else(|| current.value.code.clone(), |held| held.package.clone());
        if config == current.value.config && package == current.value.code {
            // Nothing an instance or a reader could tell apart: the instances stay warm.
            return Ok(current);
        }
        let function = Function { config, code: package, modified: self.now(), ..current.value.clone() };
        match self.inner.store.replace_function(&key, &function, current.revision).await {
            Ok(revision) => {
                if function.code.digest != current.value.code.digest {
                    self.inner.packages.release(current.value.code.digest);
                }
                if !function.runs_like(&current.value) {
                    self.retire(&key, Some("LATEST"), revision);
                }
                self.inner.instances.expect(&function.config);
                tracing::info!(function = %key, revision = revision.0, "updated");
                Ok(Arc::new(Stored { value: function, revision }))
            }
            Err(error) => {
                self.abandon(held).await;
                Err(match error {
                    ReplaceError::NotFound => Error::FunctionNotFound { name: key.name().clone() },
                    ReplaceError::Conflict { .. } => Error::ConcurrentUpdate,
                    ReplaceError::Store(error) => error.into(),
                    other @ ReplaceError::VersionNotFound { .. } => Error::platform("replace the function", other),
                })
            }
        }
    }

    /// Brings what a function of this configuration runs.
    async fn bring_code(&self, scope: &AccountScope, code: Option<Bytes>, config: &mut FunctionConfig) -> Result<Held, Error> {
        if !config.runtime.is_container() {
            config.image = None;
            let code = code.ok_or_else(|| Error::invalid("code.zipFile", "is required: the base64 of a zip archive"))?;
            return self.inner.packages.admit(code, config).await;
        }
        if code.is_some() {
            return Err(Error::invalid("code", "must be absent for the runtime custom-container: the image holds the code"));
        }
        self.bring_image(scope, config).await
    }

    /// A function that nothing here can run is not taken.
    fn check_runtime(&self, config: &FunctionConfig) -> Result<(), Error> {
        let runtime = &config.runtime;
        match self.interpreters().missing(runtime) {
            Some(why) => Err(Error::invalid("runtime", format!("'{}' cannot be served: {why}", runtime.as_str()))),
            None => Ok(()),
        }
    }

    pub(crate) async fn abandon(&self, held: Option<Held>) {
        if let Some(held) = held {
            self.inner.packages.abandon(held).await;
        }
    }

    /// Deletes a function that has no triggers, with its versions and aliases. Calls in flight finish.
    ///
    /// # Errors
    /// When it does not exist or is not empty.
    pub async fn delete_function(&self, scope: &AccountScope, name: &str) -> Result<(), Error> {
        for _ in 0..DELETE_TRIES {
            let (key, current) = self.function(scope, name)?;
            let view = self.inner.store.view();
            let packages = view.versions(&key).map(|version| version.value.function.code.digest);
            let packages: Vec<_> = packages.chain([current.value.code.digest]).collect();
            drop(view);
            match self.inner.store.delete_function(&key, current.revision).await {
                Ok(()) => {
                    packages.into_iter().for_each(|package| self.inner.packages.release(package));
                    self.retire(&key, None, current.revision);
                    self.inner.sessions.forget(&key);
                    self.apply_limits();
                    tracing::info!(function = %key, "deleted");
                    return Ok(());
                }
                // A delete means the function whatever its content, so it may look again.
                Err(DeleteError::Conflict { .. }) => {}
                Err(DeleteError::NotFound) => return Err(Error::FunctionNotFound { name: key.name().clone() }),
                Err(DeleteError::NotEmpty) => return Err(Error::FunctionNotEmpty { name: key.name().clone() }),
                Err(DeleteError::Store(error)) => return Err(error.into()),
            }
        }
        Err(Error::ConcurrentUpdate)
    }

    /// One page of the account's functions by name, and the token of the next page.
    ///
    /// # Errors
    /// When the page that is asked for makes no sense.
    pub async fn list_functions(
        &self,
        scope: &AccountScope,
        paging: &Paging,
        filter: &FunctionFilter,
    ) -> Result<(Vec<Arc<Stored<Function>>>, Option<String>), Error> {
        let limit = paging.limit_in_force()?;
        let purpose = ["functions", scope.account().as_str()];
        let mut after = paging.after(&self.inner.seal, &purpose)?;
        let mut functions = Vec::new();
        loop {
            let page = self.inner.store.list_functions(scope, paging.prefix(), after.as_deref(), limit).await?;
            let more = page.next.is_some();
            for stored in page.items {
                if functions.len() == limit {
                    return Ok((functions, after.map(|last| self.inner.seal.close(&purpose, last.as_bytes()))));
                }
                after = Some(stored.value.config.function_name.to_string());
                if filter.admits(&stored.value.config) {
                    functions.push(stored);
                }
            }
            if !more {
                return Ok((functions, None));
            }
            if functions.len() == limit {
                return Ok((functions, after.map(|last| self.inner.seal.close(&purpose, last.as_bytes()))));
            }
        }
    }
}

/// Members that are only kept have no limits of their own.
fn check_size(config: &FunctionConfig) -> Result<(), Error> {
    let mut total = 0;
    for (member, value) in &config.kept {
        total += member.len() + value.to_string().len();
        if total > CONFIG_BYTES_MAX {
            return Err(Error::invalid(
                member.clone(),
                format!("is too large: a function's configuration has at most {CONFIG_BYTES_MAX} bytes"),
            ));
        }
    }
    let bytes = serde_json::to_vec(config).map_err(|error| Error::platform("write the configuration", error))?.len();
    if bytes > CONFIG_BYTES_MAX {
        return Err(Error::invalid(
            "customRuntimeConfig",
            format!("is too large: a function's configuration has at most {CONFIG_BYTES_MAX} bytes (actual: {bytes})"),
        ));
    }
    Ok(())
}
