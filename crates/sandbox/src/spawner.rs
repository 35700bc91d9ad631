//! What a spawner or zygote process does, from its `main` on. Runs in the program that [`crate::supervisor::Config`]
//! names, which calls [`run`] before it has a second thread.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;

use dunlin_walls as walls;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::unpacker::Order;
use crate::{Prepare, UnpackLimits, sys, zygote};

/// The socket to the supervisor in a spawner, the channel in a cell, the package in an unpacker.
const SOCKET: i32 = 3;
const CHANNEL: i32 = 3;
const PACKAGE: i32 = 4;

/// Where an unpacker writes.
const OUT: &str = "/w/out";

/// What the supervisor tells a spawner on its standard input.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Boot {
    /// The Python it becomes the zygote of, and what that imports, if it becomes one.
    pub(crate) zygote: Option<(String, zygote::Imports)>,
    /// Whether it forks templates.
    pub(crate) forker: bool,
    pub(crate) mount_point: PathBuf,
    pub(crate) assets: PathBuf,
    pub(crate) read_only: Vec<PathBuf>,
    pub(crate) links: Vec<(PathBuf, PathBuf)>,
}

/// Everything an unpacker has.
#[derive(Debug)]
pub struct UnpackJob {
    /// The package.
    pub package: OwnedFd,
    /// The empty directory to unpack into.
    pub out: OwnedFd,
    /// Where to say how it went.
    pub report: OwnedFd,
    /// What the package may unpack to.
    pub limits: UnpackLimits,
    /// What is done with the files then.
    pub prepare: Prepare,
}

/// What becomes of the processes that are made here and stay what they are.
#[derive(Clone, Copy, Debug)]
pub struct Trades {
    /// Unpacks a package.
    pub unpack: fn(UnpackJob) -> ExitCode,
    /// Hosts WebAssembly programs, over its channel.
    pub wasm: fn(OwnedFd) -> ExitCode,
}

/// Why a process is no spawner.
#[derive(Debug, thiserror::Error)]
pub enum SpawnerError {
    /// It was not started by a supervisor.
    #[error("this process was not started by a supervisor")]
    NotStarted,
    /// What it was told cannot be read.
    #[error("cannot read what the supervisor says")]
    Boot(#[source] io::Error),
    /// The guests' root could not be built.
    #[error("cannot build the guests' root")]
    Root(#[from] walls::root::RootError),
    /// The zygote's interpreter could not be started.
    #[error("cannot start {program}")]
    Python {
        /// Which one.
        program: String,
        /// The cause.
        source: io::Error,
    },
    /// A step failed.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The cause.
        source: io::Error,
    },
}

/// Serves requests for cells until the supervisor goes away. Returns in a process that has a trade of ours, with the exit
/// status of its work; in every other cell the process becomes something else.
pub fn run(trades: Trades) -> Result<ExitCode, SpawnerError> {
    let socket = sys::inherited(SOCKET).ok_or(SpawnerError::NotStarted)?;
    let mut line = Vec::new();
    io::stdin().lock().take(64 * 1024).read_to_end(&mut line).map_err(SpawnerError::Boot)?;
    let boot: Boot = serde_json::from_slice(&line).map_err(|error| SpawnerError::Boot(error.into()))?;
    // Opened before the root is changed: guests' roots have no such thing.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let host_proc = rustix::fs::open(c"/proc", flags, Mode::empty())
        .map_err(|error| SpawnerError::Io { what: "open /proc", source: error.into() })?;
    let Boot { zygote, forker, mount_point, assets, read_only, links } = boot;
    walls::prepare_root(&walls::RootSpec { mount_point, assets, read_only, links })?;
    if let Some((python, imports)) = zygote {
        let source = zygote::become_python(&python, socket, host_proc, imports);
        return Err(SpawnerError::Python { program: python, source });
    }
    if forker {
        walls::forker::serve(socket, host_proc)
    }
    match walls::serve(socket, host_proc).kind {
        walls::CellKind::Launcher => walls::launcher::run(),
        walls::CellKind::Container => walls::launcher::run_container(),
        walls::CellKind::Unpacker | walls::CellKind::ImageUnpacker => {
            unpacker(trades.unpack).map_err(|source| SpawnerError::Io { what: "unpack", source })
        }
        walls::CellKind::Wasm => {
            let channel = sys::adopt(CHANNEL).ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF));
            channel.map(trades.wasm).map_err(|source| SpawnerError::Io { what: "take the channel", source })
        }
        // A spawner is no Python. The supervisor never asks it for one.
        walls::CellKind::Python | walls::CellKind::Template => Ok(ExitCode::FAILURE),
    }
}

fn unpacker(unpack: fn(UnpackJob) -> ExitCode) -> io::Result<ExitCode> {
    let take = |number| sys::adopt(number).ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF));
    let (report, package) = (take(CHANNEL)?, take(PACKAGE)?);
    // The order comes when the place to write to stands.
    let order = Order::receive(File::from(report.as_fd().try_clone_to_owned()?))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let out = rustix::fs::open(OUT, flags, Mode::empty())?;
    Ok(unpack(UnpackJob { package, out, report, limits: order.limits, prepare: order.prepare }))
}
