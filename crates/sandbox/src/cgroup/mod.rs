//! How much a cell may use, and how much it did.
//!
//! ```text
//!  version 1, one hierarchy per controller          version 2, one hierarchy
//!  memory  <own group>/dunlin-<installation>/c7     <delegated group>/dunlin-<installation>/c7
//!  cpu     <own group>/dunlin-<installation>/c7
//!  pids …  freezer …  cpuacct …
//! ```
//!
//! [`Cgroups`] is the installation's parent group and [`CellCgroup`] one cell's group under it. Which version the host
//! has is found once, from what is mounted where ([`mounts`]), and hidden behind both types.
//!
//! # Invariants
//! - A group belongs to one cell ever: what it charged and its peaks never reach another.
//! - Cells have no swap and no cgroup file system, so that a cell's group has no children.
//! - Nothing outside directories called `dunlin-<installation>` is removed.
//!
//! Reading use is [`crate::Usage`]; what the limits should be is decided by callers.

mod mounts;
mod tree;
mod v1;
mod v2;

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use dunlin_model::CellId;

use self::mounts::Layout;
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
    /// Processes in the group do not die.
    #[error("{} is still in use after {waited:?}", path.display())]
    Busy {
        /// The group.
        path: PathBuf,
        /// How long its end was awaited.
        waited: std::time::Duration,
    },
    /// The kernel refused one step.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// Which control groups this host offers, without touching any.
pub fn version() -> Result<Version, CgroupError> {
    Ok(match Layout::of_this_process()? {
        Layout::V1(_) => Version::V1,
        Layout::V2(_) => Version::V2,
    })
}

/// The installation's parent group, under which every cell gets its own. Dropping it removes the parent if it is empty.
#[derive(Debug)]
pub struct Cgroups {
    parent: Parent,
    mounts: Vec<PathBuf>,
    name: String,
}

#[derive(Debug)]
enum Parent {
    V1(v1::Parent),
    V2(v2::Parent),
}

impl Cgroups {
    /// Finds the host's hierarchies and makes this installation's parent group in each.
    pub fn open(installation: InstallationId) -> Result<Self, CgroupError> {
        let name = format!("dunlin-{installation}");
        let layout = Layout::of_this_process()?;
        let mounts = layout.mounts();
        let parent = match layout {
            Layout::V1(layout) => Parent::V1(v1::Parent::make(&layout, &name)?),
            Layout::V2(layout) => Parent::V2(v2::Parent::make(&layout, &name)?),
        };
        Ok(Self { parent, mounts, name })
    }

    /// Which kind of control groups this is.
    #[must_use]
    pub fn version(&self) -> Version {
        match self.parent {
            Parent::V1(_) => Version::V1,
            Parent::V2(_) => Version::V2,
        }
    }

    /// Kills and removes the groups an earlier run of this installation left, wherever in the hierarchies it ran.
    /// Returns how many cells' groups there were. To be called before the first [`Cgroups::create`].
    pub fn sweep(&self) -> Result<usize, CgroupError> {
        let own = match &self.parent {
            Parent::V1(parent) => parent.dirs(),
            Parent::V2(parent) => vec![parent.dir().to_path_buf()],
        };
        let groups: Vec<_> = self.mounts.iter().flat_map(|mount| tree::find(mount, &self.name)).collect();
        // In all hierarchies first: what one of them holds frozen is not killed through another.
        groups.iter().try_for_each(|group| tree::thaw(group))?;
        let mut cells = std::collections::HashSet::new();
        for found in groups {
            for child in &tree::children(&found) {
                tree::remove(child)?;
                cells.extend(child.file_name().map(ToOwned::to_owned));
            }
            if !own.contains(&found) {
                tree::remove(&found)?;
            }
        }
        Ok(cells.len())
    }

    /// Makes a group for one cell, without limits yet except that it cannot swap.
    pub fn create(&self, cell: CellId) -> Result<CellCgroup, CgroupError> {
        let name = format!("c{}", cell.0);
        Ok(CellCgroup {
            cell: match &self.parent {
                Parent::V1(parent) => Group::V1(parent.create(&name)?),
                Parent::V2(parent) => Group::V2(parent.create(&name)?),
            },
        })
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        // What cannot be removed because a cell is still in it is swept by the next run.
        match &self.parent {
            Parent::V1(parent) => parent.dirs().iter().for_each(|dir| drop(std::fs::remove_dir(dir))),
            Parent::V2(parent) => drop(std::fs::remove_dir(parent.dir())),
        }
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
pub struct CellCgroup {
    cell: Group,
}

#[derive(Debug)]
enum Group {
    V1(v1::Cell),
    V2(v2::Cell),
}

impl CellCgroup {
    /// Descriptors to join by: the process, still single-threaded, writes `0` to each.
    pub fn join_fds(&self) -> io::Result<Vec<OwnedFd>> {
        match &self.cell {
            Group::V1(cell) => cell.join_fds(),
            Group::V2(cell) => cell.join_fds(),
        }
    }

    /// Sets the limits of memory (tmpfs, socket buffers and kernel memory included) and of processes and threads.
    pub fn set_limits(&self, memory_bytes: u64, pids: u32) -> io::Result<()> {
        match &self.cell {
            Group::V1(cell) => cell.set_limits(memory_bytes, pids),
            Group::V2(cell) => cell.set_limits(memory_bytes, pids),
        }
    }

    /// Sets the share of CPU time in thousandths of one CPU, at least ten; `None` lifts the limit.
    pub fn set_cpu(&self, millis: Option<u32>) -> io::Result<()> {
        match &self.cell {
            Group::V1(cell) => cell.set_cpu(millis.map(quota_us)),
            Group::V2(cell) => cell.set_cpu(millis.map(quota_us)),
        }
    }

    /// Stops or continues every process in the group. Stopping takes hold a moment after this returns.
    pub fn freeze(&self, frozen: bool) -> io::Result<()> {
        match &self.cell {
            Group::V1(cell) => cell.freeze(frozen),
            Group::V2(cell) => cell.freeze(frozen),
        }
    }

    /// Descriptors from which the cell's use can be read, in any process.
    pub fn usage_fds(&self) -> io::Result<UsageFds> {
        match &self.cell {
            Group::V1(cell) => cell.usage_fds(),
            Group::V2(cell) => cell.usage_fds(),
        }
    }

    /// How many processes were killed for want of memory.
    pub fn oom_count(&self) -> io::Result<u64> {
        match &self.cell {
            Group::V1(cell) => cell.oom_count(),
            Group::V2(cell) => cell.oom_count(),
        }
    }

    /// Becomes readable when memory may have run out, where the kernel does not end the whole group by itself then
    /// (version 1). [`CellCgroup::oom_count`] says whether it has: shortage in a group above wakes this one as well.
    pub fn oom_event(&self) -> io::Result<Option<OwnedFd>> {
        match &self.cell {
            Group::V1(cell) => cell.oom_event().map(Some),
            Group::V2(_) => Ok(None),
        }
    }

    /// CPU time used so far, in microseconds.
    pub fn cpu_us(&self) -> io::Result<u64> {
        match &self.cell {
            Group::V1(cell) => cell.cpu_us(),
            Group::V2(cell) => cell.cpu_us(),
        }
    }

    /// Sends SIGKILL to every process in the group, frozen ones included. They end soon after.
    pub fn kill(&self) -> io::Result<()> {
        match &self.cell {
            Group::V1(cell) => cell.kill(),
            Group::V2(cell) => cell.kill(),
        }
    }

    /// Kills what is left and removes the group; returns when it is gone.
    pub fn remove(self) -> Result<(), CgroupError> {
        match &self.cell {
            Group::V1(cell) => cell.remove(),
            Group::V2(cell) => cell.remove(),
        }
    }
}

/// The period over which CPU time is limited: the kernel's own default, short enough that a throttled call still
/// answers several times a second.
const CPU_PERIOD_US: u64 = 100_000;

/// CPU time per period for a share; the kernel grants no less than a millisecond.
fn quota_us(millis: u32) -> u64 {
    (u64::from(millis) * CPU_PERIOD_US / 1000).max(1000)
}

#[cfg(test)]
mod tests;
