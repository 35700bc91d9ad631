//! The stages of `make test`, as a table.
//!
//! Every stage runs even when one before it failed, so that one run shows everything that is wrong. Nothing is silent:
//! a heading, the stage's own output, its time, and at the very end one line for the whole.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::layers;
use crate::run::{self, Log};
use crate::tally::Tally;

/// One stage: its name on the command line and what it does.
struct Stage {
    name: &'static str,
    does: Does,
}

/// What a stage does.
enum Does {
    /// `cargo` with these arguments.
    Cargo(&'static [&'static str]),
    /// A program with its arguments, started in the workspace's directory.
    Program(&'static str, &'static [&'static str]),
    /// Something this binary does itself.
    Inner(fn(&Path, &mut Log) -> Result<()>),
}

/// In this order: what is cheap and says most comes first.
const STAGES: &[Stage] = &[
    Stage { name: "fmt", does: Does::Cargo(&["fmt", "--all", "--check"]) },
    Stage { name: "layers", does: Does::Inner(check_layers) },
    Stage { name: "assets", does: Does::Inner(build_assets) },
    Stage { name: "build", does: Does::Cargo(&["build", "--workspace", "--all-targets"]) },
    Stage { name: "clippy", does: Does::Cargo(&["clippy", "--workspace", "--all-targets", "--no-deps", "--", "-D", "warnings"]) },
    Stage { name: "unit", does: Does::Cargo(&["test", "--workspace", "--exclude", "dunlin-tests", "--no-fail-fast"]) },
    // From here on the real binary, as root. One test at a time: each has a platform of its own, on few cores.
    Stage {
        name: "platform",
        does: Does::Cargo(&[
            "test",
            "--workspace",
            "--test",
            "platform",
            "--test",
            "clients",
            "--test",
            "java",
            "--test",
            "php",
            "--test",
            "dotnet",
            "--test",
            "interpreters",
            "--test",
            "elastic",
            "--test",
            "idle",
            "--test",
            "templates",
            "--test",
            "pass_through",
            "--test",
            "streams",
            "--test",
            "runtime_api",
            "--test",
            "wasm",
            "--test",
            "layers",
            "--test",
            "provision",
            "--test",
            "rollout",
            "--test",
            "images",
            "--test",
            "sessions",
            "--test",
            "projects",
            "--test",
            "network",
            "--test",
            "domains",
            "--no-fail-fast",
            "--",
            "--test-threads=1",
        ]),
    },
    Stage { name: "bad-input", does: Does::Cargo(&["test", "--workspace", "--test", "bad_input"]) },
    Stage {
        name: "hostile",
        does: Does::Cargo(&["test", "--workspace", "--test", "hostile", "--test", "walls_down", "--no-fail-fast"]),
    },
    // A slice of `make soak`, which runs for longer.
    Stage { name: "soak", does: Does::Cargo(&["test", "--workspace", "--test", "soak"]) },
    Stage {
        name: "demo",
        does: Does::Program("env", &["DEMO_EXIT=1", "DEMO_LISTEN=127.0.0.1:17900", "DEMO_ROUNDS=1", "scripts/demo"]),
    },
];

fn check_layers(root: &Path, log: &mut Log) -> Result<()> {
    log.line(&layers::check_workspace(root)?);
    Ok(())
}

fn build_assets(_root: &Path, _log: &mut Log) -> Result<()> {
    crate::assets::run()
}

/// Runs the stages named in `only`, or all, and prints the closing line. True when nothing failed.
pub(crate) fn run(root: &Path, only: &[String]) -> Result<bool> {
    if only.iter().any(|word| word == "--list") {
        STAGES.iter().for_each(|stage| println!("{}", stage.name));
        return Ok(true);
    }
    if let Some(unknown) = only.iter().find(|word| STAGES.iter().all(|stage| stage.name != **word)) {
        bail!("no stage is called '{unknown}'; cargo xtask test --list names them");
    }
    let chosen: Vec<&Stage> =
        STAGES.iter().filter(|stage| only.is_empty() || only.iter().any(|word| word == stage.name)).collect();
    let directory = run::log_directory(root)?;
    let started = Instant::now();
    let mut results = Vec::new();
    for (number, stage) in (1..).zip(&chosen) {
        println!(
            "\n==> [{number}/{}] {} (log: {})",
            chosen.len(),
            stage.name,
            directory.join(stage.name).with_extension("log").display()
        );
        let began = Instant::now();
        let mut log = Log::create(&directory, stage.name)?;
        let ended = match &stage.does {
            Does::Cargo(arguments) => run::cargo(root, arguments, &mut log),
            Does::Program(program, arguments) => run::program(root, program, arguments, &mut log),
            Does::Inner(inner) => inner(root, &mut log),
        };
        if let Err(error) = &ended {
            log.line(&format!("{}: {error:#}", stage.name));
        }
        let tally = settle(log.tally(), ended.is_ok());
        println!(
            "<== {}: {} in {} ({tally})",
            stage.name,
            if tally.failed == 0 { "ok" } else { "FAILED" },
            seconds(began.elapsed())
        );
        results.push((stage.name, tally, began.elapsed()));
    }
    println!("\nstage        result    time");
    let mut total = Tally::default();
    for (name, tally, took) in &results {
        println!("{name:<12} {:<9} {:>8}  {tally}", if tally.failed == 0 { "ok" } else { "FAILED" }, seconds(*took));
        total += *tally;
    }
    println!("in {}", seconds(started.elapsed()));
    println!("{total}");
    Ok(total.failed == 0)
}

/// A stage that counts no tests is one test itself; a stage that failed has at least one failure.
fn settle(counted: Tally, succeeded: bool) -> Tally {
    match (counted, succeeded) {
        (tally, true) if tally.is_empty() => Tally { passed: 1, ..tally },
        (tally, false) if tally.failed == 0 => Tally { failed: 1, ..tally },
        (tally, _) => tally,
    }
}

fn seconds(duration: Duration) -> String {
    let whole = duration.as_secs();
    if whole < 60 { format!("{:.1} s", duration.as_secs_f64()) } else { format!("{} min {:02} s", whole / 60, whole % 60) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_that_fails_without_a_count_is_one_failure() {
        let none = Tally::default();
        assert_eq!(settle(none, true).to_string(), "1 passed, 0 failed, 0 skipped");
        assert_eq!(settle(none, false).to_string(), "0 passed, 1 failed, 0 skipped");
        // A crate that does not compile after others were tested: their passes stay, the failure is counted.
        let passed = Tally { passed: 9, ..none };
        assert_eq!(settle(passed, false).to_string(), "9 passed, 1 failed, 0 skipped");
        let mixed = Tally { passed: 9, failed: 2, skipped: 1 };
        assert_eq!(settle(mixed, false).to_string(), "9 passed, 2 failed, 1 skipped");
    }

    #[test]
    fn stages_have_names_of_their_own() {
        for (index, stage) in STAGES.iter().enumerate() {
            assert!(STAGES[index + 1..].iter().all(|other| other.name != stage.name), "{}", stage.name);
        }
    }

    #[test]
    fn every_suite_of_the_platform_is_in_a_stage() {
        let suites = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/tests");
        for entry in std::fs::read_dir(suites).expect("the suites are there") {
            let path = entry.expect("a suite").path();
            if path.is_dir() && !path.join("main.rs").is_file() {
                continue; // Parts of the suite of its name.
            }
            let name = path.file_stem().and_then(|name| name.to_str()).expect("suites have plain names").to_owned();
            let runs = |stage: &Stage| matches!(stage.does, Does::Cargo(arguments) if arguments.contains(&name.as_str()));
            assert!(STAGES.iter().any(runs), "no stage runs the suite {name}");
        }
    }
}
