//! `dunlin runtime`: what serves each runtime on the platform's machine.

use std::process::ExitCode;

use console::Style;
use serde_json::Value;

use crate::client::{Call, Client};
use crate::failure::Failure;
use crate::output::{Output, text};

pub(crate) fn list(client: &Client, output: &Output) -> Result<ExitCode, Failure> {
    let answer = client.json("cannot list runtimes", Call::new("DunlinListRuntimes", "GET", "/dunlin/runtimes"))?;
    let runtimes: Vec<Value> = answer["runtimes"].as_array().cloned().unwrap_or_default();
    output.list(
        &runtimes,
        "runtime",
        &[
            ("RUNTIME", &|runtime| text(&runtime["runtime"])),
            ("SERVED", &|runtime| {
                let served = text(&runtime["served"]);
                let style = match served.as_str() {
                    "exact" | "own" => Style::new().green(),
                    "missing" => Style::new().red(),
                    _ => Style::new().yellow(),
                };
                output.style_out(&served, &style)
            }),
            ("VERSION", &|runtime| text(&runtime["version"])),
            ("BY", &|runtime| match runtime["served"].as_str() {
                Some("own") => "the program in its code".to_owned(),
                _ => text(&runtime["program"]),
            }),
        ],
    );
    for runtime in &runtimes {
        if let Some(fix) = runtime["fix"].as_str() {
            output.note(&format!("{}: {fix}", text(&runtime["runtime"])));
        }
    }
    for found in answer["interpreters"].as_array().into_iter().flatten() {
        if let Some(why) = found["why"].as_str() {
            output.note(&format!("passed over: {} {why}", text(&found["program"])));
        }
    }
    Ok(ExitCode::SUCCESS)
}
