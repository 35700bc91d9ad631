//! `dunlin layer`: packages that functions share.

use std::path::Path;
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dunlin_model::Crc64;
use serde_json::{Value, json};

use crate::args::{Format, LayerCommand};
use crate::client::{Call, Client, segment};
use crate::failure::{Failure, Kind};
use crate::functions::confirmed;
use crate::output::{Output, text};
use crate::package;

pub(crate) fn run(client: &Client, output: &Output, command: &LayerCommand) -> Result<ExitCode, Failure> {
    match command {
        LayerCommand::Ls { name } => list(client, output, name.as_deref())?,
        LayerCommand::Get { name, version } => {
            let call = Call::new("GetLayerVersion", "GET", version_path(name, version));
            show(output, &client.json(&format!("cannot show version {version} of layer '{name}'"), call)?);
        }
        LayerCommand::Publish { name, path, description, runtimes } => {
            let made = publish(client, output, name, path, description.as_deref(), runtimes)?;
            output.note(&format!("published layer {name} as version {}", text(&made["version"])));
            match output.format {
                Format::Json => output.json(&made),
                Format::Name | Format::Table => output.line(&text(&made["layerVersionArn"])),
            }
        }
        LayerCommand::Share { name, private } => {
            let call = Call::new("PutLayerACL", "PUT", format!("/layers/{}/acl", segment(name)));
            let acl = if *private { "0" } else { "1" };
            client.send(&format!("cannot share layer '{name}'"), call.query("acl", Some(acl)))?;
            let whose = if *private { "of this account only" } else { "of every account" };
            output.note(&format!("layer {name} is for functions {whose}"));
        }
        LayerCommand::Rm { name, version, yes } => {
            let what = format!("cannot remove version {version} of layer '{name}'");
            if !yes && !confirmed(&what, &format!("Remove version {version} of layer '{name}'? [y/N] "))? {
                return Err(Failure::new(Kind::Interrupted, what, "you said no"));
            }
            client.send(&what, Call::new("DeleteLayerVersion", "DELETE", version_path(name, version)))?;
            output.note(&format!("removed version {version} of layer {name}; functions that use it keep it"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn version_path(name: &str, version: &str) -> String {
    format!("/layers/{}/versions/{}", segment(name), segment(version))
}

/// All layers by their newest version, or all versions of one.
fn list(client: &Client, output: &Output, name: Option<&str>) -> Result<(), Failure> {
    let layers = match name {
        None => {
            let call = |token| Call::new("ListLayers", "GET", "/layers").query("limit", Some(100)).query("nextToken", token);
            client.list("cannot list layers", "layers", usize::MAX, call)?
        }
        Some(name) => versions(client, name)?,
    };
    if layers.is_empty() && output.format == Format::Table {
        output.note("there are no layers; make one with 'dunlin layer publish NAME PATH'");
        return Ok(());
    }
    output.list(
        &layers,
        "layerVersionArn",
        &[
            ("LAYER", &|layer| text(&layer["layerName"])),
            ("VERSION", &|layer| text(&layer["version"])),
            ("CODE", &|layer| format!("{} KB", layer["codeSize"].as_u64().unwrap_or(0).div_ceil(1024))),
            ("FOR", &|layer| if layer["acl"] == "1" { "all accounts" } else { "this account" }.to_owned()),
            ("CREATED", &|layer| text(&layer["createTime"])),
            ("ARN", &|layer| text(&layer["layerVersionArn"])),
        ],
    );
    Ok(())
}

pub(crate) fn versions(client: &Client, name: &str) -> Result<Vec<Value>, Failure> {
    let (mut found, mut start) = (Vec::new(), None);
    loop {
        let call = Call::new("ListLayerVersions", "GET", format!("/layers/{}/versions", segment(name)));
        let call = call.query("limit", Some(100)).query("startVersion", start);
        let mut page = client.json(&format!("cannot list the versions of layer '{name}'"), call)?;
        if let Value::Array(layers) = page["layers"].take() {
            found.extend(layers);
        }
        start = page["nextVersion"].as_u64();
        if start.is_none() {
            return Ok(found);
        }
    }
}

fn publish(
    client: &Client,
    output: &Output,
    name: &str,
    path: &Path,
    description: Option<&str>,
    runtimes: &[String],
) -> Result<Value, Failure> {
    let what = format!("cannot publish layer '{name}'");
    let zip = package::read(path)?.zip;
    let step = output.step(format!("uploading {} KB", zip.len().div_ceil(1024)));
    let mut body = json!({ "code": { "zipFile": STANDARD.encode(&zip), "checksum": Crc64::of(&zip).to_string() } });
    if let Some(description) = description {
        body["description"] = description.into();
    }
    if !runtimes.is_empty() {
        body["compatibleRuntime"] = runtimes.into();
    }
    let call = Call::new("CreateLayerVersion", "POST", format!("/layers/{}/versions", segment(name))).json(&body);
    let made = client.json(&what, call)?;
    step.done();
    Ok(made)
}

fn show(output: &Output, layer: &Value) {
    match output.format {
        Format::Json => output.json(layer),
        Format::Name => output.line(&text(&layer["layerVersionArn"])),
        Format::Table => {
            let members: Vec<_> =
                layer.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), text(value))).collect();
            output.members(&members);
        }
    }
}
