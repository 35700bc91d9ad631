//! Images of accounts' own.

use std::sync::Arc;

use dunlin_model::{AccountScope, CodePackage, Crc64, Digest, ImageConfig, ImageKey, ImageUser, LocalImage};
use jiff::Timestamp;

use super::scope;
use crate::{CreateError, DeleteError, Store};

/// The key of an image of `scope`.
#[must_use]
pub fn image_key(scope: &AccountScope, name: &str) -> ImageKey {
    scope.image(name.parse().expect("the case's name is one"))
}

/// An image called like `key` that holds `digest`.
#[must_use]
pub fn image(key: &ImageKey, digest: Digest) -> LocalImage {
    LocalImage {
        name: key.name().clone(),
        package: CodePackage { digest, checksum: Crc64(1), size: 7 },
        unpacked_bytes: 8,
        config: ImageConfig {
            entrypoint: vec!["/app".into()],
            env: vec!["A=1".into()],
            working_dir: "/srv".into(),
            user: ImageUser { uid: 7, gid: 8, groups: vec![9] },
            ..ImageConfig::default()
        },
        created: Timestamp::UNIX_EPOCH,
    }
}

pub(super) async fn an_image_is_its_accounts_and_the_last_one_pushed(store: Arc<dyn Store>) {
    let (mine, theirs) = (image_key(&scope(1), "app"), image_key(&scope(2), "app:latest"));
    let (one, two) = (image(&mine, Digest([1; 32])), image(&mine, Digest([2; 32])));
    store.put_image(&mine, &one, 2).await.unwrap();
    assert!(store.view().image(&theirs).is_none());
    assert!(matches!(store.delete_image(&theirs).await, Err(DeleteError::NotFound)));
    store.put_image(&mine, &two, 2).await.unwrap();
    assert_eq!(store.view().image(&mine).unwrap().value, two);
    let other = image_key(&scope(1), "other:1");
    store.put_image(&other, &image(&other, Digest([1; 32])), 2).await.unwrap();
    let third = image_key(&scope(1), "third");
    let over = store.put_image(&third, &image(&third, Digest([1; 32])), 2).await;
    assert!(matches!(over, Err(CreateError::LimitExceeded { limit: 2 })), "{over:?}");
    // What is there can be replaced when no more may be added.
    store.put_image(&mine, &one, 2).await.unwrap();
    store.put_image(&theirs, &image(&theirs, Digest([3; 32])), 2).await.unwrap();
    let view = store.view();
    let names: Vec<_> = view.images(scope(1).account()).map(|image| image.value.name.as_str().to_owned()).collect();
    assert_eq!((names, view.all_images().count()), (vec!["app:latest".to_owned(), "other:1".to_owned()], 3));
    store.delete_image(&mine).await.unwrap();
    assert!(store.view().image(&mine).is_none());
}
