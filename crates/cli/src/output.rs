//! How results, progress and failures look.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use comfy_table::{ContentArrangement, Table, presets};
use console::Style;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::args::{Colour, Format, Shared};
use crate::failure::Failure;

/// Where and how to print.
pub(crate) struct Output {
    pub(crate) format: Format,
    quiet: bool,
    colour_out: bool,
    colour_err: bool,
}

/// A table's column: its heading and what it shows of an item.
pub(crate) type Column<'a> = (&'a str, &'a dyn Fn(&Value) -> String);

impl Output {
    pub(crate) fn new(shared: &Shared) -> Self {
        let (out, err) = match shared.color {
            Colour::Always => (true, true),
            Colour::Never => (false, false),
            // `console` knows NO_COLOR, CLICOLOR and terminals.
            Colour::Auto => (console::colors_enabled(), console::colors_enabled_stderr()),
        };
        let format = if shared.json { Format::Json } else { shared.output };
        Self { format, quiet: shared.quiet, colour_out: out, colour_err: err }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Prints one value, for programs.
    #[expect(clippy::unused_self, reason = "all printing goes through here")]
    pub(crate) fn json(&self, value: &Value) {
        line(&format!("{value:#}"));
    }

    /// Prints one line of a stream or a list of names.
    #[expect(clippy::unused_self, reason = "all printing goes through here")]
    pub(crate) fn line(&self, text: &str) {
        line(text);
    }

    /// Prints a list: a table for people, an array for programs, or the names in the column `name`.
    pub(crate) fn list(&self, items: &[Value], name: &str, columns: &[Column<'_>]) {
        match self.format {
            Format::Json => self.json(&Value::Array(items.to_vec())),
            Format::Name => items.iter().for_each(|item| line(&text(&item[name]))),
            Format::Table => {
                let header = columns.iter().map(|(title, _)| self.style_out(title, &Style::new().bold())).collect();
                let rows = items.iter().map(|item| columns.iter().map(|(_, cell)| cell(item)).collect());
                line(&table(std::iter::once(header).chain(rows)));
            }
        }
    }

    /// Prints the members of one thing, one a line.
    pub(crate) fn members(&self, members: &[(&str, String)]) {
        let rows = members.iter().map(|(name, value)| vec![self.style_out(name, &Style::new().bold()), value.clone()]);
        line(&table(rows));
    }

    /// A word in a colour, for standard output.
    pub(crate) fn style_out(&self, text: &str, style: &Style) -> String {
        style.clone().force_styling(self.colour_out).apply_to(text).to_string()
    }

    /// Says what is going on, unless that is not wanted.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            eprintln!("{text}");
        }
    }

    /// Begins a step that may take a while.
    pub(crate) fn step(&self, text: impl Into<String>) -> Step {
        let text = text.into();
        let bar = (!self.quiet && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new_spinner().with_message(text.clone());
            bar.set_style(
                ProgressStyle::with_template("{spinner} {msg} {elapsed}").unwrap_or_else(|_| ProgressStyle::default_spinner()),
            );
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Step { text, began: Instant::now(), bar, quiet: self.quiet }
    }

    /// Says what failed, why, what to do next, and the request id.
    pub(crate) fn failure(&self, failure: &Failure) {
        let style = Style::new().red().bold().force_styling(self.colour_err);
        eprintln!("{} {}: {}", style.apply_to("error:"), printable(&failure.what), printable(&failure.why));
        if let Some(next) = &failure.next {
            eprintln!("  next: {next}");
        }
        if let Some(request_id) = &failure.request_id {
            eprintln!("  request id: {}", printable(request_id));
        }
    }
}

/// A running step. On a terminal it shows that it is running; elsewhere it leaves one line when it is done.
pub(crate) struct Step {
    text: String,
    began: Instant,
    bar: Option<ProgressBar>,
    quiet: bool,
}

impl Step {
    pub(crate) fn done(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if !self.quiet {
            eprintln!("{} ({:.1} s)", self.text, self.began.elapsed().as_secs_f64());
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A cell's text: absent is a dash.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => printable(text),
        other => other.to_string(),
    }
}

/// Text from elsewhere, without what would steer the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// A line on standard output. A reader that has gone away has seen enough.
fn line(text: &str) {
    if writeln!(std::io::stdout().lock(), "{text}").is_err() {
        std::process::exit(0);
    }
}

fn table(rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}
