//! What a write does, decided on a [`View`] alone.
//!
//! Both stores take the same decision here: [`Memory`](crate::Memory) keeps the resulting view, [`Sqlite`](crate::Sqlite)
//! first writes the rows. A view is a persistent value, so a change that fails later is undone by keeping the old one.

use std::cmp::Ordering;
use std::sync::Arc;

use dunlin_model::{
    Alias, AliasKey, CustomDomain, DomainKey, Function, FunctionKey, ImageKey, Layer, LayerKey, LayerVersion, LocalImage,
    Revision, Setting, SettingContent, SettingKey, SettingKind, Trigger, TriggerKey, Version, VersionId,
};
use jiff::Timestamp;

use crate::error::{CreateError, DeleteError, PutError, ReplaceError, StoreError};
use crate::sorted::Sorted;
use crate::store::{AccessKey, Stored};
use crate::view::View;

/// One write to what the view holds.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    CreateFunction {
        key: FunctionKey,
        function: Function,
        limit: usize,
    },
    ReplaceFunction {
        key: FunctionKey,
        function: Function,
        expected: Revision,
    },
    DeleteFunction {
        key: FunctionKey,
        expected: Revision,
    },
    CreateTrigger {
        key: TriggerKey,
        trigger: Trigger,
        limit: usize,
    },
    ReplaceTrigger {
        key: TriggerKey,
        trigger: Trigger,
        expected: Revision,
    },
    DeleteTrigger {
        key: TriggerKey,
        expected: Revision,
    },
    PublishVersion {
        function: FunctionKey,
        description: String,
        at: Timestamp,
        limit: usize,
    },
    DeleteVersion {
        function: FunctionKey,
        id: VersionId,
    },
    CreateAlias {
        key: AliasKey,
        alias: Alias,
        limit: usize,
    },
    ReplaceAlias {
        key: AliasKey,
        alias: Alias,
        expected: Revision,
    },
    DeleteAlias {
        key: AliasKey,
        expected: Revision,
    },
    PutSetting {
        key: SettingKey,
        setting: Setting,
        expected: Option<Revision>,
        account_max: Option<u64>,
    },
    DeleteSetting {
        key: SettingKey,
        expected: Revision,
    },
    CreateLayerVersion {
        key: LayerKey,
        version: LayerVersion,
        limit: usize,
    },
    DeleteLayerVersion {
        key: LayerKey,
        version: u64,
    },
    PutLayerAcl {
        key: LayerKey,
        public: bool,
    },
    /// All of them, or none.
    ReplaceFunctions(Vec<(FunctionKey, Function, Revision)>),
    CreateDomain {
        key: DomainKey,
        domain: Box<CustomDomain>,
        limit: usize,
    },
    ReplaceDomain {
        key: DomainKey,
        domain: Box<CustomDomain>,
        expected: Revision,
    },
    DeleteDomain {
        key: DomainKey,
        expected: Revision,
    },
    PutImage {
        key: ImageKey,
        image: Box<LocalImage>,
        limit: usize,
    },
    DeleteImage {
        key: ImageKey,
    },
    PutAccessKey(AccessKey),
}

/// What a write gave out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done {
    pub(crate) revision: Revision,
    /// Of what is numbered: its number. 0 for everything else.
    pub(crate) number: u64,
}

/// Why a change was refused. The operation's own error enum is made out of it by [`From`].
#[derive(Clone, Debug)]
pub(crate) enum Refused {
    AlreadyExists,
    LimitExceeded { limit: usize },
    FunctionNotFound,
    PrefixTaken,
    VersionNotFound { id: VersionId },
    ShareExceeded { max: u64, taken: u64 },
    NotFound,
    NotEmpty,
    Conflict { actual: Revision },
    Store(StoreError),
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

fn unexpected(refused: &Refused) -> StoreError {
    StoreError::Failed { detail: format!("a write was refused for a reason it cannot have: {refused:?}") }
}

impl From<Refused> for CreateError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::AlreadyExists => Self::AlreadyExists,
            Refused::LimitExceeded { limit } => Self::LimitExceeded { limit },
            Refused::FunctionNotFound => Self::FunctionNotFound,
            Refused::PrefixTaken => Self::PrefixTaken,
            Refused::VersionNotFound { id } => Self::VersionNotFound { id },
            Refused::Store(error) => Self::Store(error),
            other => Self::Store(unexpected(&other)),
        }
    }
}

impl From<Refused> for ReplaceError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NotFound => Self::NotFound,
            Refused::Conflict { actual } => Self::Conflict { actual },
            Refused::VersionNotFound { id } => Self::VersionNotFound { id },
            Refused::Store(error) => Self::Store(error),
            other => Self::Store(unexpected(&other)),
        }
    }
}

impl From<Refused> for PutError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::FunctionNotFound => Self::FunctionNotFound,
            Refused::Conflict { actual } => Self::Conflict { actual },
            Refused::ShareExceeded { max, taken } => Self::ShareExceeded { max, taken },
            Refused::Store(error) => Self::Store(error),
            other => Self::Store(unexpected(&other)),
        }
    }
}

impl From<Refused> for DeleteError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NotFound => Self::NotFound,
            Refused::NotEmpty => Self::NotEmpty,
            Refused::Conflict { actual } => Self::Conflict { actual },
            Refused::Store(error) => Self::Store(error),
            other => Self::Store(unexpected(&other)),
        }
    }
}

impl From<Refused> for StoreError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Store(error) => error,
            other => unexpected(&other),
        }
    }
}

impl Change {
    /// Applies the change to `view` as revision `next`, or leaves it untouched.
    pub(crate) fn apply(&self, view: &mut View, next: Revision) -> Result<Done, Refused> {
        let mut number = 0;
        match self {
            Self::CreateFunction { key, function, limit } => {
                if view.functions.get(key).is_some() {
                    return Err(Refused::AlreadyExists);
                }
                let count = view.count_of(key.account());
                if count >= *limit {
                    return Err(Refused::LimitExceeded { limit: *limit });
                }
                view.counts.insert(key.account().clone(), count + 1);
                view.functions.insert(key.clone(), stored(function, next));
            }
            Self::ReplaceFunction { key, function, expected } => {
                expect(view.functions.get(key), *expected)?;
                view.functions.insert(key.clone(), stored(function, next));
            }
            Self::DeleteFunction { key, expected } => {
                expect(view.functions.get(key), *expected)?;
                if view.triggers(key).next().is_some() {
                    return Err(Refused::NotEmpty);
                }
                view.functions.remove(key);
                remove_all(&mut view.versions, |(function, _)| function.cmp(key));
                remove_all(&mut view.aliases, |alias| alias.function.cmp(key));
                for setting in view.settings_of(key) {
                    remove_setting(view, &setting);
                }
                view.last_versions.remove(key);
                match view.count_of(key.account()) {
                    0 | 1 => drop(view.counts.remove(key.account())),
                    count => view.counts.insert(key.account().clone(), count - 1),
                }
            }
            Self::CreateTrigger { key, trigger, limit } => {
                if view.functions.get(&key.function).is_none() {
                    return Err(Refused::FunctionNotFound);
                }
                if view.triggers.get(key).is_some() {
                    return Err(Refused::AlreadyExists);
                }
                if view.triggers(&key.function).count() >= *limit {
                    return Err(Refused::LimitExceeded { limit: *limit });
                }
                if view.prefixes.get(trigger.url_prefix.as_str()).is_some() {
                    return Err(Refused::PrefixTaken);
                }
                put_trigger(view, key, stored(trigger, next));
            }
            Self::ReplaceTrigger { key, trigger, expected } => {
                let current = expect(view.triggers.get(key), *expected)?;
                let trigger = Trigger { url_prefix: current.value.url_prefix.clone(), ..trigger.clone() };
                put_trigger(view, key, Arc::new(Stored { value: trigger, revision: next }));
            }
            Self::DeleteTrigger { key, expected } => {
                let current = expect(view.triggers.get(key), *expected)?;
                let prefix = current.value.url_prefix.clone();
                view.triggers.remove(key);
                view.prefixes.remove(prefix.as_str());
            }
            Self::PublishVersion { function, description, at, limit } => {
                let head = view.functions.get(function).ok_or(Refused::FunctionNotFound)?;
                if view.versions(function).count() >= *limit {
                    return Err(Refused::LimitExceeded { limit: *limit });
                }
                number = view.last_versions.get(function).copied().unwrap_or(0) + 1;
                let (id, copy) = (VersionId(number), head.value.clone());
                let version = Version { id, description: description.clone(), created: *at, function: copy };
                view.versions.insert((function.clone(), id), stored(&version, next));
                view.last_versions.insert(function.clone(), number);
            }
            Self::DeleteVersion { function, id } => {
                view.versions.remove(&(function.clone(), *id)).ok_or(Refused::NotFound)?;
                remove_settings_for(view, function, &id.to_string());
            }
            Self::CreateAlias { key, alias, limit } => {
                if view.functions.get(&key.function).is_none() {
                    return Err(Refused::FunctionNotFound);
                }
                if view.aliases.get(key).is_some() {
                    return Err(Refused::AlreadyExists);
                }
                if view.aliases(&key.function).count() >= *limit {
                    return Err(Refused::LimitExceeded { limit: *limit });
                }
                expect_versions(view, key, alias)?;
                view.aliases.insert(key.clone(), stored(alias, next));
            }
            Self::ReplaceAlias { key, alias, expected } => {
                expect(view.aliases.get(key), *expected)?;
                expect_versions(view, key, alias)?;
                view.aliases.insert(key.clone(), stored(alias, next));
            }
            Self::DeleteAlias { key, expected } => {
                expect(view.aliases.get(key), *expected)?;
                view.aliases.remove(key);
                remove_settings_for(view, &key.function, key.name.as_str());
            }
            Self::PutSetting { key, setting, expected, account_max } => {
                if view.functions.get(&key.function()).is_none() {
                    return Err(Refused::FunctionNotFound);
                }
                match (view.settings.get(key), expected) {
                    (None, None) => {}
                    (Some(current), Some(expected)) if current.revision == *expected => {}
                    (current, _) => {
                        return Err(Refused::Conflict { actual: current.map_or(Revision(0), |current| current.revision) });
                    }
                }
                if let Some(max) = account_max {
                    let others = view.settings(key.account(), key.kind()).filter(|(other, _)| *other != key);
                    let taken: u64 = others.map(|(_, setting)| setting.value.content.share()).sum();
                    if taken.saturating_add(setting.content.share()) > *max {
                        return Err(Refused::ShareExceeded { max: *max, taken });
                    }
                }
                put_setting(view, key, stored(setting, next));
            }
            Self::DeleteSetting { key, expected } => {
                expect(view.settings.get(key), *expected)?;
                remove_setting(view, key);
            }
            Self::ReplaceFunctions(all) => {
                for (key, function, expected) in all {
                    expect(view.functions.get(key), *expected)?;
                    view.functions.insert(key.clone(), stored(function, next));
                }
            }
            Self::CreateLayerVersion { key, version, limit } => {
                if view.layer_versions(key).count() >= *limit {
                    return Err(Refused::LimitExceeded { limit: *limit });
                }
                let layer = view.layers.get(key).copied().unwrap_or(Layer { last_version: 0, public: false });
                number = layer.last_version + 1;
                view.layers.insert(key.clone(), Layer { last_version: number, ..layer });
                let version = LayerVersion { version: number, ..version.clone() };
                view.layer_versions.insert((key.clone(), number), stored(&version, next));
            }
            Self::DeleteLayerVersion { key, version } => {
                view.layer_versions.remove(&(key.clone(), *version)).ok_or(Refused::NotFound)?;
            }
            Self::PutLayerAcl { key, public } => {
                let layer = view.layers.get(key).copied().ok_or(Refused::NotFound)?;
                view.layers.insert(key.clone(), Layer { public: *public, ..layer });
            }
            Self::CreateDomain { key, domain, limit } => {
                if view.domain_by_name(key.name().as_str()).is_some() {
                    return Err(Refused::AlreadyExists);
                }
                if view.domains(key.account()).count() >= *limit {
                    return Err(Refused::LimitExceeded { limit: *limit });
                }
                put_domain(view, key, stored(&**domain, next));
            }
            Self::ReplaceDomain { key, domain, expected } => {
                expect(view.domains.get(key), *expected)?;
                put_domain(view, key, stored(&**domain, next));
            }
            Self::DeleteDomain { key, expected } => {
                expect(view.domains.get(key), *expected)?;
                view.domains.remove(key);
                view.hosts.remove(key.name().as_str());
            }
            Self::PutImage { key, image, limit } => {
                if view.images.get(key).is_none() && view.images(key.account()).count() >= *limit {
                    return Err(Refused::LimitExceeded { limit: *limit });
                }
                view.images.insert(key.clone(), stored(&**image, next));
            }
            Self::DeleteImage { key } => {
                view.images.remove(key).ok_or(Refused::NotFound)?;
            }
            Self::PutAccessKey(key) => view.access_keys.insert(key.id.clone(), Arc::new(key.clone())),
        }
        Ok(Done { revision: next, number })
    }
}

/// An alias points to versions that exist when it is written. They may go later.
fn expect_versions(view: &View, key: &AliasKey, alias: &Alias) -> Result<(), Refused> {
    let mut named = std::iter::once(alias.version).chain(alias.additional.map(|additional| additional.version));
    match named.find(|id| view.version(&key.function, *id).is_none()) {
        None => Ok(()),
        Some(id) => Err(Refused::VersionNotFound { id }),
    }
}

/// Removes the entries for which `place` says that they are equal to what is looked for.
fn remove_all<K: Ord + Clone, V: Clone>(entries: &mut Sorted<K, V>, place: impl Fn(&K) -> Ordering) {
    let found: Vec<K> = entries
        .skip_before(|key| place(key).is_lt())
        .take_while(|(key, _)| place(key).is_eq())
        .map(|(key, _)| key.clone())
        .collect();
    for key in found {
        entries.remove(&key);
    }
}

pub(crate) fn put_trigger(view: &mut View, key: &TriggerKey, stored: Arc<Stored<Trigger>>) {
    view.prefixes.insert(stored.value.url_prefix.clone(), (key.clone(), Arc::clone(&stored)));
    view.triggers.insert(key.clone(), stored);
}

pub(crate) fn put_domain(view: &mut View, key: &DomainKey, stored: Arc<Stored<CustomDomain>>) {
    view.hosts.insert(key.name().as_str().to_owned(), (key.clone(), Arc::clone(&stored)));
    view.domains.insert(key.clone(), stored);
}

pub(crate) fn put_setting(view: &mut View, key: &SettingKey, stored: Arc<Stored<Setting>>) {
    if let SettingContent::Restriction(restriction) = &stored.value.content {
        if restriction.disable {
            view.disabled.insert(key.function(), ());
        } else {
            view.disabled.remove(&key.function());
        }
    }
    view.settings.insert(key.clone(), stored);
}

/// What was said of a version or an alias goes with it: a later namesake begins anew.
fn remove_settings_for(view: &mut View, function: &FunctionKey, qualifier: &str) {
    for setting in view.settings_of(function) {
        if setting.qualifier() == qualifier {
            remove_setting(view, &setting);
        }
    }
}

fn remove_setting(view: &mut View, key: &SettingKey) {
    view.settings.remove(key);
    if key.kind() == SettingKind::Restriction {
        view.disabled.remove(&key.function());
    }
}

fn stored<T: Clone>(value: &T, revision: Revision) -> Arc<Stored<T>> {
    Arc::new(Stored { value: value.clone(), revision })
}

fn expect<T>(current: Option<&Arc<Stored<T>>>, expected: Revision) -> Result<&Arc<Stored<T>>, Refused> {
    let current = current.ok_or(Refused::NotFound)?;
    if current.revision == expected { Ok(current) } else { Err(Refused::Conflict { actual: current.revision }) }
}
