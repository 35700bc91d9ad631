//! One step of a plan, done.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dunlin_model::Crc64;
use dunlin_project::plan::{Change, Operation, Verb};
use serde_json::{Value, json};

use crate::client::{Call, Client, segment};
use crate::failure::Failure;
use crate::output::Output;
use crate::package::Package;

pub(super) fn perform(
    client: &Client,
    output: &Output,
    change: &Change,
    operation: &Operation,
    package: Option<&Package>,
) -> Result<(), Failure> {
    let (done, doing) = match change.verb {
        Verb::Add => ("added", "add"),
        Verb::Change => ("changed", "change"),
        Verb::Remove => ("removed", "remove"),
    };
    let path: String = operation.path.iter().map(|name| format!("/{}", segment(name))).collect();
    let mut call = Call::new(operation.action, operation.method, path);
    for (name, value) in &operation.query {
        call = call.query(name, Some(value));
    }
    let mut body = operation.body.clone();
    let mut size = String::new();
    if let (Some(package), true) = (package, operation.with_code) {
        let checksum = Crc64::of(&package.zip).to_string();
        body.get_or_insert_with(|| json!({}))["code"] = json!({ "zipFile": STANDARD.encode(&package.zip), "checksum": checksum });
        size = format!(" ({} KB of code)", package.zip.len().div_ceil(1024));
    }
    if let Some(body) = &body {
        call = call.json(body);
    }
    let step = output.step(format!("{done} {} {}{size}", change.kind, change.name));
    let answer = client.send(&format!("cannot {doing} {} '{}'", change.kind, change.name), call)?;
    step.done();
    // Only a person can do something about it.
    let answer: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
    if let Some(reason) = answer["stateReason"].as_str() {
        output.note(reason);
    }
    Ok(())
}
