//! Directories of a control group file system: reading, writing, killing what is inside and removing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::CgroupError;

/// How long a removal waits for killed processes to go. They hold memory, mounts and sockets whose release takes time.
const REMOVAL_MAX: Duration = Duration::from_secs(10);
/// How deep below a mount point an earlier run's groups are looked for, and how many groups are looked at.
const SEARCH_DEPTH: usize = 8;
const SEARCH_GROUPS: usize = 50_000;

/// Writes one value to a control file.
pub(super) fn write(dir: &Path, file: &str, value: impl std::fmt::Display) -> io::Result<()> {
    OpenOptions::new().write(true).open(dir.join(file))?.write_all(value.to_string().as_bytes())
}

/// Writes one value to a control file that not every kernel has.
pub(super) fn write_if_there(dir: &Path, file: &str, value: impl std::fmt::Display) -> io::Result<()> {
    match write(dir, file, value) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

pub(super) fn read(dir: &Path, file: &str) -> io::Result<String> {
    fs::read_to_string(dir.join(file))
}

pub(super) fn open(dir: &Path, file: &str) -> io::Result<File> {
    File::open(dir.join(file))
}

/// The number after `key` in a file of `key value` lines; 0 if the kernel does not say.
pub(super) fn keyed(text: &str, key: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok());
    value.unwrap_or(0)
}

/// Makes a group that must be new.
pub(super) fn make(dir: &Path) -> Result<(), CgroupError> {
    fs::create_dir(dir).map_err(|source| CgroupError::Io { what: "make", path: dir.into(), source })
}

/// Makes a group that may be there.
pub(super) fn ensure(dir: &Path) -> Result<(), CgroupError> {
    match make(dir) {
        Err(CgroupError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// The groups directly below `dir`.
pub(super) fn children(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

/// Every group called `name` at or below `mount`.
pub(super) fn find(mount: &Path, name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut looked_at = 0;
    let mut level = vec![mount.to_path_buf()];
    for _ in 0..SEARCH_DEPTH {
        let mut below = Vec::new();
        for dir in level {
            for child in children(&dir) {
                looked_at += 1;
                if looked_at > SEARCH_GROUPS {
                    return found;
                }
                if child.file_name().is_some_and(|last| last == name) { found.push(child) } else { below.push(child) }
            }
        }
        level = below;
    }
    found
}

/// Sends SIGKILL to every process whose group in some hierarchy is `dir`.
///
/// A number read from the group may be another process's by the time the signal goes out, so each is pinned first and
/// then looked up again.
pub(super) fn kill_each(dir: &Path) -> io::Result<()> {
    let listed = |dir: &Path| -> io::Result<Vec<i32>> {
        Ok(read(dir, "cgroup.procs")?.lines().filter_map(|line| line.parse().ok()).collect())
    };
    let mut pinned = Vec::new();
    for number in listed(dir)? {
        let Some(pid) = Pid::from_raw(number) else { continue };
        if let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) {
            pinned.push((number, pidfd));
        }
    }
    let still = listed(dir)?;
    for (number, pidfd) in pinned {
        if still.contains(&number) {
            // A process that is gone meanwhile is what was wanted.
            let _ = pidfd_send_signal(pidfd, Signal::KILL);
        }
    }
    Ok(())
}

/// Lets everything in `dir` and the groups below go on that version 1 holds frozen.
pub(super) fn thaw(dir: &Path) -> Result<(), CgroupError> {
    for child in children(dir) {
        thaw(&child)?;
    }
    write_if_there(dir, "freezer.state", "THAWED").map_err(|source| CgroupError::Io {
        what: "thaw what is in",
        path: dir.into(),
        source,
    })
}

/// Kills everything in `dir` and the groups below and removes them. One that is not there is fine.
pub(super) fn remove(dir: &Path) -> Result<(), CgroupError> {
    for child in children(dir) {
        remove(&child)?;
    }
    remove_leaf(dir, || {
        match write(dir, "cgroup.kill", 1) {
            Ok(()) => {}
            Err(_) => kill_each(dir)?,
        }
        // A frozen process of version 1 does not take the signal before it is thawed.
        write_if_there(dir, "freezer.state", "THAWED")
    })
}

/// Removes a group without children, calling `kill` as long as something is in it.
pub(super) fn remove_leaf(dir: &Path, mut kill: impl FnMut() -> io::Result<()>) -> Result<(), CgroupError> {
    let began = Instant::now();
    let mut pause = Duration::from_micros(100);
    loop {
        match fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
            Err(source) => return Err(CgroupError::Io { what: "remove", path: dir.into(), source }),
        }
        let waited = began.elapsed();
        if waited > REMOVAL_MAX {
            return Err(CgroupError::Busy { path: dir.into(), waited });
        }
        match kill() {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(CgroupError::Io { what: "kill what is in", path: dir.into(), source }),
        }
        // The kernel tells nobody when a version 1 group becomes empty.
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyed_number_is_found_by_its_whole_key() {
        let text = "oom 4\noom_kill 2\noom_group_kill 1\n";
        assert_eq!(keyed(text, "oom_kill"), 2);
        assert_eq!(keyed(text, "oom"), 4);
        assert_eq!(keyed(text, "under_oom"), 0);
    }

    #[test]
    fn groups_are_found_by_name_at_any_depth_but_not_below_themselves() {
        let root = tempfile::tempdir().unwrap();
        for dir in ["a/b/dunlin-1", "dunlin-1/dunlin-1", "a/dunlin-12"] {
            fs::create_dir_all(root.path().join(dir)).unwrap();
        }
        let mut found = find(root.path(), "dunlin-1");
        found.sort();
        assert_eq!(found, [root.path().join("a/b/dunlin-1"), root.path().join("dunlin-1")]);
    }

    #[test]
    fn what_is_gone_already_counts_as_removed() {
        let root = tempfile::tempdir().unwrap();
        remove(&root.path().join("never")).unwrap();
    }
}
