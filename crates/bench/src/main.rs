//! `dunlin-bench`: figures behind the promises, as ratios taken in one run.
//!
//! Every answer's body is asserted, so that a dead worker scores nothing. Bare interpreters are started with an empty environment.

mod cold;
mod stats;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "dunlin-bench", about = "Measures the promises of SPECIFICATION.md")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// First and later calls of new functions, beside the bare interpreter's start.
    Cold {
        /// Rounds; the figures are medians over them.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// New functions per language and round.
        #[arg(long, default_value_t = 12)]
        calls: usize,
        /// Measure this running platform instead of one of our own.
        #[arg(long, value_name = "CREDENTIALS_JSON")]
        credentials: Option<PathBuf>,
        /// Also write the figures here.
        #[arg(long)]
        json: Option<PathBuf>,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Cold { rounds, calls, credentials, json } => cold::run(rounds, calls, credentials.as_deref(), json.as_deref()),
    }
}
