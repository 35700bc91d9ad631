//! Versions and aliases.

use std::sync::Arc;

use dunlin_model::{Additional, Alias, AliasKey, FunctionKey, Qualifier, Revision, VersionId};
use jiff::Timestamp;

use super::{function, key, scope};
use crate::{CreateError, DeleteError, ReplaceError, Store, Unresolved};

/// An alias called like `key` that points to `version`.
#[must_use]
pub fn alias(key: &AliasKey, version: u64) -> Alias {
    Alias {
        name: key.name.clone(),
        version: VersionId(version),
        additional: None,
        description: String::new(),
        created: Timestamp::UNIX_EPOCH,
        modified: Timestamp::UNIX_EPOCH,
    }
}

/// A key of an alias of `function`.
#[must_use]
pub fn alias_key(function: &FunctionKey, name: &str) -> AliasKey {
    AliasKey { function: function.clone(), name: name.parse().expect("the case's name is one") }
}

async fn publish(store: &Arc<dyn Store>, key: &FunctionKey) -> Result<u64, CreateError> {
    store.publish_version(key, "d", Timestamp::UNIX_EPOCH, 100).await.map(|id| id.0)
}

pub(super) async fn a_version_is_a_copy_that_later_changes_do_not_reach(store: Arc<dyn Store>) {
    let key = key(&scope(1), "f");
    assert!(matches!(publish(&store, &key).await, Err(CreateError::FunctionNotFound)));
    let revision = store.create_function(&key, &function(&key, "one"), 10).await.unwrap();
    assert_eq!(publish(&store, &key).await.unwrap(), 1);
    assert_eq!(store.view().function(&key).unwrap().revision, revision, "publishing does not touch the head");
    store.replace_function(&key, &function(&key, "two"), revision).await.unwrap();
    assert_eq!(publish(&store, &key).await.unwrap(), 2);
    let view = store.view();
    let descriptions: Vec<_> = view.versions(&key).map(|version| version.value.function.config.description.as_str()).collect();
    assert_eq!(descriptions, ["one", "two"]);
    assert_eq!(view.versions(&super::key(&scope(2), "f")).count(), 0, "another account's namesake has none");
}

pub(super) async fn a_versions_number_is_never_used_twice(store: Arc<dyn Store>) {
    let key = key(&scope(1), "f");
    store.create_function(&key, &function(&key, "one"), 10).await.unwrap();
    for expected in 1..5 {
        assert_eq!(publish(&store, &key).await.unwrap(), expected);
        store.delete_version(&key, VersionId(expected)).await.unwrap();
        assert!(matches!(store.delete_version(&key, VersionId(expected)).await, Err(DeleteError::NotFound)));
    }
    assert_eq!(store.view().versions(&key).count(), 0);
    let full = store.publish_version(&key, "", Timestamp::UNIX_EPOCH, 0).await;
    assert!(matches!(full, Err(CreateError::LimitExceeded { limit: 0 })), "{full:?}");
    assert_eq!(publish(&store, &key).await.unwrap(), 5, "a refusal uses up no number");
}

pub(super) async fn versions_that_are_published_at_once_get_numbers_of_their_own(store: Arc<dyn Store>) {
    let key = key(&scope(1), "f");
    store.create_function(&key, &function(&key, "one"), 10).await.unwrap();
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let (store, key) = (Arc::clone(&store), key.clone());
            tokio::spawn(async move { publish(&store, &key).await.unwrap() })
        })
        .collect();
    let mut numbers = Vec::new();
    for task in tasks {
        numbers.push(task.await.unwrap());
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=50).collect::<Vec<_>>());
}

pub(super) async fn an_alias_points_to_versions_that_exist_when_it_is_written(store: Arc<dyn Store>) {
    let key = key(&scope(1), "f");
    let prod = alias_key(&key, "prod");
    assert!(matches!(store.create_alias(&prod, &alias(&prod, 1), 9).await, Err(CreateError::FunctionNotFound)));
    store.create_function(&key, &function(&key, "one"), 10).await.unwrap();
    let missing = store.create_alias(&prod, &alias(&prod, 1), 9).await;
    assert!(matches!(missing, Err(CreateError::VersionNotFound { id: VersionId(1) })), "{missing:?}");
    publish(&store, &key).await.unwrap();
    let shared = Alias { additional: Some(Additional { version: VersionId(2), weight: 0.5 }), ..alias(&prod, 1) };
    let missing = store.create_alias(&prod, &shared, 9).await;
    assert!(matches!(missing, Err(CreateError::VersionNotFound { id: VersionId(2) })), "{missing:?}");
    let full = store.create_alias(&prod, &alias(&prod, 1), 0).await;
    assert!(matches!(full, Err(CreateError::LimitExceeded { limit: 0 })), "{full:?}");
    let revision = store.create_alias(&prod, &alias(&prod, 1), 9).await.unwrap();
    assert!(matches!(store.create_alias(&prod, &alias(&prod, 1), 9).await, Err(CreateError::AlreadyExists)));
    let missing = store.replace_alias(&prod, &alias(&prod, 7), revision).await;
    assert!(matches!(missing, Err(ReplaceError::VersionNotFound { id: VersionId(7) })), "{missing:?}");
    publish(&store, &key).await.unwrap();
    let second = store.replace_alias(&prod, &shared, revision).await.unwrap();
    let stale = store.replace_alias(&prod, &alias(&prod, 1), revision).await;
    assert!(matches!(stale, Err(ReplaceError::Conflict { actual }) if actual == second), "{stale:?}");
    assert!(matches!(store.delete_alias(&prod, revision).await, Err(DeleteError::Conflict { .. })));
    // A version may go although an alias points to it.
    store.delete_version(&key, VersionId(1)).await.unwrap();
    assert_eq!(store.view().alias(&prod).unwrap().value, shared);
    store.delete_alias(&prod, second).await.unwrap();
    assert!(matches!(store.delete_alias(&prod, second).await, Err(DeleteError::NotFound)));
}

pub(super) async fn a_qualifier_means_a_version_an_alias_or_the_head(store: Arc<dyn Store>) {
    let key = key(&scope(1), "f");
    let resolve = |qualifier: &str, chance: f64| {
        let found = store.view().resolve(&key, &Qualifier::from_wire(Some(qualifier)), chance);
        found.map(|target| (target.version().map(|id| id.0), target.function().config.description.clone()))
    };
    assert_eq!(resolve("LATEST", 0.0), Err(Unresolved::FunctionNotFound));
    let revision = store.create_function(&key, &function(&key, "one"), 10).await.unwrap();
    publish(&store, &key).await.unwrap();
    let revision = store.replace_function(&key, &function(&key, "two"), revision).await.unwrap();
    publish(&store, &key).await.unwrap();
    store.replace_function(&key, &function(&key, "head"), revision).await.unwrap();
    let prod = alias_key(&key, "prod");
    let shared = Alias { additional: Some(Additional { version: VersionId(2), weight: 0.25 }), ..alias(&prod, 1) };
    store.create_alias(&prod, &shared, 9).await.unwrap();

    for head in ["", "LATEST"] {
        assert_eq!(resolve(head, 0.0), Ok((None, "head".to_owned())));
    }
    assert_eq!(resolve("1", 0.0), Ok((Some(1), "one".to_owned())));
    assert_eq!(resolve("prod", 0.24), Ok((Some(2), "two".to_owned())));
    assert_eq!(resolve("prod", 0.25), Ok((Some(1), "one".to_owned())));
    assert_eq!(resolve("prod", 1.0), Ok((Some(1), "one".to_owned())));
    for number in ["3", "0", "01", "99999999999999999999999"] {
        assert_eq!(resolve(number, 0.0), Err(Unresolved::VersionNotFound { id: number.to_owned() }), "{number}");
    }
    for name in ["test", "latest", "-", "1a", "../prod"] {
        assert_eq!(resolve(name, 0.0), Err(Unresolved::AliasNotFound), "{name}");
    }
    store.delete_version(&key, VersionId(2)).await.unwrap();
    assert_eq!(resolve("prod", 0.0), Err(Unresolved::VersionNotFound { id: "2".to_owned() }));
}

pub(super) async fn a_functions_versions_and_aliases_go_with_it(store: Arc<dyn Store>) {
    let (key, neighbour) = (key(&scope(1), "f"), key(&scope(1), "g"));
    let mut revision = Revision(0);
    for key in [&neighbour, &key] {
        revision = store.create_function(key, &function(key, "one"), 10).await.unwrap();
        publish(&store, key).await.unwrap();
        publish(&store, key).await.unwrap();
        let prod = alias_key(key, "prod");
        store.create_alias(&prod, &alias(&prod, 2), 9).await.unwrap();
    }
    store.delete_function(&key, revision).await.unwrap();
    let view = store.view();
    assert_eq!((view.versions(&key).count(), view.aliases(&key).count()), (0, 0));
    assert_eq!((view.versions(&neighbour).count(), view.aliases(&neighbour).count()), (2, 1));
    store.create_function(&key, &function(&key, "new"), 10).await.unwrap();
    assert_eq!(publish(&store, &key).await.unwrap(), 1, "a new function counts anew");
    assert_eq!(store.view().aliases(&key).count(), 0);
}
