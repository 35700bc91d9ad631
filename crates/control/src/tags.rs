//! Tags and resource groups: labels that instances do not see.

use std::collections::BTreeSet;

use dunlin_model::{AccountScope, Function, FunctionKey, Stored, Tag};
use dunlin_store::ReplaceError;
use serde::Deserialize;
use serde_json::Value;

use crate::control::Control;
use crate::error::Error;
use crate::listing::{Listing, Paging};

/// How often a write looks again when somebody else writes at the same moment.
const TRIES: usize = 8;
/// Most resources in one request.
const RESOURCES_MAX: usize = 50;

/// Which resources to label how, in the wire's spelling.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TagInput {
    /// Functions, by resource name or by their own.
    pub resource_id: Option<Vec<String>>,
    /// `function`.
    pub resource_type: Option<String>,
    /// The labels.
    pub tag: Option<Vec<Tag>>,
}

/// Which labels to take away.
#[derive(Clone, Debug, Default)]
pub struct UntagInput {
    /// Functions, by resource name or by their own.
    pub resource_id: Option<Vec<String>>,
    /// `function`.
    pub resource_type: Option<String>,
    /// The labels' keys.
    pub tag_key: Option<Vec<String>>,
    /// Whether to take all of them away.
    pub all: bool,
}

/// Which labels to list; an absent member excludes none.
#[derive(Clone, Debug, Default)]
pub struct TagFilter {
    /// Only these functions'.
    pub resource_id: Option<Vec<String>>,
    /// `function`.
    pub resource_type: Option<String>,
    /// Only those of functions that have all of these labels. An empty value stands for any.
    pub tags: Vec<Tag>,
}

/// Where a function belongs, in the wire's spelling.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ResourceGroupInput {
    /// The function, by resource name or by its own.
    pub resource_id: Option<String>,
    /// `function`.
    pub resource_type: Option<String>,
    /// The group it comes to.
    pub new_resource_group_id: Option<String>,
}

impl Control {
    /// Labels functions, all of them or none. A label whose key is there already gets the new value.
    ///
    /// # Errors
    /// When a member is wrong, a function does not exist, or would have too many labels.
    pub async fn tag_resources(&self, scope: &AccountScope, input: TagInput) -> Result<(), Error> {
        let keys = self.resources(scope, input.resource_type.as_deref(), input.resource_id.as_deref())?;
        let tags = input.tag.filter(|tags| !tags.is_empty()).ok_or_else(|| Error::invalid("Tag", "is required"))?;
        let names: BTreeSet<&str> = tags.iter().map(|tag| tag.key.as_str()).collect();
        if names.len() != tags.len() {
            return Err(Error::invalid("Tag", "must not have a Key twice"));
        }
        self.relabel(&keys, "Tag", |own| {
            for tag in &tags {
                match own.iter_mut().find(|other| other.key == tag.key) {
                    Some(other) => other.value.clone_from(&tag.value),
                    None => own.push(tag.clone()),
                }
            }
        })
        .await
    }

    /// Takes labels away, from all of the functions or none. One that is not there is no error.
    ///
    /// # Errors
    /// When a member is wrong or a function does not exist.
    pub async fn untag_resources(&self, scope: &AccountScope, input: UntagInput) -> Result<(), Error> {
        let keys = self.resources(scope, input.resource_type.as_deref(), input.resource_id.as_deref())?;
        let names = input.tag_key.unwrap_or_default();
        if names.is_empty() && !input.all {
            return Err(Error::invalid("TagKey", "is required unless All is true"));
        }
        // Keys that are named are meant, whatever All says.
        self.relabel(&keys, "TagKey", |own| own.retain(|tag| !names.is_empty() && !names.contains(&tag.key))).await
    }

    async fn relabel(
        &self,
        keys: &[FunctionKey],
        member: &str,
        change: impl Fn(&mut Vec<Tag>) + Send + Sync,
    ) -> Result<(), Error> {
        self.change_all(keys, |function| {
            let mut tags = function.config.tags.take().unwrap_or_default();
            change(&mut tags);
            function.config.tags = Some(tags).filter(|tags| !tags.is_empty());
            let checked = function.config.check(self.limits());
            checked.map_err(
                |invalid| {
                    if invalid.field == "tags" { Error::invalid(member, invalid.problem) } else { invalid.into() }
                },
            )
        })
        .await
    }

    /// Changes functions in a way that no instance can see.
    async fn change_all(
        &self,
        keys: &[FunctionKey],
        change: impl Fn(&mut Function) -> Result<(), Error> + Send + Sync,
    ) -> Result<(), Error> {
        for _ in 0..TRIES {
            let view = self.inner.store.view();
            let mut changed = Vec::new();
            for key in keys {
                let stored = view.function(key).ok_or_else(|| Error::FunctionNotFound { name: key.name().clone() })?;
                let mut function = stored.value.clone();
                change(&mut function)?;
                if function != stored.value {
                    function.modified = self.now();
                    changed.push((key.clone(), function, stored.revision));
                }
            }
            drop(view);
            if changed.is_empty() {
                return Ok(());
            }
            match self.inner.store.replace_functions(&changed).await {
                Ok(_) => return Ok(()),
                Err(ReplaceError::NotFound | ReplaceError::Conflict { .. }) => {}
                Err(ReplaceError::Store(error)) => return Err(error.into()),
                Err(error @ ReplaceError::VersionNotFound { .. }) => return Err(Error::platform("label functions", error)),
            }
        }
        Err(Error::ConcurrentUpdate)
    }

    /// One page of functions that have labels, by name, and the token of the next page.
    ///
    /// # Errors
    /// When a member is wrong or the page makes no sense.
    pub fn list_tagged(&self, scope: &AccountScope, filter: &TagFilter, paging: &Paging) -> Result<Listing<Function>, Error> {
        check_type(filter.resource_type.as_deref())?;
        let only = match filter.resource_id.as_deref() {
            None | Some([]) => None,
            Some(_) => Some(self.resources(scope, filter.resource_type.as_deref(), filter.resource_id.as_deref())?),
        };
        let view = self.inner.store.view();
        let has = |function: &Function, wanted: &Tag| {
            let mut own = function.config.tags.iter().flatten();
            own.any(|tag| tag.key == wanted.key && (wanted.value.is_empty() || tag.value == wanted.value))
        };
        let tagged = view.functions_of(scope.account()).filter(|stored| {
            let function = &stored.value;
            function.config.tags.is_some()
                && only.as_ref().is_none_or(|only| only.iter().any(|key| *key.name() == function.config.function_name))
                && filter.tags.iter().all(|wanted| has(function, wanted))
        });
        let is_after = |stored: &Stored<Function>, last: &str| stored.value.config.function_name.as_str() > last;
        let purpose = ["tags", scope.account().as_str()];
        crate::listing::page(&self.inner.seal, &purpose, paging, tagged, is_after, |stored| {
            stored.value.config.function_name.to_string()
        })
    }

    /// Puts a function into another resource group. Answers the group it was in, if it was in one.
    ///
    /// # Errors
    /// When a member is wrong or the function does not exist.
    pub async fn change_resource_group(&self, scope: &AccountScope, input: &ResourceGroupInput) -> Result<Option<String>, Error> {
        let id = input.resource_id.clone().ok_or_else(|| Error::invalid("ResourceId", "is required"))?;
        let keys = self.resources(scope, input.resource_type.as_deref(), Some(&[id]))?;
        let group = input.new_resource_group_id.as_deref().filter(|group| !group.is_empty());
        let group = group.ok_or_else(|| Error::invalid("NewResourceGroupId", "is required"))?;
        if group.len() > 64 || !group.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
            return Err(Error::invalid("NewResourceGroupId", "must be at most 64 letters, digits, '-' and '_'"));
        }
        let before = self
            .inner
            .store
            .view()
            .function(&keys[0])
            .and_then(|stored| stored.value.config.kept.get("resourceGroupId").and_then(Value::as_str).map(str::to_owned));
        self.change_all(&keys, |function| {
            function.config.kept.insert("resourceGroupId".to_owned(), group.into());
            Ok(())
        })
        .await?;
        Ok(before)
    }

    /// The functions that are meant, each once.
    fn resources(&self, scope: &AccountScope, kind: Option<&str>, ids: Option<&[String]>) -> Result<Vec<FunctionKey>, Error> {
        check_type(kind)?;
        let ids = ids.filter(|ids| !ids.is_empty()).ok_or_else(|| Error::invalid("ResourceId", "is required"))?;
        if ids.len() > RESOURCES_MAX {
            return Err(Error::invalid("ResourceId", format!("must be at most {RESOURCES_MAX} (actual: {})", ids.len())));
        }
        let mut keys = BTreeSet::new();
        for id in ids {
            let shown: String = id.chars().flat_map(char::escape_debug).take(100).collect();
            let wrong = || {
                let form = format!("must name a function, for example {}", function_arn(self.region(), scope, "hello"));
                Error::invalid("ResourceId", format!("{form} (actual: '{shown}')"))
            };
            let name = match id.strip_prefix(&function_arn(self.region(), scope, "")) {
                Some(name) => name,
                // Whether another account has it, is none of the caller's business.
                None if id.starts_with("acs:") => return Err(wrong()),
                None => id.strip_prefix("functions/").unwrap_or(id),
            };
            let key = scope.function(name.parse().map_err(|_| wrong())?);
            if self.inner.store.view().function(&key).is_none() {
                return Err(Error::FunctionNotFound { name: key.name().clone() });
            }
            keys.insert(key);
        }
        Ok(keys.into_iter().collect())
    }
}

fn function_arn(region: &str, scope: &AccountScope, name: &str) -> String {
    format!("acs:fc:{region}:{}:functions/{name}", scope.account())
}

fn check_type(given: Option<&str>) -> Result<(), Error> {
    match given {
        Some(kind)
            if ["function", "aliyun::fc::function", "aliyun::fc:function"].contains(&kind.to_ascii_lowercase().as_str()) =>
        {
            Ok(())
        }
        None | Some("") => Err(Error::invalid("ResourceType", "is required: 'function'")),
        Some(_) => Err(Error::invalid("ResourceType", "must be 'function'")),
    }
}
