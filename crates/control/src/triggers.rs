//! Triggers of type `http`.

use std::sync::Arc;

use dunlin_model::{AccountScope, AuthType, FunctionKey, HttpTriggerConfig, Qualifier, Trigger, TriggerKey, TriggerName};
use dunlin_store::{CreateError, DeleteError, ReplaceError, Stored};
use serde::Deserialize;

use crate::control::{Control, random_id};
use crate::error::Error;
use crate::listing::Paging;
use crate::versions::resolve;

/// Longest `triggerConfig`.
const CONFIG_BYTES_MAX: usize = 16 << 10;

/// How often a fresh URL prefix is drawn before giving up. One in 26^10 is taken.
const PREFIX_TRIES: usize = 8;

/// How often a delete looks again when somebody writes at the same moment.
const DELETE_TRIES: usize = 5;

/// Types of the contract that are not served yet.
const LATER: &[&str] = &["timer", "oss", "log", "sls", "mns_topic", "cdn_events", "tablestore", "eventbridge"];

/// What a trigger is made from, in the wire's spelling.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TriggerInput {
    /// Its name.
    pub trigger_name: Option<String>,
    /// `http`.
    pub trigger_type: Option<String>,
    /// JSON in a string.
    pub trigger_config: Option<String>,
    /// The version or alias it calls; absent means the head.
    pub qualifier: Option<String>,
    /// Free text.
    pub description: Option<String>,
}

/// What of a trigger to change, in the wire's spelling: only present members apply.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TriggerPatch {
    /// JSON in a string.
    pub trigger_config: Option<String>,
    /// The version or alias it calls.
    pub qualifier: Option<String>,
    /// Free text.
    pub description: Option<String>,
}

impl Control {
    /// Creates a trigger.
    ///
    /// # Errors
    /// When a member is wrong, the name is taken, or the version has an HTTP trigger already.
    pub async fn create_trigger(
        &self,
        scope: &AccountScope,
        function: &str,
        input: TriggerInput,
    ) -> Result<Arc<Stored<Trigger>>, Error> {
        let (function, _) = self.function(scope, function)?;
        let name: TriggerName =
            input.trigger_name.as_deref().ok_or_else(|| Error::invalid("triggerName", "is required"))?.parse()?;
        check_type(input.trigger_type.as_deref())?;
        let qualifier = self.qualifier_in_force(&function, input.qualifier.as_deref())?;
        let config_text =
            input.trigger_config.ok_or_else(|| Error::invalid("triggerConfig", "is required for type http: JSON in a string"))?;
        let http = self.check_config(&config_text).await?;
        let description = self.check_description(input.description.unwrap_or_default())?;
        let key = scope.trigger(function.name().clone(), name.clone());

        let _adding = self.inner.adding_trigger.lock().await;
        let exists = |name: TriggerName, why| Error::TriggerExists { function: function.name().clone(), name, why };
        let view = self.inner.store.view();
        if view.trigger(&key).is_some() {
            return Err(exists(name, ""));
        }
        if let Some(other) = view.triggers(&function).find(|other| other.value.qualifier == qualifier) {
            return Err(exists(other.value.name.clone(), ": a version or alias has one http trigger"));
        }
        drop(view);
        let now = self.now();
        let mut trigger = Trigger {
            name,
            trigger_id: random_id(),
            description,
            qualifier,
            http,
            config_text,
            url_prefix: String::new(),
            created: now,
            modified: now,
        };
        let limit = self.limits().triggers_per_function_max;
        for _ in 0..PREFIX_TRIES {
            trigger.url_prefix = url_prefix(&trigger.name, &function);
            match self.inner.store.create_trigger(&key, &trigger, limit).await {
                Ok(revision) => {
                    tracing::info!(%function, trigger = %trigger.name, url_prefix = trigger.url_prefix, "trigger created");
                    return Ok(Arc::new(Stored { value: trigger, revision }));
                }
                Err(CreateError::PrefixTaken) => {}
                Err(CreateError::AlreadyExists) => return Err(exists(trigger.name, "")),
                Err(CreateError::LimitExceeded { limit }) => {
                    return Err(Error::LimitExceeded { what: "triggers of one function", limit });
                }
                Err(CreateError::FunctionNotFound) => return Err(Error::FunctionNotFound { name: function.name().clone() }),
                Err(CreateError::Store(error)) => return Err(error.into()),
                Err(other @ CreateError::VersionNotFound { .. }) => return Err(Error::platform("create the trigger", other)),
            }
        }
        Err(Error::platform("find a free URL prefix", "every one that was drawn is taken"))
    }

    /// A trigger as it is now.
    ///
    /// # Errors
    /// When it or its function does not exist.
    pub fn get_trigger(&self, scope: &AccountScope, function: &str, name: &str) -> Result<Arc<Stored<Trigger>>, Error> {
        self.trigger(scope, function, name).map(|(_, stored)| stored)
    }

    fn trigger(&self, scope: &AccountScope, function: &str, name: &str) -> Result<(TriggerKey, Arc<Stored<Trigger>>), Error> {
        let (function, _) = self.function(scope, function)?;
        let key = scope.trigger(function.name().clone(), name.parse()?);
        match self.inner.store.view().trigger(&key) {
            Some(stored) => Ok((key, Arc::clone(stored))),
            None => Err(not_found(&key)),
        }
    }

    /// Changes the members that are present. The URL stays.
    ///
    /// # Errors
    /// [`Error::ConcurrentUpdate`] when somebody else wrote since this call began.
    pub async fn update_trigger(
        &self,
        scope: &AccountScope,
        function: &str,
        name: &str,
        patch: TriggerPatch,
    ) -> Result<Arc<Stored<Trigger>>, Error> {
        let (key, current) = self.trigger(scope, function, name)?;
        let mut trigger = current.value.clone();
        if let Some(text) = patch.trigger_config {
            trigger.http = self.check_config(&text).await?;
            trigger.config_text = text;
        }
        if let Some(description) = patch.description {
            trigger.description = self.check_description(description)?;
        }
        if let Some(qualifier) = &patch.qualifier {
            trigger.qualifier = self.qualifier_in_force(&key.function, Some(qualifier))?;
        }
        let _changing = self.inner.adding_trigger.lock().await;
        let view = self.inner.store.view();
        let taken = |other: &&Arc<Stored<Trigger>>| other.value.name != key.name && other.value.qualifier == trigger.qualifier;
        if let Some(other) = view.triggers(&key.function).find(taken) {
            let (function, name) = (key.function.name().clone(), other.value.name.clone());
            return Err(Error::TriggerExists { function, name, why: ": a version or alias has one http trigger" });
        }
        drop(view);
        if trigger == current.value {
            return Ok(current);
        }
        trigger.modified = self.now();
        match self.inner.store.replace_trigger(&key, &trigger, current.revision).await {
            Ok(revision) => Ok(Arc::new(Stored { value: trigger, revision })),
            Err(ReplaceError::NotFound) => Err(not_found(&key)),
            Err(ReplaceError::Conflict { .. }) => Err(Error::ConcurrentUpdate),
            Err(ReplaceError::Store(error)) => Err(error.into()),
            Err(other @ ReplaceError::VersionNotFound { .. }) => Err(Error::platform("replace the trigger", other)),
        }
    }

    /// Deletes a trigger. Its URL answers no more.
    ///
    /// # Errors
    /// When it or its function does not exist.
    pub async fn delete_trigger(&self, scope: &AccountScope, function: &str, name: &str) -> Result<(), Error> {
        for _ in 0..DELETE_TRIES {
            let (key, current) = self.trigger(scope, function, name)?;
            match self.inner.store.delete_trigger(&key, current.revision).await {
                Ok(()) => return Ok(()),
                Err(DeleteError::Conflict { .. }) => {}
                Err(DeleteError::NotFound) => return Err(not_found(&key)),
                Err(DeleteError::Store(error)) => return Err(error.into()),
                Err(error @ DeleteError::NotEmpty) => return Err(Error::platform("delete the trigger", error)),
            }
        }
        Err(Error::ConcurrentUpdate)
    }

    /// One page of a function's triggers by name, and the token of the next page.
    ///
    /// # Errors
    /// When the function does not exist or the page makes no sense.
    pub async fn list_triggers(
        &self,
        scope: &AccountScope,
        function: &str,
        paging: &Paging,
    ) -> Result<(Vec<Arc<Stored<Trigger>>>, Option<String>), Error> {
        let limit = paging.limit_in_force()?;
        let (function, _) = self.function(scope, function)?;
        let purpose = ["triggers", scope.account().as_str(), function.name().as_str()];
        let after = paging.after(&self.inner.seal, &purpose)?;
        let page = self.inner.store.list_triggers(&function, paging.prefix(), after.as_deref(), limit).await?;
        Ok((page.items, page.next.map(|last| self.inner.seal.close(&purpose, last.as_bytes()))))
    }

    async fn check_config(&self, text: &str) -> Result<HttpTriggerConfig, Error> {
        if text.len() > CONFIG_BYTES_MAX {
            return Err(Error::invalid(
                "triggerConfig",
                format!("must be at most {CONFIG_BYTES_MAX} bytes (actual: {})", text.len()),
            ));
        }
        let config = HttpTriggerConfig::parse(text)?;
        if config.auth_type == AuthType::Jwt {
            self.check_keys(&config.jwt()?, "triggerConfig.authConfig").await?;
        }
        Ok(config)
    }

    /// As it is stored. It means something when it is written; later the version may go.
    fn qualifier_in_force(&self, function: &FunctionKey, given: Option<&str>) -> Result<String, Error> {
        resolve(&self.inner.store.view(), function, given)?;
        Ok(Qualifier::from_wire(given).to_string())
    }

    pub(crate) fn check_description(&self, description: String) -> Result<String, Error> {
        let max = self.limits().description_chars_max;
        if description.chars().count() > max {
            return Err(Error::invalid("description", format!("must be at most {max} characters")));
        }
        Ok(description)
    }
}

fn not_found(key: &TriggerKey) -> Error {
    Error::TriggerNotFound { function: key.function.name().clone(), name: key.name.clone() }
}

fn check_type(given: Option<&str>) -> Result<(), Error> {
    match given {
        Some("http") => Ok(()),
        None | Some("") => Err(Error::invalid("triggerType", "is required: 'http'")),
        Some(known) if LATER.contains(&known) => {
            Err(Error::invalid("triggerType", format!("'{known}' is not supported yet; use 'http'")))
        }
        Some(_) => Err(Error::invalid("triggerType", "is unknown; use 'http'")),
    }
}

/// A DNS label that nobody has: what a person recognises, and chance. It begins with a letter, and has no two dashes in a
/// row, so that it is never taken for an internationalised name.
fn url_prefix(trigger: &TriggerName, function: &FunctionKey) -> String {
    let mut label = String::new();
    for byte in trigger.as_str().bytes().chain(std::iter::once(b'-')).chain(function.name().as_str().bytes()) {
        match byte {
            b'_' | b'-' if label.is_empty() || label.ends_with('-') => {}
            b'_' | b'-' => label.push('-'),
            other => label.push(char::from(other.to_ascii_lowercase())),
        }
        if label.len() == 40 {
            break;
        }
    }
    let stem = label.trim_matches('-');
    let stem = if stem.starts_with(|first: char| first.is_ascii_lowercase()) { stem.to_owned() } else { format!("f{stem}") };
    format!("{}-{}", stem.trim_matches('-'), random_letters())
}

fn random_letters() -> String {
    let mut text = String::with_capacity(10);
    let mut bytes = [0; 32];
    while text.len() < 10 {
        getrandom::fill(&mut bytes).expect("the kernel has randomness once it has booted");
        // 234 is the largest multiple of 26 in a byte: beyond it the first letters would come up more often.
        text.extend(bytes.iter().filter(|byte| **byte < 234).map(|byte| char::from(b'a' + byte % 26)).take(10 - text.len()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_prefix_is_a_dns_label_whatever_the_names() {
        let long = "x".repeat(64);
        for (trigger, function) in [
            ("web", "hello"),
            ("_", "_"),
            ("___A__b-", "-_".trim_start_matches('-')),
            ("xn--evil", "f"),
            (&long, &long),
            ("_9", "f"),
        ] {
            let account = "1234567890123456".parse().unwrap();
            let key = FunctionKey::from_stored(account, function.parse().unwrap());
            let label = url_prefix(&trigger.parse().unwrap(), &key);
            assert!(label.len() <= 63 && !label.contains("--"), "{label}");
            assert!(label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'), "{label}");
            assert!(label.starts_with(|first: char| first.is_ascii_lowercase()), "{label}");
            assert_ne!(label, url_prefix(&trigger.parse().unwrap(), &key), "chance makes it another one");
        }
    }
}
