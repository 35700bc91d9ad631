//! `dunlin provision` and `dunlin scaling`: instances that are kept ready.

use std::process::ExitCode;

use serde_json::{Map, Value, json};

use crate::args::{Format, ProvisionCommand, Qualified, ScalingCommand};
use crate::client::{Call, Client, segment};
use crate::failure::{Failure, Kind};
use crate::output::{Output, text};

/// How one of the two forms is spelled.
struct Form {
    /// Its operations: put, get, delete, list.
    operations: [&'static str; 4],
    path: &'static str,
    lists: &'static str,
    list: &'static str,
    command: &'static str,
    /// Its members for how many there are, are asked for, and are said while nothing else counts.
    current: &'static str,
    target: &'static str,
    base: &'static str,
}

const PROVISION: Form = Form {
    operations: ["PutProvisionConfig", "GetProvisionConfig", "DeleteProvisionConfig", "ListProvisionConfigs"],
    path: "provision-config",
    lists: "/provision-configs",
    list: "provisionConfigs",
    command: "provision",
    current: "current",
    target: "target",
    base: "defaultTarget",
};

const SCALING: Form = Form {
    operations: ["PutScalingConfig", "GetScalingConfig", "DeleteScalingConfig", "ListScalingConfigs"],
    path: "scaling-config",
    lists: "/scaling-configs",
    list: "scalingConfigs",
    command: "scaling",
    current: "currentInstances",
    target: "targetInstances",
    base: "minInstances",
};

pub(crate) fn run_provision(client: &Client, output: &Output, command: &ProvisionCommand) -> Result<ExitCode, Failure> {
    match command {
        ProvisionCommand::Ls { name } => PROVISION.list(client, output, name.as_deref()),
        ProvisionCommand::Get(of) => PROVISION.get(client, output, of),
        ProvisionCommand::Set { of, instances, freeze, config } => {
            let mut members = members(config.as_deref())?;
            if *freeze {
                members.insert("alwaysAllocateCPU".into(), false.into());
            }
            PROVISION.set(client, output, of, *instances, members)
        }
        ProvisionCommand::Rm(of) => PROVISION.remove(client, output, of),
    }
}

pub(crate) fn run_scaling(client: &Client, output: &Output, command: &ScalingCommand) -> Result<ExitCode, Failure> {
    match command {
        ScalingCommand::Ls { name } => SCALING.list(client, output, name.as_deref()),
        ScalingCommand::Get(of) => SCALING.get(client, output, of),
        ScalingCommand::Set { of, instances, no_on_demand, config } => {
            let mut members = members(config.as_deref())?;
            if *no_on_demand {
                members.insert("enableOnDemandScaling".into(), false.into());
            }
            SCALING.set(client, output, of, *instances, members)
        }
        ScalingCommand::Rm(of) => SCALING.remove(client, output, of),
    }
}

impl Form {
    fn call(&self, method: &'static str, of: &Qualified) -> Call<'static> {
        let [put, get, delete, _] = self.operations;
        let operation = match method {
            "PUT" => put,
            "GET" => get,
            _ => delete,
        };
        let path = format!("/functions/{}/{}", segment(&of.name), self.path);
        Call::new(operation, method, path).query("qualifier", Some(&of.qualifier))
    }

    fn list(&self, client: &Client, output: &Output, name: Option<&str>) -> Result<ExitCode, Failure> {
        let [.., list] = self.operations;
        let call = |token| {
            Call::new(list, "GET", self.lists).query("functionName", name).query("limit", Some(100)).query("nextToken", token)
        };
        let mut configs = client.list("cannot list the instances that are kept ready", self.list, usize::MAX, call)?;
        if configs.is_empty() && output.format == Format::Table {
            let command = self.command;
            output.note(&format!("no instances are kept ready; keep some with 'dunlin {command} set NAME INSTANCES'"));
            return Ok(ExitCode::SUCCESS);
        }
        if !output.is_json() {
            for config in &mut configs {
                let arn = text(&config["functionArn"]);
                let named = arn.split_once(":functions/").and_then(|(_, named)| named.split_once('/'));
                if let Some((name, qualifier)) = named {
                    (config["functionName"], config["qualifier"]) = (name.into(), qualifier.into());
                }
            }
        }
        output.list(
            &configs,
            "functionName",
            &[
                ("NAME", &|config| text(&config["functionName"])),
                ("QUALIFIER", &|config| text(&config["qualifier"])),
                ("READY", &|config| text(&config[self.current])),
                ("TARGET", &|config| text(&config[self.target])),
                ("PROBLEM", &|config| text(&config["currentError"])),
            ],
        );
        Ok(ExitCode::SUCCESS)
    }

    fn get(&self, client: &Client, output: &Output, of: &Qualified) -> Result<ExitCode, Failure> {
        let what = format!("cannot show the instances of '{}' that are kept ready", of.name);
        let config = client.json(&what, self.call("GET", of))?;
        match output.format {
            Format::Json => output.json(&config),
            Format::Name => output.line(&text(&config[self.current])),
            Format::Table => output.members(&[
                ("Ready", text(&config[self.current])),
                ("Target", text(&config[self.target])),
                ("Otherwise", text(&config[self.base])),
                ("Problem", text(&config["currentError"])),
            ]),
        }
        Ok(ExitCode::SUCCESS)
    }

    fn set(
        &self,
        client: &Client,
        output: &Output,
        of: &Qualified,
        instances: u64,
        mut members: Map<String, Value>,
    ) -> Result<ExitCode, Failure> {
        members.insert(self.base.into(), json!(instances));
        let call = self.call("PUT", of).json(&Value::Object(members));
        let config = client.json(&format!("cannot keep instances of '{}' ready", of.name), call)?;
        output.note(&format!("{} instances of {} ({}) are kept ready", text(&config[self.target]), of.name, of.qualifier));
        if output.is_json() {
            output.json(&config);
        }
        Ok(ExitCode::SUCCESS)
    }

    fn remove(&self, client: &Client, output: &Output, of: &Qualified) -> Result<ExitCode, Failure> {
        client.send(&format!("cannot let go of the instances of '{}'", of.name), self.call("DELETE", of))?;
        output.note(&format!("no instances of {} ({}) are kept ready any more", of.name, of.qualifier));
        Ok(ExitCode::SUCCESS)
    }
}

/// Further members, given as JSON or as the name of a file of it.
fn members(said: Option<&str>) -> Result<Map<String, Value>, Failure> {
    let Some(said) = said else { return Ok(Map::new()) };
    let wrong = |problem: String| Failure::new(Kind::Usage, "cannot read --config", problem);
    let text = match said.strip_prefix('@') {
        Some(file) => std::fs::read_to_string(file).map_err(|error| wrong(format!("{file}: {error}")))?,
        None => said.to_owned(),
    };
    serde_json::from_str(&text).map_err(|error| wrong(format!("it must be a JSON object: {error}")))
}
