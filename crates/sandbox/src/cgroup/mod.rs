//! How much a cell may use, and how much it did.

use std::io;
use std::os::fd::OwnedFd;

use dunlin_model::CellId;

use crate::installation::InstallationId;

/// Which kind of control groups the host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// One hierarchy per controller.
    V1,
    /// The unified hierarchy.
    V2,
}

/// Why control groups cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// A controller the walls need is not mounted or not delegated.
    #[error("no {controller} controller for control groups")]
    NoController {
        /// Its name.
        controller: &'static str,
    },
    /// The kernel refused one step.
    #[error("cannot {what} {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: String,
        /// The cause.
        source: io::Error,
    },
}

/// The installation's parent group, under which every cell gets its own.
#[derive(Debug)]
pub struct Cgroups {}

impl Cgroups {
    /// Finds the host's hierarchies and makes this installation's parent group in each.
    pub fn open(installation: InstallationId) -> Result<Self, CgroupError> {
        let _ = installation;
        Err(CgroupError::NoController { controller: "memory" })
    }

    /// Which kind of control groups this is.
    #[must_use]
    pub fn version(&self) -> Version {
        Version::V1
    }

    /// Kills and removes the groups an earlier run of this installation left. Returns how many there were.
    pub fn sweep(&self) -> Result<usize, CgroupError> {
        Ok(0)
    }

    /// Makes a group for one cell, without limits yet.
    pub fn create(&self, cell: CellId) -> Result<CellCgroup, CgroupError> {
        let _ = cell;
        Err(CgroupError::NoController { controller: "memory" })
    }
}

/// The two files a cell's use is read from, open for reading; [`crate::Usage::new`] takes them, in any process.
#[derive(Debug)]
pub struct UsageFds {
    /// `memory.stat`.
    pub memory: OwnedFd,
    /// `cpuacct.usage` (v1) or `cpu.stat` (v2).
    pub cpu: OwnedFd,
}

/// One cell's group. Must be ended with [`CellCgroup::remove`]; a drop leaves it to the next sweep.
#[derive(Debug)]
pub struct CellCgroup {}

impl CellCgroup {
    /// Descriptors to join by: the process writes `0` to each.
    pub fn join_fds(&self) -> io::Result<Vec<OwnedFd>> {
        Ok(Vec::new())
    }

    /// Sets the limits of memory and processes.
    pub fn set_limits(&self, memory_bytes: u64, pids: u32) -> io::Result<()> {
        let _ = (memory_bytes, pids);
        Ok(())
    }

    /// Sets the share of CPU time in thousandths of a core; `None` lifts it.
    pub fn set_cpu(&self, millis: Option<u32>) -> io::Result<()> {
        let _ = millis;
        Ok(())
    }

    /// Stops or continues every process in the group.
    pub fn freeze(&self, frozen: bool) -> io::Result<()> {
        let _ = frozen;
        Ok(())
    }

    /// Descriptors from which the cell's use can be read, in any process.
    pub fn usage_fds(&self) -> io::Result<UsageFds> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// How many processes were killed for want of memory.
    pub fn oom_count(&self) -> io::Result<u64> {
        Ok(0)
    }

    /// CPU time used so far, in microseconds.
    pub fn cpu_us(&self) -> io::Result<u64> {
        Ok(0)
    }

    /// Sends SIGKILL to every process in the group.
    pub fn kill(&self) -> io::Result<()> {
        Ok(())
    }

    /// Kills what is left and removes the group; returns when it is gone.
    pub fn remove(self) -> Result<(), CgroupError> {
        Ok(())
    }
}
