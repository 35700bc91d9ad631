//! The program that makes cells' processes, opens packages inside an unpacker's walls, and hosts WebAssembly programs.

use std::os::fd::AsFd as _;
use std::process::ExitCode;

use dunlin_sandbox::Prepare;
use dunlin_sandbox::spawner::{SpawnerError, Trades, UnpackJob, run};
use dunlin_unpack::UnpackLimits;

/// Runs a spawner or zygote until the supervisor goes away; returns early in an unpacker and in a wasm cell, when their
/// work is done.
///
/// # Errors
/// When it was not started by a supervisor or cannot build the guests' root.
pub fn spawner_main() -> Result<ExitCode, SpawnerError> {
    run(Trades { unpack, wasm: dunlin_wasm::run })
}

fn unpack(job: UnpackJob) -> ExitCode {
    let UnpackJob { package, out, report, limits, prepare } = job;
    let limits = UnpackLimits { bytes: limits.bytes, entries: limits.entries };
    if prepare == Prepare::Image {
        return dunlin_unpack::run_image(package, out.as_fd(), report, &limits);
    }
    dunlin_unpack::run(package, out.as_fd(), report, &limits, |tree| match prepare {
        Prepare::Nothing | Prepare::Image => Ok(Vec::new()),
        Prepare::Wasm => dunlin_wasm::prepare(tree).map_err(|error| error.to_string()),
    })
}
