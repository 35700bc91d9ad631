//! What a write does, decided on a [`View`] alone.
//!
//! Both stores take the same decision here: [`Memory`](crate::Memory) keeps the resulting view, [`Sqlite`](crate::Sqlite)
//! first writes the rows. A view is a persistent value, so a change that fails later is undone by keeping the old one.

use std::sync::Arc;

use dunlin_model::{Function, FunctionKey, Revision, Trigger, TriggerKey};

use crate::error::{CreateError, DeleteError, ReplaceError, StoreError};
use crate::store::{AccessKey, Stored};
use crate::view::View;

/// One write to what the view holds.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    CreateFunction { key: FunctionKey, function: Function, limit: usize },
    ReplaceFunction { key: FunctionKey, function: Function, expected: Revision },
    DeleteFunction { key: FunctionKey, expected: Revision },
    CreateTrigger { key: TriggerKey, trigger: Trigger, limit: usize },
    ReplaceTrigger { key: TriggerKey, trigger: Trigger, expected: Revision },
    DeleteTrigger { key: TriggerKey, expected: Revision },
    PutAccessKey(AccessKey),
}

/// Why a change was refused. The operation's own error enum is made out of it by [`From`].
#[derive(Clone, Debug)]
pub(crate) enum Refused {
    AlreadyExists,
    LimitExceeded { limit: usize },
    FunctionNotFound,
    PrefixTaken,
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
            Refused::Store(error) => Self::Store(error),
            other @ (Refused::NotFound | Refused::NotEmpty | Refused::Conflict { .. }) => Self::Store(unexpected(&other)),
        }
    }
}

impl From<Refused> for ReplaceError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NotFound => Self::NotFound,
            Refused::Conflict { actual } => Self::Conflict { actual },
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
    pub(crate) fn apply(&self, view: &mut View, next: Revision) -> Result<(), Refused> {
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
            Self::PutAccessKey(key) => view.access_keys.insert(key.id.clone(), Arc::new(key.clone())),
        }
        Ok(())
    }
}

pub(crate) fn put_trigger(view: &mut View, key: &TriggerKey, stored: Arc<Stored<Trigger>>) {
    view.prefixes.insert(stored.value.url_prefix.clone(), (key.clone(), Arc::clone(&stored)));
    view.triggers.insert(key.clone(), stored);
}

fn stored<T: Clone>(value: &T, revision: Revision) -> Arc<Stored<T>> {
    Arc::new(Stored { value: value.clone(), revision })
}

fn expect<T>(current: Option<&Arc<Stored<T>>>, expected: Revision) -> Result<&Arc<Stored<T>>, Refused> {
    let current = current.ok_or(Refused::NotFound)?;
    if current.revision == expected { Ok(current) } else { Err(Refused::Conflict { actual: current.revision }) }
}
