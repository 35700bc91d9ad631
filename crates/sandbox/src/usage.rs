//! What a cell uses, read from two open files of its cgroup.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Reads a cell's memory and CPU time. Cheap to clone; reading takes two `pread`s and no lock.
///
/// After the cell has ended its files answer an error, and so does [`Usage::sample`].
#[derive(Clone, Debug)]
pub struct Usage {
    files: Option<Arc<Files>>,
}

#[derive(Debug)]
struct Files {
    memory: File,
    cpu: File,
}

/// What a cell used at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Anonymous and shared memory, tmpfs included; page cache of files left out.
    pub memory_bytes: u64,
    /// CPU time of all processes so far, the dead ones included.
    pub cpu_us: u64,
}

impl Usage {
    /// Reads from a `memory.stat` and from a `cpuacct.usage` (version 1) or `cpu.stat` (version 2) file, told apart by
    /// what they say.
    #[must_use]
    pub fn new(memory: OwnedFd, cpu: OwnedFd) -> Self {
        Self { files: Some(Arc::new(Files { memory: memory.into(), cpu: cpu.into() })) }
    }

    /// A usage that is always zero, for cells that are not real.
    #[must_use]
    pub fn none() -> Self {
        Self { files: None }
    }

    /// The CPU time so far, in microseconds: a tenth of the cost of [`Usage::sample`].
    pub fn cpu_us(&self) -> io::Result<u64> {
        let Some(files) = &self.files else { return Ok(0) };
        parse_cpu(read(&files.cpu, &mut [0; 4096])?).ok_or_else(unreadable)
    }

    /// What is used now.
    pub fn sample(&self) -> io::Result<Sample> {
        let Some(files) = &self.files else { return Ok(Sample::default()) };
        let mut buffer = [0; 4096];
        let memory_bytes = parse_memory(read(&files.memory, &mut buffer)?).ok_or_else(unreadable)?;
        let cpu_us = parse_cpu(read(&files.cpu, &mut buffer)?).ok_or_else(unreadable)?;
        Ok(Sample { memory_bytes, cpu_us })
    }
}

fn unreadable() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the cgroup's files say something unexpected")
}

fn read<'b>(file: &File, buffer: &'b mut [u8]) -> io::Result<&'b str> {
    let n = file.read_at(buffer, 0)?;
    std::str::from_utf8(&buffer[..n]).map_err(|_| unreadable())
}

/// `rss` + `shmem` of version 1, `anon` + `shmem` of version 2.
fn parse_memory(stat: &str) -> Option<u64> {
    let mut anonymous: Option<u64> = None;
    let mut shared: Option<u64> = None;
    for line in stat.lines() {
        match line.split_once(' ') {
            Some(("rss" | "anon", value)) if anonymous.is_none() => anonymous = value.parse().ok(),
            Some(("shmem", value)) if shared.is_none() => shared = value.parse().ok(),
            _ => {}
        }
    }
    // Very old kernels have no `shmem` in version 1.
    Some(anonymous? + shared.unwrap_or(0))
}

/// Nanoseconds alone (`cpuacct.usage`) or a `usage_usec` line (`cpu.stat`).
fn parse_cpu(stat: &str) -> Option<u64> {
    if let Ok(nanoseconds) = stat.trim_end().parse::<u64>() {
        return Some(nanoseconds / 1000);
    }
    stat.lines().find_map(|line| line.strip_prefix("usage_usec ")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_cgroup_versions_read_the_same() {
        assert_eq!(parse_memory("cache 9\nrss 40\nrss_huge 7\nshmem 2\n"), Some(42));
        assert_eq!(parse_memory("anon 40\nfile 7\nshmem 2\n"), Some(42));
        assert_eq!(parse_memory("file 7\n"), None);
        assert_eq!(parse_cpu("42000\n"), Some(42));
        assert_eq!(parse_cpu("usage_usec 42\nuser_usec 1\n"), Some(42));
        assert_eq!(parse_cpu("what\n"), None);
    }

    #[test]
    fn no_usage_is_zero() {
        assert_eq!(Usage::none().sample().unwrap(), Sample::default());
    }
}
