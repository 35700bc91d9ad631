//! The contract, over both stores.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::sync::Arc;

use dunlin_store::{Memory, Sqlite, Store, contract};

#[tokio::test]
async fn memory_keeps_the_contract() {
    contract::check(|| async { Arc::new(Memory::new()) as Arc<dyn Store> }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let number = std::sync::atomic::AtomicU32::new(0);
    contract::check(|| async {
        let number = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let store = Sqlite::open(&folder.path().join(format!("{number}.db"))).unwrap();
        Arc::new(store) as Arc<dyn Store>
    })
    .await;
}
