//! `dunlin-bench`: figures behind the promises, as ratios taken in one run.
//!
//! Every answer's body is asserted, so that a dead worker scores nothing. Bare interpreters are started with an empty environment.

mod burst;
mod cold;
mod direct;
mod functions;
mod load;
mod report;
mod ric;
mod scale;
mod stats;
mod templates;
mod warm;
mod workers;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, ValueEnum};

use crate::report::Section;

#[derive(Parser)]
#[command(name = "dunlin-bench", about = "Measures the promises of SPECIFICATION.md")]
struct Arguments {
    /// What to measure
    #[arg(value_enum, required = true, num_args = 1..)]
    what: Vec<What>,
    /// Rounds; the figures are medians over them
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// New functions per language and round of `cold`
    #[arg(long, default_value_t = 12)]
    calls: usize,
    /// Also write the figures here
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also write the tables here
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// P1: first calls of new functions, beside the bare interpreter's start; and `templates`
    Cold,
    /// P2: warm calls, beside the same bootstrap without a platform, other servers and proxies
    Warm,
    /// P3: how fast instances are made
    Burst,
    /// P3: a thousand instances alive, and what an idle one costs
    Density,
    /// P1: instances forked from a template that has imported pandas, beside the bare import
    Templates,
    /// P4: the same calls with 10,000 functions and 1,000 instances
    Scale,
    /// Everything above
    All,
}

impl What {
    fn run(self, rounds: usize, calls: usize) -> Result<Vec<Section>> {
        match self {
            Self::Cold => Ok([cold::run(rounds, calls)?, templates::run(rounds)?].concat()),
            Self::Warm => warm::run(rounds),
            Self::Burst => burst::run(rounds),
            Self::Density => burst::density(),
            Self::Templates => templates::run(rounds),
            Self::Scale => scale::run(rounds),
            Self::All => Ok(Vec::new()),
        }
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let all = [What::Cold, What::Warm, What::Burst, What::Density, What::Scale];
    let chosen = if arguments.what.contains(&What::All) { all.to_vec() } else { arguments.what };
    let mut sections = Vec::new();
    for what in chosen {
        let made = what.run(arguments.rounds, arguments.calls)?;
        made.iter().for_each(Section::print);
        sections.extend(made);
        // What was measured so far is kept should a later part fail.
        report::write(&sections, arguments.json.as_deref(), arguments.markdown.as_deref())?;
    }
    Ok(())
}
