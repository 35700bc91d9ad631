//! P1: first calls of new functions, from the request to the first byte of the answer, beside the bare interpreter.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use dunlin_testkit::{Api, Connection, Platform};
use serde_json::json;

use crate::functions::{Deployed, Language, NODE, PHP, PYTHON, bare, bare_at_once, java, ms, phase};
use crate::report::{Section, Verdict};
use crate::stats::{median, quantile};

const PHASES: [&str; 5] = ["queue", "bind", "load", "init", "handler"];
/// New functions called at once.
const AT_ONCE: usize = 20;

/// One round of one language, in milliseconds.
#[derive(Default)]
struct Round {
    bare: Vec<f64>,
    cold: Vec<f64>,
    warm: Vec<f64>,
    phases: [Vec<f64>; 5],
    bare_at_once: Vec<f64>,
    at_once: Vec<f64>,
}

pub(crate) fn run(rounds: usize, calls: usize) -> Result<Vec<Section>> {
    let platform = Platform::fresh()?;
    let mut waiting = Section::new(
        "cold",
        format!(
            "First calls of {calls} new functions a round, {rounds} rounds, one at a time with a cell waiting: from the request to the first byte. \
             Bare: the interpreter doing nothing, with an empty environment. Milliseconds."
        ),
        &["", "bare", "cold p50", "cold p99", "ratio", "warm p50", "queue", "bind", "load", "init", "handler"],
    );
    let mut at_once = Section::new(
        "cold, 20 at once",
        format!(
            "First calls of {AT_ONCE} new functions at the same moment, beside {AT_ONCE} bare interpreters started at the same moment. Milliseconds."
        ),
        &["", "bare p50", "cold p50", "cold p99", "ratio"],
    );
    for language in [&PYTHON, &NODE, &PHP, java()?] {
        let mut all = Vec::new();
        for number in 0..rounds {
            all.push(round(&platform.api, language, number, calls).with_context(|| format!("{} round {number}", language.name))?);
        }
        let over = |figure: &dyn Fn(&Round) -> f64| median(&all.iter().map(figure).collect::<Vec<_>>());
        let ratio = over(&|round| median(&round.cold) / median(&round.bare));
        let mut figures = vec![
            over(&|round| median(&round.bare)),
            over(&|round| median(&round.cold)),
            over(&|round| quantile(&round.cold, 0.99)),
            ratio,
            over(&|round| median(&round.warm)),
        ];
        figures.extend((0..PHASES.len()).map(|index| over(&|round: &Round| median(&round.phases[index]))));
        waiting.row(language.name, &figures, 3);
        waiting.verdicts.push(Verdict::at_most(format!("P1 {}: a cell waits", language.name), ratio, language.promised.0));
        let crowded = over(&|round| median(&round.at_once) / median(&round.bare_at_once));
        at_once.row(
            language.name,
            &[
                over(&|round| median(&round.bare_at_once)),
                over(&|round| median(&round.at_once)),
                over(&|round| quantile(&round.at_once, 0.99)),
                crowded,
            ],
            3,
        );
        at_once.verdicts.push(Verdict::at_most(format!("P1 {}: 20 at once", language.name), crowded, language.promised.1));
    }
    Ok(vec![waiting, at_once])
}

fn round(api: &Api, language: &Language, number: usize, calls: usize) -> Result<Round> {
    let mut figures = Round::default();
    let mut functions = Vec::new();
    for call in 0..calls + AT_ONCE {
        let name = format!("cold-{}-{number}-{call}", language.name);
        functions.push(Deployed::hello(api, language, &name, json!({}))?);
    }
    let mut connection = Connection::open(api.address())?;
    for function in &functions[..calls] {
        figures.bare.push(bare(language.bare)?);
        // Cells that wait are made again in the meantime: this measures a call for which one is there.
        thread::sleep(Duration::from_millis(150));
        let reply = function.call(&mut connection)?;
        figures.cold.push(ms(reply.first_byte));
        for (part, values) in PHASES.iter().zip(&mut figures.phases) {
            values.push(phase(&reply, part));
        }
        for _ in 0..20 {
            figures.warm.push(ms(function.call(&mut connection)?.first_byte));
        }
    }
    figures.bare_at_once = bare_at_once(language.bare, AT_ONCE)?;
    thread::sleep(Duration::from_millis(500));
    figures.at_once = called_at_once(api, &functions[calls..])?;
    functions.iter().try_for_each(|function| function.remove(api))?;
    Ok(figures)
}

/// Calls all of them at the same moment; each one's time from that moment.
pub(crate) fn called_at_once(api: &Api, functions: &[Deployed]) -> Result<Vec<f64>> {
    let barrier = std::sync::Barrier::new(functions.len());
    thread::scope(|scope| {
        let calls: Vec<_> = functions
            .iter()
            .map(|function| {
                let barrier = &barrier;
                scope.spawn(move || {
                    let connection = Connection::open(api.address());
                    barrier.wait();
                    let began = Instant::now();
                    function.call(&mut connection?)?;
                    Ok(ms(began.elapsed()))
                })
            })
            .collect();
        calls.into_iter().map(|call| call.join().expect("a call does not panic")).collect()
    })
}
