//! The program that makes cells' processes, and opens packages inside an unpacker's walls.

use std::os::fd::AsFd as _;
use std::process::ExitCode;

use dunlin_sandbox::spawner::{SpawnerError, UnpackJob, run};
use dunlin_unpack::UnpackLimits;

/// Runs a spawner or zygote until the supervisor goes away; returns early in an unpacker, when its work is done.
///
/// # Errors
/// When it was not started by a supervisor or cannot build the guests' root.
pub fn spawner_main() -> Result<ExitCode, SpawnerError> {
    run(|UnpackJob { package, out, report, limits }| {
        let limits = UnpackLimits { bytes: limits.bytes, entries: limits.entries };
        dunlin_unpack::run(package, out.as_fd(), report, &limits)
    })
}
