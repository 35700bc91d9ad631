//! `dunlin deploy`: code becomes a function with a URL, whether it was there before or not.

use std::path::Path;
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dunlin_model::Crc64;
use serde_json::{Map, Value, json};

use crate::args::{Deploy, Http};
use crate::client::{Call, Client, segment};
use crate::failure::{Failure, Kind};
use crate::functions;
use crate::output::Output;
use crate::package::{self, Package};

const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"];

pub(crate) fn run(client: &Client, output: &Output, deploy: &Deploy) -> Result<ExitCode, Failure> {
    let name = name(deploy)?;
    let step = output.step(format!("packed {}", deploy.path.display()));
    let package = package::read(&deploy.path)?;
    step.done();
    let size = package.zip.len();
    let before = functions::find(client, &name)?;
    let verb = if before.is_some() { "updated" } else { "created" };
    let step = output.step(format!("{verb} {name} ({} KB of code)", size.div_ceil(1024)));
    let mut function = match before {
        Some(_) => update(client, &name, deploy, &package)?,
        None => create(client, &name, deploy, &package)?,
    };
    step.done();
    if let Some(reason) = function["stateReason"].as_str() {
        output.note(reason);
    }
    let url = trigger(client, output, &name, deploy, verb == "created")?;
    if output.is_json() {
        function["urlInternet"] = url.map_or(Value::Null, Value::from);
        output.json(&function);
    } else {
        let mut members = vec![("function", name)];
        members.extend(url.map(|url| ("url", url)));
        output.members(&members);
    }
    Ok(ExitCode::SUCCESS)
}

/// The name given, or the folder's or file's own.
fn name(deploy: &Deploy) -> Result<String, Failure> {
    let given = deploy.name.clone().or_else(|| {
        let path = std::path::absolute(&deploy.path).ok()?;
        let path = path.canonicalize().unwrap_or(path);
        Path::new(&path).file_stem().map(|stem| stem.to_string_lossy().into_owned())
    });
    let name = given.unwrap_or_default();
    match name.parse::<dunlin_model::FunctionName>() {
        Ok(_) => Ok(name),
        Err(invalid) => {
            Err(Failure::usage(format!("cannot deploy '{name}'"), invalid.to_string()).next("choose a name with --name"))
        }
    }
}

fn create(client: &Client, name: &str, deploy: &Deploy, package: &Package) -> Result<Value, Failure> {
    let what = format!("cannot create '{name}'");
    let runtime = deploy.runtime.as_deref().or(package.guess.map(|guess| guess.runtime)).ok_or_else(|| {
        Failure::usage(&what, "nothing in the code says which runtime it is for (no index.py, index.js, main.wasm or bootstrap)")
            .next("choose one with --runtime, for example --runtime python3.10 --handler index.handler")
    })?;
    let handler = deploy.handler.as_deref().or(package.guess.map(|guess| guess.handler)).unwrap_or("index.handler");
    let mut body = settings(deploy, None);
    body.insert("functionName".into(), name.into());
    body.insert("runtime".into(), runtime.into());
    body.insert("handler".into(), handler.into());
    body.insert("code".into(), code(package));
    client.json(&what, Call::new("CreateFunction", "POST", "/functions").json(&Value::Object(body)))
}

fn update(client: &Client, name: &str, deploy: &Deploy, package: &Package) -> Result<Value, Failure> {
    let what = format!("cannot update '{name}'");
    let path = format!("/functions/{}", segment(name));
    // A part of the start command that is not given stays what it was.
    let before = client.json(&what, Call::new("GetFunction", "GET", &path))?;
    let mut body = settings(deploy, before.get("customRuntimeConfig"));
    body.extend(deploy.runtime.as_deref().map(|runtime| ("runtime".to_owned(), runtime.into())));
    body.extend(deploy.handler.as_deref().map(|handler| ("handler".to_owned(), handler.into())));
    body.insert("code".into(), code(package));
    client.json(&what, Call::new("UpdateFunction", "PUT", &path).json(&Value::Object(body)))
}

fn code(package: &Package) -> Value {
    json!({"zipFile": STANDARD.encode(&package.zip), "checksum": Crc64::of(&package.zip).to_string()})
}

/// The settings that were given, in the wire's spelling.
fn settings(deploy: &Deploy, custom: Option<&Value>) -> Map<String, Value> {
    let mut body = Map::new();
    let mut set = |name: &str, value: Option<Value>| body.extend(value.map(|value| (name.to_owned(), value)));
    set("description", deploy.description.clone().map(Value::from));
    set("memorySize", deploy.memory.map(Value::from));
    set("timeout", deploy.timeout.map(Value::from));
    set("cpu", deploy.cpu.map(Value::from));
    set("instanceConcurrency", deploy.concurrency.map(Value::from));
    set("internetAccess", deploy.internet.map(Value::from));
    if !deploy.layers.is_empty() {
        set("layers", Some(deploy.layers.clone().into()));
    }
    if !deploy.environment.is_empty() {
        let variables: Map<String, Value> =
            deploy.environment.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
        set("environmentVariables", Some(variables.into()));
    }
    if deploy.command.is_some() || !deploy.args.is_empty() || deploy.port.is_some() {
        let mut config = custom.filter(|config| config.is_object()).cloned().unwrap_or_else(|| json!({}));
        if let Some(command) = &deploy.command {
            config["command"] = command.split_whitespace().collect();
        }
        if !deploy.args.is_empty() {
            config["args"] = deploy.args.clone().into();
        }
        if let Some(port) = deploy.port {
            config["port"] = port.into();
        }
        set("customRuntimeConfig", Some(config));
    }
    body
}

/// Sees to the function's URL and says what it is. A trigger that is there is left alone unless `--http` says otherwise.
fn trigger(client: &Client, output: &Output, name: &str, deploy: &Deploy, is_new: bool) -> Result<Option<String>, Failure> {
    let what = format!("'{name}' is deployed, but cannot give it a URL");
    let path = format!("/functions/{}/triggers", segment(name));
    let existing = functions::http_trigger(client, name).map_err(|failure| failure.during(&what))?;
    let made = match (existing, deploy.http) {
        (Some(trigger), None) => trigger,
        (None, None) if deploy.no_http || !is_new => return Ok(None),
        (None, http) => {
            let config = json!({"authType": http.unwrap_or(Http::Function).as_str(), "methods": METHODS}).to_string();
            let body = json!({"triggerName": "http", "triggerType": "http", "triggerConfig": config});
            client.json(&what, Call::new("CreateTrigger", "POST", path).json(&body))?
        }
        (Some(trigger), Some(http)) => {
            let text = trigger["triggerConfig"].as_str().unwrap_or_default();
            let mut config: Value = serde_json::from_str(text).map_err(|error| Failure::of(&what, &error))?;
            if config["authType"] == http.as_str() {
                trigger
            } else {
                config["authType"] = http.as_str().into();
                let trigger_name = trigger["triggerName"]
                    .as_str()
                    .ok_or_else(|| Failure::new(Kind::Failed, &what, "a trigger without a name"))?;
                let call = Call::new("UpdateTrigger", "PUT", format!("{path}/{}", segment(trigger_name)));
                output.note(&format!(
                    "the URL is now for {}",
                    if http == Http::Anonymous { "everybody" } else { "signed callers" }
                ));
                client.json(&what, call.json(&json!({"triggerConfig": config.to_string()})))?
            }
        }
    };
    Ok(made["httpTrigger"]["urlInternet"].as_str().map(str::to_owned))
}
