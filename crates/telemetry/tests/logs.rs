//! The front door of the kept lines.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use dunlin_model::{AccountScope, FunctionKey, InstanceId, RequestId};
use dunlin_telemetry::{Followed, LogEntry, LogQuery, Logs, LogsConfig};
use jiff::Timestamp;

fn key(account: u32, name: &str) -> FunctionKey {
    AccountScope::verified(format!("{account:016}").parse().unwrap()).function(name.parse().unwrap())
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn entry(time: Timestamp, text: &str) -> LogEntry {
    LogEntry { time, request: Some(RequestId::random()), instance: InstanceId::random(), text: text.as_bytes().into() }
}

/// Keeps lines of any age, so that a test may pick its own times.
fn config(folder: &Path) -> LogsConfig {
    LogsConfig { age_max: Duration::from_secs(200 * 365 * 86_400), ..LogsConfig::new(folder.to_owned()) }
}

async fn texts(logs: &Logs, key: &FunctionKey, query: LogQuery) -> Vec<String> {
    logs.query(key, query).await.unwrap().into_iter().map(|entry| String::from_utf8_lossy(&entry.text).into_owned()).collect()
}

fn files(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn lines_are_found_by_function_time_call_and_text() {
    let folder = tempfile::tempdir().unwrap();
    let logs = Logs::start(config(folder.path())).unwrap();
    let (mine, other, theirs) = (key(1, "f"), key(1, "g"), key(2, "f"));
    let written: Vec<_> = (0..5).map(|second| entry(at(second), &format!("line {second}"))).collect();
    written.iter().for_each(|entry| logs.append(&mine, entry.clone()));
    logs.append(&other, entry(at(2), "of g"));
    logs.append(&theirs, entry(at(2), "of another account"));
    assert_eq!(logs.query(&mine, LogQuery::default()).await.unwrap(), written);
    let query = LogQuery { since: Some(at(1)), until: Some(at(4)), limit: 2, ..LogQuery::default() };
    assert_eq!(texts(&logs, &mine, query).await, ["line 2", "line 3"]);
    let query = LogQuery { request: written[4].request.clone(), ..LogQuery::default() };
    assert_eq!(texts(&logs, &mine, query).await, ["line 4"]);
    let query = LogQuery { contains: Some("e 3".into()), ..LogQuery::default() };
    assert_eq!(texts(&logs, &mine, query).await, ["line 3"]);
    assert!(texts(&logs, &key(3, "f"), LogQuery::default()).await.is_empty());
    assert_eq!(logs.dropped(), 0);
}

#[tokio::test]
async fn full_segments_are_compressed_and_read_like_open_ones() {
    let folder = tempfile::tempdir().unwrap();
    let key = key(1, "f");
    let logs = Logs::start(LogsConfig { segment_bytes: 10_000, ..config(folder.path()) }).unwrap();
    for number in 0..300 {
        logs.append(&key, entry(at(number), &format!("line {number} {}", "x".repeat(100))));
        if number % 10 == 0 {
            logs.flush().await;
        }
    }
    let found = texts(&logs, &key, LogQuery::default()).await;
    assert_eq!(found.len(), 300);
    assert!(found.iter().enumerate().all(|(number, line)| line.starts_with(&format!("line {number} "))));
    let names = files(&folder.path().join("0000000000000001/f"));
    assert!(names.iter().filter(|name| name.ends_with(".zst")).count() >= 4, "{names:?}");
    assert!(names.iter().filter(|name| name.ends_with(".log")).count() <= 1, "{names:?}");
    let query = LogQuery { since: Some(at(5)), until: Some(at(7)), ..LogQuery::default() };
    assert_eq!(texts(&logs, &key, query).await.len(), 2);
}

#[tokio::test]
async fn lines_survive_a_restart_and_a_torn_end() {
    let folder = tempfile::tempdir().unwrap();
    let key = key(1, "f");
    let logs = Logs::start(config(folder.path())).unwrap();
    logs.append(&key, entry(at(1), "one"));
    logs.append(&key, entry(at(2), "two"));
    logs.flush().await;
    drop(logs);
    let of_function = folder.path().join("0000000000000001/f");
    let path = of_function.join(&files(&of_function)[0]);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 2]).unwrap();
    let logs = Logs::start(config(folder.path())).unwrap();
    assert_eq!(texts(&logs, &key, LogQuery::default()).await, ["one"]);
    logs.append(&key, entry(at(3), "three"));
    assert_eq!(texts(&logs, &key, LogQuery::default()).await, ["one", "three"]);
    assert_eq!(files(&of_function).len(), 1);
}

#[tokio::test]
async fn a_function_that_floods_loses_lines_and_says_so_and_others_lose_none() {
    let folder = tempfile::tempdir().unwrap();
    let (loud, quiet) = (key(1, "loud"), key(1, "quiet"));
    let logs = Logs::start(LogsConfig { function_bytes_per_second: 10_000, ..config(folder.path()) }).unwrap();
    for number in 0..1000 {
        logs.append(&loud, entry(at(1_900_000_000), &"x".repeat(936)));
        if number % 10 == 0 {
            logs.append(&quiet, entry(at(1_900_000_000), "hello"));
        }
    }
    logs.append(&loud, entry(at(1_900_000_100), "after"));
    let lines = texts(&logs, &loud, LogQuery::default()).await;
    assert_eq!(lines.len(), 22, "twice the rate, the notice and the line after it");
    assert!(lines[20].contains("dropped 980 lines"), "{}", lines[20]);
    assert_eq!(lines[21], "after");
    assert_eq!(logs.dropped(), 980);
    assert_eq!(texts(&logs, &quiet, LogQuery::default()).await.len(), 100);
}

#[tokio::test]
async fn a_long_line_is_cut_and_marked() {
    let folder = tempfile::tempdir().unwrap();
    let key = key(1, "f");
    let logs = Logs::start(LogsConfig { line_bytes_max: 10, ..config(folder.path()) }).unwrap();
    logs.of(&key).line(at(1), &InstanceId::random(), None, &[b'x'; 100]);
    assert_eq!(texts(&logs, &key, LogQuery::default()).await, ["xxxxxxxxxx … (line cut)"]);
}

#[tokio::test]
async fn a_disk_that_fails_costs_lines_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let key = key(1, "f");
    let logs = Logs::start(config(folder.path())).unwrap();
    // A file where the account's folder should be.
    let account = folder.path().join("0000000000000001");
    fs::write(&account, "in the way").unwrap();
    logs.append(&key, entry(at(1), "lost"));
    logs.flush().await;
    assert_eq!(logs.dropped(), 1);
    fs::remove_file(&account).unwrap();
    logs.append(&key, entry(at(2), "kept"));
    assert_eq!(texts(&logs, &key, LogQuery::default()).await, ["kept"]);
}

#[tokio::test]
async fn a_full_queue_drops_and_counts_and_never_waits() {
    let folder = tempfile::tempdir().unwrap();
    let key = key(1, "f");
    let logs = Logs::start(LogsConfig { queue_bytes_max: 0, ..config(folder.path()) }).unwrap();
    for _ in 0..10 {
        logs.append(&key, entry(at(1), "too much"));
    }
    assert_eq!(logs.dropped(), 10);
}

#[tokio::test]
async fn old_lines_go() {
    let folder = tempfile::tempdir().unwrap();
    let key = key(1, "f");
    let now = Timestamp::now().as_second();
    let settings =
        LogsConfig { segment_bytes: 100, age_max: Duration::from_secs(3600), ..LogsConfig::new(folder.path().to_owned()) };
    let logs = Logs::start(settings).unwrap();
    for (second, text) in [(now - 7200, "old"), (now - 60, "young")] {
        logs.append(&key, entry(at(second), &text.repeat(100)));
        logs.flush().await;
    }
    assert_eq!(texts(&logs, &key, LogQuery::default()).await, ["young".repeat(100)]);
}

#[tokio::test]
async fn a_follower_gets_lines_as_they_come_and_learns_what_it_missed() {
    let folder = tempfile::tempdir().unwrap();
    let key = key(1, "f");
    let logs = Logs::start(config(folder.path())).unwrap();
    logs.append(&key, entry(at(1), "before"));
    let mut follow = logs.follow(&key);
    let line = entry(at(2), "now");
    logs.append(&key, line.clone());
    assert_eq!(follow.next().await, Some(Followed::Entry(line)));
    for number in 0..1034 {
        logs.append(&key, entry(at(3), &number.to_string()));
    }
    assert_eq!(follow.next().await, Some(Followed::Missed(10)));
    assert!(matches!(follow.next().await, Some(Followed::Entry(entry)) if *entry.text == *b"10"));
    drop(logs);
    while follow.next().await.is_some() {}
}
