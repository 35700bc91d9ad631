//! Version 2: one hierarchy, of which a part is ours.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::mounts::{V2_CONTROLLERS, V2Layout};
use super::{CPU_PERIOD_US, CgroupError, UsageFds, tree};

/// The group the platform's own processes go to when the one they were started in becomes a parent of groups:
/// version 2 has processes only in leaves.
const PLATFORM: &str = "dunlin-platform";

/// This installation's group.
#[derive(Debug)]
pub(super) struct Parent {
    dir: PathBuf,
}

impl Parent {
    /// Makes `name` where this host allows it and hands the controllers down to it.
    ///
    /// A group that holds nothing but this process was delegated to it (a unit with `Delegate=yes`, a container) and
    /// becomes the parent, with the process moved into a leaf of its own. From a login session, whose group holds a
    /// shell too, the top of the hierarchy is used instead, which root may do.
    pub(super) fn make(layout: &V2Layout, name: &str) -> Result<Self, CgroupError> {
        let own = &layout.hierarchy.own;
        let top = &layout.hierarchy.mount;
        // An earlier start in this very process tree has put us into the leaf already.
        let leaf = own.file_name().is_some_and(|last| last == PLATFORM);
        if let Some(above) = own.parent().filter(|above| leaf && above.starts_with(top)) {
            return Self::make_in(above, name);
        }
        if own != top && Self::only_us(own) {
            Self::step_aside(own)?;
            return Self::make_in(own, name);
        }
        match Self::make_in(top, name) {
            // The top of a container's hierarchy is not the real top: processes in it are in the way.
            Err(CgroupError::Io { source, .. }) if source.kind() == io::ErrorKind::ResourceBusy => {
                Self::step_aside(top)?;
                Self::make_in(top, name)
            }
            other => other,
        }
    }

    fn make_in(above: &Path, name: &str) -> Result<Self, CgroupError> {
        let dir = above.join(name);
        hand_down(above)?;
        tree::ensure(&dir)?;
        hand_down(&dir)?;
        Ok(Self { dir })
    }

    /// Whether this process is alone in `group`.
    fn only_us(group: &Path) -> bool {
        let own = std::process::id().to_string();
        tree::read(group, "cgroup.procs").is_ok_and(|listed| listed.lines().all(|line| line == own))
    }

    /// Moves every process of `group` into a leaf below it.
    fn step_aside(group: &Path) -> Result<(), CgroupError> {
        let leaf = group.join(PLATFORM);
        tree::ensure(&leaf)?;
        let listed = tree::read(group, "cgroup.procs").map_err(|source| CgroupError::Io {
            what: "list the processes of",
            path: group.into(),
            source,
        })?;
        for pid in listed.lines() {
            match tree::write(&leaf, "cgroup.procs", pid) {
                // It is gone, or it is a kernel thread.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::EINVAL)) => {}
                Err(source) => return Err(CgroupError::Io { what: "move processes to", path: leaf, source }),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn create(&self, name: &str) -> Result<Cell, CgroupError> {
        let cell = Cell { dir: self.dir.join(name) };
        tree::make(&cell.dir)?;
        let set = tree::write_if_there(&cell.dir, "memory.swap.max", 0)
            .and_then(|()| tree::write_if_there(&cell.dir, "memory.oom.group", 1));
        match set {
            Ok(()) => Ok(cell),
            Err(source) => {
                drop(std::fs::remove_dir(&cell.dir));
                Err(CgroupError::Io { what: "forbid swap in", path: cell.dir, source })
            }
        }
    }
}

/// Gives the groups below `dir` the controllers that the walls need.
fn hand_down(dir: &Path) -> Result<(), CgroupError> {
    let error = |source| CgroupError::Io { what: "hand controllers down from", path: dir.into(), source };
    let listed = tree::read(dir, "cgroup.controllers").map_err(error)?;
    let missing = V2_CONTROLLERS.iter().find(|wanted| !listed.split_whitespace().any(|name| name == **wanted));
    if let Some(controller) = missing {
        return Err(CgroupError::NoController { controller });
    }
    let down = tree::read(dir, "cgroup.subtree_control").map_err(error)?;
    for wanted in V2_CONTROLLERS {
        if !down.split_whitespace().any(|name| name == wanted) {
            tree::write(dir, "cgroup.subtree_control", format_args!("+{wanted}")).map_err(error)?;
        }
    }
    Ok(())
}

/// One cell's group.
#[derive(Debug)]
pub(super) struct Cell {
    dir: PathBuf,
}

impl Cell {
    pub(super) fn join_fds(&self) -> io::Result<Vec<OwnedFd>> {
        Ok(vec![std::fs::OpenOptions::new().write(true).open(self.dir.join("cgroup.procs"))?.into()])
    }

    pub(super) fn set_limits(&self, memory_bytes: u64, pids: u32) -> io::Result<()> {
        tree::write(&self.dir, "memory.max", memory_bytes)?;
        tree::write(&self.dir, "pids.max", pids)
    }

    pub(super) fn set_cpu(&self, quota_us: Option<u64>) -> io::Result<()> {
        match quota_us {
            Some(quota_us) => tree::write(&self.dir, "cpu.max", format_args!("{quota_us} {CPU_PERIOD_US}")),
            None => tree::write(&self.dir, "cpu.max", format_args!("max {CPU_PERIOD_US}")),
        }
    }

    pub(super) fn freeze(&self, frozen: bool) -> io::Result<()> {
        tree::write(&self.dir, "cgroup.freeze", u8::from(frozen))
    }

    pub(super) fn usage_fds(&self) -> io::Result<UsageFds> {
        Ok(UsageFds { memory: tree::open(&self.dir, "memory.stat")?.into(), cpu: tree::open(&self.dir, "cpu.stat")?.into() })
    }

    pub(super) fn oom_count(&self) -> io::Result<u64> {
        Ok(tree::keyed(&tree::read(&self.dir, "memory.events")?, "oom_kill"))
    }

    pub(super) fn cpu_us(&self) -> io::Result<u64> {
        Ok(tree::keyed(&tree::read(&self.dir, "cpu.stat")?, "usage_usec"))
    }

    pub(super) fn kill(&self) -> io::Result<()> {
        match tree::write(&self.dir, "cgroup.kill", 1) {
            // Kernels before 5.14 have no such file; there a frozen process still takes the signal.
            Err(error) if error.kind() == io::ErrorKind::NotFound => tree::kill_each(&self.dir),
            other => other,
        }
    }

    pub(super) fn remove(&self) -> Result<(), CgroupError> {
        tree::remove_leaf(&self.dir, || self.kill())
    }
}

#[cfg(test)]
mod tests {
    use super::super::mounts::Hierarchy;
    use super::*;

    /// A directory tree that has a group's files without a kernel behind them.
    struct Fake(tempfile::TempDir);

    impl Fake {
        fn new(files: &[(&str, &str)]) -> Self {
            let fake = Self(tempfile::tempdir().unwrap());
            for (path, text) in files {
                let path = fake.0.path().join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            }
            fake
        }

        fn read(&self, path: &str) -> String {
            std::fs::read_to_string(self.0.path().join(path)).unwrap()
        }

        fn cell(&self, path: &str) -> Cell {
            Cell { dir: self.0.path().join(path) }
        }

        fn layout(&self, own: &str) -> V2Layout {
            let mount = self.0.path().to_path_buf();
            let own = if own.is_empty() { mount.clone() } else { mount.join(own) };
            V2Layout { hierarchy: Hierarchy { mount, own } }
        }
    }

    const ALL: &str = "cpuset cpu io memory pids\n";

    #[test]
    fn limits_are_written_in_the_kernels_words() {
        let fake = Fake::new(&[("c1/memory.max", "max"), ("c1/pids.max", "max"), ("c1/cpu.max", ""), ("c1/cgroup.freeze", "")]);
        let cell = fake.cell("c1");
        cell.set_limits(128 << 20, 64).unwrap();
        cell.set_cpu(Some(50_000)).unwrap();
        cell.freeze(true).unwrap();
        assert_eq!(fake.read("c1/memory.max"), "134217728");
        // The fake's files are not cut when they are written over.
        assert_eq!(&fake.read("c1/pids.max")[..2], "64");
        assert_eq!(fake.read("c1/cpu.max"), "50000 100000");
        assert_eq!(fake.read("c1/cgroup.freeze"), "1");
        cell.set_cpu(None).unwrap();
        assert_eq!(&fake.read("c1/cpu.max")[..10], "max 100000");
    }

    #[test]
    fn use_is_read_in_the_kernels_words() {
        let fake = Fake::new(&[
            ("c1/memory.stat", "anon 40\nfile 9\nshmem 2\n"),
            ("c1/memory.events", "low 0\noom 2\noom_kill 1\n"),
            ("c1/cpu.stat", "usage_usec 1500\nuser_usec 1000\n"),
        ]);
        let cell = fake.cell("c1");
        assert_eq!(cell.oom_count().unwrap(), 1);
        assert_eq!(cell.cpu_us().unwrap(), 1500);
        let fds = cell.usage_fds().unwrap();
        let sample = crate::Usage::new(fds.memory, fds.cpu).sample().unwrap();
        assert_eq!((sample.memory_bytes, sample.cpu_us), (42, 1500));
    }

    #[test]
    fn controllers_that_are_handed_down_already_are_left_alone() {
        let fake = Fake::new(&[
            ("cgroup.controllers", ALL),
            ("cgroup.subtree_control", "cpu memory pids\n"),
            ("dunlin-1/cgroup.controllers", "cpu memory pids\n"),
            ("dunlin-1/cgroup.subtree_control", "cpu memory pids\n"),
        ]);
        let parent = Parent::make(&fake.layout(""), "dunlin-1").unwrap();
        assert_eq!(parent.dir(), fake.0.path().join("dunlin-1"));
        assert_eq!(fake.read("cgroup.subtree_control"), "cpu memory pids\n");
    }

    #[test]
    fn a_delegated_group_becomes_the_parent_and_we_move_into_a_leaf() {
        let own = format!("{}\n", std::process::id());
        let fake = Fake::new(&[
            ("unit/cgroup.controllers", ALL),
            ("unit/cgroup.procs", &own),
            ("unit/cgroup.subtree_control", "cpu memory pids\n"),
            ("unit/dunlin-platform/cgroup.procs", ""),
            ("unit/dunlin-1/cgroup.controllers", ALL),
            ("unit/dunlin-1/cgroup.subtree_control", "cpu memory pids\n"),
        ]);
        let parent = Parent::make(&fake.layout("unit"), "dunlin-1").unwrap();
        assert_eq!(parent.dir(), fake.0.path().join("unit/dunlin-1"));
        assert_eq!(fake.read("unit/dunlin-platform/cgroup.procs"), own.trim());
    }

    #[test]
    fn a_group_shared_with_a_shell_is_not_taken_over() {
        let fake = Fake::new(&[
            ("cgroup.controllers", ALL),
            ("cgroup.subtree_control", "cpu memory pids\n"),
            ("session/cgroup.procs", "1\n2\n"),
            ("dunlin-1/cgroup.controllers", ALL),
            ("dunlin-1/cgroup.subtree_control", "cpu memory pids\n"),
        ]);
        let parent = Parent::make(&fake.layout("session"), "dunlin-1").unwrap();
        assert_eq!(parent.dir(), fake.0.path().join("dunlin-1"));
    }

    #[test]
    fn a_controller_that_is_not_delegated_is_named() {
        let fake = Fake::new(&[("cgroup.controllers", "cpu pids\n"), ("cgroup.subtree_control", "")]);
        let error = Parent::make(&fake.layout(""), "dunlin-1").unwrap_err();
        assert!(matches!(error, CgroupError::NoController { controller: "memory" }));
    }
}
