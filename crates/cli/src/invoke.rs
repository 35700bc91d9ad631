//! `dunlin invoke`: one call, its answer on standard output; a function that failed fails the command.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Response;
use serde_json::{Value, json};

use crate::args::Invoke;
use crate::client::{Call, Client, header, segment};
use crate::failure::{Failure, Kind};
use crate::output::{Output, printable};

pub(crate) fn run(client: &Client, output: &Output, invoke: &Invoke) -> Result<ExitCode, Failure> {
    let what = format!("cannot call '{}'", invoke.name);
    let mut call = Call::new("InvokeFunction", "POST", format!("/functions/{}/invocations", segment(&invoke.name)));
    call = call.query("qualifier", invoke.qualifier.as_ref());
    call.patient = true;
    call.body = event(&what, invoke.body.as_deref())?;
    if !call.body.is_empty() {
        call.headers.push(("content-type", "application/octet-stream".to_owned()));
    }
    if invoke.tail {
        call.headers.push(("x-fc-log-type", "Tail".to_owned()));
    }
    let response = client.send(&what, call)?;
    let log = header(&response, "x-fc-log-result").and_then(|log| STANDARD.decode(log).ok());
    let log = log.map(|log| String::from_utf8_lossy(&log).into_owned());
    let failed = header(&response, "x-fc-error-type").map(str::to_owned);
    if output.is_json() {
        output.json(&summary(&response, log.as_deref()));
    } else if let Some(log) = &log {
        eprintln!("{}", printable(log.trim_end()));
    }
    let Some(error_type) = failed else {
        if !output.is_json() {
            print_body(&what, response.body())?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    Err(function_failure(&invoke.name, &error_type, &response))
}

/// The event: text, the contents of a file, or standard input.
fn event(what: &str, data: Option<&str>) -> Result<Bytes, Failure> {
    match data {
        None => Ok(Bytes::new()),
        Some("-") => {
            let mut bytes = Vec::new();
            std::io::stdin().lock().read_to_end(&mut bytes).map_err(|error| Failure::of(what, &error))?;
            Ok(bytes.into())
        }
        Some(text) => match text.strip_prefix('@') {
            Some(file) => {
                std::fs::read(file).map(Bytes::from).map_err(|error| Failure::of(format!("{what} with {file}"), &error))
            }
            None => Ok(Bytes::from(text.to_owned())),
        },
    }
}

/// The answer's bytes as they are; on a terminal the prompt gets a line of its own.
fn print_body(what: &str, body: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let newline: &[u8] = if std::io::stdout().is_terminal() && !body.ends_with(b"\n") { b"\n" } else { b"" };
    match out.write_all(body).and_then(|()| out.write_all(newline)).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::of(format!("{what}: cannot print the answer"), &error))
        }
        _ => Ok(()),
    }
}

fn summary(response: &Response<Bytes>, log: Option<&str>) -> Value {
    let body = match std::str::from_utf8(response.body()) {
        Ok(text) => json!({"body": text, "isBase64Encoded": false}),
        Err(_) => json!({"body": STANDARD.encode(response.body()), "isBase64Encoded": true}),
    };
    let mut summary = json!({
        "requestId": header(response, "x-fc-request-id"),
        "instanceId": header(response, "x-fc-instance-id"),
        "errorType": header(response, "x-fc-error-type"),
        "durationMs": header(response, "x-fc-invocation-duration").and_then(|ms| ms.parse::<f64>().ok()),
        "maxMemoryMB": header(response, "x-fc-max-memory-usage").and_then(|mb| mb.parse::<f64>().ok()),
        "log": log,
    });
    summary["body"] = body["body"].clone();
    summary["isBase64Encoded"] = body["isBase64Encoded"].clone();
    summary
}

/// The function's own error, with its traceback.
fn function_failure(name: &str, error_type: &str, response: &Response<Bytes>) -> Failure {
    let body: Value = serde_json::from_slice(response.body()).unwrap_or_default();
    let mut why = match (body["errorType"].as_str(), body["errorMessage"].as_str()) {
        (Some(kind), Some(message)) => format!("{kind}: {message}"),
        (None, Some(message)) => message.to_owned(),
        _ => String::from_utf8_lossy(response.body()).into_owned(),
    };
    for frame in body["stackTrace"].as_array().into_iter().flatten() {
        // Python gives each frame as a list of its parts, the others as text.
        let text = match frame {
            Value::Array(parts) => parts.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
            Value::String(text) => text.trim().to_owned(),
            other => other.to_string(),
        };
        why.push_str(&format!("\n    {text}"));
    }
    Failure {
        request_id: header(response, "x-fc-request-id").map(str::to_owned),
        ..Failure::new(Kind::Failed, format!("'{name}' failed with {error_type}"), why).next(format!("dunlin logs {name}"))
    }
}
