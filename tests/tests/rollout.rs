//! What is decided about a function while it is called: shares of an alias that add up, and limits that change under load.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use dunlin_testkit::Platform;
use serde_json::{Value, json};

const CALLS: usize = 10_000;
const CALLERS: usize = 4;

fn publish(platform: &Platform, name: &str, stage: &str) -> Result<()> {
    platform.api.ask("PUT", &format!("/functions/{name}"), &json!({"environmentVariables": {"STAGE": stage}}))?;
    platform.api.ask("POST", &format!("/functions/{name}/versions"), &json!({})).map(drop)
}

/// Makes [`CALLS`] calls on [`CALLERS`] connections while `meanwhile` is done over and over, and counts the answers by
/// the version that gave them. None may be anything but an answer.
fn called(
    platform: &Platform,
    name: &str,
    qualifier: &str,
    mut meanwhile: impl FnMut(usize) -> Result<()> + Send,
) -> Result<(BTreeMap<String, usize>, usize)> {
    let target = format!("/2023-03-30/functions/{name}/invocations?qualifier={qualifier}");
    let (served, over) = (Mutex::new(BTreeMap::new()), AtomicBool::new(false));
    let calls = || -> Result<()> {
        let mut connection = platform.connect()?;
        for _ in 0..CALLS / CALLERS {
            let headers = platform.api.sign("POST", &target, "InvokeFunction", &[], b"");
            let reply = connection.request("POST", &target, &headers, b"")?;
            ensure!(reply.status == 200 && reply.header("x-fc-error-type").is_none(), "{} {}", reply.status, reply.text());
            let version = reply.header("x-fc-invocation-service-version").context("a version answered")?;
            ensure!(reply.text() == format!("{name} {version}"), "version {version} answered {}", reply.text());
            *served.lock().expect("no caller panics").entry(version.to_owned()).or_default() += 1;
        }
        Ok(())
    };
    let changes = thread::scope(|scope| -> Result<usize> {
        let callers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(calls)).collect();
        let changer = scope.spawn(|| -> Result<usize> {
            let mut changes = 0;
            while !over.load(Ordering::SeqCst) {
                meanwhile(changes)?;
                changes += 1;
            }
            Ok(changes)
        });
        let ends: Vec<_> = callers.into_iter().map(|caller| caller.join().expect("no caller panics")).collect();
        over.store(true, Ordering::SeqCst);
        let changes = changer.join().expect("the changer does not panic");
        ends.into_iter().collect::<Result<()>>()?;
        changes
    })?;
    Ok((served.into_inner()?, changes))
}

fn create(platform: &Platform, name: &str) -> Result<()> {
    let code = format!(
        "import os\ndef handler(event, context):\n    return '{name} ' + (os.environ.get('FC_FUNCTION_VERSION') or 'LATEST')\n"
    );
    platform.api.create(name, "python3.10", &[("index.py", &code)], json!({"memorySize": 128, "timeout": 30})).map(drop)
}

#[test]
fn an_alias_shares_its_calls_by_weight() -> Result<()> {
    let platform = Platform::fresh()?;
    create(&platform, "shared")?;
    for stage in ["one", "two"] {
        publish(&platform, "shared", stage)?;
    }
    let weights = json!({"aliasName": "live", "versionId": "1", "additionalVersionWeight": {"2": 0.1}});
    platform.api.ask("POST", "/functions/shared/aliases", &weights)?;
    let (served, _) = called(&platform, "shared", "live", |_| {
        thread::yield_now();
        Ok(())
    })?;
    eprintln!("{CALLS} calls of an alias with the weights 0.9 and 0.1: {served:?}");
    // Chance strays by more than six standard deviations (30 calls each) once in 500 million runs.
    let few = served.get("2").copied().unwrap_or_default();
    ensure!(few.abs_diff(CALLS / 10) < 180 && served.values().sum::<usize>() == CALLS && served.len() == 2, "{served:?}");
    Ok(())
}

#[test]
fn no_call_is_dropped_while_limits_change() -> Result<()> {
    let platform = Platform::fresh()?;
    create(&platform, "limited")?;
    let put = |path: &str, body: Value| platform.api.ask("PUT", &format!("/functions/limited/{path}"), &body).map(drop);
    let delete = |path: &str| platform.api.ask("DELETE", &format!("/functions/limited/{path}"), &Value::Null).map(drop);
    // A function has either a provision or a scaling configuration.
    let (served, changes) = called(&platform, "limited", "LATEST", |round| match round % 6 {
        0 => put("concurrency", json!({"reservedConcurrency": CALLERS + round % 50})),
        1 => put("provision-config?qualifier=LATEST", json!({"defaultTarget": 1 + round % 3})),
        2 => delete("concurrency"),
        3 => delete("provision-config?qualifier=LATEST"),
        4 => put("scaling-config?qualifier=LATEST", json!({"minInstances": 1 + round % 2, "enableOnDemandScaling": true})),
        _ => delete("scaling-config?qualifier=LATEST"),
    })?;
    eprintln!("{CALLS} calls under {changes} changes of limits: {served:?}");
    ensure!(served.get("LATEST") == Some(&CALLS) && changes > 20, "{served:?} {changes}");
    Ok(())
}
