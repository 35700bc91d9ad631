//! The snapshot that calls read.

use std::sync::Arc;

use dunlin_model::{AccessKeyId, AccountId, AccountScope, Function, FunctionKey, Trigger, TriggerKey, VersionKey};

use crate::sorted::Sorted;
use crate::store::{AccessKey, Page, Stored};

/// Everything a call needs, as of one commit. Never changes; the store swaps in a new one.
#[derive(Clone, Debug, Default)]
pub struct View {
    pub(crate) functions: Sorted<FunctionKey, Arc<Stored<Function>>>,
    pub(crate) triggers: Sorted<TriggerKey, Arc<Stored<Trigger>>>,
    pub(crate) prefixes: Sorted<String, (TriggerKey, Arc<Stored<Trigger>>)>,
    pub(crate) access_keys: Sorted<AccessKeyId, Arc<AccessKey>>,
    /// Functions per account, so that a limit is checked without counting.
    pub(crate) counts: Sorted<AccountId, usize>,
}

impl View {
    /// The function called `key`.
    #[must_use]
    pub fn function(&self, key: &FunctionKey) -> Option<&Arc<Stored<Function>>> {
        self.functions.get(key)
    }

    /// The trigger called `key`.
    #[must_use]
    pub fn trigger(&self, key: &TriggerKey) -> Option<&Arc<Stored<Trigger>>> {
        self.triggers.get(key)
    }

    /// Whose function URL begins with the label `url_prefix`.
    #[must_use]
    pub fn trigger_by_prefix(&self, url_prefix: &str) -> Option<(&FunctionKey, &Arc<Stored<Trigger>>)> {
        self.prefixes.get(url_prefix).map(|(key, trigger)| (&key.function, trigger))
    }

    /// The function's triggers, by name.
    pub fn triggers(&self, function: &FunctionKey) -> impl Iterator<Item = &Arc<Stored<Trigger>>> {
        self.triggers
            .skip_before(|key| key.function < *function)
            .take_while(move |(key, _)| key.function == *function)
            .map(|(_, trigger)| trigger)
    }

    /// The access key called `id`.
    #[must_use]
    pub fn access_key(&self, id: &AccessKeyId) -> Option<&AccessKey> {
        self.access_keys.get(id).map(|key| &**key)
    }

    /// The account's functions, by name.
    pub fn functions_of(&self, account: &AccountId) -> impl Iterator<Item = &Arc<Stored<Function>>> {
        self.functions
            .skip_before(|key| key.account() < account)
            .take_while(move |(key, _)| key.account() == account)
            .map(|(_, function)| function)
    }

    /// How many functions the account has.
    #[must_use]
    pub fn count_of(&self, account: &AccountId) -> usize {
        self.counts.get(account).copied().unwrap_or(0)
    }

    /// How many functions there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.functions.len()
    }

    /// Every function, by account and name.
    pub fn functions(&self) -> impl Iterator<Item = (&FunctionKey, &Arc<Stored<Function>>)> {
        self.functions.skip_before(|_| false)
    }

    /// What an instance of this function's head is bound to.
    #[must_use]
    pub fn version_key(key: &FunctionKey, function: &Stored<Function>) -> VersionKey {
        VersionKey { function: key.clone(), version: "LATEST".into(), revision: function.revision }
    }

    pub(crate) fn list_functions(
        &self,
        scope: &AccountScope,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Page<Arc<Stored<Function>>> {
        let account = scope.account();
        let rows = self
            .functions
            .skip_before(|key| is_before((key.account(), key.name().as_str()), account, prefix, after))
            .take_while(|(key, _)| key.account() == account && key.name().as_str().starts_with(prefix))
            .map(|(key, function)| (key.name().as_str(), function));
        page(rows, limit)
    }

    pub(crate) fn list_triggers(
        &self,
        function: &FunctionKey,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Page<Arc<Stored<Trigger>>> {
        let rows = self
            .triggers
            .skip_before(|key| is_before((&key.function, key.name.as_str()), function, prefix, after))
            .take_while(|(key, _)| key.function == *function && key.name.as_str().starts_with(prefix))
            .map(|(key, trigger)| (key.name.as_str(), trigger));
        page(rows, limit)
    }
}

/// Whether an entry comes before the page that begins at `prefix` and after `after`.
fn is_before<P: Ord>(entry: (&P, &str), parent: &P, prefix: &str, after: Option<&str>) -> bool {
    let (entry_parent, name) = entry;
    match entry_parent.cmp(parent) {
        std::cmp::Ordering::Equal => name < prefix || after.is_some_and(|after| name <= after),
        order => order.is_lt(),
    }
}

fn page<'a, T: Clone + 'a>(mut rows: impl Iterator<Item = (&'a str, &'a T)>, limit: usize) -> Page<T> {
    let mut items = Vec::new();
    let mut last = None;
    for (name, item) in rows.by_ref().take(limit) {
        items.push(item.clone());
        last = Some(name);
    }
    let next = if rows.next().is_some() { last.map(str::to_owned) } else { None };
    Page { items, next }
}
