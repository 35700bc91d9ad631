//! Real cells on the real kernel. Needs root.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests say what went wrong by panicking")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::time::Instant;

use dunlin_walls::{CellKind, Wall, Without};
use support::{Cell, Supervisor};

const KEEP_CHANNEL: u8 = 2;
const ENVIRONMENT: [&str; 2] = ["PATH=/usr/bin:/bin", "HOME=/tmp"];
const PROBE: &str = include_str!("support/probe.py");

/// Runs the probe in a cell and takes its lines apart.
fn look_around(mut cell: Cell) -> BTreeMap<String, String> {
    cell.exec(0, &["/usr/bin/python3", "-I", "-S", "-c", PROBE], &ENVIRONMENT);
    assert_eq!(cell.frame(), None, "the channel is closed when the program starts");
    let output = cell.output();
    let seen: BTreeMap<String, String> = output
        .lines()
        .filter_map(|line| line.split_once(" = ").or(line.strip_suffix(" =").map(|name| (name, ""))))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    assert_eq!(seen.get("end").map(String::as_str), Some("reached"), "the probe ran to its end:\n{output}");
    seen
}

fn check(seen: &BTreeMap<String, String>, expected: &[(&str, &str)]) {
    let mut wrong = Vec::new();
    for (name, value) in expected {
        let found = seen.get(*name).map_or("(no such line)", String::as_str);
        if found != *value {
            wrong.push(format!("{name}: expected {value:?}, saw {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn own_namespace(kind: &str) -> String {
    fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().to_string_lossy().into_owned()
}

/// Descriptors, core size and locked memory: the host's own bound counts where it is lower.
fn limits() -> String {
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX);
    format!("{} 0 65536", most.min(100_000))
}

#[test]
fn a_launched_program_stands_behind_every_wall() {
    let assets = tempfile::tempdir().unwrap();
    let supervisor = Supervisor::spawner(assets.path());
    let cell = supervisor.make(CellKind::Launcher, Without::NOTHING);
    let map = format!("1000 {} 1", cell.uid);
    let seen = look_around(cell);

    for kind in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        assert_ne!(seen[&format!("ns {kind}")], own_namespace(kind), "{kind} namespace");
    }
    let zero = "0000000000000000";
    check(
        &seen,
        &[
            ("CapInh", zero),
            ("CapPrm", zero),
            ("CapEff", zero),
            ("CapBnd", zero),
            ("CapAmb", zero),
            ("NoNewPrivs", "1"),
            ("Seccomp", "2"),
            ("Seccomp_filters", "1"),
            ("Groups", ""),
            ("NSpid", "1"),
            ("ids", "1000 1000"),
            ("uid_map", &map),
            ("host", "fn"),
            ("cwd", "/"),
            ("descriptors", "0 1 2"),
            ("stdin", "/dev/null"),
        ],
    );
}

#[test]
fn a_guest_sees_its_own_files_only() {
    let assets = tempfile::tempdir().unwrap();
    let supervisor = Supervisor::spawner(assets.path());
    let seen = look_around(supervisor.make(CellKind::Launcher, Without::NOTHING));
    check(
        &seen,
        &[
            ("list /", "bin code dev etc home lib lib64 opt proc root rt run sbin tmp usr var w"),
            ("list /dev", "fd full null random shm stderr stdin stdout urandom zero"),
            ("list /code", "lib"),
            ("list /root", ""),
            ("list /home", ""),
            ("list /run", ""),
            ("list /sys", "ENOENT"),
            ("read shadow", "ENOENT"),
            ("read passwd", "fn:x:1000:1000::/tmp:/bin/sh"),
            ("read resolv.conf", "nameserver 192.0.2.53"),
            ("proc others", "self thread-self"),
            ("proc sys", "ENOENT"),
            ("proc comm", "EACCES"),
            ("write /x", "EROFS"),
            ("write /usr/x", "EROFS"),
            ("write /etc/x", "EROFS"),
            ("write /code/x", "EROFS"),
            ("write /opt/x", "EROFS"),
            ("write /rt/x", "EROFS"),
            ("write /dev/x", "EROFS"),
            ("write /w/x", "EROFS"),
            ("write /tmp/x", "ok"),
            ("write /var/tmp/y", "ok"),
            ("write /dev/shm/x", "ok"),
            ("write /dev/null", "ok"),
            ("write /dev/stderr", "ok"),
            ("script in /tmp", "ran"),
            ("fill /tmp", "ENOSPC"),
            ("fill /dev/shm", "ENOSPC"),
            ("files in /tmp", "ENOSPC"),
            ("sparse file", "EFBIG"),
            ("limits", &limits()),
            ("threads", "ok"),
            ("multiprocessing", "[1, 2]"),
            ("subprocess", "ran"),
        ],
    );
}

#[test]
fn mounts_tell_nothing_about_where_the_platform_lives() {
    let assets = tempfile::tempdir().unwrap();
    let supervisor = Supervisor::spawner(assets.path());
    let seen = look_around(supervisor.make(CellKind::Launcher, Without::NOTHING));
    for source in seen["mounts"].split(' ') {
        assert!(source == "/" || source.starts_with("/usr") || source.starts_with("/etc/"), "{source}");
    }
}

#[test]
fn the_filter_stands_between_a_guest_and_the_kernel() {
    let assets = tempfile::tempdir().unwrap();
    let supervisor = Supervisor::spawner(assets.path());
    let seen = look_around(supervisor.make(CellKind::Launcher, Without::NOTHING));
    let absent = ["clone3", "io_uring_setup", "x32 getpid", "unknown", "splice"];
    for (name, answer) in seen.iter().filter_map(|(name, answer)| Some((name.strip_prefix("call ")?, answer))) {
        let expected = if absent.contains(&name) { "ENOSYS" } else { "EPERM" };
        assert_eq!(answer, expected, "{name}");
    }
    check(
        &seen,
        &[
            ("socket unix", "ok"),
            ("socket inet", "ok"),
            ("socket inet6", "ok"),
            ("socket raw", "EPERM"),
            ("socket ping", "EPROTONOSUPPORT"),
            ("socket mptcp", "EPROTONOSUPPORT"),
            ("socket packet", "EAFNOSUPPORT"),
            ("socket netlink", "EAFNOSUPPORT"),
            ("socket alg", "EAFNOSUPPORT"),
            ("socket vsock", "EAFNOSUPPORT"),
            ("socket xdp", "EAFNOSUPPORT"),
            ("multicast", "EPERM"),
            ("mark", "EPERM"),
            ("loopback", "ok"),
            ("outside", "ENETUNREACH"),
        ],
    );
}

/// Each wall is really the one that holds: without it, a probe sees something else.
#[test]
fn leaving_a_wall_out_shows() {
    let assets = tempfile::tempdir().unwrap();
    let supervisor = Supervisor::spawner(assets.path());
    let look = |without: Without| look_around(supervisor.make(CellKind::Launcher, without));
    let full = "000001ffffffffff";

    check(&look(Wall::Seccomp.into()), &[("Seccomp", "0"), ("call mincore", "ok"), ("socket netlink", "ok")]);
    // The second wall: the limit on namespaces holds without the filter, and the other way round.
    check(&look(Wall::Seccomp.into()), &[("call unshare user", "ENOSPC")]);
    check(&look(Without::from(Wall::Seccomp).and(Wall::NamespaceLimit)), &[("call unshare user", "ok")]);
    check(&look(Wall::Landlock.into()), &[("proc comm", "ok"), ("write /x", "EROFS")]);
    check(&look(Wall::Capabilities.into()), &[("CapBnd", full)]);
    check(&look(Wall::NoNewPrivs.into()), &[("NoNewPrivs", "0"), ("Seccomp", "0")]);
    check(
        &look(Without::from(Wall::ReadOnlyRoot).and(Wall::Landlock).and(Wall::HostUid).and(Wall::UserNamespace)),
        &[("write /x", "ok"), ("write /w/x", "ok")],
    );
    let seen = look(Wall::UserNamespace.into());
    assert_eq!(seen["ns user"], own_namespace("user"));
    check(&look(Wall::HostUid.into()), &[("uid_map", "1000 0 1")]);
    assert_eq!(look(Wall::NetNamespace.into())["ns net"], own_namespace("net"));
    assert_eq!(look(Wall::Ipc.into())["ns ipc"], own_namespace("ipc"));
    assert_eq!(look(Wall::CgroupNamespace.into())["ns cgroup"], own_namespace("cgroup"));
    assert_eq!(look(Wall::PidNamespace.into())["ns pid"], own_namespace("pid"));
    assert_ne!(look(Wall::PrivateProc.into())["proc sys"], "ENOENT");
    assert_ne!(look(Wall::Descriptors.into())["descriptors"], "0 1 2");
    assert_ne!(look(Wall::Rlimits.into())["limits"], limits());
}

#[test]
fn a_program_can_keep_its_channel() {
    let assets = tempfile::tempdir().unwrap();
    let supervisor = Supervisor::spawner(assets.path());
    let mut cell = supervisor.make(CellKind::Launcher, Without::NOTHING);
    cell.exec(KEEP_CHANNEL, &["sh", "-c", "printf '%s' \"$A\"; cat <&3 >&2"], &["PATH=/usr/bin:/bin", "A=given "]);
    cell.channel.write_all(b"through the channel").unwrap();
    cell.channel.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(cell.output(), "given through the channel");
}

#[test]
fn a_program_that_is_not_there_is_reported() {
    let assets = tempfile::tempdir().unwrap();
    let supervisor = Supervisor::spawner(assets.path());
    for (program, errno) in [("no-such-program", 2), ("/usr/no-such-program", 2), ("/etc/passwd", 13)] {
        let mut cell = supervisor.make(CellKind::Launcher, Without::NOTHING);
        cell.exec(0, &[program], &ENVIRONMENT);
        let (kind, head, body) = cell.frame().expect("an Error frame");
        assert_eq!((kind, head.as_str()), (19, ""));
        assert!(body.starts_with(&format!("{errno} cannot start {program}: ")), "{body}");
        assert!(cell.ends());
    }
}

#[test]
fn a_launcher_ends_when_nobody_wants_it_any_more() {
    let assets = tempfile::tempdir().unwrap();
    let supervisor = Supervisor::spawner(assets.path());
    let cell = supervisor.make(CellKind::Launcher, Without::NOTHING);
    cell.channel.shutdown(std::net::Shutdown::Both).unwrap();
    assert!(cell.ends());
}

#[test]
fn a_failing_step_is_named() {
    let assets = tempfile::tempdir().unwrap();
    let supervisor = Supervisor::spawner(assets.path());
    let not_writable = fs::File::open("/dev/null").unwrap();
    let mut cell = supervisor.make_with_cgroup(&not_writable);
    let (kind, head, body) = cell.frame().expect("an Error frame");
    assert_eq!((kind, head.as_str()), (19, ""));
    assert!(body.starts_with("9 cannot join the cgroups: "), "{body}");
    assert!(cell.ends());
    // And the spawner serves on.
    let _next = supervisor.make(CellKind::Launcher, Without::NOTHING);
}

#[test]
fn an_unpacker_gets_its_package_on_descriptor_4() {
    let assets = tempfile::tempdir().unwrap();
    let supervisor = Supervisor::spawner(assets.path());
    let path = assets.path().join("package");
    fs::write(&path, "a package").unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let mut cell = supervisor.make_unpacker(&fs::File::open(&path).unwrap());
    assert_eq!(cell.output(), "a package\n");
}

#[test]
fn making_a_cell_is_quick_enough_to_be_measured_here() {
    let assets = tempfile::tempdir().unwrap();
    let supervisor = Supervisor::spawner(assets.path());
    let mut times = Vec::new();
    for _ in 0..50 {
        let started = Instant::now();
        let mut cell = supervisor.make(CellKind::Launcher, Without::NOTHING);
        let answered = started.elapsed();
        // A frame that is not Exec: the launcher answers once its walls stand.
        cell.channel.write_all(&[0; 32]).unwrap();
        assert_eq!(cell.frame().expect("an Error frame").0, 19);
        times.push((started.elapsed(), answered));
    }
    times.sort();
    eprintln!("make: median {:?} to the launcher, of which {:?} to the reply", times[25].0, times[25].1);
}

#[test]
fn a_cell_dies_with_the_thread_that_started_its_spawner() {
    let assets = tempfile::tempdir().unwrap();
    let path = assets.path().to_owned();
    let orphan = std::thread::spawn(move || {
        let supervisor = Supervisor::spawner(&path);
        let mut cell = supervisor.make(CellKind::Launcher, Without::NOTHING);
        cell.exec(0, &["sleep", "1000"], &ENVIRONMENT);
        // End-of-file: the program runs, so the walls stood, the death signal among them.
        assert_eq!(cell.frame(), None);
        cell
    });
    let cell = orphan.join().unwrap();
    assert!(cell.ends());
}

#[test]
fn node_runs_behind_the_walls() {
    let assets = tempfile::tempdir().unwrap();
    let supervisor = Supervisor::spawner(assets.path());
    let mut cell = supervisor.make(CellKind::Launcher, Without::NOTHING);
    let script = r#"
        const { Worker } = require('worker_threads'), { execFileSync } = require('child_process'), http = require('http');
        const worker = new Worker("require('worker_threads').parentPort.postMessage('thread')", { eval: true });
        worker.on('message', said => {
            const child = execFileSync('/bin/echo', ['child']).toString().trim();
            require('fs').writeFileSync('/tmp/f', 'file');
            const server = http.createServer((_, response) => response.end('http')).listen(0, '127.0.0.1', () => {
                http.get({ port: server.address().port }, response => response.on('data', body => {
                    console.log(said, child, require('fs').readFileSync('/tmp/f').toString(), body.toString());
                    process.exit(0);
                }));
            });
        });
    "#;
    cell.exec(0, &["/usr/bin/node", "-e", script], &ENVIRONMENT);
    assert_eq!(cell.output(), "thread child file http\n");
}
