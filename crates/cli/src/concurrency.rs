//! `dunlin concurrency`: instances set aside for a function.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::args::{ConcurrencyCommand, Format};
use crate::client::{Call, Client, segment};
use crate::failure::Failure;
use crate::output::{Output, text};

pub(crate) fn run(client: &Client, output: &Output, command: &ConcurrencyCommand) -> Result<ExitCode, Failure> {
    let path = |name: &str| format!("/functions/{}/concurrency", segment(name));
    match command {
        ConcurrencyCommand::Ls => {
            let call = |token| {
                Call::new("ListConcurrencyConfigs", "GET", "/concurrency-configs")
                    .query("limit", Some(100))
                    .query("nextToken", token)
            };
            let mut configs = client.list("cannot list reserved instances", "configs", usize::MAX, call)?;
            if configs.is_empty() && output.format == Format::Table {
                output.note("no function has instances reserved; set some aside with 'dunlin concurrency set NAME INSTANCES'");
                return Ok(ExitCode::SUCCESS);
            }
            for config in &mut configs {
                let name = config["functionArn"].as_str().and_then(|arn| arn.rsplit_once('/')).map(|(_, name)| name.to_owned());
                if let Some(name) = name.filter(|_| !output.is_json()) {
                    config["functionName"] = name.into();
                }
            }
            output.list(
                &configs,
                "functionName",
                &[
                    ("NAME", &|config| text(&config["functionName"])),
                    ("RESERVED", &|config| text(&config["reservedConcurrency"])),
                ],
            );
        }
        ConcurrencyCommand::Get { name } => {
            let call = Call::new("GetConcurrencyConfig", "GET", path(name));
            show(output, &client.json(&format!("cannot show the reserved instances of '{name}'"), call)?);
        }
        ConcurrencyCommand::Set { name, instances } => {
            let body = json!({ "reservedConcurrency": instances });
            let call = Call::new("PutConcurrencyConfig", "PUT", path(name)).json(&body);
            let config = client.json(&format!("cannot reserve instances for '{name}'"), call)?;
            match instances {
                0 => output.note(&format!("{name} cannot be called any more")),
                instances => output.note(&format!("{instances} instances are set aside for {name}, which has no more than that")),
            }
            if output.is_json() {
                output.json(&config);
            }
        }
        ConcurrencyCommand::Rm { name } => {
            let call = Call::new("DeleteConcurrencyConfig", "DELETE", path(name));
            client.send(&format!("cannot remove the reservation of '{name}'"), call)?;
            output.note(&format!("{name} shares the account's instances again"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show(output: &Output, config: &Value) {
    match output.format {
        Format::Json => output.json(config),
        Format::Name | Format::Table => output.line(&text(&config["reservedConcurrency"])),
    }
}
