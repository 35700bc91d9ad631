//! What was measured, as tables on the terminal, in Markdown and in JSON.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use serde_json::{Value, json};

/// A claim of SPECIFICATION.md beside what was measured.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    claim: String,
    figure: f64,
    limit: f64,
    holds: bool,
}

impl Verdict {
    /// The figure must not exceed the limit.
    pub(crate) fn at_most(claim: impl Into<String>, figure: f64, limit: f64) -> Self {
        Self { claim: claim.into(), figure, limit, holds: figure <= limit }
    }

    /// The figure must reach the limit.
    pub(crate) fn at_least(claim: impl Into<String>, figure: f64, limit: f64) -> Self {
        Self { claim: claim.into(), figure, limit, holds: figure >= limit }
    }

    fn sign(&self) -> &'static str {
        if self.holds { "holds" } else { "MISSED" }
    }
}

/// One table with its verdicts.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    /// The sub-command.
    pub(crate) name: &'static str,
    /// What was done, in a sentence or two.
    pub(crate) how: String,
    pub(crate) header: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
    pub(crate) verdicts: Vec<Verdict>,
}

impl Section {
    pub(crate) fn new(name: &'static str, how: impl Into<String>, header: &[&str]) -> Self {
        let header = header.iter().map(|word| (*word).to_owned()).collect();
        Self { name, how: how.into(), header, rows: Vec::new(), verdicts: Vec::new() }
    }

    /// Adds a row: its name and its figures, shown with `digits` decimals.
    pub(crate) fn row(&mut self, name: impl Into<String>, figures: &[f64], digits: usize) {
        let shown = figures.iter().map(|figure| if figure.is_nan() { "-".to_owned() } else { format!("{figure:.digits$}") });
        self.rows.push(std::iter::once(name.into()).chain(shown).collect());
    }

    #[expect(clippy::print_stdout, reason = "the table is the result")]
    pub(crate) fn print(&self) {
        println!("\n{}: {}\n", self.name, self.how);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column)).chain(self.header.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        for row in std::iter::once(&self.header).chain(&self.rows) {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let width = width(column);
                let _ = if column == 0 { write!(line, "{cell:width$}") } else { write!(line, "  {cell:>width$}") };
            }
            println!("{}", line.trim_end());
        }
        println!();
        for verdict in &self.verdicts {
            println!("  {:6}  {} ({:.3}, promised {:.3})", verdict.sign(), verdict.claim, verdict.figure, verdict.limit);
        }
    }

    fn markdown(&self) -> String {
        let mut text = format!("## {}\n\n{}\n\n", self.name, self.how);
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        text.push_str(&line(&self.header));
        text.push_str(&line(&vec!["---".to_owned(); self.header.len()]));
        self.rows.iter().for_each(|row| text.push_str(&line(row)));
        text.push('\n');
        for verdict in &self.verdicts {
            let _ = writeln!(
                text,
                "- {}: {} (measured {:.3}, promised {:.3})",
                verdict.sign(),
                verdict.claim,
                verdict.figure,
                verdict.limit
            );
        }
        text
    }

    fn json(&self) -> Value {
        let verdicts: Vec<Value> = self
            .verdicts
            .iter()
            .map(|verdict| json!({"claim": verdict.claim, "figure": verdict.figure, "limit": verdict.limit, "holds": verdict.holds}))
            .collect();
        json!({"name": self.name, "how": self.how, "header": self.header, "rows": self.rows, "verdicts": verdicts})
    }
}

/// The machine the figures are from.
#[derive(Debug)]
pub(crate) struct Machine {
    kernel: String,
    processor: String,
    cpus: usize,
    memory_gib: u64,
    commit: String,
    date: String,
}

impl Machine {
    pub(crate) fn here() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let said = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).output().map(|output| output.stdout).unwrap_or_default();
            String::from_utf8_lossy(&output).trim().to_owned()
        };
        let processor = read("/proc/cpuinfo").lines().find_map(|line| line.strip_prefix("model name\t: ").map(str::to_owned));
        let kib = read("/proc/meminfo")
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok());
        Self {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            processor: processor.unwrap_or_else(|| "unknown".to_owned()),
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: kib.unwrap_or(0_u64) >> 20,
            commit: said("git", &["rev-parse", "--short", "HEAD"]),
            date: said("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
        }
    }

    fn line(&self) -> String {
        format!(
            "{} × {}, {} GiB, Linux {}, commit {}, {}",
            self.cpus, self.processor, self.memory_gib, self.kernel, self.commit, self.date
        )
    }

    fn json(&self) -> Value {
        json!({
            "kernel": self.kernel, "processor": self.processor, "cpus": self.cpus, "memoryGiB": self.memory_gib,
            "commit": self.commit, "date": self.date,
        })
    }
}

/// Writes all sections to the files asked for.
pub(crate) fn write(sections: &[Section], json_file: Option<&Path>, markdown_file: Option<&Path>) -> Result<()> {
    let machine = Machine::here();
    if let Some(path) = json_file {
        let sections: Vec<Value> = sections.iter().map(Section::json).collect();
        std::fs::write(path, serde_json::to_vec_pretty(&json!({"machine": machine.json(), "sections": sections}))?)?;
    }
    if let Some(path) = markdown_file {
        let mut text = format!(
            "# Results\n\nOne run of `make bench`, which regenerates this file. Compare ratios, not milliseconds: everything compared is measured in\n\
            alternating rounds of this one run, and every answer's body was checked.\n\n{}\n\n",
            machine.line()
        );
        text.push_str(&sections.iter().map(Section::markdown).collect::<Vec<_>>().join("\n"));
        std::fs::write(path, text)?;
    }
    Ok(())
}
