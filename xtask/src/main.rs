//! The project's own commands: `cargo xtask <command>`.
//!
//! - `check-layers` refuses a dependency that does not point down, and code that steps round a rule no compiler knows.
//! - `assets` builds what the binary embeds and is not Rust of its own crate.
//! - `test [STAGE…]` is `make test`: every stage in order, all of them even when one fails, one closing line.

#![expect(clippy::print_stdout, reason = "a command line tool speaks on stdout")]

mod assets;
mod dotnet;
#[path = "../../crates/sandbox/dotnet_assets.rs"]
mod dotnet_assets;
mod java;
#[path = "../../crates/sandbox/java_assets.rs"]
mod java_assets;
mod layers;
mod rules;
mod run;
#[path = "../../crates/walls/shared_object.rs"]
mod shared_object;
mod stages;
mod tally;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match command(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn command(arguments: &[String]) -> Result<bool> {
    match arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        Some(("check-layers", [])) => {
            let checked = layers::check_workspace(&root()?)?;
            println!("{checked}");
            Ok(true)
        }
        Some(("assets", [])) => assets::run().map(|()| true),
        Some(("test", only)) => stages::run(&root()?, only),
        _ => bail!("usage: cargo xtask check-layers | assets | test [--list | STAGE…]"),
    }
}

/// The workspace's directory: xtask lives directly below it.
fn root() -> Result<PathBuf> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).context("xtask has no parent directory")
}
