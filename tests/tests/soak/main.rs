//! A platform under mixed load for as long as is asked: every language, bursts, crashes, timeouts, deployments, readers
//! that leave. Whatever was not meant to fail must not, and when the load is over nothing of it may be left.
//!
//! `SOAK_SECONDS` says how long (`make soak`: 900; by default a slice that fits into every run of the tests), `SOAK_SEED`
//! repeats a run's choices. The time is cut into epochs: deploy, load, delete, then a census of what the platform holds
//! at rest. The first epochs warm up; the last must hold no more than they did.

mod census;
mod functions;
mod load;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dunlin_testkit::{Options, Platform};
use libtest_mimic::{Arguments, Trial};

use crate::census::Census;
use crate::functions::Fleet;
use crate::load::Tally;

/// Without `SOAK_SECONDS`.
const SLICE: Duration = Duration::from_secs(20);

/// In the first third everything may still grow: pools, caches, allocators. That takes two epochs at least.
const WARM_UP_EPOCHS_MIN: usize = 2;

fn main() -> ExitCode {
    let trial = Trial::test("a_platform_holds_under_mixed_load", || soak().map_err(|error| format!("{error:#}").into()));
    libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit_code()
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn soak() -> Result<()> {
    let length = number("SOAK_SECONDS").map_or(SLICE, Duration::from_secs);
    let seed = number("SOAK_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let epochs = usize::try_from(length.as_secs() / 45)?.clamp(WARM_UP_EPOCHS_MIN + 2, 40);
    eprintln!("soak: {length:?} in {epochs} epochs, SOAK_SEED={seed}");

    let platform = Platform::start(&Options { args: vec!["--stock".into(), "1".into()], ..Options::default() })?;
    let (mut totals, mut censuses) = (Tally::default(), Vec::new());
    let began = Instant::now();
    for epoch in 0..epochs {
        let until = began + length.mul_f64((epoch + 1) as f64 / epochs as f64);
        let fleet = Fleet::deploy(&platform)?;
        let tally = load::run(&platform, &fleet, epoch as u64, seed, until);
        fleet.delete(&platform)?;
        totals.add(tally);
        let census = Census::at_rest(&platform)?;
        eprintln!("epoch {epoch}: {totals}; {census}");
        censuses.push(census);
        ensure!(totals.unexpected.is_empty(), "errors nobody caused on purpose:\n{}", totals.unexpected.join("\n"));
    }
    let idle = totals.never();
    ensure!(idle.is_empty(), "the load never got to: {}", idle.join(", "));
    let (warm_up, rest) = censuses.split_at(WARM_UP_EPOCHS_MIN.max(epochs / 3));
    census::hold(warm_up, rest)?;
    ensure!(platform.stop()?.success(), "the platform ends well");
    Ok(())
}
