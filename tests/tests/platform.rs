//! The platform's own life: first boot, drain, sweep, two side by side, a thousand first calls at once.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dunlin_testkit::{Connection, Options, Platform};
use serde_json::json;

const ECHO: &[(&str, &str)] = &[("index.py", "def handler(event, context):\n    return event\n")];

/// What a platform leaves on the host while it runs: control groups of its installation, and processes below `pid`.
fn cgroups(data: &Path) -> Result<BTreeSet<PathBuf>> {
    let id = fs::read_to_string(data.join("installation")).context("the installation's id")?;
    let name = format!("dunlin-{}", id.split_whitespace().next().unwrap_or_default());
    let mut found = BTreeSet::new();
    for root in fs::read_dir("/sys/fs/cgroup")? {
        let candidate = root?.path().join(&name);
        if candidate.is_dir() {
            found.insert(candidate);
        }
    }
    Ok(found)
}

fn descendants(pid: u32) -> Vec<u32> {
    let mut all = Vec::new();
    let mut next = vec![pid];
    while let Some(parent) = next.pop() {
        let Ok(tasks) = fs::read_dir(format!("/proc/{parent}/task")) else { continue };
        for task in tasks.flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            for child in children.split_whitespace().filter_map(|word| word.parse().ok()) {
                all.push(child);
                next.push(child);
            }
        }
    }
    all
}

fn alive(pids: &[u32]) -> Vec<u32> {
    pids.iter().copied().filter(|pid| Path::new(&format!("/proc/{pid}")).exists()).collect()
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(60), "{what} did not come true");
        thread::park_timeout(Duration::from_millis(10));
    }
}

#[test]
fn first_boot_makes_a_key_and_later_boots_keep_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let options = Options { data: Some(folder.path().join("data")), ..Options::default() };
    let platform = Platform::start(&options)?;
    let path = platform.data.join("credentials.json");
    assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o777, 0o600);
    let first = platform.api.credentials().clone();
    assert_eq!(first.account_id.len(), 16);
    assert_eq!(first.region, "cn-hangzhou");
    platform.api.create("kept", "python3.10", ECHO, json!({}))?;
    assert!(platform.stop()?.success());
    let platform = Platform::start(&options)?;
    let second = platform.api.credentials();
    assert_eq!((&first.access_key_id, &first.access_key_secret), (&second.access_key_id, &second.access_key_secret));
    assert_eq!(platform.api.invoke("kept", b"again")?.text(), "again");
    Ok(())
}

#[test]
fn metrics_are_openmetrics() -> Result<()> {
    let platform = Platform::fresh()?;
    platform.api.create("counted", "python3.10", ECHO, json!({}))?;
    platform.api.invoke("counted", b"x")?;
    let address = platform.address().to_owned();
    let reply = platform.connect()?.request("GET", "/-/metrics", &[("host".into(), address)], b"")?;
    assert_eq!(reply.status, 200);
    assert!(reply.header("content-type").is_some_and(|kind| kind.starts_with("application/openmetrics-text")));
    let text = reply.text();
    assert!(text.ends_with("# EOF\n"), "{text}");
    assert!(text.contains("dunlin_calls_total"), "{text}");
    Ok(())
}

#[test]
fn a_call_in_flight_outlives_the_request_to_stop() -> Result<()> {
    let platform = Platform::fresh()?;
    let slow =
        "import time\ndef handler(event, context):\n    print('started', flush=True)\n    time.sleep(2)\n    return 'finished'\n";
    platform.api.create("slow", "python3.10", &[("index.py", slow)], json!({"timeout": 30}))?;
    let api = platform.api.clone();
    let call = thread::spawn(move || api.invoke("slow", b""));
    let pid = platform.pid();
    eventually("the call is in its handler", || {
        let logs = platform.cli(&["logs", "slow"]).map(|output| output.stdout).unwrap_or_default();
        String::from_utf8_lossy(&logs).contains("started")
    });
    let children = descendants(pid);
    assert!(children.len() >= 3, "a platform has a server, a spawner and a zygote at least: {children:?}");
    let data = platform.data.clone();
    assert!(!cgroups(&data)?.is_empty(), "a platform has control groups while it runs");
    let status = platform.stop()?;
    assert!(status.success(), "{status}");
    let reply = call.join().expect("the caller does not panic")?;
    assert_eq!((reply.status, reply.text().as_str()), (200, "finished"));
    assert_eq!(alive(&children), Vec::<u32>::new(), "processes are left");
    Ok(())
}

#[test]
fn nothing_is_left_after_a_stop_and_the_next_start_sweeps_after_a_kill() -> Result<()> {
    let folder = tempfile::tempdir()?;
    // Under version 1 of cgroups a frozen process does not die with the supervisor; `idle.rs` has that case.
    let args = vec!["--idle".into(), "run".into()];
    let options = Options { data: Some(folder.path().join("data")), args, ..Options::default() };
    let platform = Platform::start(&options)?;
    platform.api.create("f", "python3.10", ECHO, json!({}))?;
    platform.api.invoke("f", b"x")?;
    let children = descendants(platform.pid());
    let data = platform.kill()?;
    // Everything dies with the supervisor; what a dead process cannot take with it, the next start removes.
    eventually("every process has died", || alive(&children).is_empty());
    let platform = Platform::start(&options)?;
    assert_eq!(platform.api.invoke("f", b"after")?.text(), "after");
    platform.stop()?;
    assert_eq!(cgroups(&data)?, BTreeSet::new(), "control groups are left");
    let trees: Vec<_> = fs::read_dir(data.join("trees"))?.flatten().map(|entry| entry.file_name()).collect();
    assert!(trees.iter().all(|name| !name.to_string_lossy().starts_with('.')), "temporary trees are left: {trees:?}");
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    assert!(!mounts.contains(&*data.to_string_lossy()), "mounts are left");
    Ok(())
}

#[test]
fn a_second_platform_on_the_same_data_is_refused() -> Result<()> {
    let platform = Platform::fresh()?;
    let text = Platform::refused(&platform.data)?;
    assert!(text.contains("another dunlin is running on") && text.contains(&*platform.data.to_string_lossy()), "{text}");
    assert_eq!(platform.connect()?.request("GET", "/-/ready", &[("host".into(), platform.address().into())], b"")?.status, 200);
    Ok(())
}

#[test]
fn two_platforms_run_side_by_side() -> Result<()> {
    let (one, two) = (Platform::fresh()?, Platform::fresh()?);
    one.api.create("f", "python3.10", &[("index.py", "def handler(e, c):\n    return 'one'\n")], json!({}))?;
    two.api.create("f", "python3.10", &[("index.py", "def handler(e, c):\n    return 'two'\n")], json!({}))?;
    assert_eq!(one.api.invoke("f", b"")?.text(), "one");
    assert_eq!(two.api.invoke("f", b"")?.text(), "two");
    one.stop()?;
    assert_eq!(two.api.invoke("f", b"")?.text(), "two");
    Ok(())
}

#[test]
fn a_server_that_dies_is_replaced_on_the_same_port() -> Result<()> {
    let platform = Platform::fresh()?;
    platform.api.create("f", "python3.10", ECHO, json!({}))?;
    let server = descendants(platform.pid())
        .into_iter()
        .find(|pid| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.split(|b| *b == 0).nth(1) == Some(b"server")))
        .context("there is a server")?;
    let pid = rustix::process::Pid::from_raw(i32::try_from(server)?).context("a pid")?;
    rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
    eventually("the server is replaced", || {
        platform.connect().is_ok_and(|mut connection| {
            let host = [("host".to_owned(), platform.address().to_owned())];
            connection.request("GET", "/-/ready", &host, b"").is_ok_and(|reply| reply.status == 200)
        })
    });
    assert_eq!(platform.api.invoke("f", b"back")?.text(), "back");
    Ok(())
}

#[test]
fn a_thousand_first_calls_at_once_are_all_answered() -> Result<()> {
    const CALLS: usize = 1000;
    let platform = Platform::fresh()?;
    platform.api.create("burst", "python3.10", ECHO, json!({"timeout": 30}))?;
    let host = platform.api.expose("burst")?;
    let address = Arc::new(platform.address().to_owned());
    let barrier = Arc::new(Barrier::new(CALLS));
    let calls: Vec<_> = (0..CALLS)
        .map(|n| {
            let (address, barrier, host) = (Arc::clone(&address), Arc::clone(&barrier), host.clone());
            let call = move || -> Result<()> {
                let connection = Connection::open(&address);
                barrier.wait();
                let body = format!("call {n}");
                let reply = connection?.request(
                    "POST",
                    "/",
                    &[("host".into(), host), ("content-type".into(), "text/plain".into())],
                    body.as_bytes(),
                )?;
                ensure!(reply.status == 200, "status {}: {}", reply.status, reply.text());
                ensure!(reply.text().contains(&body), "answer of another call: {}", reply.text());
                Ok(())
            };
            thread::Builder::new().stack_size(256 << 10).spawn(call)
        })
        .collect::<std::io::Result<_>>()?;
    let failures: Vec<String> = calls
        .into_iter()
        .filter_map(|call| call.join().expect("a caller does not panic").err())
        .map(|error| format!("{error:#}"))
        .collect();
    assert!(failures.is_empty(), "{} of {CALLS} failed, first: {}", failures.len(), failures[0]);
    let read = || -> Vec<serde_json::Value> {
        let output = platform.cli(&["records", "burst", "--json", "--limit", "1000"]).map(|output| output.stdout);
        serde_json::from_slice(&output.unwrap_or_default()).unwrap_or_default()
    };
    // Records are written behind the answers, in batches.
    eventually("every call leaves one record", || read().len() == CALLS);
    let records = read();
    let distinct: BTreeSet<_> = records.iter().map(|record| record["requestId"].as_str()).collect();
    assert_eq!(distinct.len(), CALLS, "no record twice");
    Ok(())
}
