//! Instances between calls: they stand still, or run on where the operator says so.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use dunlin_testkit::{Options, Platform, eventually};
use serde_json::{Value, json};

/// Counts in the background, and knows the longest time between two steps.
const COUNTER: &str = r"
import json, threading, time
count, gap, last = 0, 0.0, time.monotonic()

def run():
    global count, gap, last
    while True:
        now = time.monotonic()
        gap, last, count = max(gap, now - last), now, count + 1
        print('step', count, flush=True)
        time.sleep(0.02)

threading.Thread(target=run, daemon=True).start()

def handler(event, context):
    global gap
    before = count
    while count < before + 3:
        time.sleep(0.001)
    answer, gap = {'count': count, 'gap': gap}, 0.0
    return json.dumps(answer)
";

/// A server that closes connections that idle for a third of a second.
const SERVER: &str = r"
const http = require('http')
let connections = 0
const server = http.createServer((request, response) => { request.resume(); response.end(String(connections)) })
server.on('connection', () => { connections += 1 })
server.keepAliveTimeout = 300
server.listen(9000)
";

/// Control groups of the platform's cells that stand still, in either version.
fn frozen(data: &Path) -> Result<Vec<PathBuf>> {
    let id = fs::read_to_string(data.join("installation")).context("the installation's id")?;
    let name = format!("dunlin-{}", id.split_whitespace().next().unwrap_or_default());
    let mut found = Vec::new();
    for root in fs::read_dir("/sys/fs/cgroup")?.flatten().map(|entry| entry.path()).chain(["/sys/fs/cgroup".into()]) {
        for cell in fs::read_dir(root.join(&name)).into_iter().flatten().flatten().map(|entry| entry.path()) {
            let says = |file: &str, what: &str| {
                fs::read_to_string(cell.join(file)).is_ok_and(|text| text.lines().any(|line| line == what))
            };
            if says("freezer.state", "FROZEN") || says("cgroup.events", "frozen 1") {
                found.push(cell);
            }
        }
    }
    Ok(found)
}

fn wait_until_frozen(platform: &Platform, cells: usize) -> Result<Vec<PathBuf>> {
    eventually("idle instances stand still", || Ok(frozen(&platform.data)?.len() == cells))?;
    frozen(&platform.data)
}

fn call(platform: &Platform, name: &str) -> Result<Value> {
    let reply = platform.api.invoke(name, b"{}")?;
    ensure!(reply.status == 200 && reply.header("x-fc-error-type").is_none(), "{}: {}", reply.status, reply.text());
    reply.json()
}

fn printed(platform: &Platform, name: &str, line: &str) -> Result<bool> {
    let output = platform.cli(&["logs", name, "--grep", line])?;
    Ok(String::from_utf8_lossy(&output.stdout).contains(line))
}

#[test]
fn a_thread_stands_still_between_calls_and_goes_on_with_the_next() -> Result<()> {
    let platform = Platform::fresh()?;
    platform.api.create("counter", "python3.10", &[("index.py", COUNTER)], json!({"timeout": 30}))?;
    let mut before = call(&platform, "counter")?;
    for _ in 0..3 {
        wait_until_frozen(&platform, 1)?;
        let stands = Instant::now();
        // Another function's calls are none of its business.
        platform.api.create("other", "python3.10", &[("index.py", "def handler(e, c):\n    return e\n")], json!({}))?;
        platform.api.invoke("other", b"x")?;
        platform.api.json("DELETE", "/functions/other", "DeleteFunction", &Value::Null)?;
        let stood = stands.elapsed();
        let after = call(&platform, "counter")?;
        let gap = after["gap"].as_f64().context("a number")?;
        assert!(gap >= stood.as_secs_f64(), "it was busy {gap} s after its last step, and stood still for {stood:?}");
        assert!(after["count"].as_u64() > before["count"].as_u64(), "the same thread goes on: {before} {after}");
        before = after;
    }
    Ok(())
}

#[test]
fn a_thread_runs_on_where_the_operator_says_so() -> Result<()> {
    let platform = Platform::start(&Options { args: vec!["--idle".into(), "run".into()], ..Options::default() })?;
    platform.api.create("counter", "python3.10", &[("index.py", COUNTER)], json!({"timeout": 30}))?;
    let last = call(&platform, "counter")?["count"].as_u64().context("a number")?;
    // A second's worth of steps after the call; a frozen instance would stop within a tenth.
    let later = format!("step {}", last + 50);
    eventually("it goes on without a call", || printed(&platform, "counter", &later))?;
    assert_eq!(frozen(&platform.data)?, Vec::<PathBuf>::new());
    Ok(())
}

#[test]
fn a_frozen_instance_runs_its_pre_stop_hook() -> Result<()> {
    let platform = Platform::fresh()?;
    let code = "def handler(e, c):\n    return b'{}'\ndef stop(c):\n    print('stopping in order', flush=True)\n";
    let hooks = json!({"instanceLifecycleConfig": {"preStop": {"handler": "index.stop", "timeout": 5}}});
    platform.api.create("f", "python3.10", &[("index.py", code)], hooks)?;
    call(&platform, "f")?;
    wait_until_frozen(&platform, 1)?;
    platform.api.json("PUT", "/functions/f", "UpdateFunction", &json!({"timeout": 61}))?;
    call(&platform, "f")?;
    eventually("the hook has run", || printed(&platform, "f", "stopping in order"))?;
    Ok(())
}

#[test]
fn a_servers_kept_connections_do_not_outlive_its_standing_still() -> Result<()> {
    let platform = Platform::fresh()?;
    let config = json!({"customRuntimeConfig": {"command": ["node", "server.js"], "port": 9000}});
    platform.api.create("server", "custom.debian12", &[("server.js", SERVER)], config)?;
    let first = call(&platform, "server")?;
    for round in 1..=3 {
        wait_until_frozen(&platform, 1)?;
        // One that was kept would be closed by the server the moment it goes on.
        assert_eq!(call(&platform, "server")?, json!(first.as_u64().context("a number")? + round));
    }
    Ok(())
}

#[test]
fn a_call_in_flight_is_never_frozen() -> Result<()> {
    let platform = Platform::fresh()?;
    let code = "import time\ndef handler(e, c):\n    began = time.monotonic()\n    while time.monotonic() - began < 1:\n        time.sleep(0.01)\n    return b'{}'\n";
    platform.api.create("slow", "python3.10", &[("index.py", code)], json!({"timeout": 30}))?;
    let api = platform.api.clone();
    let caller = std::thread::spawn(move || api.invoke("slow", b""));
    while !caller.is_finished() {
        assert_eq!(frozen(&platform.data)?, Vec::<PathBuf>::new());
    }
    assert_eq!(caller.join().expect("the caller does not panic")?.text(), "{}");
    wait_until_frozen(&platform, 1)?;
    Ok(())
}

#[test]
fn what_a_killed_platform_leaves_frozen_the_next_start_removes() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let options = Options { data: Some(folder.path().join("data")), ..Options::default() };
    let platform = Platform::start(&options)?;
    platform.api.create("f", "python3.10", &[("index.py", "def handler(e, c):\n    return b'{}'\n")], json!({}))?;
    call(&platform, "f")?;
    let left = wait_until_frozen(&platform, 1)?;
    platform.kill()?;
    let platform = Platform::start(&options)?;
    call(&platform, "f")?;
    platform.stop()?;
    for cell in left {
        assert!(!cell.exists(), "{} is left", cell.display());
    }
    Ok(())
}
