//! The questions.

use std::sync::Arc;

use async_trait::async_trait;
use dunlin_model::{
    AccessKeyId, AccountId, AccountScope, Alias, AliasKey, CustomDomain, DomainKey, Function, FunctionKey, FunctionName,
    ImageKey, LayerKey, LayerVersion, LocalImage, Record, RequestId, Revision, Setting, SettingKey, Trigger, TriggerKey,
    VersionId,
};
use jiff::Timestamp;

use crate::error::{CreateError, DeleteError, PutError, ReplaceError, StoreError};
use crate::view::View;

pub use dunlin_model::Stored;

/// One page of a listing.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T> {
    /// In the listing's order.
    pub items: Vec<T>,
    /// What to pass as `after` for the next page; absent on the last one.
    pub next: Option<String>,
}

/// A key that signs requests.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessKey {
    /// The public half.
    pub id: AccessKeyId,
    /// On whose behalf it signs.
    pub account: AccountId,
    /// The secret half. Kept readable because signatures are keyed hashes of it.
    pub secret: String,
}

impl std::fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessKey").field("id", &self.id).field("account", &self.account).finish_non_exhaustive()
    }
}

/// Which records of calls to read, newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RecordQuery {
    /// Only this function's.
    pub function: Option<FunctionName>,
    /// Only this call's.
    pub request: Option<RequestId>,
    /// Only calls accepted at or after this time.
    pub since: Option<Timestamp>,
    /// Only calls accepted before this time.
    pub until: Option<Timestamp>,
    /// [`Page::next`] of the page before.
    pub after: Option<String>,
    /// Most records in the page; 0 means 100, and 1,000 is the most.
    pub limit: usize,
}

impl RecordQuery {
    pub(crate) fn limit_in_force(&self) -> usize {
        if self.limit == 0 { 100 } else { self.limit.min(1000) }
    }

    /// The sequence number below which the page begins. Records are numbered from 1.
    pub(crate) fn below(&self) -> Option<u64> {
        match self.after.as_deref() {
            None => Some(u64::MAX),
            Some(token) => token.parse().ok(),
        }
    }
}

/// What the control plane remembers. Every write stands alone and is durable when it returns.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The snapshot in force. Lock-free; hold it for one request, not for ever.
    fn view(&self) -> Arc<View>;

    /// Adds a function, if the account has fewer than `limit`.
    async fn create_function(&self, key: &FunctionKey, function: &Function, limit: usize) -> Result<Revision, CreateError>;
    /// Replaces the function only if it is still at `expected`.
    async fn replace_function(
        &self,
        key: &FunctionKey,
        function: &Function,
        expected: Revision,
    ) -> Result<Revision, ReplaceError>;
    /// Removes the function, its versions and its aliases, only if it is still at `expected` and has no triggers.
    async fn delete_function(&self, key: &FunctionKey, expected: Revision) -> Result<(), DeleteError>;
    /// The account's functions whose name begins with `prefix`, by name, after the name `after`.
    async fn list_functions(
        &self,
        scope: &AccountScope,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<Arc<Stored<Function>>>, StoreError>;

    /// Adds a trigger to an existing function, if the function has fewer than `limit` and nobody has its URL prefix.
    async fn create_trigger(&self, key: &TriggerKey, trigger: &Trigger, limit: usize) -> Result<Revision, CreateError>;
    /// Replaces the trigger only if it is still at `expected`. The URL prefix stays what it was created with.
    async fn replace_trigger(&self, key: &TriggerKey, trigger: &Trigger, expected: Revision) -> Result<Revision, ReplaceError>;
    /// Removes the trigger only if it is still at `expected`.
    async fn delete_trigger(&self, key: &TriggerKey, expected: Revision) -> Result<(), DeleteError>;
    /// The function's triggers whose name begins with `prefix`, by name, after the name `after`.
    async fn list_triggers(
        &self,
        function: &FunctionKey,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<Arc<Stored<Trigger>>>, StoreError>;

    /// Copies the function as it is now into a new version, if it has fewer than `limit`. The version's number is one
    /// more than the last that the function ever had.
    async fn publish_version(
        &self,
        function: &FunctionKey,
        description: &str,
        at: Timestamp,
        limit: usize,
    ) -> Result<VersionId, CreateError>;
    /// Removes a version. Aliases and triggers that point to it stay.
    async fn delete_version(&self, function: &FunctionKey, id: VersionId) -> Result<(), DeleteError>;

    /// Adds an alias to an existing function, if the function has fewer than `limit` and the versions exist.
    async fn create_alias(&self, key: &AliasKey, alias: &Alias, limit: usize) -> Result<Revision, CreateError>;
    /// Replaces the alias only if it is still at `expected` and the versions exist.
    async fn replace_alias(&self, key: &AliasKey, alias: &Alias, expected: Revision) -> Result<Revision, ReplaceError>;
    /// Removes the alias only if it is still at `expected`.
    async fn delete_alias(&self, key: &AliasKey, expected: Revision) -> Result<(), DeleteError>;

    /// Writes a setting of an existing function, only if it is still at `expected`: absent for one that is not there yet. With
    /// `account_max` the account's settings of this kind may not take more than that together.
    async fn put_setting(
        &self,
        key: &SettingKey,
        setting: &Setting,
        expected: Option<Revision>,
        account_max: Option<u64>,
    ) -> Result<Revision, PutError>;
    /// Removes the setting only if it is still at `expected`.
    async fn delete_setting(&self, key: &SettingKey, expected: Revision) -> Result<(), DeleteError>;

    /// Replaces all of the functions, each only if it is still at its expected revision, or none of them.
    async fn replace_functions(&self, functions: &[(FunctionKey, Function, Revision)]) -> Result<Revision, ReplaceError>;

    /// Adds a version to a layer, and the layer if need be, if it has fewer than `limit`. The version's number is one more
    /// than the last that the layer ever had.
    async fn create_layer_version(&self, key: &LayerKey, version: &LayerVersion, limit: usize) -> Result<u64, CreateError>;
    /// Removes a version of a layer.
    async fn delete_layer_version(&self, key: &LayerKey, version: u64) -> Result<(), DeleteError>;
    /// Says whether other accounts may use a layer.
    async fn put_layer_acl(&self, key: &LayerKey, public: bool) -> Result<(), DeleteError>;
    /// Adds a custom domain, if the account has fewer than `limit` and no account has one of that name.
    async fn create_domain(&self, key: &DomainKey, domain: &CustomDomain, limit: usize) -> Result<Revision, CreateError>;
    /// Replaces the custom domain only if it is still at `expected`.
    async fn replace_domain(&self, key: &DomainKey, domain: &CustomDomain, expected: Revision) -> Result<Revision, ReplaceError>;
    /// Removes the custom domain only if it is still at `expected`.
    async fn delete_domain(&self, key: &DomainKey, expected: Revision) -> Result<(), DeleteError>;

    /// Adds an image of the account's own, if it has fewer than `limit`, or replaces the one of that name.
    async fn put_image(&self, key: &ImageKey, image: &LocalImage, limit: usize) -> Result<Revision, CreateError>;
    /// Removes an image.
    async fn delete_image(&self, key: &ImageKey) -> Result<(), DeleteError>;

    /// Adds or replaces an access key.
    async fn put_access_key(&self, key: &AccessKey) -> Result<(), StoreError>;

    /// Remembers nonces: keyed hash and the second after which it may be forgotten. Written behind by `auth`.
    async fn put_nonces(&self, nonces: &[(u64, i64)]) -> Result<(), StoreError>;
    /// The nonces that expire after `second`.
    async fn nonces_after(&self, second: i64) -> Result<Vec<(u64, i64)>, StoreError>;
    /// Forgets the nonces that expire at or before `second`.
    async fn forget_nonces(&self, second: i64) -> Result<(), StoreError>;

    /// Appends records of calls. A request id that is already there is left as it is, so that a retry counts nothing twice.
    async fn append_records(&self, records: &[Record]) -> Result<(), StoreError>;
    /// Records of the account's calls, the last written first.
    async fn records(&self, scope: &AccountScope, query: &RecordQuery) -> Result<Page<Record>, StoreError>;
}
