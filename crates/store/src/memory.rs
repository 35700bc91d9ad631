//! A store that forgets when it is dropped: for tests, and as the model that [`Sqlite`](crate::Sqlite) must equal.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use dunlin_model::{
    AccountScope, Alias, AliasKey, CustomDomain, DomainKey, Function, FunctionKey, ImageKey, LayerKey, LayerVersion, LocalImage,
    Record, RequestId, Revision, Setting, SettingKey, Trigger, TriggerKey, VersionId,
};
use jiff::Timestamp;

use crate::change::{Change, Done, Refused};
use crate::error::{CreateError, DeleteError, PutError, ReplaceError, StoreError};
use crate::store::{AccessKey, Page, RecordQuery, Store, Stored};
use crate::view::View;

/// See the module.
#[derive(Default)]
pub struct Memory {
    view: ArcSwap<View>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    revision: u64,
    nonces: BTreeMap<u64, i64>,
    records: Vec<Record>,
    requests: HashSet<RequestId>,
}

impl Memory {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: &Change) -> Result<Done, Refused> {
        let mut kept = self.kept();
        let next = Revision(kept.revision + 1);
        let mut view = View::clone(&self.view.load());
        let done = change.apply(&mut view, next)?;
        kept.revision = next.0;
        self.view.store(Arc::new(view));
        Ok(done)
    }
}

#[async_trait]
impl Store for Memory {
    fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    async fn create_function(&self, key: &FunctionKey, function: &Function, limit: usize) -> Result<Revision, CreateError> {
        Ok(self.change(&Change::CreateFunction { key: key.clone(), function: function.clone(), limit })?.revision)
    }

    async fn replace_function(
        &self,
        key: &FunctionKey,
        function: &Function,
        expected: Revision,
    ) -> Result<Revision, ReplaceError> {
        Ok(self.change(&Change::ReplaceFunction { key: key.clone(), function: function.clone(), expected })?.revision)
    }

    async fn delete_function(&self, key: &FunctionKey, expected: Revision) -> Result<(), DeleteError> {
        self.change(&Change::DeleteFunction { key: key.clone(), expected })?;
        Ok(())
    }

    async fn list_functions(
        &self,
        scope: &AccountScope,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<Arc<Stored<Function>>>, StoreError> {
        Ok(self.view.load().list_functions(scope, prefix, after, limit))
    }

    async fn create_trigger(&self, key: &TriggerKey, trigger: &Trigger, limit: usize) -> Result<Revision, CreateError> {
        Ok(self.change(&Change::CreateTrigger { key: key.clone(), trigger: trigger.clone(), limit })?.revision)
    }

    async fn replace_trigger(&self, key: &TriggerKey, trigger: &Trigger, expected: Revision) -> Result<Revision, ReplaceError> {
        Ok(self.change(&Change::ReplaceTrigger { key: key.clone(), trigger: trigger.clone(), expected })?.revision)
    }

    async fn delete_trigger(&self, key: &TriggerKey, expected: Revision) -> Result<(), DeleteError> {
        self.change(&Change::DeleteTrigger { key: key.clone(), expected })?;
        Ok(())
    }

    async fn list_triggers(
        &self,
        function: &FunctionKey,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<Arc<Stored<Trigger>>>, StoreError> {
        Ok(self.view.load().list_triggers(function, prefix, after, limit))
    }

    async fn publish_version(
        &self,
        function: &FunctionKey,
        description: &str,
        at: Timestamp,
        limit: usize,
    ) -> Result<VersionId, CreateError> {
        let (function, description) = (function.clone(), description.to_owned());
        Ok(VersionId(self.change(&Change::PublishVersion { function, description, at, limit })?.number))
    }

    async fn delete_version(&self, function: &FunctionKey, id: VersionId) -> Result<(), DeleteError> {
        self.change(&Change::DeleteVersion { function: function.clone(), id })?;
        Ok(())
    }

    async fn create_alias(&self, key: &AliasKey, alias: &Alias, limit: usize) -> Result<Revision, CreateError> {
        Ok(self.change(&Change::CreateAlias { key: key.clone(), alias: alias.clone(), limit })?.revision)
    }

    async fn replace_alias(&self, key: &AliasKey, alias: &Alias, expected: Revision) -> Result<Revision, ReplaceError> {
        Ok(self.change(&Change::ReplaceAlias { key: key.clone(), alias: alias.clone(), expected })?.revision)
    }

    async fn delete_alias(&self, key: &AliasKey, expected: Revision) -> Result<(), DeleteError> {
        self.change(&Change::DeleteAlias { key: key.clone(), expected })?;
        Ok(())
    }

    async fn put_setting(
        &self,
        key: &SettingKey,
        setting: &Setting,
        expected: Option<Revision>,
        account_max: Option<u64>,
    ) -> Result<Revision, PutError> {
        let (key, setting) = (key.clone(), setting.clone());
        Ok(self.change(&Change::PutSetting { key, setting, expected, account_max })?.revision)
    }

    async fn delete_setting(&self, key: &SettingKey, expected: Revision) -> Result<(), DeleteError> {
        self.change(&Change::DeleteSetting { key: key.clone(), expected })?;
        Ok(())
    }

    async fn replace_functions(&self, functions: &[(FunctionKey, Function, Revision)]) -> Result<Revision, ReplaceError> {
        Ok(self.change(&Change::ReplaceFunctions(functions.to_vec()))?.revision)
    }

    async fn create_layer_version(&self, key: &LayerKey, version: &LayerVersion, limit: usize) -> Result<u64, CreateError> {
        let change = Change::CreateLayerVersion { key: key.clone(), version: version.clone(), limit };
        Ok(self.change(&change)?.number)
    }

    async fn delete_layer_version(&self, key: &LayerKey, version: u64) -> Result<(), DeleteError> {
        self.change(&Change::DeleteLayerVersion { key: key.clone(), version })?;
        Ok(())
    }

    async fn put_layer_acl(&self, key: &LayerKey, public: bool) -> Result<(), DeleteError> {
        self.change(&Change::PutLayerAcl { key: key.clone(), public })?;
        Ok(())
    }

    async fn create_domain(&self, key: &DomainKey, domain: &CustomDomain, limit: usize) -> Result<Revision, CreateError> {
        Ok(self.change(&Change::CreateDomain { key: key.clone(), domain: Box::new(domain.clone()), limit })?.revision)
    }

    async fn replace_domain(&self, key: &DomainKey, domain: &CustomDomain, expected: Revision) -> Result<Revision, ReplaceError> {
        let (key, domain) = (key.clone(), Box::new(domain.clone()));
        Ok(self.change(&Change::ReplaceDomain { key, domain, expected })?.revision)
    }

    async fn delete_domain(&self, key: &DomainKey, expected: Revision) -> Result<(), DeleteError> {
        self.change(&Change::DeleteDomain { key: key.clone(), expected })?;
        Ok(())
    }

    async fn put_image(&self, key: &ImageKey, image: &LocalImage, limit: usize) -> Result<Revision, CreateError> {
        Ok(self.change(&Change::PutImage { key: key.clone(), image: Box::new(image.clone()), limit })?.revision)
    }

    async fn delete_image(&self, key: &ImageKey) -> Result<(), DeleteError> {
        self.change(&Change::DeleteImage { key: key.clone() })?;
        Ok(())
    }

    async fn put_access_key(&self, key: &AccessKey) -> Result<(), StoreError> {
        self.change(&Change::PutAccessKey(key.clone()))?;
        Ok(())
    }

    async fn put_nonces(&self, nonces: &[(u64, i64)]) -> Result<(), StoreError> {
        self.kept().nonces.extend(nonces.iter().copied());
        Ok(())
    }

    async fn nonces_after(&self, second: i64) -> Result<Vec<(u64, i64)>, StoreError> {
        Ok(self.kept().nonces.iter().filter(|(_, expires)| **expires > second).map(|(hash, expires)| (*hash, *expires)).collect())
    }

    async fn forget_nonces(&self, second: i64) -> Result<(), StoreError> {
        self.kept().nonces.retain(|_, expires| *expires > second);
        Ok(())
    }

    async fn append_records(&self, records: &[Record]) -> Result<(), StoreError> {
        let mut kept = self.kept();
        for record in records {
            if kept.requests.insert(record.request_id.clone()) {
                kept.records.push(record.clone());
            }
        }
        Ok(())
    }

    async fn records(&self, scope: &AccountScope, query: &RecordQuery) -> Result<Page<Record>, StoreError> {
        let Some(below) = query.below() else { return Ok(Page { items: Vec::new(), next: None }) };
        let kept = self.kept();
        let mut found =
            kept.records.iter().enumerate().rev().map(|(at, record)| (record, at as u64 + 1)).filter(|(record, sequence)| {
                *sequence < below
                    && record.account == *scope.account()
                    && query.function.as_ref().is_none_or(|function| record.function == *function)
                    && query.request.as_ref().is_none_or(|request| record.request_id == *request)
                    && query.since.is_none_or(|since| record.started >= since)
                    && query.until.is_none_or(|until| record.started < until)
            });
        let page: Vec<_> = found.by_ref().take(query.limit_in_force()).collect();
        let next = if found.next().is_some() { page.last().map(|(_, sequence)| sequence.to_string()) } else { None };
        Ok(Page { items: page.into_iter().map(|(record, _)| record.clone()).collect(), next })
    }
}
