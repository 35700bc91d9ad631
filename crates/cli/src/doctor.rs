//! `dunlin doctor`: what this machine offers, wall by wall.

use std::process::ExitCode;

use console::Style;
use dunlin_sandbox::doctor::{Check, State, report};
use serde_json::{Value, json};

use crate::output::{Output, text};

/// Prints the report. Something missing is a failure, something degraded is not.
pub(crate) fn run(output: &Output) -> ExitCode {
    let report = report();
    let items: Vec<Value> = report.iter().map(item).collect();
    output.list(
        &items,
        "name",
        &[
            ("CHECK", &|check| text(&check["name"])),
            ("STATE", &|check| {
                let state = text(&check["state"]);
                let style = match state.as_str() {
                    "ok" => Style::new().green(),
                    "degraded" => Style::new().yellow(),
                    _ => Style::new().red(),
                };
                output.style_out(&state, &style)
            }),
            ("FOUND", &|check| text(&check["detail"])),
        ],
    );
    for check in &report {
        if let Some(fix) = &check.fix {
            output.note(&format!("{}: {fix}", check.name));
        }
    }
    if report.iter().any(|check| check.state == State::Missing) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn item(check: &Check) -> Value {
    let state = match check.state {
        State::Ok => "ok",
        State::Degraded => "degraded",
        State::Missing => "missing",
    };
    json!({"name": check.name, "state": state, "detail": check.detail, "fix": check.fix})
}
