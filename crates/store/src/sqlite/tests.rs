//! Disk errors at the worst moment: the commit.

use std::time::Duration;

use rusqlite::ffi;
use tokio::sync::oneshot;

use super::Sqlite;
use super::writer::{Job, Write};
use crate::change::Change;
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

#[tokio::test]
async fn many_writes_at_once_share_their_commits() {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::open(&folder.path().join("store.db")).unwrap();
    let send = |number: u32| {
        let key = contract::key(&contract::scope(1), &format!("f{number}"));
        let function = contract::function(&key, "x");
        let (reply, answer) = oneshot::channel();
        let write = Write::Change(Box::new(Change::CreateFunction { key, function, limit: 1000 }));
        assert!(store.queue.try_send(Job { write, reply }).is_ok());
        answer
    };
    // The first commit is held up, so that the others gather behind it.
    let held = store.fault.lock().unwrap();
    let mut answers = vec![send(0)];
    while store.statistics().queued > 0 {
        std::thread::yield_now();
    }
    answers.extend((1..100).map(send));
    drop(held);
    for answer in answers {
        answer.await.unwrap().unwrap();
    }
    let statistics = store.statistics();
    assert!(statistics.commits <= 2 && statistics.writes == 100, "{statistics:?}");
}

#[tokio::test]
async fn a_write_that_is_refused_does_not_take_others_of_its_batch_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::open(&folder.path().join("store.db")).unwrap();
    let results = tokio::join!(create(&store, "a"), create(&store, "a"), create(&store, "b"));
    assert!(matches!(results, (Ok(()), Err(CreateError::AlreadyExists), Ok(()))), "{results:?}");
    assert_eq!(store.view().count(), 2);
}
