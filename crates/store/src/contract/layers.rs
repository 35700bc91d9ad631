//! Layers.

use std::sync::Arc;

use dunlin_model::{AccountScope, CodePackage, Crc64, Digest, Function, FunctionKey, LayerArn, LayerKey, LayerUse, LayerVersion};
use jiff::Timestamp;

use super::{function, key, scope};
use crate::{CreateError, DeleteError, Store};

/// The account's layer of this name.
#[must_use]
pub fn layer_key(scope: &AccountScope, name: &str) -> LayerKey {
    scope.layer(name.parse().expect("the case's name is one"))
}

/// A version of the layer that says `description`. Its number is the store's to choose.
#[must_use]
pub fn layer_version(key: &LayerKey, description: &str) -> LayerVersion {
    LayerVersion {
        name: key.name().clone(),
        version: 0,
        description: description.to_owned(),
        license: None,
        compatible_runtime: Some(vec!["python3.10".to_owned()]),
        code: CodePackage { digest: Digest::of(description.as_bytes()), checksum: Crc64(7), size: 3 },
        created: Timestamp::UNIX_EPOCH,
    }
}

async fn create(store: &Arc<dyn Store>, key: &LayerKey, description: &str) -> Result<u64, CreateError> {
    store.create_layer_version(key, &layer_version(key, description), 3).await
}

pub(super) async fn a_layers_versions_are_numbered_once_and_limited(store: Arc<dyn Store>) {
    let (tools, other) = (layer_key(&scope(1), "tools"), layer_key(&scope(2), "tools"));
    for (expected, description) in [(1, "one"), (2, "two"), (3, "three")] {
        assert_eq!(create(&store, &tools, description).await.unwrap(), expected);
    }
    let full = create(&store, &tools, "four").await;
    assert!(matches!(full, Err(CreateError::LimitExceeded { limit: 3 })), "{full:?}");
    assert_eq!(create(&store, &other, "another account's").await.unwrap(), 1);
    for gone in [3, 1] {
        store.delete_layer_version(&tools, gone).await.unwrap();
        assert!(matches!(store.delete_layer_version(&tools, gone).await, Err(DeleteError::NotFound)));
    }
    assert_eq!(create(&store, &tools, "four").await.unwrap(), 4, "neither a deleted version's number nor a refusal's is used");
    let view = store.view();
    let versions: Vec<_> =
        view.layer_versions(&tools).map(|version| (version.value.version, version.value.description.as_str())).collect();
    assert_eq!(versions, [(2, "two"), (4, "four")]);
    assert_eq!(view.layer_version(&tools, 2).unwrap().value.code, layer_version(&tools, "two").code);
    assert!(view.layer_version(&tools, 3).is_none() && view.layer_version(&other, 2).is_none());
    assert_eq!(view.all_layer_versions().count(), 3);

    create(&store, &layer_key(&scope(1), "a"), "a").await.unwrap();
    let gone = layer_key(&scope(1), "gone");
    create(&store, &gone, "gone").await.unwrap();
    store.delete_layer_version(&gone, 1).await.unwrap();
    let view = store.view();
    let newest: Vec<_> =
        view.newest_layers(scope(1).account()).map(|(key, version)| (key.name().as_str(), version.value.version)).collect();
    assert_eq!(newest, [("a", 1), ("tools", 4)], "in order, without what has no version");
    assert_eq!(create(&store, &gone, "again").await.unwrap(), 2);
}

pub(super) async fn layers_that_are_made_at_once_get_numbers_of_their_own(store: Arc<dyn Store>) {
    let key = layer_key(&scope(1), "tools");
    let tasks: Vec<_> = (0..50)
        .map(|n: u32| {
            let (store, key) = (Arc::clone(&store), key.clone());
            tokio::spawn(async move { store.create_layer_version(&key, &layer_version(&key, &n.to_string()), 40).await.ok() })
        })
        .collect();
    let mut numbers = Vec::new();
    for task in tasks {
        numbers.extend(task.await.unwrap());
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=40).collect::<Vec<_>>(), "exactly as many as may be");
}

/// A function that was given version 1 of the layer.
fn with_layer(key: &FunctionKey, layer: &LayerArn) -> Function {
    let mut function = function(key, "d");
    function.config.layers = Some(vec![LayerUse { arn: layer.to_string(), digest: Digest::of(b"x"), size: 1 }]);
    function
}

pub(super) async fn a_layer_is_its_accounts_own_until_it_is_shared(store: Arc<dyn Store>) {
    let tools = layer_key(&scope(1), "tools");
    let arn =
        LayerArn { region: "r".to_owned(), account: scope(1).account().clone(), name: "tools".parse().unwrap(), version: 1 };
    assert!(matches!(store.put_layer_acl(&tools, true).await, Err(DeleteError::NotFound)));
    assert!(store.view().usable_layer(&scope(1), &arn).is_none(), "it does not exist yet");
    create(&store, &tools, "one").await.unwrap();
    let (own, foreign) = (key(&scope(1), "f"), key(&scope(2), "f"));
    let withdrawn = |key: &FunctionKey| store.view().withdrawn_layer(key, &with_layer(key, &arn)).is_some();
    assert_eq!((withdrawn(&own), withdrawn(&foreign)), (false, true));
    store.put_layer_acl(&tools, true).await.unwrap();
    assert_eq!((withdrawn(&own), withdrawn(&foreign)), (false, false));
    let view = store.view();
    let (found, layer) = view.usable_layer(&scope(2), &arn).unwrap();
    assert_eq!((&found, layer.public, layer.last_version), (&tools, true, 1));
    create(&store, &tools, "two").await.unwrap();
    assert!(store.view().layer(&tools).unwrap().public, "a new version leaves it shared");
    for version in [1, 2] {
        store.delete_layer_version(&tools, version).await.unwrap();
    }
    assert_eq!((withdrawn(&own), withdrawn(&foreign)), (false, false), "functions keep what they were given");
    store.put_layer_acl(&tools, false).await.unwrap();
    assert_eq!((withdrawn(&own), withdrawn(&foreign)), (false, true));
    assert!(!withdrawn(&own) && store.view().withdrawn_layer(&foreign, &function(&foreign, "d")).is_none());
}
