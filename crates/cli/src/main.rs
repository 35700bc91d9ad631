//! `dunlin`: the platform and its command line in one binary.
//!
//! The server is a verb of it (`dunlin up`); every other verb is a client of the public API, without privilege of its own.
//!
//! # Conventions
//! - The result goes to standard output, everything else to standard error.
//! - A failure says what failed, why, which command comes next, and the request id. Its kind is the exit code ([`failure`]).
//! - What a person reads may change; `--json` has the API's member names and stays.

mod args;
mod client;
mod concurrency;
mod credentials;
mod deploy;
mod doctor;
mod domains;
mod failure;
mod functions;
mod images;
mod invoke;
mod layers;
mod logs;
mod output;
mod package;
mod platform;
mod project;
mod records;
mod runtimes;
mod scaling;
mod sessions;
mod upload;
mod versions;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::args::{Arguments, Command, FunctionCommand, InstanceCommand, RuntimeCommand};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::Output;

/// What clap reports as 2, which is taken.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Asking for help is not a mistake.
            let code = if error.use_stderr() { USAGE } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let output = Output::new(&arguments.shared);
    match run(arguments, &output) {
        Ok(code) => code,
        Err(failure) => {
            output.failure(&failure);
            ExitCode::from(failure.kind.exit_code())
        }
    }
}

fn run(arguments: Arguments, output: &Output) -> Result<ExitCode, Failure> {
    let shared = arguments.shared;
    let client = || Client::new(credentials::find(&shared)?, shared.debug);
    match arguments.command {
        Command::Up(up) => platform::up(up, &shared),
        Command::Server(server) => platform::server(server),
        Command::Spawner => platform::spawner(),
        Command::Doctor => Ok(doctor::run(output)),
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "dunlin", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::Deploy(deploy) => match project::meant(&deploy)? {
            Some(file) => project::deploy(&client()?, output, &file),
            None => deploy::run(&client()?, output, &deploy),
        },
        Command::Plan(plan) => project::plan(&client()?, output, &plan),
        Command::Remove(remove) => project::remove(&client()?, output, &remove),
        Command::Invoke(invoke) => invoke::run(&client()?, output, &invoke),
        Command::Fn { command } => match command {
            FunctionCommand::Ls { prefix } => functions::list(&client()?, output, prefix.as_deref()),
            FunctionCommand::Get { name } => functions::get(&client()?, output, &name),
            FunctionCommand::Rm { name, yes } => functions::remove(&client()?, output, &name, yes),
        },
        Command::Version { command } => versions::run_version(&client()?, output, &command),
        Command::Alias { command } => versions::run_alias(&client()?, output, &command),
        Command::Domain { command } => domains::run(&client()?, output, &command),
        Command::Traffic(traffic) => versions::traffic(&client()?, output, &traffic),
        Command::Rollback(rollback) => versions::rollback(&client()?, output, &rollback),
        Command::Layer { command } => layers::run(&client()?, output, &command),
        Command::Image { command } => images::run(&client()?, output, &command),
        Command::Concurrency { command } => concurrency::run(&client()?, output, &command),
        Command::Provision { command } => scaling::run_provision(&client()?, output, &command),
        Command::Scaling { command } => scaling::run_scaling(&client()?, output, &command),
        Command::Session { command } => sessions::run(&client()?, output, &command),
        Command::Logs(logs) => logs::run(&client()?, output, &logs),
        Command::Records(query) => records::run(&client()?, output, &query),
        Command::Runtime { command: RuntimeCommand::Ls } => runtimes::list(&client()?, output),
        Command::Instance { command: InstanceCommand::Ls { name } } => functions::instances(&client()?, output, &name),
    }
}
