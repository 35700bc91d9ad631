//! `dunlin fn` and `dunlin instance`.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::process::ExitCode;

use serde_json::Value;

use crate::args::Format;
use crate::client::{Call, Client, segment};
use crate::failure::{Failure, Kind};
use crate::output::{Output, text};

/// The function, if there is one.
pub(crate) fn find(client: &Client, name: &str) -> Result<Option<Value>, Failure> {
    match client
        .json(&format!("cannot look up '{name}'"), Call::new("GetFunction", "GET", format!("/functions/{}", segment(name))))
    {
        Ok(function) => Ok(Some(function)),
        Err(failure) if failure.kind == Kind::NotFound => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// The function's HTTP trigger, if it has one.
pub(crate) fn http_trigger(client: &Client, name: &str) -> Result<Option<Value>, Failure> {
    Ok(triggers(client, name)?.into_iter().find(|trigger| trigger["triggerType"] == "http"))
}

pub(crate) fn triggers(client: &Client, name: &str) -> Result<Vec<Value>, Failure> {
    let path = format!("/functions/{}/triggers", segment(name));
    let call = |token| Call::new("ListTriggers", "GET", path.clone()).query("limit", Some(100)).query("nextToken", token);
    client.list(&format!("cannot list the triggers of '{name}'"), "triggers", usize::MAX, call)
}

pub(crate) fn list(client: &Client, output: &Output, prefix: Option<&str>) -> Result<ExitCode, Failure> {
    let prefix = prefix.map(str::to_owned);
    let call = |token| {
        Call::new("ListFunctions", "GET", "/functions")
            .query("limit", Some(100))
            .query("prefix", prefix.clone())
            .query("nextToken", token)
    };
    let functions = client.list("cannot list functions", "functions", usize::MAX, call)?;
    if functions.is_empty() && output.format == Format::Table {
        output.note("there are no functions; make one with 'dunlin deploy PATH'");
        return Ok(ExitCode::SUCCESS);
    }
    output.list(
        &functions,
        "functionName",
        &[
            ("NAME", &|function| text(&function["functionName"])),
            ("RUNTIME", &|function| text(&function["runtime"])),
            ("HANDLER", &|function| text(&function["handler"])),
            ("MEMORY", &|function| format!("{} MB", text(&function["memorySize"]))),
            ("TIMEOUT", &|function| format!("{} s", text(&function["timeout"]))),
            ("CODE", &|function| format!("{} KB", function["codeSize"].as_u64().unwrap_or(0).div_ceil(1024))),
            ("CHANGED", &|function| text(&function["lastModifiedTime"])),
        ],
    );
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn get(client: &Client, output: &Output, name: &str) -> Result<ExitCode, Failure> {
    let mut function = client
        .json(&format!("cannot show '{name}'"), Call::new("GetFunction", "GET", format!("/functions/{}", segment(name))))?;
    let trigger = http_trigger(client, name)?.unwrap_or_default();
    function["urlInternet"] = trigger["httpTrigger"]["urlInternet"].clone();
    match output.format {
        Format::Json => output.json(&function),
        Format::Name => output.line(&text(&function["functionName"])),
        Format::Table => {
            let mut members: Vec<(&str, String)> = Vec::new();
            for (name, value) in function.as_object().into_iter().flatten() {
                if !value.is_null() && *value != "" {
                    members.push((name, text(value)));
                }
            }
            output.members(&members);
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn remove(client: &Client, output: &Output, name: &str, yes: bool) -> Result<ExitCode, Failure> {
    let what = format!("cannot remove '{name}'");
    let triggers = triggers(client, name).map_err(|failure| failure.during(&what))?;
    if !yes && !confirmed(&what, &format!("Remove function '{name}' and {} trigger(s)? [y/N] ", triggers.len()))? {
        return Err(Failure::new(Kind::Interrupted, what, "you said no"));
    }
    for trigger in &triggers {
        let Some(trigger) = trigger["triggerName"].as_str() else { continue };
        client.send(
            &what,
            Call::new("DeleteTrigger", "DELETE", format!("/functions/{}/triggers/{}", segment(name), segment(trigger))),
        )?;
    }
    client.send(&what, Call::new("DeleteFunction", "DELETE", format!("/functions/{}", segment(name))))?;
    output.note(&format!("removed {name}"));
    Ok(ExitCode::SUCCESS)
}

/// Asks, if there is somebody to ask.
pub(crate) fn confirmed(what: &str, question: &str) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(Failure::usage(what, "nobody is there to be asked").next("say --yes"));
    }
    eprint!("{question}");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(|error| Failure::of(what, &error))?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

pub(crate) fn instances(client: &Client, output: &Output, name: &str) -> Result<ExitCode, Failure> {
    let what = format!("cannot list the instances of '{name}'");
    let mut answer = client.json(&what, Call::new("ListInstances", "GET", format!("/functions/{}/instances", segment(name))))?;
    let Value::Array(instances) = answer["instances"].take() else { return Ok(ExitCode::SUCCESS) };
    if instances.is_empty() && output.format == Format::Table {
        output.note(&format!("'{name}' has no instances now; a call starts one"));
        return Ok(ExitCode::SUCCESS);
    }
    output.list(
        &instances,
        "instanceId",
        &[
            ("INSTANCE", &|instance| text(&instance["instanceId"])),
            ("STATUS", &|instance| text(&instance["status"])),
            ("VERSION", &|instance| text(&instance["versionId"])),
            ("QUALIFIER", &|instance| text(&instance["qualifier"])),
            ("CREATED", &|instance| instance["createdTimeMs"].as_i64().map_or_else(|| "-".into(), crate::records::time)),
        ],
    );
    Ok(ExitCode::SUCCESS)
}
