//! The front door of the local blobs.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use dunlin_blobs::{BlobError, BlobInfo, Blobs, LocalBlobs};
use dunlin_model::Digest;

fn place(folder: &Path, digest: Digest) -> PathBuf {
    let name = digest.to_string();
    folder.join(&name[..2]).join(name)
}

fn uploads(folder: &Path) -> usize {
    fs::read_dir(folder.join("uploads")).unwrap().count()
}

#[tokio::test]
async fn what_was_put_is_read_opened_listed_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = LocalBlobs::open(folder.path()).unwrap();
    let digest = blobs.put(Bytes::from_static(b"code")).await.unwrap();
    assert_eq!(digest, Digest::of(b"code"));
    assert_eq!(blobs.put(Bytes::from_static(b"code")).await.unwrap(), digest);
    assert_eq!(blobs.read(digest).await.unwrap(), "code");
    let mut text = String::new();
    blobs.open(digest).await.unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "code");
    assert_eq!(blobs.list().await.unwrap(), [BlobInfo { digest, size: 4 }]);
    let reopened = LocalBlobs::open(folder.path()).unwrap();
    assert_eq!(reopened.read(digest).await.unwrap(), "code");
    blobs.remove(digest).await.unwrap();
    blobs.remove(digest).await.unwrap();
    assert!(matches!(blobs.read(digest).await, Err(BlobError::NotFound { .. })));
    assert!(matches!(blobs.open(digest).await, Err(BlobError::NotFound { .. })));
    assert_eq!((blobs.list().await.unwrap(), uploads(folder.path())), (vec![], 0));
}

#[tokio::test]
async fn a_flipped_bit_is_never_given_out_and_the_same_bytes_heal_it() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = LocalBlobs::open(folder.path()).unwrap();
    let digest = blobs.put(Bytes::from(vec![7; 300_000])).await.unwrap();
    let path = place(folder.path(), digest);
    let mut damaged = fs::read(&path).unwrap();
    damaged[200_000] ^= 1;
    fs::write(&path, &damaged).unwrap();
    for result in [blobs.read(digest).await.map(drop), blobs.open(digest).await.map(drop)] {
        assert!(matches!(&result, Err(BlobError::Damaged { path: named, .. }) if *named == path), "{result:?}");
    }
    blobs.put(Bytes::from(vec![7; 300_000])).await.unwrap();
    assert_eq!(blobs.read(digest).await.unwrap().len(), 300_000);
}

#[tokio::test]
async fn chunks_make_one_blob_and_an_unfinished_upload_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = LocalBlobs::open(folder.path()).unwrap();
    let mut upload = blobs.upload().await.unwrap();
    upload.write(Bytes::from_static(b"co")).await.unwrap();
    upload.write(Bytes::from_static(b"de")).await.unwrap();
    assert_eq!(upload.bytes(), 4);
    assert_eq!(upload.finish(Some(Digest::of(b"code"))).await.unwrap(), Digest::of(b"code"));

    let mut upload = blobs.upload().await.unwrap();
    upload.write(Bytes::from_static(b"other")).await.unwrap();
    let mismatch = upload.finish(Some(Digest::of(b"code"))).await;
    assert!(matches!(mismatch, Err(BlobError::Mismatch { actual, .. }) if actual == Digest::of(b"other")));

    let mut upload = blobs.upload().await.unwrap();
    upload.write(Bytes::from_static(b"half")).await.unwrap();
    assert_eq!(uploads(folder.path()), 1);
    drop(upload);
    assert_eq!((uploads(folder.path()), blobs.list().await.unwrap().len()), (0, 1));
}

#[tokio::test]
async fn what_a_crash_left_is_swept_and_no_blob_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = LocalBlobs::open(folder.path()).unwrap();
    let digest = blobs.put(Bytes::from_static(b"code")).await.unwrap();
    fs::write(folder.path().join("uploads/00ff"), "half").unwrap();
    let blobs = LocalBlobs::open(folder.path()).unwrap();
    assert_eq!((uploads(folder.path()), blobs.list().await.unwrap().len()), (0, 1));
    assert_eq!(blobs.read(digest).await.unwrap(), "code");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_bytes_may_be_put_by_many_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = LocalBlobs::open(folder.path()).unwrap();
    let puts: Vec<_> = (0..32)
        .map(|_| {
            let blobs = blobs.clone();
            tokio::spawn(async move { blobs.put(Bytes::from(vec![1; 50_000])).await.unwrap() })
        })
        .collect();
    for put in puts {
        assert_eq!(put.await.unwrap(), Digest::of(&[1; 50_000]));
    }
    assert_eq!((blobs.list().await.unwrap().len(), uploads(folder.path())), (1, 0));
}
