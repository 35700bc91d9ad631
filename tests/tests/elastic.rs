//! Too much to do: floods, limits, and what is left when they are over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dunlin_testkit::{Options, Platform, Response};
use serde_json::json;

/// Sleeps as many seconds as the event says.
const SLEEPER: &str = "import time\ndef handler(event, context):\n    time.sleep(float(event or 0))\n    return 'slept'\n";
/// Reached only when something hangs.
const HANG: Duration = Duration::from_secs(60);

fn platform(args: &[&str]) -> Result<Platform> {
    Platform::start(&Options { args: args.iter().map(|word| (*word).to_owned()).collect(), ..Options::default() })
}

fn create(platform: &Platform, name: &str) -> Result<()> {
    platform.api.create(name, "python3.10", &[("index.py", SLEEPER)], json!({"memorySize": 128, "timeout": 30}))?;
    Ok(())
}

/// One series of the platform's metrics.
fn metric(platform: &Platform, series: &str) -> Result<f64> {
    let address = platform.address().to_owned();
    let reply = platform.connect()?.request("GET", "/-/metrics", &[("host".into(), address)], b"")?;
    let text = reply.text();
    let line = text.lines().find_map(|line| line.strip_prefix(series)).with_context(|| format!("no {series} in {text}"))?;
    Ok(line.trim().parse()?)
}

fn until(what: &str, mut happens: impl FnMut() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !happens()? {
        ensure!(began.elapsed() < HANG, "{what} did not happen");
        thread::park_timeout(Duration::from_millis(10));
    }
    Ok(())
}

#[test]
fn a_flood_of_one_function_does_not_keep_anothers_calls_waiting() -> Result<()> {
    const FLOOD: usize = 80;
    let platform = platform(&["--instances-per-account", "4"])?;
    create(&platform, "flood")?;
    create(&platform, "other")?;
    let answered = AtomicUsize::new(0);
    thread::scope(|scope| -> Result<()> {
        let call = || {
            let reply = platform.api.invoke("flood", b"0.1");
            answered.fetch_add(1, Ordering::SeqCst);
            reply
        };
        let flood: Vec<_> = (0..FLOOD).map(|_| scope.spawn(call)).collect();
        until("the flood", || Ok(metric(&platform, "dunlin_queue_length ")? > 40.0))?;
        for _ in 0..3 {
            let reply = platform.api.invoke("other", b"0")?;
            ensure!(reply.status == 200, "{}", reply.text());
        }
        let left = FLOOD - answered.load(Ordering::SeqCst);
        ensure!(left > 8, "the other's calls came after the flood: {left} of its calls are left");
        for reply in flood {
            let reply = reply.join().expect("no call panics")?;
            ensure!(reply.status == 200, "the flood's calls had time to wait: {}", reply.text());
        }
        Ok(())
    })?;
    for name in ["flood", "other"] {
        ensure!(platform.api.invoke(name, b"0")?.status == 200, "{name} is served as before");
    }
    ensure!(metric(&platform, "dunlin_queue_length ")? == 0.0);
    Ok(())
}

/// What every door says of a call that met its function's limit.
fn ensure_refused(reply: &Response) -> Result<()> {
    let body = reply.json()?;
    ensure!(reply.status == 429 && body["Code"] == "ResourceExhausted", "{} {body}", reply.status);
    let message = body["Message"].as_str().unwrap_or_default();
    ensure!(message.contains("the function has reached its limit of 1 instances"), "{message}");
    ensure!(reply.header("x-fc-request-id").is_some_and(|id| body["RequestId"] == id), "{body}");
    let seconds: u64 = reply.header("retry-after").context("no Retry-After")?.parse()?;
    ensure!((1..=60).contains(&seconds), "{seconds}");
    Ok(())
}

#[test]
fn calls_over_the_limit_are_refused_early_at_every_door_and_served_again_afterwards() -> Result<()> {
    let platform = platform(&["--instances-per-function", "1", "--queue-wait", "2"])?;
    create(&platform, "busy")?;
    let host = platform.api.expose("busy")?;
    let over = Arc::new(AtomicBool::new(false));
    thread::scope(|scope| -> Result<()> {
        let flood = || -> Result<()> {
            while !over.load(Ordering::SeqCst) {
                let reply = platform.api.invoke("busy", b"0.5")?;
                if reply.status != 200 {
                    ensure_refused(&reply)?;
                    thread::park_timeout(Duration::from_millis(20));
                }
            }
            Ok(())
        };
        let flood: Vec<_> = (0..12).map(|_| scope.spawn(flood)).collect();
        let refused = until("a refusal at the function's URL", || {
            let reply = platform.connect()?.request("POST", "/", &[("host".into(), host.clone())], b"")?;
            if reply.status == 429 {
                ensure_refused(&reply)?;
            }
            Ok(reply.status == 429)
        })
        .and_then(|()| until("an early refusal", || Ok(metric(&platform, "dunlin_refusals_total{reason=\"hopeless\"} ")? > 0.0)));
        over.store(true, Ordering::SeqCst);
        for thread in flood {
            thread.join().expect("no call panics")?;
        }
        refused
    })?;
    let reply = platform.api.invoke("busy", b"0")?;
    ensure!(reply.status == 200, "{}", reply.text());
    Ok(())
}
