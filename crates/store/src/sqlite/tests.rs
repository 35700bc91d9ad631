//! Disk errors at the worst moment: the commit.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::ffi;

use super::Sqlite;
use crate::{CreateError, Store, StoreError, contract};

fn failure(code: i32) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)
}

async fn create(store: &Sqlite, name: &str) -> Result<(), CreateError> {
    let key = contract::key(&contract::scope(1), name);
    store.create_function(&key, &contract::function(&key, "x"), 100).await.map(drop)
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_acknowledged_until_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = Sqlite::open(&path).unwrap();
    create(&store, "before").await.unwrap();
    *store.fault.lock().unwrap() = Some(failure(ffi::SQLITE_IOERR_FSYNC));
    for name in ["during", "after"] {
        let refused = create(&store, name).await;
        assert!(matches!(refused, Err(CreateError::Store(StoreError::Poisoned { .. }))), "{refused:?}");
    }
    assert!(matches!(store.failed().await, StoreError::Poisoned { .. }));
    assert_eq!(store.view().count(), 1, "reads go on");
    store.close().await;
    let store = Sqlite::open(&path).unwrap();
    assert_eq!(store.view().count(), 1);
    create(&store, "again").await.unwrap();
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_is_forgotten_when_space_returns() {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::open(&folder.path().join("store.db")).unwrap();
    *store.fault.lock().unwrap() = Some(failure(ffi::SQLITE_FULL));
    let refused = create(&store, "during").await;
    assert!(matches!(refused, Err(CreateError::Store(StoreError::Full))), "{refused:?}");
    assert!(store.view().count() == 0 && store.statistics().failures == 1);
    create(&store, "during").await.unwrap();
    assert!(tokio::time::timeout(Duration::ZERO, store.failed()).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writes_at_once_share_their_commits() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Sqlite::open(&folder.path().join("store.db")).unwrap());
    // The first commit waits for the lock, so that the others gather behind it.
    let fault = Arc::clone(&store.fault);
    let held = fault.lock().unwrap();
    let tasks: Vec<_> = (0..100)
        .map(|number| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { create(&store, &format!("f{number}")).await })
        })
        .collect();
    while store.statistics().queued < 90 {
        std::thread::yield_now();
    }
    drop(held);
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let statistics = store.statistics();
    assert_eq!(statistics.writes, 100);
    assert!(statistics.commits <= 11, "{statistics:?}");
}

#[tokio::test]
async fn a_write_that_is_refused_does_not_take_others_of_its_batch_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::open(&folder.path().join("store.db")).unwrap();
    let results = tokio::join!(create(&store, "a"), create(&store, "a"), create(&store, "b"));
    assert!(matches!(results, (Ok(()), Err(CreateError::AlreadyExists), Ok(()))), "{results:?}");
    assert_eq!(store.view().count(), 2);
}
