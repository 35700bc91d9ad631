//! The verbs that are the platform itself. Thin: everything happens in `server`.

use std::process::ExitCode;
use std::time::Duration;

use dunlin_server::{Capacity, Idle, ServerConfig, ServerError, UpConfig};

use crate::args::{self, Server, Shared, Up};
use crate::credentials::default_data;
use crate::failure::Failure;

/// `dunlin up`: the supervisor, in the foreground.
pub(crate) fn up(up: Up, shared: &Shared) -> Result<ExitCode, Failure> {
    let config = UpConfig {
        data: shared.data.clone().unwrap_or_else(default_data),
        listen: up.listen,
        https: up.https,
        domain: up.domain,
        region: up.region,
        egress: !up.no_egress,
        fetch_inside: up.fetch_inside,
        interpreters: up.interpreters,
        full_proc: up.full_proc,
        capacity: capacity(&up.capacity),
    };
    dunlin_server::up(&config).map_err(|error| Failure::of("cannot run the platform", &error).next("dunlin doctor"))
}

/// How the server ends when a part of it failed: for the supervisor a death like any other, after which it starts the
/// next one. What cannot get better by itself ends with a failure's code, and the platform with it.
const START_ANEW: u8 = 100;

/// `dunlin server`: the unprivileged half.
pub(crate) fn server(server: Server) -> Result<ExitCode, Failure> {
    let capacity = capacity(&server.capacity);
    let config = ServerConfig {
        domain: server.domain,
        names: server.names,
        port: server.port,
        https: server.https,
        fetch_inside: server.fetch_inside,
        capacity,
    };
    match dunlin_server::server_main(config) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error @ ServerError::Stopped(_)) => {
            eprintln!("dunlin: {error}; it starts anew");
            Ok(ExitCode::from(START_ANEW))
        }
        Err(error) => Err(Failure::of("cannot run the server", &error)),
    }
}

fn capacity(said: &args::Capacity) -> Capacity {
    Capacity {
        instances_per_account: said.instances_per_account,
        instances_per_function: said.instances_per_function,
        waiting_calls: said.waiting_calls,
        queue_wait: said.queue_wait.map(Duration::from_secs),
        scale_in_after: said.scale_in_after.map(Duration::from_secs),
        stock: said.stock,
        memory_mb: said.memory_mb,
        idle: match said.idle {
            args::Idle::Freeze => Idle::Freeze,
            args::Idle::Run => Idle::Run,
        },
    }
}

/// `dunlin spawner`: makes the processes of cells.
pub(crate) fn spawner() -> Result<ExitCode, Failure> {
    dunlin_server::spawner_main().map_err(|error| Failure::of("cannot run the spawner", &error))
}
