//! How many instances are kept ready: what is said of it, and how it stands.

use dunlin_model::{AccountScope, FunctionKey, Provision, Qualifier, Scaling, SettingContent, SettingKey, SettingKind};
use dunlin_scaling::Readiness;

use crate::control::Control;
use crate::error::Error;
use crate::listing::Paging;
use crate::settings::Listed;
use crate::versions::resolve;

/// One setting and how it stands.
#[derive(Clone, Debug)]
pub struct Stands {
    /// What it is of.
    pub key: SettingKey,
    /// What it says; none when nothing was said.
    pub content: Option<SettingContent>,
    /// How it stands.
    pub standing: Readiness,
}

impl Control {
    /// Says in the older form how many instances of a version, an alias or the head are kept ready, in place of what was
    /// said before.
    ///
    /// # Errors
    /// When a member is wrong, the qualifier means nothing, or the newer form is used for it.
    pub async fn put_provision(
        &self,
        scope: &AccountScope,
        function: &str,
        qualifier: Option<&str>,
        input: Provision,
    ) -> Result<Stands, Error> {
        input.plan(self.limits().instances_per_account_max)?;
        self.put_ready(scope, function, qualifier, SettingContent::Provision(input)).await
    }

    /// The same in the newer form.
    ///
    /// # Errors
    /// When a member is wrong, the qualifier means nothing, or the older form is used for it.
    pub async fn put_scaling(
        &self,
        scope: &AccountScope,
        function: &str,
        qualifier: Option<&str>,
        input: Scaling,
    ) -> Result<Stands, Error> {
        input.plan(self.limits().instances_per_account_max)?;
        self.put_ready(scope, function, qualifier, SettingContent::Scaling(input)).await
    }

    async fn put_ready(
        &self,
        scope: &AccountScope,
        function: &str,
        qualifier: Option<&str>,
        content: SettingContent,
    ) -> Result<Stands, Error> {
        let key = self.ready_key(scope, function, qualifier, content.kind())?;
        resolve(&self.inner.store.view(), &key.function(), qualifier)?;
        self.check_other_form(&key)?;
        self.put_setting(&key, None, |_| Ok(content.clone())).await?;
        self.inner.scaling.refresh();
        Ok(self.stands(key))
    }

    /// One of the two forms is used at a time; one that says nothing is in nobody's way.
    fn check_other_form(&self, key: &SettingKey) -> Result<(), Error> {
        let other = if key.kind() == SettingKind::Scaling { SettingKind::Provision } else { SettingKind::Scaling };
        let other = self.setting(&SettingKey::for_qualifier(&key.function(), other, key.qualifier()));
        let (function, qualifier) = (key.function_name().clone(), key.qualifier().to_owned());
        match other.as_ref().map(|stored| &stored.value.content) {
            Some(SettingContent::Provision(said)) if !said.is_empty() => Err(Error::ProvisionExists { function, qualifier }),
            Some(SettingContent::Scaling(said)) if !said.is_empty() => Err(Error::ScalingExists { function, qualifier }),
            _ => Ok(()),
        }
    }

    /// How many instances are kept ready and how that stands; nothing said is no error.
    ///
    /// # Errors
    /// When there is no such function or the qualifier means nothing.
    pub fn get_ready(
        &self,
        scope: &AccountScope,
        function: &str,
        qualifier: Option<&str>,
        kind: SettingKind,
    ) -> Result<Stands, Error> {
        let key = self.ready_key(scope, function, qualifier, kind)?;
        if self.setting(&key).is_none() {
            resolve(&self.inner.store.view(), &key.function(), qualifier)?;
        }
        self.inner.scaling.refresh();
        Ok(self.stands(key))
    }

    /// Keeps no instances ready any more. Where none are, that is so already.
    ///
    /// # Errors
    /// When there is no such function or the qualifier means nothing.
    pub async fn delete_ready(
        &self,
        scope: &AccountScope,
        function: &str,
        qualifier: Option<&str>,
        kind: SettingKind,
    ) -> Result<(), Error> {
        let key = self.ready_key(scope, function, qualifier, kind)?;
        if !self.delete_setting(&key).await? {
            resolve(&self.inner.store.view(), &key.function(), qualifier)?;
        }
        self.inner.scaling.refresh();
        Ok(())
    }

    /// One page of what is kept ready in the account, all or of one function, and the token of the next page.
    ///
    /// # Errors
    /// When the page makes no sense.
    pub fn list_ready(
        &self,
        scope: &AccountScope,
        function: Option<&str>,
        kind: SettingKind,
        paging: &Paging,
    ) -> Result<(Vec<Stands>, Option<String>), Error> {
        let (listed, next): (Vec<Listed>, _) = self.list_settings(scope, kind, function, paging)?;
        self.inner.scaling.refresh();
        Ok((listed.into_iter().map(|(key, _)| self.stands(key)).collect(), next))
    }

    fn stands(&self, key: SettingKey) -> Stands {
        let content = self.setting(&key).map(|stored| stored.value.content.clone());
        Stands { standing: self.inner.scaling.standing(&key), content, key }
    }

    fn ready_key(
        &self,
        scope: &AccountScope,
        function: &str,
        qualifier: Option<&str>,
        kind: SettingKind,
    ) -> Result<SettingKey, Error> {
        let (function, _): (FunctionKey, _) = self.function(scope, function)?;
        Ok(SettingKey::for_qualifier(&function, kind, &Qualifier::from_wire(qualifier).to_string()))
    }
}
