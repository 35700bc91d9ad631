//! How asynchronous calls are to be treated.

use std::sync::Arc;

use dunlin_model::{AccountScope, AsyncInvoke, FunctionKey, Qualifier, Setting, SettingContent, SettingKey, SettingKind, Stored};

use crate::control::Control;
use crate::error::Error;
use crate::listing::Paging;
use crate::settings::Listed;
use crate::versions::resolve;

impl Control {
    /// Says how asynchronous calls of a version, an alias or the head are treated, in place of what was said before.
    ///
    /// # Errors
    /// When a member is wrong or the qualifier means nothing.
    pub async fn put_async_invoke(
        &self,
        scope: &AccountScope,
        function: &str,
        qualifier: Option<&str>,
        input: AsyncInvoke,
    ) -> Result<(SettingKey, Arc<Stored<Setting>>), Error> {
        let key = self.async_key(scope, function, qualifier)?;
        resolve(&self.inner.store.view(), &key.function(), qualifier)?;
        input.check(&key.function())?;
        let content = SettingContent::AsyncInvoke(input);
        let stored = self.put_setting(&key, None, |_| Ok(content.clone())).await?;
        Ok((key, stored))
    }

    /// How asynchronous calls are treated.
    ///
    /// # Errors
    /// When nothing was said, or there is no such function.
    pub fn get_async_invoke(
        &self,
        scope: &AccountScope,
        function: &str,
        qualifier: Option<&str>,
    ) -> Result<(SettingKey, Arc<Stored<Setting>>), Error> {
        let key = self.async_key(scope, function, qualifier)?;
        match self.setting(&key) {
            Some(stored) => Ok((key, stored)),
            None => Err(not_found(&key)),
        }
    }

    /// Takes back what was said.
    ///
    /// # Errors
    /// When nothing was said, or there is no such function.
    pub async fn delete_async_invoke(&self, scope: &AccountScope, function: &str, qualifier: Option<&str>) -> Result<(), Error> {
        let key = self.async_key(scope, function, qualifier)?;
        if self.delete_setting(&key).await? { Ok(()) } else { Err(not_found(&key)) }
    }

    /// One page of what was said in the account, all or of one function, and the token of the next page.
    ///
    /// # Errors
    /// When the page makes no sense.
    pub fn list_async_invoke(
        &self,
        scope: &AccountScope,
        function: Option<&str>,
        paging: &Paging,
    ) -> Result<(Vec<Listed>, Option<String>), Error> {
        self.list_settings(scope, SettingKind::AsyncInvoke, function, paging)
    }

    fn async_key(&self, scope: &AccountScope, function: &str, qualifier: Option<&str>) -> Result<SettingKey, Error> {
        let (function, _): (FunctionKey, _) = self.function(scope, function)?;
        let qualifier = Qualifier::from_wire(qualifier).to_string();
        Ok(SettingKey::for_qualifier(&function, SettingKind::AsyncInvoke, &qualifier))
    }
}

fn not_found(key: &SettingKey) -> Error {
    let qualifier = key.qualifier().chars().flat_map(char::escape_debug).take(128).collect();
    Error::AsyncInvokeNotFound { function: key.function_name().clone(), qualifier }
}
