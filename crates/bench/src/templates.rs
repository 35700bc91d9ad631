//! Instances of a function that imports pandas, forked from a template, beside the bare import.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dunlin_testkit::{Connection, Options, Platform, Response, cache, zip_of_folder};
use serde_json::json;

use crate::functions::{bare, ms, phase};
use crate::report::{Section, Verdict};
use crate::stats::{median, quantile};

/// New instances in a round.
const INSTANCES: usize = 10;
const PHASES: [&str; 5] = ["queue", "bind", "load", "init", "handler"];

/// Answers with the head at once and keeps its instance for as long as it is listened to.
const CODE: &str = "
import time
import pandas

def handler(event, context):
    total = pandas.DataFrame({'a': [40, 2]})['a'].sum()
    def parts():
        while True:
            yield ' '
            time.sleep(0.05)
    return {'statusCode': 200, 'headers': {'x-sum': str(total)}, 'body': parts()}
";

pub(crate) fn run(rounds: usize) -> Result<Vec<Section>> {
    let heavy = cache().join("python-heavy");
    ensure!(heavy.join("pandas").is_dir(), "run scripts/setup first");
    let import = format!("import sys; sys.path.insert(0, {:?}); import pandas", heavy.display().to_string());
    let package = package(&heavy)?;
    let mut section = Section::new(
        "cold, pandas",
        format!(
            "A function that imports pandas: {INSTANCES} new instances a round after the first, {rounds} rounds, one at a time, from the \
             request to the first byte of an answer that needs a DataFrame. Bare: python3 -c 'import pandas'. Milliseconds."
        ),
        &["", "bare", "first instance", "forked p50", "forked p99", "ratio", "queue", "bind", "load", "init", "handler"],
    );
    // One waiting fork at a time would be measured as often as none: none makes each when it is wanted.
    for (name, stock) in [("one waits", None), ("none waits", Some("0"))] {
        let args = stock.map(|stock| vec!["--stock".to_owned(), stock.to_owned()]).unwrap_or_default();
        let mut all = Vec::new();
        for _ in 0..rounds {
            let platform = Platform::start(&Options { args: args.clone(), ..Options::default() })?;
            all.push(round(&platform, &package, &import)?);
        }
        let over = |figure: &dyn Fn(&Round) -> f64| median(&all.iter().map(figure).collect::<Vec<_>>());
        let ratio = over(&|round| median(&round.forked) / median(&round.bare));
        let mut figures = vec![
            over(&|round| median(&round.bare)),
            over(&|round| round.first),
            over(&|round| median(&round.forked)),
            over(&|round| quantile(&round.forked, 0.99)),
            ratio,
        ];
        figures.extend((0..PHASES.len()).map(|index| over(&|round: &Round| median(&round.phases[index]))));
        section.row(name, &figures, 3);
        section.verdicts.push(Verdict::at_most(format!("P1 pandas, from the second instance on: {name}"), ratio, 0.03));
    }
    Ok(vec![section])
}

#[derive(Default)]
struct Round {
    bare: Vec<f64>,
    first: f64,
    forked: Vec<f64>,
    phases: [Vec<f64>; 5],
}

fn round(platform: &Platform, package: &str, import: &str) -> Result<Round> {
    let api = &platform.api;
    let members = json!({"memorySize": 512, "cpu": 0.5, "timeout": 300, "environmentVariables": {"DUNLIN_TEMPLATE": "true"}});
    api.create_from("pandas", "python3", package, members)?;
    let host = api.expose("pandas")?;
    let mut round = Round::default();
    let mut held = Vec::new();
    let (connection, reply) = begin(platform, &host)?;
    round.first = ms(reply.first_byte);
    held.push(connection);
    let began = Instant::now();
    while !platform.printed().contains("instances are forked from a template") {
        ensure!(began.elapsed() < Duration::from_secs(60), "there is no template: {}", platform.printed());
        thread::sleep(Duration::from_millis(50));
    }
    for _ in 0..INSTANCES {
        round.bare.push(bare(&["/usr/bin/python3", "-c", import])?);
        thread::sleep(Duration::from_millis(250));
        let (connection, reply) = begin(platform, &host)?;
        round.forked.push(ms(reply.first_byte));
        for (part, values) in PHASES.iter().zip(&mut round.phases) {
            values.push(phase(&reply, part));
        }
        held.push(connection);
    }
    Ok(round)
}

/// One call whose answer does not end, up to its head.
fn begin(platform: &Platform, host: &str) -> Result<(Connection, Response)> {
    let mut connection = Connection::open(platform.address())?;
    let sent = Instant::now();
    connection.send_raw(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes())?;
    let reply = connection.read_response(true, sent)?;
    ensure!(reply.status == 200 && reply.header("x-sum") == Some("42"), "{} {:?}", reply.status, reply.headers);
    Ok((connection, reply))
}

/// The code with pandas and what it needs.
fn package(heavy: &std::path::Path) -> Result<String> {
    let folder = tempfile::tempdir()?;
    for entry in std::fs::read_dir(heavy)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "bin" {
            let copied = std::process::Command::new("cp").arg("-a").arg(&path).arg(folder.path()).status()?;
            ensure!(copied.success(), "cannot copy {name}");
        }
    }
    // Their tests are half of them.
    for tests in ["pandas/tests", "numpy/tests", "numpy/_core/tests"] {
        let _ = std::fs::remove_dir_all(folder.path().join(tests));
    }
    std::fs::write(folder.path().join("index.py"), CODE)?;
    zip_of_folder(folder.path())
}
