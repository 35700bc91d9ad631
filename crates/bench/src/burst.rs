//! P3: how many isolated instances a second a burst makes, how many live at once, and what an idle one costs.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use dunlin_testkit::{Options, Platform};
use serde_json::{Value, json};

use crate::functions::Deployed;
use crate::report::{Section, Verdict};
use crate::stats::{median, quantile};

/// Holds its instance until the time that the path says, and answers when it was started.
const HOLD: &str = "import time, json\n\
    def handler(event, context):\n    \
        began = time.time()\n    \
        time.sleep(max(0, float(json.loads(event)['rawPath'][1:]) - began))\n    \
        return '%.6f' % began\n";

/// A burst of first calls of one function, all held until `until`.
struct Burst {
    /// Seconds from the first request to each instance's handler.
    started: Vec<f64>,
}

/// Calls `function` `count` times at once so that each call has an instance of its own.
fn burst(platform: &Platform, function: &Deployed, count: usize, hold: Duration) -> Result<Burst> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let began = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
        let until = began + hold.as_secs_f64();
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..count {
            calls.spawn(held(platform.address().to_owned(), function.host.clone(), until));
        }
        let mut started = Vec::new();
        while let Some(call) = calls.join_next().await {
            let at = call??;
            ensure!(at < until, "an instance was not held: the machine is too slow for this many");
            started.push(at - began);
        }
        started.sort_by(f64::total_cmp);
        Ok(Burst { started })
    })
}

/// One call; when its handler began, in seconds since 1970.
async fn held(address: String, host: String, until: f64) -> Result<f64> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut socket = tokio::net::TcpStream::connect(&address).await?;
    let request = format!("GET /{until:.6} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    socket.read_to_string(&mut text).await?;
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.trim()).unwrap_or_default();
    body.parse().with_context(|| format!("no time in {text:?}"))
}

fn held_function(platform: &Platform, name: &str) -> Result<Deployed> {
    Deployed::new(&platform.api, "python3", ("index.py", HOLD), name, json!({"memorySize": 128, "timeout": 600}))
}

/// Instances of one account are capped by default; these measurements need more.
fn platform_for(instances: usize) -> Result<Platform> {
    let args = vec!["--instances-per-account".to_owned(), instances.to_string()];
    Platform::start(&Options { args, ..Options::default() })
}

pub(crate) fn run(rounds: usize) -> Result<Vec<Section>> {
    const COUNT: usize = 250;
    let platform = platform_for(2000)?;
    let mut section = Section::new(
        "burst",
        format!("{COUNT} first calls of one new Python function at once, each held until all have begun; {rounds} rounds."),
        &["", "instances/s", "first ms", "median ms", "last ms"],
    );
    let mut rates = Vec::new();
    for round in 0..rounds {
        let function = held_function(&platform, &format!("burst-{round}"))?;
        let seen = burst(&platform, &function, COUNT, Duration::from_secs(15))?;
        let last = seen.started[COUNT - 1];
        #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
        let rate = COUNT as f64 / last;
        section.row(format!("round {}", round + 1), &[rate, seen.started[0] * 1e3, median(&seen.started) * 1e3, last * 1e3], 1);
        rates.push(rate);
        function.remove(&platform.api)?;
        // What ends is gone before the next round begins.
        gone(&platform)?;
    }
    section.verdicts.push(Verdict::at_least("P3: isolated instances a second", median(&rates), 300.0));
    Ok(vec![section])
}

fn gone(platform: &Platform) -> Result<()> {
    let began = std::time::Instant::now();
    while count_instances(platform)? > 0 {
        ensure!(began.elapsed() < Duration::from_secs(120), "instances of a removed function live on");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// Instances that are alive, by the platform's own metrics.
fn count_instances(platform: &Platform) -> Result<usize> {
    let text = platform.connect()?.request("GET", "/-/metrics", &[("host".into(), platform.address().into())], b"")?.text();
    let states = ["starting", "idle", "busy", "ending"];
    Ok(text
        .lines()
        .filter(|line| states.iter().any(|state| line.starts_with(&format!("dunlin_instances{{state=\"{state}\""))))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .map(|count| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few thousand")]
            let count = count as usize;
            count
        })
        .sum())
}

pub(crate) fn density() -> Result<Vec<Section>> {
    const COUNT: usize = 1000;
    let platform = platform_for(COUNT + 100)?;
    let mut section = Section::new(
        "density",
        format!(
            "{COUNT} Python instances of one function alive at once, each having served a call, then idle. Memory is what MemAvailable lost, after as much \
             memory was touched and freed first: the host may have to find it. One run."
        ),
        &["", "value"],
    );
    let fault_us = touch(4 << 30);
    section.row("first touch of a page, us", &[fault_us], 2);
    let function = held_function(&platform, "dense")?;
    let before = settled_available()?;
    let seen = burst(&platform, &function, COUNT, Duration::from_secs(60))?;
    section.row("made in, s", &[seen.started[COUNT - 1]], 2);
    let alive = instances(&platform, &function.name)?;
    section.row("alive after the calls", &[alive], 0);
    let after = settled_available()?;
    #[expect(clippy::cast_precision_loss, reason = "bytes of one machine")]
    let each = (before as f64 - after as f64) / alive / f64::from(1 << 20);
    section.row("MemAvailable lost per instance, MiB", &[each], 3);
    section.verdicts.push(Verdict::at_least("P3: alive at once", alive, 1000.0));
    section.verdicts.push(Verdict::at_most("P3: MiB of MemAvailable per idle Python instance", each, 2.0));
    Ok(vec![section])
}

/// How many instances the API lists.
fn instances(platform: &Platform, function: &str) -> Result<f64> {
    let reply = platform.api.json("GET", &format!("/functions/{function}/instances"), "ListInstances", &Value::Null)?;
    let count = reply.json()?["instances"].as_array().map_or(0, Vec::len);
    #[expect(clippy::cast_precision_loss, reason = "a thousand")]
    Ok(count as f64)
}

/// Touches and frees so much memory; microseconds per page.
fn touch(bytes: usize) -> f64 {
    let began = std::time::Instant::now();
    let mut memory = vec![0_u8; bytes];
    memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    #[expect(clippy::cast_precision_loss, reason = "a million pages")]
    let pages = (std::hint::black_box(&memory).len() / 4096) as f64;
    began.elapsed().as_secs_f64() * 1e6 / pages
}

/// MemAvailable once it no longer moves much.
fn settled_available() -> Result<u64> {
    let mut seen = Vec::new();
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(500));
        let text = std::fs::read_to_string("/proc/meminfo")?;
        let kib =
            text.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.split_whitespace().next()?.parse::<u64>().ok());
        #[expect(clippy::cast_precision_loss, reason = "bytes of one machine")]
        seen.push((kib.context("the kernel says what is available")? << 10) as f64);
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bytes of one machine")]
    Ok(quantile(&seen[5..], 0.5) as u64)
}

/// A platform that holds `alive` instances of a function and serves others; for `scale`.
pub(crate) fn crowded(alive: usize) -> Result<(Platform, Deployed)> {
    let platform = platform_for(alive + 300)?;
    let function = held_function(&platform, "crowd")?;
    burst(&platform, &function, alive, Duration::from_secs(60))?;
    Ok((platform, function))
}
