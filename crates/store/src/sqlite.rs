//! The store on disk: SQLite in WAL mode with `synchronous=FULL`.
//!
//! One thread writes ([`writer`]): it takes what is queued, at most [`writer::BATCH_MAX`] writes, commits them as one
//! transaction and acknowledges all of them after the fsync. A few connections read on blocking threads; SQLite is
//! never called on a thread that drives tasks. The queue is bounded: when the disk stalls, callers wait.

mod domains;
mod images;
mod layers;
mod open;
mod rows;
mod settings;
#[cfg(test)]
mod tests;
mod versions;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use dunlin_model::{
    AccountScope, Alias, AliasKey, CustomDomain, DomainKey, Function, FunctionKey, ImageKey, LayerKey, LayerVersion, LocalImage,
    Record, Revision, Setting, SettingKey, Trigger, TriggerKey, VersionId,
};
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};

use self::rows::Readers;
use self::writer::{Counters, Job, Write, Writer};
use crate::change::{Change, Done, Refused};
use crate::error::{CreateError, DeleteError, OpenError, PutError, ReplaceError, StoreError};
use crate::store::{AccessKey, Page, RecordQuery, Store, Stored};
use crate::view::View;

/// Writes that may wait for the writer; further callers wait for room.
const QUEUE_MAX: usize = 1024;
/// Connections that read.
const READERS: usize = 2;

/// See the module.
pub struct Sqlite {
    view: Arc<ArcSwap<View>>,
    queue: mpsc::Sender<Job>,
    readers: Arc<Readers>,
    counters: Arc<Counters>,
    failure: watch::Receiver<Option<StoreError>>,
    #[cfg(test)]
    fault: writer::Fault,
}

/// What the writer has done since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Transactions that were committed.
    pub commits: u64,
    /// Writes that were acknowledged in them.
    pub writes: u64,
    /// Transactions that failed.
    pub failures: u64,
    /// Writes that wait.
    pub queued: usize,
}

impl Sqlite {
    /// Opens the store at `path`, or creates it, and holds it until it is dropped or closed. Blocks: the file is
    /// checked, migrated and read.
    ///
    /// # Errors
    /// The file is in use, damaged, missing, not ours, or from a newer release; it is left as it was.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let opened = open::open(path)?;
        let readers = Readers::open(path, READERS).map_err(|source| OpenError::Sqlite { path: path.to_owned(), source })?;
        let view = Arc::new(ArcSwap::from_pointee(opened.view));
        let (queue, jobs) = mpsc::channel(QUEUE_MAX);
        let (failed, failure) = watch::channel(None);
        let counters = Arc::new(Counters::default());
        #[cfg(test)]
        let fault = writer::Fault::default();
        let writer = Writer {
            connection: opened.connection,
            lock: opened.lock,
            view: Arc::clone(&view),
            revision: opened.revision,
            counters: Arc::clone(&counters),
            failed,
            #[cfg(test)]
            fault: Arc::clone(&fault),
        };
        writer.spawn(jobs).map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
        Ok(Self {
            view,
            queue,
            readers: Arc::new(readers),
            counters,
            failure,
            #[cfg(test)]
            fault,
        })
    }

    /// What the writer has done.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        Statistics {
            commits: self.counters.commits.load(Ordering::Relaxed),
            writes: self.counters.writes.load(Ordering::Relaxed),
            failures: self.counters.failures.load(Ordering::Relaxed),
            queued: self.queue.max_capacity() - self.queue.capacity(),
        }
    }

    /// Resolves when the writer has stopped for good after a disk error: the platform must be restarted.
    pub async fn failed(&self) -> StoreError {
        let mut failure = self.failure.clone();
        let error = failure.wait_for(Option::is_some).await.ok().and_then(|error| error.clone());
        match error {
            Some(error) => error,
            // The writer ended without a failure: it was closed.
            None => std::future::pending().await,
        }
    }

    /// Finishes the queued writes, closes the file and lets go of its lock.
    pub async fn close(&self) {
        // A second close finds the writer gone, which is what it wants.
        let _ = self.write(Write::Close).await;
    }

    async fn write(&self, write: Write) -> Result<Done, Refused> {
        let (reply, answer) = oneshot::channel();
        self.queue.send(Job { write, reply }).await.map_err(|_| StoreError::Closed)?;
        answer.await.unwrap_or(Err(Refused::Store(StoreError::Closed)))
    }

    async fn change(&self, change: Change) -> Result<Done, Refused> {
        self.write(Write::Change(Box::new(change))).await
    }
}

#[async_trait]
impl Store for Sqlite {
    fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    async fn create_function(&self, key: &FunctionKey, function: &Function, limit: usize) -> Result<Revision, CreateError> {
        Ok(self.change(Change::CreateFunction { key: key.clone(), function: function.clone(), limit }).await?.revision)
    }

    async fn replace_function(
        &self,
        key: &FunctionKey,
        function: &Function,
        expected: Revision,
    ) -> Result<Revision, ReplaceError> {
        Ok(self.change(Change::ReplaceFunction { key: key.clone(), function: function.clone(), expected }).await?.revision)
    }

    async fn delete_function(&self, key: &FunctionKey, expected: Revision) -> Result<(), DeleteError> {
        self.change(Change::DeleteFunction { key: key.clone(), expected }).await?;
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
        Ok(self.change(Change::CreateTrigger { key: key.clone(), trigger: trigger.clone(), limit }).await?.revision)
    }

    async fn replace_trigger(&self, key: &TriggerKey, trigger: &Trigger, expected: Revision) -> Result<Revision, ReplaceError> {
        Ok(self.change(Change::ReplaceTrigger { key: key.clone(), trigger: trigger.clone(), expected }).await?.revision)
    }

    async fn delete_trigger(&self, key: &TriggerKey, expected: Revision) -> Result<(), DeleteError> {
        self.change(Change::DeleteTrigger { key: key.clone(), expected }).await?;
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
        Ok(VersionId(self.change(Change::PublishVersion { function, description, at, limit }).await?.number))
    }

    async fn delete_version(&self, function: &FunctionKey, id: VersionId) -> Result<(), DeleteError> {
        self.change(Change::DeleteVersion { function: function.clone(), id }).await?;
        Ok(())
    }

    async fn create_alias(&self, key: &AliasKey, alias: &Alias, limit: usize) -> Result<Revision, CreateError> {
        Ok(self.change(Change::CreateAlias { key: key.clone(), alias: alias.clone(), limit }).await?.revision)
    }

    async fn replace_alias(&self, key: &AliasKey, alias: &Alias, expected: Revision) -> Result<Revision, ReplaceError> {
        Ok(self.change(Change::ReplaceAlias { key: key.clone(), alias: alias.clone(), expected }).await?.revision)
    }

    async fn delete_alias(&self, key: &AliasKey, expected: Revision) -> Result<(), DeleteError> {
        self.change(Change::DeleteAlias { key: key.clone(), expected }).await?;
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
        Ok(self.change(Change::PutSetting { key, setting, expected, account_max }).await?.revision)
    }

    async fn delete_setting(&self, key: &SettingKey, expected: Revision) -> Result<(), DeleteError> {
        self.change(Change::DeleteSetting { key: key.clone(), expected }).await?;
        Ok(())
    }

    async fn replace_functions(&self, functions: &[(FunctionKey, Function, Revision)]) -> Result<Revision, ReplaceError> {
        Ok(self.change(Change::ReplaceFunctions(functions.to_vec())).await?.revision)
    }

    async fn create_layer_version(&self, key: &LayerKey, version: &LayerVersion, limit: usize) -> Result<u64, CreateError> {
        let change = Change::CreateLayerVersion { key: key.clone(), version: version.clone(), limit };
        Ok(self.change(change).await?.number)
    }

    async fn delete_layer_version(&self, key: &LayerKey, version: u64) -> Result<(), DeleteError> {
        self.change(Change::DeleteLayerVersion { key: key.clone(), version }).await?;
        Ok(())
    }

    async fn put_layer_acl(&self, key: &LayerKey, public: bool) -> Result<(), DeleteError> {
        self.change(Change::PutLayerAcl { key: key.clone(), public }).await?;
        Ok(())
    }

    async fn create_domain(&self, key: &DomainKey, domain: &CustomDomain, limit: usize) -> Result<Revision, CreateError> {
        Ok(self.change(Change::CreateDomain { key: key.clone(), domain: Box::new(domain.clone()), limit }).await?.revision)
    }

    async fn replace_domain(&self, key: &DomainKey, domain: &CustomDomain, expected: Revision) -> Result<Revision, ReplaceError> {
        let (key, domain) = (key.clone(), Box::new(domain.clone()));
        Ok(self.change(Change::ReplaceDomain { key, domain, expected }).await?.revision)
    }

    async fn delete_domain(&self, key: &DomainKey, expected: Revision) -> Result<(), DeleteError> {
        self.change(Change::DeleteDomain { key: key.clone(), expected }).await?;
        Ok(())
    }

    async fn put_image(&self, key: &ImageKey, image: &LocalImage, limit: usize) -> Result<Revision, CreateError> {
        Ok(self.change(Change::PutImage { key: key.clone(), image: Box::new(image.clone()), limit }).await?.revision)
    }

    async fn delete_image(&self, key: &ImageKey) -> Result<(), DeleteError> {
        self.change(Change::DeleteImage { key: key.clone() }).await?;
        Ok(())
    }

    async fn put_access_key(&self, key: &AccessKey) -> Result<(), StoreError> {
        self.change(Change::PutAccessKey(key.clone())).await?;
        Ok(())
    }

    async fn put_nonces(&self, nonces: &[(u64, i64)]) -> Result<(), StoreError> {
        self.write(Write::PutNonces(nonces.to_vec())).await?;
        Ok(())
    }

    async fn nonces_after(&self, second: i64) -> Result<Vec<(u64, i64)>, StoreError> {
        self.readers.run(move |connection| rows::nonces_after(connection, second)).await
    }

    async fn forget_nonces(&self, second: i64) -> Result<(), StoreError> {
        self.write(Write::ForgetNonces(second)).await?;
        Ok(())
    }

    async fn append_records(&self, records: &[Record]) -> Result<(), StoreError> {
        self.write(Write::AppendRecords(records.to_vec())).await?;
        Ok(())
    }

    async fn records(&self, scope: &AccountScope, query: &RecordQuery) -> Result<Page<Record>, StoreError> {
        let (account, query) = (scope.account().clone(), query.clone());
        self.readers.run(move |connection| rows::records(connection, &account, &query)).await
    }
}
