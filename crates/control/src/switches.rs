//! Whether a function may be called, and which networks it is bound to.

use std::sync::Arc;

use dunlin_model::{AccountScope, Restriction, Setting, SettingContent, SettingKey, SettingKind, Stored, VpcBindings};
use serde::Deserialize;

use crate::control::Control;
use crate::error::Error;

/// Most networks of one function.
const VPC_BINDINGS_MAX: usize = 20;

/// Why calls are switched off, in the wire's spelling.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DisableInput {
    /// Whether calls in flight end at once as well.
    pub abort_ongoing_request: Option<bool>,
    /// In the owner's words.
    pub reason: Option<String>,
}

impl Control {
    /// Refuses calls of a function from now on. Its instances end, those that serve when they have answered or, if that is
    /// asked for, at once.
    ///
    /// # Errors
    /// When there is no such function.
    pub async fn disable_invocation(&self, scope: &AccountScope, function: &str, input: DisableInput) -> Result<(), Error> {
        let (function, _) = self.function(scope, function)?;
        let reason = input.reason.filter(|reason| !reason.is_empty());
        let max = self.limits().description_chars_max;
        if reason.as_ref().is_some_and(|reason| reason.chars().count() > max) {
            return Err(Error::invalid("reason", format!("must be at most {max} characters")));
        }
        let content = SettingContent::Restriction(Restriction { disable: true, reason });
        let key = SettingKey::of(&function, SettingKind::Restriction);
        self.put_setting(&key, None, |_| Ok(content.clone())).await?;
        self.inner.scaling.refresh();
        if input.abort_ongoing_request.unwrap_or(false) {
            self.inner.instances.abort(&function);
        } else {
            self.inner.instances.retire(&function, None);
        }
        Ok(())
    }

    /// Lets calls of a function in again.
    ///
    /// # Errors
    /// When there is no such function.
    pub async fn enable_invocation(&self, scope: &AccountScope, function: &str) -> Result<(), Error> {
        let (function, _) = self.function(scope, function)?;
        let key = SettingKey::of(&function, SettingKind::Restriction);
        if self.setting(&key).is_some() {
            let content = SettingContent::Restriction(Restriction { disable: false, reason: None });
            self.put_setting(&key, None, |_| Ok(content.clone())).await?;
            self.inner.scaling.refresh();
        }
        Ok(())
    }

    /// What was said about calls of a function, if anything was.
    #[must_use]
    pub fn restriction(&self, scope: &AccountScope, function: &str) -> Option<Arc<Stored<Setting>>> {
        let key = scope.function(function.parse().ok()?);
        self.setting(&SettingKey::of(&key, SettingKind::Restriction))
    }

    /// Binds a function to a network, once.
    ///
    /// # Errors
    /// When the network's id is wrong, or there are as many as there may be.
    pub async fn create_vpc_binding(&self, scope: &AccountScope, function: &str, vpc_id: Option<&str>) -> Result<(), Error> {
        let (function, _) = self.function(scope, function)?;
        let vpc_id = vpc_id.filter(|id| !id.is_empty()).ok_or_else(|| Error::invalid("vpcId", "is required"))?;
        if vpc_id.len() > 64 || !vpc_id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
            return Err(Error::invalid("vpcId", "must be at most 64 letters, digits, '-' and '_'"));
        }
        self.put_setting(&SettingKey::of(&function, SettingKind::VpcBindings), None, |current| {
            let mut vpc_ids = bound(current);
            if !vpc_ids.iter().any(|bound| bound == vpc_id) {
                vpc_ids.push(vpc_id.to_owned());
            }
            if vpc_ids.len() > VPC_BINDINGS_MAX {
                return Err(Error::LimitExceeded { what: "vpc bindings of one function", limit: VPC_BINDINGS_MAX });
            }
            Ok(SettingContent::VpcBindings(VpcBindings { vpc_ids }))
        })
        .await
        .map(drop)
    }

    /// The networks a function is bound to.
    ///
    /// # Errors
    /// When there is no such function.
    pub fn list_vpc_bindings(&self, scope: &AccountScope, function: &str) -> Result<Vec<String>, Error> {
        let (function, _) = self.function(scope, function)?;
        let setting = self.setting(&SettingKey::of(&function, SettingKind::VpcBindings));
        Ok(bound(setting.as_ref().map(|stored| &stored.value.content)))
    }

    /// Takes a function's binding to a network back.
    ///
    /// # Errors
    /// When it is not bound to it.
    pub async fn delete_vpc_binding(&self, scope: &AccountScope, function: &str, vpc_id: &str) -> Result<(), Error> {
        let (function, _) = self.function(scope, function)?;
        self.put_setting(&SettingKey::of(&function, SettingKind::VpcBindings), None, |current| {
            let mut vpc_ids = bound(current);
            let Some(position) = vpc_ids.iter().position(|bound| bound == vpc_id) else {
                let vpc_id = vpc_id.chars().flat_map(char::escape_debug).take(64).collect();
                return Err(Error::VpcBindingNotFound { function: function.name().clone(), vpc_id });
            };
            vpc_ids.remove(position);
            Ok(SettingContent::VpcBindings(VpcBindings { vpc_ids }))
        })
        .await
        .map(drop)
    }
}

fn bound(content: Option<&SettingContent>) -> Vec<String> {
    match content {
        Some(SettingContent::VpcBindings(bindings)) => bindings.vpc_ids.clone(),
        _ => Vec::new(),
    }
}
