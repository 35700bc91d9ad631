//! `dunlin logs`: what a function printed, until now or as it comes.

use std::process::ExitCode;

use console::Style;
use serde_json::Value;

use crate::args::Logs;
use crate::client::{Call, Client};
use crate::failure::{Failure, Kind};
use crate::output::{Output, printable};
use crate::records::since;

pub(crate) fn run(client: &Client, output: &Output, logs: &Logs) -> Result<ExitCode, Failure> {
    let what = format!("cannot read the logs of '{}'", logs.name);
    let since = logs.since.as_deref().map(|text| since(&what, text)).transpose()?;
    let call = Call::new("DunlinListLogs", "GET", "/dunlin/logs")
        .query("functionName", Some(&logs.name))
        .query("requestId", logs.request_id.as_ref())
        .query("contains", logs.grep.as_ref())
        .query("since", since.map(|since| since.to_string()))
        .query("follow", logs.follow.then_some("true"));
    if logs.follow {
        // Ctrl-C is how following ends.
        return match client.follow(&what, call, |line| print(output, &line)) {
            Err(failure) if failure.kind == Kind::Interrupted => Ok(ExitCode::SUCCESS),
            ended => ended.map(|()| ExitCode::SUCCESS),
        };
    }
    let page = client.json(&what, call)?;
    let lines = page["lines"].as_array().map(Vec::as_slice).unwrap_or_default();
    lines.iter().for_each(|line| print(output, line));
    if lines.is_empty() {
        output.note("nothing was printed");
    }
    Ok(ExitCode::SUCCESS)
}

fn print(output: &Output, line: &Value) {
    if output.is_json() {
        output.line(&line.to_string());
        return;
    }
    if let Some(missed) = line["missed"].as_u64() {
        output.note(&format!("({missed} lines came too fast to be shown; 'dunlin logs' without --follow has them)"));
        return;
    }
    let time = line["time"].as_str().unwrap_or_default();
    let text = printable(line["text"].as_str().unwrap_or_default().trim_end_matches('\n'));
    output.line(&format!("{} {text}", output.style_out(time, &Style::new().dim())));
}
