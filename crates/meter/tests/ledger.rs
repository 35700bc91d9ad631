//! No record is lost, none counts twice, and no call waits for one.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use dunlin_meter::{Config, Ledger};
use dunlin_model::{
    AccountScope, Alias, AliasKey, CustomDomain, DomainKey, Function, FunctionKey, ImageKey, LayerKey, LayerVersion, LocalImage,
    Record, Revision, Setting, SettingKey, Trigger, TriggerKey, VersionId,
};
use dunlin_store::{
    AccessKey, CreateError, DeleteError, Memory, Page, PutError, RecordQuery, ReplaceError, Store, StoreError, Stored, View,
    contract,
};
use jiff::Timestamp;
use tokio::sync::Notify;

/// A store whose appends fail on request: wholly, or after having written.
#[derive(Default)]
struct Flaky {
    inner: Memory,
    full: AtomicBool,
    lose_answer: AtomicBool,
    appends: AtomicUsize,
    tried: Notify,
}

#[async_trait]
impl Store for Flaky {
    fn view(&self) -> Arc<View> {
        self.inner.view()
    }
    async fn create_function(&self, key: &FunctionKey, function: &Function, limit: usize) -> Result<Revision, CreateError> {
        self.inner.create_function(key, function, limit).await
    }
    async fn replace_function(
        &self,
        key: &FunctionKey,
        function: &Function,
        expected: Revision,
    ) -> Result<Revision, ReplaceError> {
        self.inner.replace_function(key, function, expected).await
    }
    async fn delete_function(&self, key: &FunctionKey, expected: Revision) -> Result<(), DeleteError> {
        self.inner.delete_function(key, expected).await
    }
    async fn list_functions(
        &self,
        scope: &AccountScope,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<Arc<Stored<Function>>>, StoreError> {
        self.inner.list_functions(scope, prefix, after, limit).await
    }
    async fn create_trigger(&self, key: &TriggerKey, trigger: &Trigger, limit: usize) -> Result<Revision, CreateError> {
        self.inner.create_trigger(key, trigger, limit).await
    }
    async fn replace_trigger(&self, key: &TriggerKey, trigger: &Trigger, expected: Revision) -> Result<Revision, ReplaceError> {
        self.inner.replace_trigger(key, trigger, expected).await
    }
    async fn delete_trigger(&self, key: &TriggerKey, expected: Revision) -> Result<(), DeleteError> {
        self.inner.delete_trigger(key, expected).await
    }
    async fn list_triggers(
        &self,
        function: &FunctionKey,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<Arc<Stored<Trigger>>>, StoreError> {
        self.inner.list_triggers(function, prefix, after, limit).await
    }
    async fn publish_version(
        &self,
        function: &FunctionKey,
        description: &str,
        at: Timestamp,
        limit: usize,
    ) -> Result<VersionId, CreateError> {
        self.inner.publish_version(function, description, at, limit).await
    }
    async fn delete_version(&self, function: &FunctionKey, id: VersionId) -> Result<(), DeleteError> {
        self.inner.delete_version(function, id).await
    }
    async fn create_alias(&self, key: &AliasKey, alias: &Alias, limit: usize) -> Result<Revision, CreateError> {
        self.inner.create_alias(key, alias, limit).await
    }
    async fn replace_alias(&self, key: &AliasKey, alias: &Alias, expected: Revision) -> Result<Revision, ReplaceError> {
        self.inner.replace_alias(key, alias, expected).await
    }
    async fn delete_alias(&self, key: &AliasKey, expected: Revision) -> Result<(), DeleteError> {
        self.inner.delete_alias(key, expected).await
    }
    async fn put_setting(
        &self,
        key: &SettingKey,
        setting: &Setting,
        expected: Option<Revision>,
        account_max: Option<u64>,
    ) -> Result<Revision, PutError> {
        self.inner.put_setting(key, setting, expected, account_max).await
    }
    async fn delete_setting(&self, key: &SettingKey, expected: Revision) -> Result<(), DeleteError> {
        self.inner.delete_setting(key, expected).await
    }
    async fn create_layer_version(&self, key: &LayerKey, version: &LayerVersion, limit: usize) -> Result<u64, CreateError> {
        self.inner.create_layer_version(key, version, limit).await
    }
    async fn delete_layer_version(&self, key: &LayerKey, version: u64) -> Result<(), DeleteError> {
        self.inner.delete_layer_version(key, version).await
    }
    async fn put_layer_acl(&self, key: &LayerKey, public: bool) -> Result<(), DeleteError> {
        self.inner.put_layer_acl(key, public).await
    }
    async fn replace_functions(&self, functions: &[(FunctionKey, Function, Revision)]) -> Result<Revision, ReplaceError> {
        self.inner.replace_functions(functions).await
    }
    async fn create_domain(&self, key: &DomainKey, domain: &CustomDomain, limit: usize) -> Result<Revision, CreateError> {
        self.inner.create_domain(key, domain, limit).await
    }

    async fn replace_domain(&self, key: &DomainKey, domain: &CustomDomain, expected: Revision) -> Result<Revision, ReplaceError> {
        self.inner.replace_domain(key, domain, expected).await
    }

    async fn delete_domain(&self, key: &DomainKey, expected: Revision) -> Result<(), DeleteError> {
        self.inner.delete_domain(key, expected).await
    }
    async fn put_image(&self, key: &ImageKey, image: &LocalImage, limit: usize) -> Result<Revision, CreateError> {
        self.inner.put_image(key, image, limit).await
    }
    async fn delete_image(&self, key: &ImageKey) -> Result<(), DeleteError> {
        self.inner.delete_image(key).await
    }

    async fn put_access_key(&self, key: &AccessKey) -> Result<(), StoreError> {
        self.inner.put_access_key(key).await
    }
    async fn put_nonces(&self, nonces: &[(u64, i64)]) -> Result<(), StoreError> {
        self.inner.put_nonces(nonces).await
    }
    async fn nonces_after(&self, second: i64) -> Result<Vec<(u64, i64)>, StoreError> {
        self.inner.nonces_after(second).await
    }
    async fn forget_nonces(&self, second: i64) -> Result<(), StoreError> {
        self.inner.forget_nonces(second).await
    }
    async fn append_records(&self, records: &[Record]) -> Result<(), StoreError> {
        self.appends.fetch_add(1, Ordering::SeqCst);
        self.tried.notify_one();
        if self.full.load(Ordering::SeqCst) {
            return Err(StoreError::Full);
        }
        self.inner.append_records(records).await?;
        if self.lose_answer.swap(false, Ordering::SeqCst) {
            Err(StoreError::Failed { detail: "the answer was lost".into() })
        } else {
            Ok(())
        }
    }
    async fn records(&self, scope: &AccountScope, query: &RecordQuery) -> Result<Page<Record>, StoreError> {
        self.inner.records(scope, query).await
    }
}

fn records(count: i64) -> Vec<Record> {
    let key = contract::key(&contract::scope(1), "f");
    (0..count).map(|second| contract::record(&key, second)).collect()
}

async fn stored(store: &Flaky) -> Vec<Record> {
    let mut all = store.records(&contract::scope(1), &RecordQuery { limit: 1000, ..RecordQuery::default() }).await.unwrap().items;
    all.reverse();
    all
}

fn start(config: Config) -> (Arc<Flaky>, Ledger, tokio::task::JoinHandle<()>) {
    let store = Arc::new(Flaky::default());
    let (ledger, task) = Ledger::start(Arc::clone(&store) as Arc<dyn Store>, config);
    (store, ledger, tokio::spawn(task))
}

fn quick() -> Config {
    Config { retry_min: Duration::from_micros(100), retry_max: Duration::from_millis(1), ..Config::default() }
}

#[tokio::test]
async fn what_was_recorded_before_a_flush_is_stored_after_it_in_few_batches() {
    let (store, ledger, _task) = start(Config { batch_max: 100, ..quick() });
    let written = records(450);
    written.iter().for_each(|record| ledger.record(record.clone()));
    ledger.flush().await;
    assert_eq!(stored(&store).await, written);
    assert_eq!(store.appends.load(Ordering::SeqCst), 5);
    assert_eq!((ledger.status().backlog, ledger.status().stored), (0, 450));
}

#[tokio::test]
async fn a_failing_store_delays_records_and_loses_none() {
    let (store, ledger, _task) = start(quick());
    store.full.store(true, Ordering::SeqCst);
    let written = records(300);
    written.iter().for_each(|record| ledger.record(record.clone()));
    for _ in 0..3 {
        store.tried.notified().await;
    }
    let status = ledger.status();
    assert!(matches!(status.degraded, Some(StoreError::Full)) && status.failures >= 2 && status.backlog == 300, "{status:?}");
    store.full.store(false, Ordering::SeqCst);
    ledger.flush().await;
    assert_eq!(stored(&store).await, written);
    assert!(ledger.status().degraded.is_none());
}

#[tokio::test]
async fn a_lost_answer_counts_nothing_twice() {
    let (store, ledger, _task) = start(quick());
    store.lose_answer.store(true, Ordering::SeqCst);
    let written = records(10);
    written.iter().for_each(|record| ledger.record(record.clone()));
    ledger.flush().await;
    assert_eq!((stored(&store).await, ledger.status().stored), (written, 10));
}

#[tokio::test]
async fn doors_wait_while_the_backlog_is_full_and_go_on_afterwards() {
    let (store, ledger, _task) = start(Config { backlog_max: 10, batch_max: 4, ..quick() });
    store.full.store(true, Ordering::SeqCst);
    ledger.room().await;
    // Calls that were admitted may still record beyond the limit.
    records(12).into_iter().for_each(|record| ledger.record(record));
    store.tried.notified().await;
    assert!(tokio::time::timeout(Duration::from_millis(20), ledger.room()).await.is_err());
    store.full.store(false, Ordering::SeqCst);
    ledger.room().await;
    ledger.flush().await;
    assert_eq!(stored(&store).await.len(), 12);
}

#[tokio::test]
async fn a_closed_ledger_stores_what_it_holds_and_ends() {
    let (store, ledger, task) = start(quick());
    records(5).into_iter().for_each(|record| ledger.record(record));
    ledger.close();
    task.await.unwrap();
    assert_eq!(stored(&store).await.len(), 5);
}
