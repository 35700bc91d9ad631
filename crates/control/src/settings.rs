//! How settings are read and written, whatever they say.

use std::sync::Arc;

use dunlin_model::{AccountScope, FunctionName, Setting, SettingContent, SettingKey, SettingKind, Stored};
use dunlin_store::{DeleteError, PutError};

use crate::control::Control;
use crate::error::Error;
use crate::listing::Paging;

/// How often a write looks again when somebody else writes at the same moment.
const TRIES: usize = 8;

/// One setting in a listing, with what it is of.
pub type Listed = (SettingKey, Arc<Stored<Setting>>);

impl Control {
    /// Writes what `make` makes of what there is. A put means its content whatever was there, so it may look again.
    pub(crate) async fn put_setting(
        &self,
        key: &SettingKey,
        account_max: Option<u64>,
        make: impl Fn(Option<&SettingContent>) -> Result<SettingContent, Error> + Send,
    ) -> Result<Arc<Stored<Setting>>, Error> {
        for _ in 0..TRIES {
            let current = self.setting(key);
            let content = make(current.as_ref().map(|stored| &stored.value.content))?;
            if let Some(current) = current.as_ref().filter(|stored| stored.value.content == content) {
                return Ok(Arc::clone(current));
            }
            let modified = self.now();
            let created = current.as_ref().map_or(modified, |stored| stored.value.created);
            let setting = Setting { content, created, modified };
            let expected = current.map(|stored| stored.revision);
            match self.inner.store.put_setting(key, &setting, expected, account_max).await {
                Ok(revision) => {
                    tracing::info!(function = %key.function(), kind = %key.kind(), qualifier = key.qualifier(), "setting written");
                    return Ok(Arc::new(Stored { value: setting, revision }));
                }
                Err(PutError::Conflict { .. }) => {}
                Err(PutError::FunctionNotFound) => return Err(Error::FunctionNotFound { name: key.function_name().clone() }),
                Err(PutError::ShareExceeded { max, taken }) => return Err(Error::ReservationExceeded { max, taken }),
                Err(PutError::Store(error)) => return Err(error.into()),
            }
        }
        Err(Error::ConcurrentUpdate)
    }

    pub(crate) fn setting(&self, key: &SettingKey) -> Option<Arc<Stored<Setting>>> {
        self.inner.store.view().setting(key).cloned()
    }

    /// Removes a setting. Answers whether there was one.
    pub(crate) async fn delete_setting(&self, key: &SettingKey) -> Result<bool, Error> {
        for _ in 0..TRIES {
            let Some(current) = self.setting(key) else { return Ok(false) };
            match self.inner.store.delete_setting(key, current.revision).await {
                Ok(()) => return Ok(true),
                Err(DeleteError::Conflict { .. }) => {}
                Err(DeleteError::NotFound) => return Ok(false),
                Err(DeleteError::Store(error)) => return Err(error.into()),
                Err(error @ DeleteError::NotEmpty) => return Err(Error::platform("delete a setting", error)),
            }
        }
        Err(Error::ConcurrentUpdate)
    }

    /// One page of the account's settings of one kind, all or one function's, and the token of the next page.
    pub(crate) fn list_settings(
        &self,
        scope: &AccountScope,
        kind: SettingKind,
        function: Option<&str>,
        paging: &Paging,
    ) -> Result<(Vec<Listed>, Option<String>), Error> {
        let limit = paging.limit_in_force()?;
        let only: Option<FunctionName> = function.map(str::parse).transpose()?;
        let purpose = ["settings", scope.account().as_str(), kind.as_str(), function.unwrap_or_default()];
        let after = paging.after(&self.inner.seal, &purpose)?;
        // Neither part has a slash in it.
        let last = after.as_deref().and_then(|mark| mark.split_once('/'));
        let view = self.inner.store.view();
        let mut rest = view.settings(scope.account(), kind).filter(|(key, _)| {
            only.as_ref().is_none_or(|only| key.function_name() == only)
                && last.is_none_or(|last| (key.function_name().as_str(), key.qualifier()) > last)
        });
        let found: Vec<Listed> = rest.by_ref().take(limit).map(|(key, setting)| (key.clone(), Arc::clone(setting))).collect();
        let more = rest.next().is_some();
        let mark = |(key, _): &Listed| format!("{}/{}", key.function_name(), key.qualifier());
        let next = found.last().filter(|_| more).map(|last| self.inner.seal.close(&purpose, mark(last).as_bytes()));
        Ok((found, next))
    }
}
