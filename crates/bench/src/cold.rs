//! Cold and warm calls beside the bare interpreter's start.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dunlin_testkit::{Api, Connection, Platform};
use serde_json::{Value, json};

use crate::stats::{median, quantile};

struct Language {
    name: &'static str,
    runtime: &'static str,
    file: &'static str,
    code: &'static str,
    bare: &'static [&'static str],
}

const LANGUAGES: &[Language] = &[
    Language {
        name: "python",
        runtime: "python3.10",
        file: "index.py",
        code: "def handler(event, context):\n    return 'hello'\n",
        bare: &["/usr/bin/python3", "-c", "pass"],
    },
    Language {
        name: "node",
        runtime: "nodejs20",
        file: "index.js",
        code: "exports.handler = async () => 'hello';\n",
        bare: &["/usr/bin/node", "-e", "0"],
    },
];

const PHASES: [&str; 5] = ["queue", "bind", "load", "init", "handler"];

/// One round of one language, in milliseconds.
#[derive(Default)]
struct Round {
    bare: Vec<f64>,
    cold: Vec<f64>,
    warm: Vec<f64>,
    phases: [Vec<f64>; 5],
}

#[expect(clippy::print_stdout, reason = "the table is the result")]
pub(crate) fn run(rounds: usize, calls: usize, credentials: Option<&Path>, json_file: Option<&Path>) -> Result<()> {
    let (api, _own) = match credentials {
        Some(path) => (Api::new(serde_json::from_slice(&std::fs::read(path)?).context("not a credentials file")?), None),
        None => {
            let platform = Platform::fresh()?;
            (platform.api.clone(), Some(platform))
        }
    };
    let mut figures = Vec::new();
    println!(
        "{:8} {:>9} {:>10} {:>10} {:>7} {:>10} {:>7}   cold phases ms (p50)",
        "", "bare ms", "cold p50", "cold p99", "ratio", "warm p50", "ratio"
    );
    for language in LANGUAGES {
        let mut all = Vec::new();
        for number in 0..rounds {
            all.push(round(&api, language, number, calls).with_context(|| format!("{} round {number}", language.name))?);
        }
        figures.push(report(language, &all));
    }
    if let Some(path) = json_file {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let cpus = std::thread::available_parallelism().map_or(0, usize::from);
        let document = json!({ "kernel": kernel.trim(), "cpus": cpus, "rounds": rounds, "calls": calls, "cold": figures });
        std::fs::write(path, serde_json::to_vec_pretty(&document)?)?;
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the table is the result")]
fn report(language: &Language, rounds: &[Round]) -> Value {
    let over = |figure: &dyn Fn(&Round) -> f64| median(&rounds.iter().map(figure).collect::<Vec<_>>());
    let bare = over(&|round| median(&round.bare));
    let cold = over(&|round| median(&round.cold));
    let cold_p99 = over(&|round| quantile(&round.cold, 0.99));
    let ratio = over(&|round| median(&round.cold) / median(&round.bare));
    let warm = over(&|round| median(&round.warm));
    let warm_ratio = over(&|round| median(&round.warm) / median(&round.bare));
    let phases: Vec<(&str, f64)> =
        PHASES.iter().enumerate().map(|(index, name)| (*name, over(&|round| median(&round.phases[index])))).collect();
    let shown = phases.iter().map(|(name, ms)| format!("{name} {ms:.2}")).collect::<Vec<_>>().join(" ");
    println!(
        "{:8} {bare:>9.2} {cold:>10.2} {cold_p99:>10.2} {ratio:>7.3} {warm:>10.3} {warm_ratio:>7.4}   {shown}",
        language.name
    );
    json!({
        "language": language.name, "bareMs": bare, "coldP50Ms": cold, "coldP99Ms": cold_p99, "coldRatio": ratio, "warmP50Ms": warm, "warmRatio": warm_ratio,
        "phasesMs": phases.into_iter().collect::<std::collections::BTreeMap<_, _>>(),
    })
}

fn round(api: &Api, language: &Language, number: usize, calls: usize) -> Result<Round> {
    let mut figures = Round::default();
    let mut hosts = Vec::new();
    let name_of = |call: usize| format!("bench-{}-{}-{number}-{call}", language.name, std::process::id());
    for call in 0..calls {
        let name = name_of(call);
        api.create(&name, language.runtime, &[(language.file, language.code)], json!({"memorySize": 256}))?;
        hosts.push(api.expose(&name)?);
    }
    for _ in 0..15 {
        figures.bare.push(bare(language)?);
    }
    let mut connection = Connection::open(api.address())?;
    for host in &hosts {
        // Cells that wait are made again in the meantime: this measures a call for which one is there.
        std::thread::sleep(Duration::from_millis(150));
        let reply = call(&mut connection, host)?;
        figures.cold.push(ms(reply.first_byte));
        for (part, values) in PHASES.iter().zip(&mut figures.phases) {
            values.push(phase(reply.header("server-timing").unwrap_or_default(), part));
        }
        for _ in 0..20 {
            figures.warm.push(ms(call(&mut connection, host)?.first_byte));
        }
    }
    for call in 0..calls {
        let name = name_of(call);
        api.json("DELETE", &format!("/functions/{name}/triggers/web"), "DeleteTrigger", &Value::Null)?;
        api.json("DELETE", &format!("/functions/{name}"), "DeleteFunction", &Value::Null)?;
    }
    Ok(figures)
}

fn call(connection: &mut Connection, host: &str) -> Result<dunlin_testkit::Response> {
    let reply = connection.request("GET", "/", &[("host".to_owned(), host.to_owned())], b"")?;
    ensure!(reply.status == 200 && reply.body == b"hello", "{}: {}", reply.status, reply.text());
    Ok(reply)
}

/// `dur=` of one entry of a `Server-Timing` header; 0 when it is not there.
fn phase(header: &str, name: &str) -> f64 {
    header
        .split(',')
        .filter_map(|entry| entry.trim().strip_prefix(name)?.strip_prefix(";dur="))
        .find_map(|text| text.parse().ok())
        .unwrap_or(0.0)
}

fn bare(language: &Language) -> Result<f64> {
    let mut command = Command::new(language.bare[0]);
    command.args(&language.bare[1..]).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", "/root").env("LANG", "C.UTF-8");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let started = Instant::now();
    let status = command.status().with_context(|| format!("cannot start {}", language.bare[0]))?;
    let took = ms(started.elapsed());
    ensure!(status.success(), "{} failed: {status}", language.bare[0]);
    Ok(took)
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
