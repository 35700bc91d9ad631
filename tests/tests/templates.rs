//! Instances that are forked from a template, on the real platform.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::thread;

use anyhow::{Context, Result, ensure};
use dunlin_testkit::{Platform, Response, cache, eventually, zip_of_folder};
use serde_json::{Value, json};

const PROBE: &str = include_str!("hostile/probe.py");

/// Says what it draws, what it shares and what it could do.
const CURIOUS: &str = r"
import json, os, random, ssl, time, uuid
import numpy
from probe import attempt, syscall
ballast = bytearray(os.urandom(1 << 16)) * 512
open('/tmp/made-while-loading', 'w').close()
calls = 0

def shared():
    rows = dict(line.split(':', 1) for line in open('/proc/self/smaps_rollup').read().splitlines()[1:])
    return int(rows['Rss'].split()[0]) - int(rows['Pss'].split()[0])

def bomb():
    children = 0
    try:
        while children < 5000:
            if os.fork() == 0:
                time.sleep(600)
            children += 1
    except OSError:
        return children

def handler(event, context):
    global calls
    calls += 1
    ask = json.loads(event)
    time.sleep(ask.get('sleep', 0))
    if ask.get('bomb'):
        return json.dumps(bomb())
    fork = 0x7f220011
    return json.dumps({
        'forked': not os.path.exists('/tmp/made-while-loading'),
        'draws': [random.random(), str(uuid.uuid4()), ssl.RAND_bytes(8).hex(), float(numpy.random.random())],
        'instance': os.environ['FC_INSTANCE_ID'],
        'calls': calls,
        'shared': shared(),
        'processes': [name for name in os.listdir('/proc') if name.isdigit()],
        'tried': {
            'clone': syscall(56, fork, 0, 0, 0, 0),
            'other clone': syscall(56, 0x10000011, 0, 0, 0, 0),
            'unshare cgroup': syscall(272, 0x02000000),
            'unshare user': syscall(272, 0x10000000),
            'setns': syscall(308, 0, 0),
            'ptrace': syscall(101, 16, 1, 0, 0),
            'bounding set': syscall(157, 24, 0, 0, 0, 0),
            'seccomp': syscall(317, 1, 0, 0),
            'mount': syscall(165, 0, 0, 0, 0, 0),
            'control socket': attempt(lambda: os.fstat(4)),
        },
    })
";

fn heavy() -> PathBuf {
    cache().join("python-heavy")
}

/// A package with `code`, the probe and numpy.
fn package(code: &str) -> Result<String> {
    let folder = tempfile::tempdir()?;
    for name in ["numpy", "numpy.libs"] {
        let from = heavy().join(name);
        ensure!(from.is_dir(), "run scripts/setup first");
        let copied = std::process::Command::new("cp").arg("-r").arg(from).arg(folder.path()).status()?;
        ensure!(copied.success(), "cannot copy {name}");
    }
    fs::write(folder.path().join("index.py"), code)?;
    fs::write(folder.path().join("probe.py"), PROBE)?;
    zip_of_folder(folder.path())
}

/// Deploys `code` as a function that asks for a template, and calls it until there is one.
fn deployed(code: &str) -> Result<Platform> {
    let platform = Platform::fresh()?;
    // Enough for a thousand children's page tables.
    let members = json!({"memorySize": 2048, "timeout": 60, "environmentVariables": {"DUNLIN_TEMPLATE": "true"}});
    platform.api.create_from("f", "python3", &package(code)?, members)?;
    let first = answer(&platform.api.invoke("f", b"{}")?)?;
    ensure!(first["forked"] == false, "the first instance loads by itself: {first}");
    eventually("there is a template", || Ok(platform.printed().contains("instances are forked from a template")))?;
    Ok(platform)
}

fn answer(reply: &Response) -> Result<Value> {
    ensure!(reply.status == 200 && reply.header("x-fc-error-type").is_none(), "{}: {}", reply.status, reply.text());
    reply.json()
}

/// The answers of so many calls at the same time.
fn at_once(platform: &Platform, calls: usize, event: &'static [u8]) -> Result<Vec<Value>> {
    let api = &platform.api;
    thread::scope(|scope| {
        let calls: Vec<_> = (0..calls).map(|_| scope.spawn(move || answer(&api.invoke("f", event)?))).collect();
        calls.into_iter().map(|call| call.join().expect("a caller does not panic")).collect()
    })
}

/// Processes of this test's templates: those that are the parents of what was forked.
fn templates(platform: &Platform) -> BTreeSet<i32> {
    let status = |pid: i32| fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |status: &str, name: &str| status.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()));
    let supervisor = i32::try_from(platform.pid()).unwrap_or(0);
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: i32| {
        let status_of_it = status(pid);
        // Seen from the host, from its template's namespace, and from its own.
        let depth = field(&status_of_it, "NSpid:")?.split_whitespace().count();
        let parent: i32 = field(&status_of_it, "PPid:")?.parse().ok()?;
        let grandparent: i32 = field(&status(parent), "PPid:")?.parse().ok()?;
        (depth == 3 && grandparent == supervisor).then_some(parent)
    })
    .collect()
}

#[test]
fn siblings_are_forked_share_memory_and_nothing_that_is_random() -> Result<()> {
    let platform = deployed(CURIOUS)?;
    let answers = at_once(&platform, 5, br#"{"sleep": 1}"#)?;
    assert!(answers.iter().filter(|answer| answer["forked"] == true).count() >= 4, "{answers:?}");
    let mut drawn = BTreeSet::new();
    for answer in &answers {
        for (source, draw) in answer["draws"].as_array().context("a list")?.iter().enumerate() {
            assert!(drawn.insert((source, draw.to_string())), "source {source} repeats itself: {answers:?}");
        }
        assert!(drawn.insert((9, answer["instance"].to_string())), "two instances are one: {answers:?}");
        if answer["forked"] == true {
            assert_eq!(answer["calls"], 1, "what a template counts starts anew: {answer}");
            assert_eq!(answer["processes"], json!(["1"]));
            assert!(answer["shared"].as_u64() > Some(16 << 10), "32 MiB that were filled while loading are shared: {answer}");
        }
        for (what, outcome) in answer["tried"].as_object().context("an object")? {
            let denied = ["EPERM", "ENOSYS", "EACCES", "EBADF"].contains(&outcome.as_str().unwrap_or_default());
            assert!(denied, "{what}: {outcome}");
        }
    }
    Ok(())
}

#[test]
fn a_forked_instance_has_limits_of_its_own() -> Result<()> {
    let platform = deployed(CURIOUS)?;
    let bombs = at_once(&platform, 2, br#"{"bomb": true}"#)?;
    assert!(bombs.iter().all(|children| children.as_u64().is_some_and(|children| (500..1100).contains(&children))), "{bombs:?}");
    Ok(())
}

#[test]
fn an_update_retires_the_template() -> Result<()> {
    let platform = deployed(CURIOUS)?;
    at_once(&platform, 3, br#"{"sleep": 0.5}"#)?;
    assert_eq!(templates(&platform).len(), 1);
    let old = templates(&platform);
    platform.api.json("PUT", "/functions/f", "UpdateFunction", &json!({"memorySize": 1024}))?;
    let next = answer(&platform.api.invoke("f", b"{}")?)?;
    assert_eq!(next["forked"], false, "the first of a revision loads by itself");
    eventually("the old template is gone", || Ok(old.iter().all(|pid| !PathBuf::from(format!("/proc/{pid}")).exists())))?;
    Ok(())
}

#[test]
fn a_template_that_is_killed_takes_its_instances_along_and_calls_go_on() -> Result<()> {
    let platform = deployed(CURIOUS)?;
    at_once(&platform, 3, br#"{"sleep": 0.5}"#)?;
    for pid in templates(&platform) {
        let pid = rustix::process::Pid::from_raw(pid).context("a pid")?;
        rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
    }
    // A frozen process may die no sooner than it goes on: here because it is to be forked again. Calls that what it forked
    // serves by then are cut off with it.
    drop(at_once(&platform, 8, br#"{"sleep": 0.5}"#));
    eventually("nothing of it is left", || Ok(templates(&platform).is_empty()))?;
    for answer in at_once(&platform, 3, br#"{"sleep": 0.5}"#)? {
        assert_eq!(answer["forked"], false, "what it forked is gone with it: {answer}");
    }
    let address = platform.address().to_owned();
    let metrics = platform.connect()?.request("GET", "/-/metrics", &[("host".into(), address)], b"")?.text();
    assert!(metrics.contains("dunlin_templates_gone_total{reason=\"lost\"} 1"), "{metrics}");
    Ok(())
}

#[test]
fn code_that_cannot_be_a_template_runs_as_ever() -> Result<()> {
    let platform = Platform::fresh()?;
    let code = "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n\
                def handler(event, context):\n    return '{}'\n";
    let members = json!({"environmentVariables": {"DUNLIN_TEMPLATE": "true"}});
    platform.api.create("f", "python3", &[("index.py", code)], members)?;
    answer(&platform.api.invoke("f", b"{}")?)?;
    eventually("it is told", || Ok(platform.printed().contains("a function makes no template")))?;
    for reply in at_once(&platform, 4, b"{}")? {
        assert_eq!(reply, json!({}));
    }
    Ok(())
}
