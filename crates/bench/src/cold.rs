//! P1: first calls of new functions, from the request to the first byte of the answer, beside the bare interpreter.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use dunlin_testkit::{Api, Connection, Options, Platform};
use serde_json::json;

use crate::functions::{Deployed, Language, NODE, PHP, PYTHON, bare, bare_at_once, java, ms, phase, wasm};
use crate::report::{Section, Verdict};
use crate::stats::{median, quantile};

const PHASES: [&str; 5] = ["queue", "bind", "load", "init", "handler"];
/// New functions called at once.
const AT_ONCE: usize = 20;
/// Nothing is made any more once as many cells have waited for so long; meanwhile the newest rehearse.
const SETTLED: Duration = Duration::from_millis(600);

/// One round of one language, in milliseconds.
#[derive(Default)]
struct Round {
    bare: Vec<f64>,
    cold: Vec<f64>,
    warm: Vec<f64>,
    phases: [Vec<f64>; 5],
    bare_beside_empty: Vec<f64>,
    empty: Vec<f64>,
    bare_at_once: Vec<f64>,
    at_once: Vec<f64>,
}

pub(crate) fn run(rounds: usize, calls: usize) -> Result<Vec<Section>> {
    let platform = Platform::fresh()?;
    let without_stock = Platform::start(&Options { args: vec!["--stock".into(), "0".into()], ..Options::default() })?;
    let mut waiting = Section::new(
        "cold",
        format!(
            "First calls of {calls} new functions a round, {rounds} rounds, one at a time with a cell waiting: from the request to the first byte. \
             Bare: the interpreter doing nothing, with an empty environment. Milliseconds."
        ),
        &["", "bare", "cold p50", "cold p99", "ratio", "warm p50", "queue", "bind", "load", "init", "handler"],
    );
    let mut empty = Section::new(
        "cold, no cell waiting",
        format!(
            "The same with a pool that keeps no cell ({} calls a round): each call waits for one to be made.",
            calls_to_empty(calls)
        ),
        &["", "bare", "cold p50", "cold p99", "ratio"],
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
            let named = || format!("{} round {number}", language.name);
            let mut figures = round(&platform.api, language, number, calls).with_context(named)?;
            round_without_stock(&without_stock.api, language, number, calls_to_empty(calls), &mut figures).with_context(named)?;
            all.push(figures);
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
        let beside = Beside { language, rounds: &all };
        beside.row(&mut empty, "no cell waits", |round| &round.bare_beside_empty, |round| &round.empty);
        beside.row(&mut at_once, "20 at once", |round| &round.bare_at_once, |round| &round.at_once);
    }
    let modules = without_interpreter(&platform.api, rounds, calls)?;
    Ok(vec![waiting, empty, at_once, modules])
}

/// A language's rounds, to be held against the promise for calls that no cell waits for.
struct Beside<'a> {
    language: &'a Language,
    rounds: &'a [Round],
}

impl Beside<'_> {
    fn row(&self, section: &mut Section, what: &str, bare: fn(&Round) -> &Vec<f64>, cold: fn(&Round) -> &Vec<f64>) {
        let over = |figure: &dyn Fn(&Round) -> f64| median(&self.rounds.iter().map(figure).collect::<Vec<_>>());
        let ratio = over(&|round| median(cold(round)) / median(bare(round)));
        let figures = [
            over(&|round| median(bare(round))),
            over(&|round| median(cold(round))),
            over(&|round| quantile(cold(round), 0.99)),
            ratio,
        ];
        section.row(self.language.name, &figures, 3);
        section.verdicts.push(Verdict::at_most(format!("P1 {}: {what}", self.language.name), ratio, self.language.promised.1));
    }
}

/// WebAssembly has no interpreter that could be started bare. What it is held against is a time: what its first call takes
/// beyond a warm call and the binding of a cell, which is the platform's own for every language.
fn without_interpreter(api: &Api, rounds: usize, calls: usize) -> Result<Section> {
    const PROMISED_MS: f64 = 0.2;
    let language = wasm()?;
    let mut section = Section::new(
        "cold, wasm",
        format!(
            "The same for WebAssembly, which has no bare interpreter: {calls} new functions a round, {rounds} rounds. Own: cold less warm less bind. Milliseconds."
        ),
        &["", "cold p50", "cold p99", "warm p50", "own", "20 at once p50", "queue", "bind", "load", "init", "handler"],
    );
    let mut all = Vec::new();
    for number in 0..rounds {
        all.push(round(api, language, number, calls).with_context(|| format!("wasm round {number}"))?);
    }
    let over = |figure: &dyn Fn(&Round) -> f64| median(&all.iter().map(figure).collect::<Vec<_>>());
    const BIND: usize = 1;
    let own = over(&|round| median(&round.cold) - median(&round.warm) - median(&round.phases[BIND]));
    let mut figures = vec![
        over(&|round| median(&round.cold)),
        over(&|round| quantile(&round.cold, 0.99)),
        over(&|round| median(&round.warm)),
        own,
        over(&|round| median(&round.at_once)),
    ];
    figures.extend((0..PHASES.len()).map(|index| over(&|round: &Round| median(&round.phases[index]))));
    section.row(language.name, &figures, 3);
    section.verdicts.push(Verdict::at_most("P1 wasm: own share of a cold start, ms".to_owned(), own, PROMISED_MS));
    Ok(section)
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
        if !language.bare.is_empty() {
            figures.bare.push(bare(language.bare)?);
        }
        // Cells that wait are made again in the meantime: this measures a call for which one is there.
        wait_for_cells(api)?;
        let reply = function.call(&mut connection)?;
        figures.cold.push(ms(reply.first_byte));
        for (part, values) in PHASES.iter().zip(&mut figures.phases) {
            values.push(phase(&reply, part));
        }
        for _ in 0..20 {
            figures.warm.push(ms(function.call(&mut connection)?.first_byte));
        }
    }
    if !language.bare.is_empty() {
        figures.bare_at_once = bare_at_once(language.bare, AT_ONCE)?;
    }
    wait_for_cells(api)?;
    figures.at_once = called_at_once(api, &functions[calls..])?;
    functions.iter().try_for_each(|function| function.remove(api))?;
    Ok(figures)
}

/// Waits until no cell is on its way.
fn wait_for_cells(api: &Api) -> Result<()> {
    let (mut seen, mut since) = (cells_waiting(api)?, Instant::now());
    while since.elapsed() < SETTLED {
        thread::sleep(Duration::from_millis(20));
        let now = cells_waiting(api)?;
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
    }
    Ok(())
}

/// Cells that wait for a function, as the platform counts them.
fn cells_waiting(api: &Api) -> Result<u64> {
    let host = api.address().to_owned();
    let metrics = Connection::open(&host)?.request("GET", "/-/metrics", &[("host".into(), host)], b"")?.text();
    let reading = metrics.lines().find_map(|line| line.strip_prefix("dunlin_instances{state=\"unbound\"} "));
    reading.context("the platform counts its cells")?.trim().parse().context("a count")
}

/// Making a cell takes longer than finding one, and varies less.
fn calls_to_empty(calls: usize) -> usize {
    calls.div_ceil(2)
}

/// First calls on a platform that keeps no cells.
fn round_without_stock(api: &Api, language: &Language, number: usize, calls: usize, figures: &mut Round) -> Result<()> {
    let mut functions = Vec::new();
    for call in 0..calls {
        let name = format!("empty-{}-{number}-{call}", language.name);
        functions.push(Deployed::hello(api, language, &name, json!({}))?);
    }
    let mut connection = Connection::open(api.address())?;
    for function in &functions {
        figures.bare_beside_empty.push(bare(language.bare)?);
        thread::sleep(Duration::from_millis(50));
        figures.empty.push(ms(function.call(&mut connection)?.first_byte));
    }
    functions.iter().try_for_each(|function| function.remove(api))
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
