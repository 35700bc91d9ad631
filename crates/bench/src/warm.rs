//! P2: what a warm call costs beside the same bootstrap spoken with directly, and how many there are a second beside
//! workers that answer HTTP themselves.

use std::time::Duration;

use anyhow::{Context, Result};
use dunlin_testkit::{Connection, Platform};
use serde_json::json;

use crate::direct::Direct;
use crate::functions::{Deployed, HELLO, Language, NODE, PYTHON, ms};
use crate::load::{self, Target};
use crate::report::{Section, Verdict};
use crate::stats::{median, quantile};
use crate::workers::Workers;

/// Calls per round of the one caller.
const CALLS: usize = 2000;
const CALLERS: usize = 32;
const SPAN: Duration = Duration::from_secs(2);
/// Workers beside 32 callers: one for each core of the measurements the promise was made from.
const WORKERS: usize = 2;

pub(crate) fn run(rounds: usize) -> Result<Vec<Section>> {
    let platform = Platform::fresh()?;
    Ok(vec![one_caller(&platform, rounds)?, many_callers(&platform, rounds)?])
}

fn one_caller(platform: &Platform, rounds: usize) -> Result<Section> {
    let mut section = Section::new(
        "warm",
        format!(
            "One caller, {CALLS} calls a round, {rounds} rounds: HTTP through the platform and all walls, beside frames to the same bootstrap without either. Milliseconds."
        ),
        &["", "direct p50", "direct p99", "platform p50", "platform p99", "cost p50", "cost p99"],
    );
    for language in [&PYTHON, &NODE] {
        let function =
            Deployed::hello(&platform.api, language, &format!("warm-{}", language.name), json!({"memorySize": 1024, "cpu": 1}))?;
        let mut direct = Direct::start(language)?;
        let mut connection = Connection::open(platform.address())?;
        let mut seen: [Vec<f64>; 4] = Default::default();
        for _ in 0..rounds {
            let (mut alone, mut through) = (Vec::new(), Vec::new());
            for _ in 0..CALLS {
                alone.push(direct.call()?);
            }
            function.call(&mut connection)?;
            for _ in 0..CALLS {
                through.push(ms(function.call(&mut connection)?.first_byte));
            }
            for (values, figure) in
                seen.iter_mut().zip([median(&alone), quantile(&alone, 0.99), median(&through), quantile(&through, 0.99)])
            {
                values.push(figure);
            }
        }
        let [direct_p50, direct_p99, p50, p99] = seen.each_ref().map(|values| median(values));
        section.row(language.name, &[direct_p50, direct_p99, p50, p99, p50 - direct_p50, p99 - direct_p99], 3);
        section.verdicts.push(Verdict::at_most(format!("P2 {}: cost at p50, ms", language.name), p50 - direct_p50, 0.1));
        section.verdicts.push(Verdict::at_most(format!("P2 {}: cost at p99, ms", language.name), p99 - direct_p99, 1.0));
        function.remove(&platform.api)?;
    }
    Ok(section)
}

/// Something that answers hello.
struct Contender<'p> {
    name: String,
    target: Target,
    /// Kept alive while it is asked.
    _workers: Option<Workers>,
    platform: Option<(&'p Platform, Deployed)>,
    rates: Vec<f64>,
    p99: Vec<f64>,
}

fn many_callers(platform: &Platform, rounds: usize) -> Result<Section> {
    let mut section = Section::new(
        "warm, 32 callers",
        format!(
            "{CALLERS} callers on kept connections for {} s each, {rounds} alternating rounds. Direct: {WORKERS} workers of the language that answer HTTP themselves. \
             The platform with one call at a time per instance, and with 16.",
            SPAN.as_secs()
        ),
        &["", "calls/s", "ratio to direct", "p99 ms"],
    );
    for language in [&PYTHON, &NODE] {
        let mut contenders = contenders(platform, language)?;
        for _ in 0..rounds {
            for contender in &mut contenders {
                let seen = load::run(&contender.target, CALLERS, SPAN).with_context(|| contender.name.clone())?;
                contender.rates.push(seen.rate);
                contender.p99.push(quantile(&seen.took, 0.99));
            }
        }
        let direct = contenders[0].rates.clone();
        let ratio_of = |rates: &[f64]| median(&rates.iter().zip(&direct).map(|(rate, direct)| rate / direct).collect::<Vec<_>>());
        let (mut best, mut nginx) = (f64::NAN, f64::NAN);
        for contender in &contenders {
            let ratio = ratio_of(&contender.rates);
            section.row(contender.name.as_str(), &[median(&contender.rates).round(), ratio, median(&contender.p99)], 2);
            if contender.platform.is_some() {
                best = best.max(ratio);
            } else if contender.name.contains("nginx") {
                nginx = ratio;
            }
        }
        let promised = if language.name == "python" { 0.75 } else { 1.0 };
        section.verdicts.push(Verdict::at_least(format!("P2 {}: throughput to direct", language.name), best, promised));
        if nginx.is_finite() {
            section.verdicts.push(Verdict::at_least(format!("P2 {}: throughput to nginx", language.name), best / nginx, 1.0));
        }
        for contender in &contenders {
            if let Some((platform, function)) = &contender.platform {
                function.remove(&platform.api)?;
            }
        }
    }
    Ok(section)
}

fn contenders<'p>(platform: &'p Platform, language: &Language) -> Result<Vec<Contender<'p>>> {
    let of = |name: &str, workers: Workers| Contender {
        name: format!("{} {name}", language.name),
        target: workers.target(),
        _workers: Some(workers),
        platform: None,
        rates: Vec::new(),
        p99: Vec::new(),
    };
    let direct = Workers::http(language.name, WORKERS)?;
    let nginx = Workers::nginx(&direct, WORKERS)?;
    let mut all = vec![of("direct", direct)];
    for concurrency in [1, 16] {
        let name = format!("many-{}-{concurrency}", language.name);
        let function = Deployed::hello(
            &platform.api,
            language,
            &name,
            json!({"instanceConcurrency": concurrency, "memorySize": 1024, "cpu": 1}),
        )?;
        all.push(Contender {
            name: format!("{} dunlin, instanceConcurrency {concurrency}", language.name),
            target: Target { address: platform.address().to_owned(), host: function.host.clone(), body: HELLO },
            _workers: None,
            platform: Some((platform, function)),
            rates: Vec::new(),
            p99: Vec::new(),
        });
    }
    all.extend(nginx.map(|workers| of("nginx in front of direct", workers)));
    all.extend(Workers::functions_framework(language.name)?.map(|workers| of("functions-framework", workers)));
    all.extend(Workers::lambda(language.name, WORKERS)?.map(|workers| of("Lambda's client behind a runtime API", workers)));
    if language.name == "node" {
        all.extend(Workers::workerd()?.map(|workers| of("workerd", workers)));
    }
    Ok(all)
}
