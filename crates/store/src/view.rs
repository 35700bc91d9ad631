//! The snapshot that calls read.

use std::sync::Arc;

use dunlin_model::{
    AccessKeyId, AccountId, AccountScope, Alias, AliasKey, AliasName, CustomDomain, DomainKey, Function, FunctionKey, ImageKey,
    Layer, LayerArn, LayerKey, LayerUse, LayerVersion, LocalImage, Qualifier, Setting, SettingKey, SettingKind, Target, Trigger,
    TriggerKey, Version, VersionId,
};

use crate::sorted::Sorted;
use crate::store::{AccessKey, Page, Stored};

/// Everything a call needs, as of one commit. Never changes; the store swaps in a new one.
#[derive(Clone, Debug, Default)]
pub struct View {
    pub(crate) functions: Sorted<FunctionKey, Arc<Stored<Function>>>,
    pub(crate) triggers: Sorted<TriggerKey, Arc<Stored<Trigger>>>,
    pub(crate) prefixes: Sorted<String, (TriggerKey, Arc<Stored<Trigger>>)>,
    pub(crate) versions: Sorted<(FunctionKey, VersionId), Arc<Stored<Version>>>,
    /// The last number each function gave to a version; absent for those that never published one.
    pub(crate) last_versions: Sorted<FunctionKey, u64>,
    pub(crate) aliases: Sorted<AliasKey, Arc<Stored<Alias>>>,
    pub(crate) layers: Sorted<LayerKey, Layer>,
    pub(crate) layer_versions: Sorted<(LayerKey, u64), Arc<Stored<LayerVersion>>>,
    pub(crate) settings: Sorted<SettingKey, Arc<Stored<Setting>>>,
    /// Functions that may not be called: nearly always none.
    pub(crate) disabled: Sorted<FunctionKey, ()>,
    pub(crate) domains: Sorted<DomainKey, Arc<Stored<CustomDomain>>>,
    /// The same by name alone: a host belongs to one account.
    pub(crate) hosts: Sorted<String, (DomainKey, Arc<Stored<CustomDomain>>)>,
    pub(crate) images: Sorted<ImageKey, Arc<Stored<LocalImage>>>,
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

    /// A version of the function.
    #[must_use]
    pub fn version(&self, function: &FunctionKey, id: VersionId) -> Option<&Arc<Stored<Version>>> {
        self.versions.get(&(function.clone(), id))
    }

    /// The function's versions, oldest first.
    pub fn versions(&self, function: &FunctionKey) -> impl Iterator<Item = &Arc<Stored<Version>>> {
        self.versions
            .skip_before(|(key, _)| key < function)
            .take_while(move |((key, _), _)| key == function)
            .map(|(_, version)| version)
    }

    /// Every version there is.
    pub fn all_versions(&self) -> impl Iterator<Item = &Arc<Stored<Version>>> {
        self.versions.skip_before(|_| false).map(|(_, version)| version)
    }

    /// The alias called `key`.
    #[must_use]
    pub fn alias(&self, key: &AliasKey) -> Option<&Arc<Stored<Alias>>> {
        self.aliases.get(key)
    }

    /// The function's aliases, by name.
    pub fn aliases(&self, function: &FunctionKey) -> impl Iterator<Item = &Arc<Stored<Alias>>> {
        self.aliases
            .skip_before(|key| key.function < *function)
            .take_while(move |(key, _)| key.function == *function)
            .map(|(_, alias)| alias)
    }

    /// The layer called `key`.
    #[must_use]
    pub fn layer(&self, key: &LayerKey) -> Option<&Layer> {
        self.layers.get(key)
    }

    /// The layer that `arn` names a version of, if the account may use it: one of its own, or one that another shares with
    /// all. Whether that version exists is another question: functions keep what they were given.
    #[must_use]
    pub fn usable_layer(&self, scope: &AccountScope, arn: &LayerArn) -> Option<(LayerKey, &Layer)> {
        let key = LayerKey::from_stored(arn.account.clone(), arn.name.clone());
        let layer = self.layers.get(&key)?;
        (layer.public || key.account() == scope.account()).then_some((key, layer))
    }

    /// A layer that the function was given and its account may not use any more.
    #[must_use]
    pub fn withdrawn_layer<'a>(&self, key: &FunctionKey, function: &'a Function) -> Option<&'a LayerUse> {
        // Asked for every call, and nearly always about no layer.
        let layers = function.config.layers.as_ref()?;
        let scope = AccountScope::of_owner(key);
        let is_usable = |layer: &LayerUse| layer.arn.parse().is_ok_and(|arn| self.usable_layer(&scope, &arn).is_some());
        layers.iter().find(|layer| !is_usable(layer))
    }

    /// A version of the layer.
    #[must_use]
    pub fn layer_version(&self, layer: &LayerKey, version: u64) -> Option<&Arc<Stored<LayerVersion>>> {
        self.layer_versions.get(&(layer.clone(), version))
    }

    /// The layer's versions, oldest first.
    pub fn layer_versions(&self, layer: &LayerKey) -> impl Iterator<Item = &Arc<Stored<LayerVersion>>> {
        self.layer_versions
            .skip_before(|(key, _)| key < layer)
            .take_while(move |((key, _), _)| key == layer)
            .map(|(_, version)| version)
    }

    /// The newest version of each of the account's layers that has any, by name.
    pub fn newest_layers(&self, account: &AccountId) -> impl Iterator<Item = (&LayerKey, &Arc<Stored<LayerVersion>>)> {
        self.layers
            .skip_before(|key| key.account() < account)
            .take_while(move |(key, _)| key.account() == account)
            .filter_map(|(key, _)| Some((key, self.layer_versions(key).last()?)))
    }

    /// Every version of every layer.
    pub fn all_layer_versions(&self) -> impl Iterator<Item = &Arc<Stored<LayerVersion>>> {
        self.layer_versions.skip_before(|_| false).map(|(_, version)| version)
    }

    /// Whether calls of the function are refused.
    #[must_use]
    pub fn is_disabled(&self, function: &FunctionKey) -> bool {
        self.disabled.get(function).is_some()
    }

    /// The setting called `key`.
    #[must_use]
    pub fn setting(&self, key: &SettingKey) -> Option<&Arc<Stored<Setting>>> {
        self.settings.get(key)
    }

    /// The account's settings of one kind, by function and qualifier.
    pub fn settings(&self, account: &AccountId, kind: SettingKind) -> impl Iterator<Item = (&SettingKey, &Arc<Stored<Setting>>)> {
        self.settings
            .skip_before(move |key| (key.account(), key.kind()) < (account, kind))
            .take_while(move |(key, _)| (key.account(), key.kind()) == (account, kind))
    }

    /// Every setting there is.
    pub fn all_settings(&self) -> impl Iterator<Item = (&SettingKey, &Arc<Stored<Setting>>)> {
        self.settings.skip_before(|_| false)
    }

    /// The custom domain called `key`.
    #[must_use]
    pub fn domain(&self, key: &DomainKey) -> Option<&Arc<Stored<CustomDomain>>> {
        self.domains.get(key)
    }

    /// Whose custom domain is called `name`, in lower case.
    #[must_use]
    pub fn domain_by_name(&self, name: &str) -> Option<(&DomainKey, &Arc<Stored<CustomDomain>>)> {
        self.hosts.get(name).map(|(key, domain)| (key, domain))
    }

    /// The account's custom domains, by name.
    pub fn domains(&self, account: &AccountId) -> impl Iterator<Item = &Arc<Stored<CustomDomain>>> {
        self.domains
            .skip_before(|key| key.account() < account)
            .take_while(move |(key, _)| key.account() == account)
            .map(|(_, domain)| domain)
    }

    /// The image called `key`.
    #[must_use]
    pub fn image(&self, key: &ImageKey) -> Option<&Arc<Stored<LocalImage>>> {
        self.images.get(key)
    }

    /// The account's images, by name.
    pub fn images(&self, account: &AccountId) -> impl Iterator<Item = &Arc<Stored<LocalImage>>> {
        self.images
            .skip_before(|key| key.account() < account)
            .take_while(move |(key, _)| key.account() == account)
            .map(|(_, image)| image)
    }

    /// Every image there is.
    pub fn all_images(&self) -> impl Iterator<Item = &Arc<Stored<LocalImage>>> {
        self.images.skip_before(|_| false).map(|(_, image)| image)
    }

    /// The keys of all settings of one function.
    pub(crate) fn settings_of(&self, function: &FunctionKey) -> Vec<SettingKey> {
        let of_kind = |kind| {
            let first = SettingKey::of(function, kind);
            self.settings
                .skip_before(move |key| *key < first)
                .take_while(move |(key, _)| {
                    key.kind() == kind && key.function_name() == function.name() && key.account() == function.account()
                })
                .map(|(key, _)| key.clone())
        };
        SettingKind::ALL.into_iter().flat_map(of_kind).collect()
    }

    /// What `qualifier` means for one call: a number is a version, another name is an alias. `chance`, evenly distributed
    /// between 0 and 1, decides between the two versions of an alias.
    ///
    /// # Errors
    /// Which part of it does not exist.
    pub fn resolve(&self, function: &FunctionKey, qualifier: &Qualifier, chance: f64) -> Result<Target, Unresolved> {
        let head = self.function(function).ok_or(Unresolved::FunctionNotFound)?;
        let text = match qualifier {
            Qualifier::Latest => return Ok(Target::Head(Arc::clone(head))),
            Qualifier::Named(text) => text,
        };
        let id = if text.bytes().all(|byte| byte.is_ascii_digit()) {
            text.parse().map_err(|_| Unresolved::VersionNotFound { id: text.to_string() })?
        } else {
            let name: AliasName = text.parse().map_err(|_| Unresolved::AliasNotFound)?;
            let alias = self.alias(&AliasKey { function: function.clone(), name }).ok_or(Unresolved::AliasNotFound)?;
            alias.value.pick(chance)
        };
        let version = self.version(function, id).ok_or_else(|| Unresolved::VersionNotFound { id: id.to_string() })?;
        Ok(Target::Published(Arc::clone(version)))
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

/// Why a qualifier means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// There is no such function.
    #[error("the function does not exist")]
    FunctionNotFound,
    /// There is no such version: the one that was asked for, or the one that the alias points to.
    #[error("version {id} does not exist")]
    VersionNotFound {
        /// Which.
        id: String,
    },
    /// There is no such alias.
    #[error("the alias does not exist")]
    AliasNotFound,
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
