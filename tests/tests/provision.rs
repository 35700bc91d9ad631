//! Instances that are kept ready: there before the first call, replaced, and as many as schedules and loads ask for.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use anyhow::{Result, ensure};
use dunlin_testkit::{Options, Platform, eventually};
use serde_json::{Value, json};

/// Says which instance it is; sleeps, or ends itself a little after its answer, when it is told to.
const FUNCTION: &str = r"
import json, os, threading, time, uuid
me, started = str(uuid.uuid4()), 0

def init(context):
    global started
    started += 1

def handler(event, context):
    told = json.loads(event or '{}')
    time.sleep(told.get('sleep', 0))
    if told.get('die'):
        threading.Timer(0.05, lambda: os._exit(3)).start()
    return json.dumps({'me': me, 'started': started, 'version': os.environ.get('FC_FUNCTION_VERSION', '')})
";

fn platform(args: &[&str]) -> Result<Platform> {
    Platform::start(&Options { args: args.iter().map(|word| (*word).to_owned()).collect(), ..Options::default() })
}

fn create(platform: &Platform, name: &str) -> Result<()> {
    let hooks = json!({"initializer": {"handler": "index.init", "timeout": 10}});
    let members = json!({"memorySize": 128, "timeout": 30, "instanceLifecycleConfig": hooks});
    platform.api.create(name, "python3.10", &[("index.py", FUNCTION)], members)?;
    Ok(())
}

fn provision(platform: &Platform, name: &str, qualifier: &str, body: &Value) -> Result<Value> {
    platform.api.ask("PUT", &format!("/functions/{name}/provision-config?qualifier={qualifier}"), body)
}

fn standing(platform: &Platform, name: &str, qualifier: &str) -> Result<(u64, u64, String)> {
    let config = platform.api.ask("GET", &format!("/functions/{name}/provision-config?qualifier={qualifier}"), &Value::Null)?;
    let number = |member: &str| config[member].as_u64().unwrap_or(u64::MAX);
    Ok((number("current"), number("target"), config["currentError"].as_str().unwrap_or_default().to_owned()))
}

fn until_ready(platform: &Platform, name: &str, qualifier: &str, instances: u64) -> Result<()> {
    eventually("the instances are ready", || {
        let (current, target, problem) = standing(platform, name, qualifier)?;
        ensure!(problem.is_empty(), "{problem}");
        Ok((current, target) == (instances, instances))
    })
}

fn instances(platform: &Platform, name: &str) -> Result<BTreeSet<String>> {
    let listed = platform.api.ask("GET", &format!("/functions/{name}/instances"), &Value::Null)?;
    let listed = listed["instances"].as_array().cloned().unwrap_or_default();
    Ok(listed.iter().filter_map(|instance| Some(instance["instanceId"].as_str()?.to_owned())).collect())
}

/// Calls, and answers what the function said and which instance the platform says it was.
fn call(platform: &Platform, name: &str, event: &Value) -> Result<(Value, String)> {
    let reply = platform.api.invoke(name, event.to_string().as_bytes())?;
    ensure!(reply.status == 200 && reply.header("x-fc-error-type").is_none(), "{}: {}", reply.status, reply.text());
    let timing = reply.header("server-timing").unwrap_or_default().to_owned();
    ensure!(timing.contains("load;dur=0.000") && timing.contains("init;dur=0.000"), "the call waited for no start: {timing}");
    Ok((reply.json()?, reply.header("x-fc-instance-id").unwrap_or_default().to_owned()))
}

#[test]
fn instances_are_there_before_the_first_call_and_after_a_restart() -> Result<()> {
    let data = tempfile::tempdir()?;
    let options = Options { data: Some(data.path().join("data")), ..Options::default() };
    let platform = Platform::start(&options)?;
    create(&platform, "ready")?;
    ensure!(instances(&platform, "ready")?.is_empty());
    let put = provision(&platform, "ready", "LATEST", &json!({"defaultTarget": 2}))?;
    ensure!(put["target"] == 2 && put["alwaysAllocateCPU"] == true, "{put}");
    until_ready(&platform, "ready", "LATEST", 2)?;
    let there = instances(&platform, "ready")?;
    ensure!(there.len() == 2, "{there:?}");
    let (said, instance) = call(&platform, "ready", &json!({}))?;
    ensure!(said["started"] == 1 && there.contains(&instance), "the initializer ran before the call: {said} {instance}");
    platform.stop()?;

    let platform = Platform::start(&options)?;
    until_ready(&platform, "ready", "LATEST", 2)?;
    let again = instances(&platform, "ready")?;
    ensure!(again.len() == 2 && again.is_disjoint(&there), "{again:?} {there:?}");
    let (_, instance) = call(&platform, "ready", &json!({}))?;
    ensure!(again.contains(&instance));
    let records = platform.cli(&["records", "ready", "--json"])?.stdout;
    ensure!(!String::from_utf8_lossy(&records).contains("\"cold\":true"), "{}", String::from_utf8_lossy(&records));
    Ok(())
}

#[test]
fn an_instance_that_dies_is_replaced_and_one_that_is_let_go_ends() -> Result<()> {
    let platform = Platform::fresh()?;
    create(&platform, "mortal")?;
    provision(&platform, "mortal", "LATEST", &json!({"defaultTarget": 2}))?;
    until_ready(&platform, "mortal", "LATEST", 2)?;
    let before = instances(&platform, "mortal")?;
    let (_, dying) = call(&platform, "mortal", &json!({"die": true}))?;
    eventually("another one takes its place", || {
        let now = instances(&platform, "mortal")?;
        Ok(!now.contains(&dying) && now.len() == 2 && standing(&platform, "mortal", "LATEST")?.0 == 2)
    })?;
    ensure!(instances(&platform, "mortal")?.intersection(&before).count() == 1, "the other one lives on");
    call(&platform, "mortal", &json!({}))?;
    provision(&platform, "mortal", "LATEST", &json!({"defaultTarget": 1}))?;
    eventually("one is let go", || Ok(instances(&platform, "mortal")?.len() == 1))?;
    platform.api.ask("DELETE", "/functions/mortal/provision-config?qualifier=LATEST", &Value::Null)?;
    eventually("the last one is let go", || Ok(instances(&platform, "mortal")?.is_empty()))?;
    ensure!(standing(&platform, "mortal", "LATEST")? == (0, 0, String::new()), "nothing is kept, and that is no error");
    Ok(())
}

#[test]
fn what_cannot_be_had_says_why() -> Result<()> {
    let platform = platform(&["--instances-per-account", "3"])?;
    for name in ["first", "second"] {
        create(&platform, name)?;
    }
    provision(&platform, "first", "LATEST", &json!({"defaultTarget": 2}))?;
    until_ready(&platform, "first", "LATEST", 2)?;
    provision(&platform, "second", "LATEST", &json!({"defaultTarget": 2}))?;
    eventually("the limit is named", || {
        let (current, target, problem) = standing(&platform, "second", "LATEST")?;
        Ok((current, target) == (1, 2) && problem.contains("limit of 3 instances"))
    })?;
    // Neither takes what the other keeps, and both are served.
    for name in ["first", "second"] {
        call(&platform, name, &json!({}))?;
    }
    platform.api.create("broken", "python3.10", &[("index.py", "raise RuntimeError('no')\n")], json!({}))?;
    provision(&platform, "first", "LATEST", &json!({"defaultTarget": 1}))?;
    until_ready(&platform, "second", "LATEST", 2)?;
    provision(&platform, "second", "LATEST", &json!({"defaultTarget": 0}))?;
    provision(&platform, "broken", "LATEST", &json!({"defaultTarget": 1}))?;
    eventually("the failed start is told", || {
        let (current, _, problem) = standing(&platform, "broken", "LATEST")?;
        Ok(current == 0 && !problem.is_empty())
    })
}

#[test]
fn a_scheduled_action_fires() -> Result<()> {
    let platform = Platform::fresh()?;
    create(&platform, "timed")?;
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(4);
    let local = soon.to_zoned(jiff::tz::TimeZone::get("Asia/Shanghai")?).datetime();
    let local =
        jiff::civil::DateTime::new(local.year(), local.month(), local.day(), local.hour(), local.minute(), local.second(), 0)?;
    let action = json!({
        "name": "up", "scheduleExpression": format!("at({local})"), "target": 2, "timeZone": "Asia/Shanghai",
        "endTime": (local + jiff::SignedDuration::from_secs(8)).to_string(),
    });
    let put = provision(&platform, "timed", "LATEST", &json!({"defaultTarget": 0, "scheduledActions": [action]}))?;
    ensure!(put["target"] == 0 && put["scheduledActions"] == json!([action]), "{put}");
    until_ready(&platform, "timed", "LATEST", 2)?;
    ensure!(jiff::Timestamp::now() >= soon - jiff::SignedDuration::from_secs(1), "not before its time");
    eventually("it ends", || Ok(standing(&platform, "timed", "LATEST")?.1 == 0))?;
    eventually("its instances go", || Ok(instances(&platform, "timed")?.is_empty()))
}

#[test]
fn a_policy_follows_the_load_up_and_down() -> Result<()> {
    let platform = platform(&["--scale-in-after", "2"])?;
    create(&platform, "busy")?;
    let policy = json!({
        "name": "load", "metricType": "ProvisionedConcurrencyUtilization", "metricTarget": 0.5, "minCapacity": 1, "maxCapacity": 4,
    });
    provision(&platform, "busy", "LATEST", &json!({"targetTrackingPolicies": [policy]}))?;
    until_ready(&platform, "busy", "LATEST", 1)?;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let caller = || {
            while !over.load(Ordering::SeqCst) {
                let reply = platform.api.invoke("busy", br#"{"sleep": 0.2}"#)?;
                ensure!(reply.status == 200, "{}", reply.text());
            }
            Ok(())
        };
        let callers: Vec<_> = (0..2).map(|_| scope.spawn(caller)).collect();
        let up = until_ready(&platform, "busy", "LATEST", 4);
        over.store(true, Ordering::SeqCst);
        for caller in callers {
            caller.join().expect("no caller panics")?;
        }
        up
    })?;
    until_ready(&platform, "busy", "LATEST", 1)?;
    eventually("what is not needed ends", || Ok(instances(&platform, "busy")?.len() == 1))
}

#[test]
fn a_call_beyond_the_provisioned_is_refused_where_nothing_scales_on_demand() -> Result<()> {
    let platform = Platform::fresh()?;
    create(&platform, "closed")?;
    let put = |body: &Value| platform.api.ask("PUT", "/functions/closed/scaling-config?qualifier=LATEST", body);
    put(&json!({"minInstances": 1, "enableOnDemandScaling": false}))?;
    // Refused only beyond what is on its way: this one waits for it.
    ensure!(platform.api.invoke("closed", b"{}")?.status == 200);
    thread::scope(|scope| -> Result<()> {
        // It comes in between the short ones below.
        let long = scope.spawn(|| {
            loop {
                let reply = platform.api.invoke("closed", br#"{"sleep": 3}"#)?;
                if reply.status != 429 {
                    return anyhow::Ok(reply);
                }
            }
        });
        eventually("a second call is refused", || {
            let reply = platform.api.invoke("closed", b"{}")?;
            if reply.status == 200 {
                return Ok(false);
            }
            ensure!(reply.status == 429 && reply.json()?["Code"] == "ResourceExhausted", "{} {}", reply.status, reply.text());
            ensure!(reply.header("retry-after").is_some());
            Ok(true)
        })?;
        ensure!(long.join().expect("no caller panics")?.status == 200);
        Ok(())
    })?;
    put(&json!({"minInstances": 1, "enableOnDemandScaling": true}))?;
    let answered = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let reply = platform.api.invoke("closed", br#"{"sleep": 0.5}"#);
                answered.fetch_add(usize::from(reply.is_ok_and(|reply| reply.status == 200)), Ordering::SeqCst);
            });
        }
    });
    ensure!(answered.into_inner() == 3, "it scales again");
    put(&json!({"enableOnDemandScaling": false}))?;
    ensure!(platform.api.invoke("closed", b"{}")?.status == 429, "nothing is provisioned at all");
    Ok(())
}

#[test]
fn an_alias_takes_its_instances_along_and_no_call_is_dropped() -> Result<()> {
    let platform = Platform::fresh()?;
    create(&platform, "moving")?;
    let publish = || platform.api.ask("POST", "/functions/moving/versions", &json!({}));
    publish()?;
    platform.api.ask("POST", "/functions/moving/aliases", &json!({"aliasName": "live", "versionId": "1"}))?;
    provision(&platform, "moving", "live", &json!({"defaultTarget": 2}))?;
    until_ready(&platform, "moving", "live", 2)?;
    let over = AtomicBool::new(false);
    let served = AtomicUsize::new(0);
    thread::scope(|scope| -> Result<()> {
        let caller = || -> Result<()> {
            while !over.load(Ordering::SeqCst) {
                let target = "/2023-03-30/functions/moving/invocations?qualifier=live";
                let reply = platform.api.send("POST", target, "InvokeFunction", &[], b"{}")?;
                ensure!(reply.status == 200 && reply.header("x-fc-error-type").is_none(), "{} {}", reply.status, reply.text());
                served.fetch_add(1, Ordering::SeqCst);
            }
            Ok(())
        };
        let callers: Vec<_> = (0..3).map(|_| scope.spawn(caller)).collect();
        let moves = (2..5).try_for_each(|number: usize| -> Result<()> {
            platform.api.ask("PUT", "/functions/moving", &json!({"environmentVariables": {"STAGE": number.to_string()}}))?;
            publish()?;
            platform.api.ask("PUT", "/functions/moving/aliases/live", &json!({"versionId": number.to_string()}))?;
            until_ready(&platform, "moving", "live", 2)?;
            let before = served.load(Ordering::SeqCst);
            eventually("calls go on", || Ok(served.load(Ordering::SeqCst) > before + 20))
        });
        over.store(true, Ordering::SeqCst);
        for caller in callers {
            caller.join().expect("no caller panics")?;
        }
        moves
    })?;
    let of = |qualifier: &str| -> Result<usize> {
        let listed = platform.api.ask("GET", &format!("/functions/moving/instances?qualifier={qualifier}"), &Value::Null)?;
        Ok(listed["instances"].as_array().map_or(0, Vec::len))
    };
    ensure!(of("live")? >= 2, "the alias has its own");
    Ok(())
}
