//! The real thing, on whichever version this host has. Needs root.

use std::process::{Child, Command, Stdio};

use super::*;

fn open() -> Cgroups {
    Cgroups::open(InstallationId::random()).unwrap()
}

/// A process that runs `script` inside `cgroup` once it has joined.
fn run_in(cgroup: &CellCgroup, script: &str) -> Child {
    use std::os::fd::AsRawFd as _;
    let fds = cgroup.join_fds().unwrap();
    let mut join = String::new();
    for fd in &fds {
        join.push_str(&format!("echo 0 > /proc/{}/fd/{}\n", std::process::id(), fd.as_raw_fd()));
    }
    let mut child =
        Command::new("/bin/bash").args(["-c", &format!("{join} echo joined; {script}")]).stdout(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 7];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut first).unwrap();
    assert_eq!(&first, b"joined\n");
    drop(fds);
    child
}

#[test]
fn a_process_past_its_memory_is_killed_and_counted() {
    let groups = open();
    let cell = groups.create(CellId(1)).unwrap();
    cell.set_limits(32 << 20, 64).unwrap();
    let mut child = run_in(&cell, "exec python3 -c 'x = b\"x\" * (256 << 20)'");
    assert!(!child.wait().unwrap().success());
    assert!(cell.oom_count().unwrap() >= 1);
    cell.remove().unwrap();
}

#[test]
fn limits_can_be_raised_and_lowered() {
    let groups = open();
    let cell = groups.create(CellId(1)).unwrap();
    for megabytes in [64, 512, 128] {
        cell.set_limits(megabytes << 20, 64).unwrap();
    }
    cell.set_cpu(Some(50)).unwrap();
    cell.set_cpu(Some(1)).unwrap();
    cell.set_cpu(Some(16_000)).unwrap();
    cell.set_cpu(None).unwrap();
    cell.remove().unwrap();
}

#[test]
fn no_more_processes_than_the_limit_start() {
    let groups = open();
    let cell = groups.create(CellId(1)).unwrap();
    cell.set_limits(256 << 20, 8).unwrap();
    let script = "exec python3 -c 'import os,sys,time\nn=0\ntry:\n  while n<50:\n    if os.fork()==0: time.sleep(60)\n    n+=1\nexcept BlockingIOError: sys.exit(0 if n==7 else 9)\nsys.exit(8)'";
    let mut child = run_in(&cell, script);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    cell.remove().unwrap();
}

#[test]
fn a_frozen_process_stands_still_and_can_still_be_removed() {
    let groups = open();
    let cell = groups.create(CellId(1)).unwrap();
    cell.set_limits(64 << 20, 16).unwrap();
    let mut child = run_in(&cell, "while :; do :; done");
    while cell.cpu_us().unwrap() < 5_000 {
        std::thread::yield_now();
    }
    cell.freeze(true).unwrap();
    // Freezing is asynchronous: wait until a reading repeats over a stretch in which a running loop would have moved.
    let mut before = cell.cpu_us().unwrap();
    let settled = (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        let now = cell.cpu_us().unwrap();
        let same = now == before;
        before = now;
        same
    });
    assert!(settled);
    cell.remove().unwrap();
    assert!(!child.wait().unwrap().success());
}

#[test]
fn use_is_read_from_descriptors() {
    let groups = open();
    let cell = groups.create(CellId(1)).unwrap();
    cell.set_limits(256 << 20, 16).unwrap();
    let mut child = run_in(
        &cell,
        "exec python3 -c 'x = bytearray(64 << 20); x[::4096] = b\"y\" * len(x[::4096]); print(1, flush=True); import time; time.sleep(600)'",
    );
    let mut line = [0; 2];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
    let fds = cell.usage_fds().unwrap();
    let usage = crate::Usage::new(fds.memory, fds.cpu);
    // Counters are flushed by the kernel in batches.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while usage.sample().unwrap().memory_bytes < 64 << 20 && std::time::Instant::now() < deadline {
        std::thread::yield_now();
    }
    let sample = usage.sample().unwrap();
    assert!((64 << 20..100 << 20).contains(&sample.memory_bytes), "{sample:?}");
    assert!(sample.cpu_us > 1_000);
    cell.remove().unwrap();
    child.wait().unwrap();
    assert!(usage.sample().is_err());
}

#[test]
fn a_sweep_removes_what_was_left_with_the_processes_in_it_and_nothing_else() {
    let groups = open();
    let other = open();
    let left: Vec<_> = (1..=3).map(|n| groups.create(CellId(n)).unwrap()).collect();
    let kept = other.create(CellId(1)).unwrap();
    let mut child = run_in(&left[0], "exec sleep 600");
    let mut neighbour = run_in(&kept, "exec sleep 600");
    drop(left);
    assert_eq!(groups.sweep().unwrap(), 3);
    assert!(!child.wait().unwrap().success());
    assert!(neighbour.try_wait().unwrap().is_none());
    assert_eq!(groups.sweep().unwrap(), 0);
    groups.create(CellId(1)).unwrap().remove().unwrap();
    kept.remove().unwrap();
    neighbour.wait().unwrap();
}

#[test]
fn the_same_cell_is_not_made_twice() {
    let groups = open();
    let cell = groups.create(CellId(1)).unwrap();
    assert!(groups.create(CellId(1)).is_err());
    cell.remove().unwrap();
}

#[test]
fn a_share_becomes_a_quota_of_at_least_a_millisecond() {
    assert_eq!(quota_us(1000), 100_000);
    assert_eq!(quota_us(50), 5_000);
    assert_eq!(quota_us(1), 1_000);
}
