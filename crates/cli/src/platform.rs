//! The verbs that are the platform itself. Thin: everything happens in `server`.

use std::process::ExitCode;

use dunlin_server::{ServerConfig, UpConfig};

use crate::args::{Server, Shared, Up};
use crate::credentials::default_data;
use crate::failure::Failure;

/// `dunlin up`: the supervisor, in the foreground.
pub(crate) fn up(up: Up, shared: &Shared) -> Result<ExitCode, Failure> {
    let config = UpConfig {
        data: shared.data.clone().unwrap_or_else(default_data),
        listen: up.listen,
        domain: up.domain,
        region: up.region,
        egress: !up.no_egress,
        interpreters: up.interpreters,
    };
    dunlin_server::up(&config).map_err(|error| Failure::of("cannot run the platform", &error).next("dunlin doctor"))
}

/// `dunlin server`: the unprivileged half.
pub(crate) fn server(server: Server) -> Result<ExitCode, Failure> {
    let config = ServerConfig { domain: server.domain, names: server.names, port: server.port };
    dunlin_server::server_main(config).map_err(|error| Failure::of("cannot run the server", &error))?;
    Ok(ExitCode::SUCCESS)
}

/// `dunlin spawner`: makes the processes of cells.
pub(crate) fn spawner() -> Result<ExitCode, Failure> {
    dunlin_server::spawner_main().map_err(|error| Failure::of("cannot run the spawner", &error))
}
