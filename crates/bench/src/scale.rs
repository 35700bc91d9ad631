//! P4: what calls cost with 10,000 functions defined and 1,000 instances alive, beside an empty platform.

use std::thread;
use std::time::Duration;

use anyhow::Result;
use dunlin_testkit::{Api, Connection, Platform, zip_of};
use serde_json::json;

use crate::burst;
use crate::functions::{Deployed, PYTHON, ms};
use crate::report::{Section, Verdict};
use crate::stats::{median, quantile};

const FUNCTIONS: usize = 9_900;
const ALIVE: usize = 1000;
const CALLS: usize = 2000;
const COLD: usize = 20;

pub(crate) fn run(rounds: usize) -> Result<Vec<Section>> {
    let small = Platform::fresh()?;
    let (large, _crowd) = burst::crowded(ALIVE)?;
    define(&large.api)?;
    let mut section = Section::new(
        "scale",
        format!(
            "A platform with {FUNCTIONS} functions defined and {ALIVE} Python instances alive beside one with a single function, in {rounds} alternating rounds: \
             {CALLS} warm calls, {COLD} first calls. Milliseconds."
        ),
        &["", "warm p50", "warm p99", "cold p50", "cold p99"],
    );
    let mut seen: [[Vec<f64>; 4]; 2] = Default::default();
    for round in 0..rounds {
        for (platform, figures) in [&small, &large].into_iter().zip(&mut seen) {
            for (values, figure) in figures.iter_mut().zip(measure(&platform.api, round)?) {
                values.push(figure);
            }
        }
    }
    let names = ["one function".to_owned(), format!("{FUNCTIONS} functions, {ALIVE} instances")];
    for (name, figures) in names.iter().zip(&seen) {
        section.row(name.as_str(), &figures.each_ref().map(|values| median(values)), 3);
    }
    let ratio =
        |figure: usize| median(&(0..rounds).map(|round| seen[1][figure][round] / seen[0][figure][round]).collect::<Vec<_>>());
    section.verdicts.push(Verdict::at_most("P4: warm p99", ratio(1), 1.2));
    section.verdicts.push(Verdict::at_most("P4: cold p50", ratio(2), 1.3));
    Ok(vec![section])
}

/// Warm p50 and p99, cold p50 and p99.
fn measure(api: &Api, round: usize) -> Result<[f64; 4]> {
    let mut connection = Connection::open(api.address())?;
    let function = Deployed::hello(api, &PYTHON, &format!("warm-{round}"), json!({"memorySize": 1024, "cpu": 1}))?;
    function.call(&mut connection)?;
    let mut warm = Vec::new();
    for _ in 0..CALLS {
        warm.push(ms(function.call(&mut connection)?.first_byte));
    }
    function.remove(api)?;
    let mut cold = Vec::new();
    for number in 0..COLD {
        let function = Deployed::hello(api, &PYTHON, &format!("cold-{round}-{number}"), json!({}))?;
        thread::sleep(Duration::from_millis(150));
        cold.push(ms(function.call(&mut connection)?.first_byte));
        function.remove(api)?;
    }
    Ok([median(&warm), quantile(&warm, 0.99), median(&cold), quantile(&cold, 0.99)])
}

fn define(api: &Api) -> Result<()> {
    let code = zip_of(&[(PYTHON.file, PYTHON.code)])?;
    thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|worker| {
                let code = &code;
                scope.spawn(move || {
                    for number in (worker..FUNCTIONS).step_by(4) {
                        let body = json!({
                            "functionName": format!("defined-{number}"), "runtime": PYTHON.runtime, "handler": "index.handler",
                            "code": {"zipFile": code},
                        });
                        let reply = api.json("POST", "/functions", "CreateFunction", &body)?;
                        anyhow::ensure!(reply.status == 200, "CreateFunction answered {}: {}", reply.status, reply.text());
                    }
                    Ok(())
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a request does not panic"))
    })
}
