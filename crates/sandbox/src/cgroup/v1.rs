//! Version 1: the same group in five hierarchies.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::EventfdFlags;

use super::mounts::{V1_CONTROLLERS, V1Layout};
use super::{CPU_PERIOD_US, CgroupError, UsageFds, tree};

/// This installation's group in each hierarchy, in the order of [`V1_CONTROLLERS`]. Controllers that are mounted
/// together have the same directory.
#[derive(Debug)]
pub(super) struct Parent {
    dirs: [PathBuf; 5],
}

impl Parent {
    /// Makes `name` below this process's own groups, so that what confines the platform confines its cells too.
    pub(super) fn make(layout: &V1Layout, name: &str) -> Result<Self, CgroupError> {
        let dirs = layout.hierarchies.each_ref().map(|hierarchy| hierarchy.own.join(name));
        for dir in &dirs {
            tree::ensure(dir)?;
        }
        // Kernels before 5.10 count a child's memory towards its parent only when told to, before there are children.
        drop(tree::write_if_there(&dirs[MEMORY], "memory.use_hierarchy", 1));
        Ok(Self { dirs })
    }

    /// Every distinct directory.
    pub(super) fn dirs(&self) -> Vec<PathBuf> {
        distinct(&self.dirs)
    }

    pub(super) fn create(&self, name: &str) -> Result<Cell, CgroupError> {
        let cell = Cell { dirs: self.dirs.each_ref().map(|dir| dir.join(name)) };
        let made = distinct(&cell.dirs).iter().try_for_each(|dir| tree::make(dir));
        let set = made.and_then(|()| {
            tree::write_if_there(cell.memory(), "memory.swappiness", 0).map_err(|source| CgroupError::Io {
                what: "forbid swap in",
                path: cell.memory().into(),
                source,
            })
        });
        match set {
            Ok(()) => Ok(cell),
            Err(error) => {
                // Only empty groups go: one that was there before and has a process in it stays.
                distinct(&cell.dirs).iter().for_each(|dir| drop(std::fs::remove_dir(dir)));
                Err(error)
            }
        }
    }
}

// Places in `V1_CONTROLLERS`.
const MEMORY: usize = 0;
const CPU: usize = 1;
const PIDS: usize = 2;
const FREEZER: usize = 3;
const CPUACCT: usize = 4;

/// One cell's group in each hierarchy.
#[derive(Debug)]
pub(super) struct Cell {
    dirs: [PathBuf; V1_CONTROLLERS.len()],
}

impl Cell {
    fn memory(&self) -> &Path {
        &self.dirs[MEMORY]
    }

    pub(super) fn join_fds(&self) -> io::Result<Vec<OwnedFd>> {
        // `tasks` and not `cgroup.procs`: a thread that moves itself takes no lock shared with every fork on the host.
        let open = |dir: &PathBuf| std::fs::OpenOptions::new().write(true).open(dir.join("tasks")).map(OwnedFd::from);
        distinct(&self.dirs).iter().map(open).collect()
    }

    pub(super) fn set_limits(&self, memory_bytes: u64, pids: u32) -> io::Result<()> {
        let plain = || tree::write(self.memory(), "memory.limit_in_bytes", memory_bytes);
        let with_swap = || tree::write_if_there(self.memory(), "memory.memsw.limit_in_bytes", memory_bytes);
        // Memory with swap may never be limited to less than memory alone, so which goes first depends on the direction.
        match plain() {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => with_swap().and_then(|()| plain())?,
            other => other.and_then(|()| with_swap())?,
        }
        tree::write(&self.dirs[PIDS], "pids.max", pids)
    }

    pub(super) fn set_cpu(&self, quota_us: Option<u64>) -> io::Result<()> {
        match quota_us {
            Some(quota_us) => {
                tree::write(&self.dirs[CPU], "cpu.cfs_period_us", CPU_PERIOD_US)?;
                tree::write(&self.dirs[CPU], "cpu.cfs_quota_us", quota_us)
            }
            None => tree::write(&self.dirs[CPU], "cpu.cfs_quota_us", -1),
        }
    }

    pub(super) fn freeze(&self, frozen: bool) -> io::Result<()> {
        tree::write(&self.dirs[FREEZER], "freezer.state", if frozen { "FROZEN" } else { "THAWED" })
    }

    pub(super) fn usage_fds(&self) -> io::Result<UsageFds> {
        Ok(UsageFds {
            memory: tree::open(self.memory(), "memory.stat")?.into(),
            cpu: tree::open(&self.dirs[CPUACCT], "cpuacct.usage")?.into(),
        })
    }

    pub(super) fn oom_count(&self) -> io::Result<u64> {
        Ok(tree::keyed(&tree::read(self.memory(), "memory.oom_control")?, "oom_kill"))
    }

    pub(super) fn oom_event(&self) -> io::Result<OwnedFd> {
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let control = tree::open(self.memory(), "memory.oom_control")?;
        let line = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
        tree::write(self.memory(), "cgroup.event_control", line)?;
        Ok(event)
    }

    pub(super) fn cpu_us(&self) -> io::Result<u64> {
        let nanoseconds = tree::read(&self.dirs[CPUACCT], "cpuacct.usage")?;
        let nanoseconds: u64 = nanoseconds.trim().parse().map_err(|_| io::ErrorKind::InvalidData)?;
        Ok(nanoseconds / 1000)
    }

    pub(super) fn kill(&self) -> io::Result<()> {
        // A process may have joined some of the groups only, if it died while its cell was being made.
        for dir in distinct(&self.dirs) {
            match tree::kill_each(&dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        // The signal reaches a frozen process once it is thawed.
        match self.freeze(false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    pub(super) fn remove(&self) -> Result<(), CgroupError> {
        // All are tried, so that one that stays behind does not keep the others.
        let removed: Vec<_> = distinct(&self.dirs).iter().map(|dir| tree::remove_leaf(dir, || self.kill())).collect();
        removed.into_iter().collect()
    }
}

fn distinct(dirs: &[PathBuf; 5]) -> Vec<PathBuf> {
    let mut seen = Vec::with_capacity(dirs.len());
    for dir in dirs {
        if !seen.contains(dir) {
            seen.push(dir.clone());
        }
    }
    seen
}
