//! What happens to the file: kill -9, a full disk, damage, other owners.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dunlin_store::{CreateError, Memory, OpenError, RecordQuery, Sqlite, Store, StoreError, contract};

/// Where a child of a test finds its store.
const CHILD: &str = "DUNLIN_TEST_STORE";

/// This binary again, to run one ignored test over the store at `path`.
fn child(test: &str, path: &Path) -> Vec<String> {
    let binary = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
    vec![
        "env".into(),
        format!("{CHILD}={}", path.display()),
        binary,
        "--exact".into(),
        test.into(),
        "--ignored".into(),
        "--nocapture".into(),
    ]
}

fn given() -> PathBuf {
    std::env::var_os(CHILD).expect("the parent test gives a path").into()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs in a process of its own, until it is killed"]
async fn child_writes_for_ever() {
    let store = Arc::new(Sqlite::open(&given()).unwrap());
    let start = store.view().count();
    let tasks: Vec<_> = (0..8)
        .map(|writer| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for number in 0.. {
                    let key = contract::key(&contract::scope(1), &format!("f{start}_{writer}_{number}"));
                    store.create_function(&key, &contract::function(&key, "x"), usize::MAX).await.unwrap();
                    store.append_records(&[contract::record(&key, 1)]).await.unwrap();
                    writeln!(std::io::stdout().lock(), "ack {}", key.name()).unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_before_a_kill_is_there_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let mut acknowledged = BTreeSet::new();
    for round in 1..=6 {
        let words = child("child_writes_for_ever", &path);
        let mut process = Command::new(&words[0]).args(&words[1..]).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut heard = 0;
        while heard < round * 37 {
            let line = output.next().expect("the child writes until it is killed").unwrap();
            if let Some(name) = line.strip_prefix("ack ") {
                acknowledged.insert(name.to_owned());
                heard += 1;
            }
        }
        process.kill().unwrap();
        process.wait().unwrap();
        for line in output.map_while(Result::ok) {
            // A line cut by the kill has no end and may not be a whole name; whole ones count.
            if let Some(name) = line.strip_prefix("ack ").filter(|name| name.split('_').count() == 3) {
                acknowledged.insert(name.to_owned());
            }
        }
        let store = Sqlite::open(&path).unwrap();
        let view = store.view();
        for name in &acknowledged {
            assert!(view.function(&contract::key(&contract::scope(1), name)).is_some(), "{name} was lost");
        }
        let revisions: BTreeSet<_> = view.functions().map(|(_, stored)| stored.revision).collect();
        assert_eq!(revisions.len(), view.count(), "a revision was used twice");
        let name = acknowledged.last().unwrap();
        let query = RecordQuery { function: Some(name.parse().unwrap()), ..RecordQuery::default() };
        assert_eq!(store.records(&contract::scope(1), &query).await.unwrap().items.len(), 1);
        store.close().await;
    }
}

#[tokio::test]
#[ignore = "runs on a small disk of its own"]
async fn child_fills_its_disk() {
    let path = given();
    let store = Sqlite::open(&path).unwrap();
    let ballast = path.with_extension("ballast");
    let scope = contract::scope(1);
    let create = async |number: usize| {
        let key = contract::key(&scope, &format!("f{number}"));
        store.create_function(&key, &contract::function(&key, "x"), usize::MAX).await
    };
    create(0).await.unwrap();
    let _ = fs::write(&ballast, vec![0; 16 << 20]).expect_err("the disk is smaller");
    let mut number = 1;
    let refused = loop {
        match create(number).await {
            Ok(_) => number += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, CreateError::Store(StoreError::Full)), "{refused:?}");
    assert_eq!(store.list_functions(&scope, "", None, usize::MAX).await.unwrap().items.len(), number);
    assert!(store.records(&scope, &RecordQuery::default()).await.unwrap().items.is_empty());
    fs::remove_file(&ballast).unwrap();
    create(number).await.unwrap();
    store.close().await;
    assert_eq!(Sqlite::open(&path).unwrap().view().count(), number + 1);
}

#[test]
fn a_full_disk_refuses_writes_and_heals_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    // A mount namespace of its own: the small disk is gone with the child.
    let script = r#"mount -t tmpfs -o size=1m none "$0" && exec "$@""#;
    let status = Command::new("unshare")
        .args(["-m", "sh", "-c", script])
        .arg(folder.path())
        .args(child("child_fills_its_disk", &folder.path().join("store.db")))
        .status()
        .unwrap();
    assert!(status.success());
}

/// A closed store with a function in it.
async fn filled(folder: &Path) -> PathBuf {
    let path = folder.join("store.db");
    let store = Sqlite::open(&path).unwrap();
    let key = contract::key(&contract::scope(1), "f");
    store.create_function(&key, &contract::function(&key, "findme"), 10).await.unwrap();
    store.close().await;
    path
}

/// Opens what `change` made of a good store: it must be refused with the file's name, and not be touched.
async fn refused(change: impl FnOnce(&Path)) -> OpenError {
    let folder = tempfile::tempdir().unwrap();
    let path = filled(folder.path()).await;
    change(&path);
    let before = fs::read(&path).ok();
    let Err(error) = Sqlite::open(&path) else { panic!("it was opened") };
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    assert_eq!(fs::read(&path).ok().unwrap_or_default(), before.unwrap_or_default(), "{error}: the file was changed");
    error
}

fn sql(path: &Path, statement: &str) {
    rusqlite::Connection::open(path).unwrap().execute_batch(statement).unwrap();
}

#[tokio::test]
async fn a_store_from_a_newer_release_is_refused() {
    let error = refused(|path| sql(path, "PRAGMA user_version = 99")).await;
    assert!(matches!(error, OpenError::ForeignVersion { found: 99, .. }), "{error:?}");
}

#[tokio::test]
async fn another_programs_database_is_refused() {
    let error = refused(|path| sql(path, "PRAGMA application_id = 7")).await;
    assert!(matches!(error, OpenError::NotOurs { .. }), "{error:?}");
}

#[tokio::test]
async fn a_damaged_store_is_refused() {
    type Change = fn(&mut Vec<u8>);
    let changes: [(&str, Change); 5] = [
        ("garbage", |bytes| bytes.fill(b'x')),
        ("no header", |bytes| bytes[..16].fill(0)),
        ("half", |bytes| bytes.truncate(bytes.len() / 2)),
        ("an empty page", |bytes| bytes[4096..8192].fill(0xaa)),
        ("a flipped bit in a row", |bytes| {
            let at = bytes.windows(6).rposition(|window| window == b"findme").unwrap();
            bytes[at] ^= 1;
        }),
    ];
    for (claim, change) in changes {
        let error = refused(|path| {
            let mut bytes = fs::read(path).unwrap();
            change(&mut bytes);
            fs::write(path, bytes).unwrap();
        })
        .await;
        assert!(matches!(error, OpenError::Corrupt { .. }), "{claim}: {error:?}");
    }
}

#[tokio::test]
async fn a_store_that_vanished_is_not_taken_for_a_new_one() {
    for change in [|path: &Path| fs::remove_file(path).unwrap(), |path: &Path| fs::write(path, "").unwrap()] {
        let error = refused(change).await;
        assert!(matches!(error, OpenError::Corrupt { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn only_its_owner_reads_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::open(&folder.path().join("store.db")).unwrap();
    let key = contract::key(&contract::scope(1), "f");
    store.create_function(&key, &contract::function(&key, "x"), 9).await.unwrap();
    for name in ["store.db", "store.db-wal"] {
        let mode = fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[tokio::test]
async fn a_store_is_open_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = filled(folder.path()).await;
    let first = Sqlite::open(&path).unwrap();
    assert!(matches!(Sqlite::open(&path), Err(OpenError::Locked { .. })));
    first.close().await;
    let second = Sqlite::open(&path).unwrap();
    assert_eq!(second.view().count(), 1);
    let key = contract::key(&contract::scope(1), "g");
    let late = first.create_function(&key, &contract::function(&key, "x"), 9).await;
    assert!(matches!(late, Err(CreateError::Store(StoreError::Closed))), "{late:?}");
}

#[tokio::test]
async fn a_write_costs_about_the_same_among_ten_thousand_functions() {
    let few = cost_of_a_write_among(100).await;
    let many = cost_of_a_write_among(10_000).await;
    eprintln!("one write among 100 functions: {few:?}, among 10,000: {many:?}");
    // A hundred times as many functions; a map that is copied whole would cost a hundred times as much.
    assert!(many < few * 25, "{many:?} against {few:?}");
}

async fn cost_of_a_write_among(functions: usize) -> Duration {
    let store = Memory::new();
    let scope = contract::scope(1);
    for number in 0..functions {
        let key = contract::key(&scope, &format!("f{number}"));
        store.create_function(&key, &contract::function(&key, "x"), usize::MAX).await.unwrap();
    }
    let key = contract::key(&scope, &format!("f{}", functions / 2));
    let mut revision = store.view().function(&key).unwrap().revision;
    let function = contract::function(&key, "x");
    let started = Instant::now();
    for _ in 0..1000 {
        revision = store.replace_function(&key, &function, revision).await.unwrap();
    }
    started.elapsed() / 1000
}
