//! Functions that try to read, disturb or outlive what is not theirs, on the real platform.
//!
//! Each row is one function in one instance and one claim about what it could do. A neighbour function is called all the
//! time and never notices. An instance is gone soon after its function was deleted. When all rows are done every call
//! has left one record, and once the platform has stopped nothing of it is left on the host.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dunlin_testkit::{Platform, Response};
use libtest_mimic::{Arguments, Trial};
use serde_json::{Value, json};

#[path = "hostile/rows.rs"]
mod rows;
#[path = "hostile/wasm.rs"]
mod wasm;

use rows::{ROWS, Row};

const PROBE: &str = include_str!("hostile/probe.py");

static SERIAL: AtomicU32 = AtomicU32::new(0);

/// How many calls this suite has made, and how many of them were the neighbour's.
static CALLS: AtomicU64 = AtomicU64::new(0);
static NEIGHBOURS: AtomicU64 = AtomicU64::new(0);
/// How many functions there are: the neighbour to begin with.
static ALIVE: AtomicUsize = AtomicUsize::new(1);
/// What the neighbour's caller saw that it should not have seen.
static DISTURBED: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn call(platform: &Platform, name: &str, event: &[u8]) -> Result<Response> {
    CALLS.fetch_add(1, Ordering::Relaxed);
    platform.api.invoke(name, event)
}

/// Calls the neighbour until `stop`.
fn keep_calling(platform: &Platform, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        match call(platform, "neighbour", b"still here") {
            Ok(reply) if reply.status == 200 && reply.body == b"still here" => {}
            Ok(reply) => disturbed().push(format!("{}: {}", reply.status, reply.text())),
            Err(error) => disturbed().push(format!("{error:#}")),
        }
        NEIGHBOURS.fetch_add(1, Ordering::Release);
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

fn disturbed() -> MutexGuard<'static, Vec<String>> {
    DISTURBED.lock().expect("nothing panics while it holds it")
}

/// Nothing has happened to the neighbour, and it answers once more from now on.
fn neighbour_answers(_: &Platform) -> Result<()> {
    let before = NEIGHBOURS.load(Ordering::Acquire);
    // The call that is on its way may have begun earlier.
    ensure!(wait_until(|| NEIGHBOURS.load(Ordering::Acquire) >= before + 2), "the neighbour does not answer");
    let seen = std::mem::take(&mut *disturbed());
    ensure!(seen.is_empty(), "the neighbour was disturbed: {seen:?}");
    Ok(())
}

/// Creates a function from `code`, calls it once and deletes it.
fn run(platform: &Platform, code: &str, members: Value) -> Result<Response> {
    let name = create(platform, code, members)?;
    let reply = call(platform, &name, b"")?;
    delete(platform, &name)?;
    Ok(reply)
}

fn create(platform: &Platform, code: &str, members: Value) -> Result<String> {
    let name = format!("hostile-{}", SERIAL.fetch_add(1, Ordering::Relaxed));
    create_from(platform, &name, &[("index.py", &index(code)), ("probe.py", PROBE)], members)?;
    Ok(name)
}

fn create_from(platform: &Platform, name: &str, files: &[(&str, &str)], members: Value) -> Result<()> {
    platform.api.create(name, "python3.10", files, members)?;
    ALIVE.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

fn index(code: &str) -> String {
    format!("from probe import *\n\ndef handler(event, context):{code}\n")
}

/// Deletes a function and waits for the end of its instances, which is due at once.
fn delete(platform: &Platform, name: &str) -> Result<()> {
    let left = ALIVE.fetch_sub(1, Ordering::Relaxed) - 1;
    let deleted = platform.api.json("DELETE", &format!("/functions/{name}"), "DeleteFunction", &Value::Null)?;
    ensure!(deleted.status == 204, "DeleteFunction answered {}", deleted.status);
    let gone = wait_until(|| bound(&platform.data).len() <= left);
    ensure!(gone, "an instance outlives its function: {:?}", bound(&platform.data));
    Ok(())
}

/// The packages that processes of the platform at `data` have mounted as their code.
fn bound(data: &Path) -> BTreeSet<String> {
    let folder = data.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
    let trees = format!("{folder}/data/trees/");
    let Ok(processes) = fs::read_dir("/proc") else { return BTreeSet::new() };
    let tables = processes.flatten().filter_map(|process| fs::read_to_string(process.path().join("mountinfo")).ok());
    let package = |line: &str| {
        let mut words = line.split(' ').skip(3);
        let (root, place) = (words.next()?, words.next()?);
        (place == "/code").then_some(())?;
        Some(root.split_once(&trees)?.1.to_owned())
    };
    tables.flat_map(|table| table.lines().filter_map(package).collect::<Vec<_>>()).collect()
}

fn members(memory: u32) -> Value {
    json!({ "memorySize": memory, "timeout": 60, "cpu": 0.5, "internetAccess": false })
}

fn check_row(platform: &Platform, row: &Row) -> Result<()> {
    let reply = run(platform, row.code, members(row.memory))?;
    ensure!(reply.header("x-fc-error-type").is_none(), "the function failed: {}", reply.text());
    let answer = reply.json()?;
    for (member, words) in row.expected {
        let actual = answer[member].as_str().with_context(|| format!("{member} is absent in {answer}"))?;
        ensure!(words.contains(&actual), "{member} is {actual:?}, expected one of {words:?}");
    }
    neighbour_answers(platform)
}

fn error_of(reply: &Response) -> Result<(String, String)> {
    let kind = reply.header("x-fc-error-type").with_context(|| format!("no error: {}", reply.text()))?.to_owned();
    Ok((kind, reply.json()?["errorMessage"].as_str().unwrap_or_default().to_owned()))
}

/// Ways to more memory than one has. Each ends in the out-of-memory error, whoever the kernel chose to kill.
const BOMBS: &[(&str, &str)] = &[
    (
        "heap",
        "
    held = []
    while True:
        held.append(bytearray(8 << 20))",
    ),
    (
        "mmap",
        "
    import mmap
    held = []
    while True:
        held.append(mmap.mmap(-1, 32 << 20, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | 0x8000))",
    ),
    (
        "memfd",
        "
    held = os.memfd_create('x')
    while True:
        os.write(held, bytes(8 << 20))",
    ),
    (
        "System V",
        "
    shmat = libc.shmat
    shmat.restype = ctypes.c_void_p
    while True:
        ctypes.memset(shmat(libc.shmget(0, 8 << 20, 0o1600), None, 0), 1, 8 << 20)",
    ),
    (
        "sockets",
        "
    import socket
    held = []
    while True:
        a, b = socket.socketpair()
        a.setblocking(False)
        held += [a, b]
        try:
            while True:
                a.send(bytes(65536))
        except BlockingIOError:
            pass",
    ),
    (
        "a child",
        "
    child = os.fork()
    if child == 0:
        held = []
        while True:
            held.append(bytearray(8 << 20))
    os.waitpid(child, 0)
    import time
    time.sleep(30)
    return 'survived its child'",
    ),
];

fn memory_bombs_end_the_instance_as_a_whole_and_no_other(platform: &Platform) -> Result<()> {
    for (bomb, code) in BOMBS {
        let reply = run(platform, code, json!({"memorySize": 256, "timeout": 60, "cpu": 0.25, "internetAccess": false}))?;
        let (kind, message) = error_of(&reply).with_context(|| (*bomb).to_owned())?;
        ensure!(kind == "UnhandledInvocationError" && message.contains("out of memory"), "{bomb}: {kind}: {message}");
        neighbour_answers(platform).with_context(|| (*bomb).to_owned())?;
    }
    Ok(())
}

fn a_spin_is_killed_at_its_timeout(platform: &Platform) -> Result<()> {
    let spin = "\n    import threading\n    def burn():\n        while True: pass\n    [threading.Thread(target=burn).start() for _ in range(8)]\n    burn()";
    let reply = run(platform, spin, json!({"memorySize": 256, "timeout": 1, "internetAccess": false}))?;
    let (kind, message) = error_of(&reply)?;
    ensure!(kind == "UnhandledInvocationError" && message.contains("timed out after 1 second"), "{kind}: {message}");
    let took = reply.header("x-fc-invocation-duration").context("a duration")?.parse::<f64>()?;
    ensure!(took >= 1000.0, "killed before its time, after {took} ms");
    neighbour_answers(platform)
}

/// What one version left in `/tmp` and in memory is not there for the next.
fn a_new_version_starts_clean(platform: &Platform) -> Result<()> {
    let look = "
    import builtins
    seen = [p for p in ('/tmp/left', '/dev/shm/left') if os.path.exists(p)] + [str(hasattr(builtins, 'left'))]
    for p in ('/tmp/left', '/dev/shm/left'):
        open(p, 'w').close()
    builtins.left = 1
    return {'seen': str(seen)}";
    let name = create(platform, look, members(512))?;
    ensure!(call(platform, &name, b"")?.json()?["seen"] == "['False']", "the first call found something");
    ensure!(
        call(platform, &name, b"")?.json()?["seen"] == "['/tmp/left', '/dev/shm/left', 'True']",
        "the instance was not used again"
    );
    let update = json!({ "environmentVariables": {"A": "1"} });
    let updated = platform.api.json("PUT", &format!("/functions/{name}"), "UpdateFunction", &update)?;
    ensure!(updated.status == 200, "UpdateFunction answered {}: {}", updated.status, updated.text());
    let after = call(platform, &name, b"")?.json()?;
    ensure!(after["seen"] == "['False']", "the new version found {after}");
    delete(platform, &name)?;
    neighbour_answers(platform)
}

/// Descriptor 3 is the platform's: who writes nonsense there loses the instance, and nobody else anything.
fn nonsense_on_the_wire_ends_the_instance_only(platform: &Platform) -> Result<()> {
    for nonsense in [r"b'\xff' * 4096", r"b'\x12' + bytes(31)", r"b'\x11' + bytes(7) + b'\xff' * 8 + bytes(16)"] {
        let name = create(platform, &format!("\n    os.write(3, {nonsense})\n    return 'an answer'"), members(512))?;
        for _ in 0..2 {
            let reply = call(platform, &name, b"")?;
            let (kind, _) = error_of(&reply).with_context(|| nonsense.to_owned())?;
            ensure!(reply.status < 500 && !kind.is_empty(), "{nonsense}: {} {}", reply.status, reply.text());
        }
        delete(platform, &name)?;
    }
    neighbour_answers(platform)
}

fn an_answer_beyond_the_limit_is_refused(platform: &Platform) -> Result<()> {
    let reply = run(platform, "\n    return b'x' * (40 << 20)", members(1024))?;
    ensure!(reply.header("x-fc-error-type").is_some() || (400..500).contains(&reply.status), "{}", reply.status);
    ensure!(reply.body.len() < 1 << 20, "{} bytes came", reply.body.len());
    neighbour_answers(platform)
}

fn an_output_flood_is_cut_and_hinders_nobody(platform: &Platform) -> Result<()> {
    let flood = "\n    import sys\n    line = 'x' * (1 << 20)\n    for _ in range(64):\n        sys.stdout.write(line)\n    sys.stdout.write('\\n')\n    return 'done'";
    let reply = run(platform, flood, members(512))?;
    ensure!(reply.header("x-fc-error-type").is_none() && reply.text().contains("done"), "{}", reply.text());
    neighbour_answers(platform)
}

fn canaries_of_others_are_nowhere_to_be_found(platform: &Platform) -> Result<()> {
    let canary = format!("canary-{}", std::process::id());
    let owner = [("index.py", "def handler(e, c):\n    return 'x'\n"), ("secret.txt", canary.as_str())];
    create_from(platform, "owner", &owner, json!({"environmentVariables": {"SECRET": canary}}))?;
    ensure!(call(platform, "owner", b"")?.status == 200, "the owner's function does not run");
    // The name is put together at run time, so that the thief's own code does not hold it.
    let (head, tail) = canary.split_at(4);
    let walk = format!(
        "
    needle = ('{head}' + '{tail}').encode()
    import stat
    found = []
    # What a search that works does find.
    with open('/tmp/own', 'wb') as f:
        f.write(needle)
    for folder, folders, files in os.walk('/'):
        if folder == '/usr':
            folders[:] = []
            continue
        for name in files:
            path = os.path.join(folder, name)
            try:
                # Reading its own pipes would wait for ever.
                if not stat.S_ISREG(os.stat(path).st_mode):
                    continue
                with open(path, 'rb') as f:
                    if needle in f.read(1 << 20):
                        found.append(path)
            except OSError:
                pass
    return {{'found': str(found)}}"
    );
    let answer = run(platform, &walk, members(512))?.json()?;
    delete(platform, "owner")?;
    ensure!(answer["found"] == "['/w/tmp/own']", "{answer}");
    neighbour_answers(platform)
}

fn host_ports_and_sockets_are_out_of_reach(platform: &Platform) -> Result<()> {
    let abstract_name = format!("dunlin-hostile-{}", std::process::id());
    let address = <std::os::unix::net::SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(&abstract_name)?;
    let _listener = UnixListener::bind_addr(&address)?;
    let port = platform.address().rsplit(':').next().context("an address has a port")?.to_owned();
    let connect = format!(
        "
    import socket
    def tcp(host):
        return attempt(lambda: socket.create_connection((host, {port}), 2))
    out = {{h: tcp(h) for h in ('127.0.0.1', '0.0.0.0', '::1', '::ffff:127.0.0.1', '169.254.169.254', '10.0.0.1', '192.168.0.1', '192.0.2.53', '1.1.1.1')}}
    s = socket.socket(socket.AF_UNIX)
    out['abstract'] = attempt(lambda: s.connect('\\0{abstract_name}'))
    return out"
    );
    let answer = run(platform, &connect, members(512))?.json()?;
    for (target, result) in answer.as_object().context("an object")? {
        let words = [
            "ECONNREFUSED",
            "ENETUNREACH",
            "EHOSTUNREACH",
            "EPERM",
            "EACCES",
            "TimeoutError",
            "ETIMEDOUT",
            "EADDRNOTAVAIL",
            "timed out",
        ];
        ensure!(words.contains(&result.as_str().unwrap_or_default()), "{target}: {result}");
    }
    neighbour_answers(platform)
}

fn a_crash_loop_at_load_leaves_others_alone(platform: &Platform) -> Result<()> {
    let files = [("index.py", "import os\nos.abort()\n")];
    create_from(platform, "crasher", &files, json!({"internetAccess": false}))?;
    for _ in 0..3 {
        let reply = call(platform, "crasher", b"")?;
        let (kind, message) = error_of(&reply)?;
        ensure!(message.to_lowercase().contains("exited"), "{kind}: {message}");
        neighbour_answers(platform)?;
    }
    delete(platform, "crasher")
}

fn a_daemon_does_not_outlive_its_function(platform: &Platform) -> Result<()> {
    let daemon = "
    import signal
    if os.fork() == 0:
        os.setsid()
        for s in range(1, 65):
            try: signal.signal(s, signal.SIG_IGN)
            except (OSError, ValueError): pass
        if os.fork() == 0:
            import ctypes
            libc.prctl(15, b'outliving', 0, 0, 0)
            while True: signal.pause()
        os._exit(0)
    return {'ok': 'yes'}";
    ensure!(run(platform, daemon, members(512))?.json()?["ok"] == "yes", "the daemon was not started");
    // Deleting the function ends its instances; the daemon goes with the first process.
    let gone = wait_until(|| processes_named("outliving").is_empty());
    ensure!(gone, "the daemon is still there: {:?}", processes_named("outliving"));
    neighbour_answers(platform)
}

/// Long enough for any machine; reached only when something hangs.
const HANG: Duration = Duration::from_secs(30);

fn wait_until(condition: impl Fn() -> bool) -> bool {
    let started = Instant::now();
    while !condition() {
        if started.elapsed() > HANG {
            return false;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    true
}

fn processes_named(name: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == name))
        .collect()
}

type Check = fn(&Platform) -> Result<()>;

const CHECKS: &[(&str, Check)] = &[
    ("c03_c04_memory_bombs_end_the_instance_as_a_whole_and_no_other", memory_bombs_end_the_instance_as_a_whole_and_no_other),
    ("c05_a_spin_is_killed_at_its_timeout", a_spin_is_killed_at_its_timeout),
    ("c11_an_output_flood_is_cut_and_hinders_nobody", an_output_flood_is_cut_and_hinders_nobody),
    ("c17_canaries_of_others_are_nowhere_to_be_found", canaries_of_others_are_nowhere_to_be_found),
    ("c26_a_new_version_starts_clean", a_new_version_starts_clean),
    ("c40_c45_c46_host_ports_and_sockets_are_out_of_reach", host_ports_and_sockets_are_out_of_reach),
    ("c52_nonsense_on_the_wire_ends_the_instance_only", nonsense_on_the_wire_ends_the_instance_only),
    ("c55_an_answer_beyond_the_limit_is_refused", an_answer_beyond_the_limit_is_refused),
    ("c70_bombs_end_their_call_only", wasm::c70_bombs_end_their_call_only),
    ("c70_no_path_leads_out", wasm::c70_no_path_leads_out),
    ("c70_bombs_for_the_compiler_are_refused", wasm::c70_bombs_for_the_compiler_are_refused),
    ("c70_compiled_code_is_not_taken_from_a_package", wasm::c70_compiled_code_is_not_taken_from_a_package),
    ("c59_c60_a_daemon_does_not_outlive_its_function", a_daemon_does_not_outlive_its_function),
    ("c61_a_crash_loop_at_load_leaves_others_alone", a_crash_loop_at_load_leaves_others_alone),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One platform and two cores: rows take turns.
    arguments.test_threads = Some(1);
    if arguments.list {
        let none = CHECKS.iter().map(|(name, _)| *name).chain(ROWS.iter().map(|row| row.claim));
        let trials = none.map(|name| Trial::test(name, || Ok(()))).collect();
        return libtest_mimic::run(&arguments, trials).exit_code();
    }
    let platform = Arc::new(Platform::fresh().expect("the platform starts"));
    platform
        .api
        .create("neighbour", "python3.10", &[("index.py", "def handler(event, context):\n    return event\n")], json!({}))
        .expect("the neighbour is created");
    let stop = Arc::new(AtomicBool::new(false));
    let caller = {
        let (platform, stop) = (Arc::clone(&platform), Arc::clone(&stop));
        std::thread::spawn(move || keep_calling(&platform, &stop))
    };
    let mut trials = Vec::new();
    for row in ROWS {
        let platform = Arc::clone(&platform);
        trials.push(Trial::test(row.claim, move || check_row(&platform, row).map_err(|error| format!("{error:#}").into())));
    }
    for (name, check) in CHECKS {
        let platform = Arc::clone(&platform);
        trials.push(Trial::test(*name, move || check(&platform).map_err(|error| format!("{error:#}").into())));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    stop.store(true, Ordering::Relaxed);
    caller.join().expect("the neighbour's caller does not panic");
    let platform = Arc::into_inner(platform).expect("every trial has ended");
    let printed = platform.printed();
    let end = every_call_left_a_record(&platform).and(nothing_is_left(platform));
    if let Err(error) = &end {
        eprintln!("FAILED at the end: {error:#}");
    }
    if conclusion.has_failed() || end.is_err() {
        eprintln!("--- the platform printed:\n{printed}");
    }
    if end.is_err() { ExitCode::FAILURE } else { conclusion.exit_code() }
}

/// The metrics are made of the records the calls leave.
fn every_call_left_a_record(platform: &Platform) -> Result<()> {
    let recorded = || -> Result<u64> {
        let headers = [("host".to_owned(), platform.address().to_owned())];
        let text = platform.connect()?.request("GET", "/-/metrics", &headers, b"")?.text();
        let counts = text.lines().filter(|line| line.starts_with("dunlin_calls_total"));
        counts.map(|line| Ok(line.rsplit(' ').next().unwrap_or_default().parse::<u64>()?)).sum()
    };
    let made = CALLS.load(Ordering::Relaxed);
    wait_until(|| recorded().is_ok_and(|count| count == made));
    let recorded = recorded()?;
    ensure!(recorded == made, "{made} calls left {recorded} records");
    Ok(())
}

/// Stops the platform and looks for what it may have forgotten.
fn nothing_is_left(platform: Platform) -> Result<()> {
    let data = platform.data.clone();
    let id = fs::read_to_string(data.join("installation"))?.trim().to_owned();
    let (group, folder) = (format!("dunlin-{id}"), data.to_string_lossy().into_owned());
    let processes = || -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        let ours = |path: &PathBuf| {
            let has = |file: &str, text: &str| fs::read_to_string(path.join(file)).is_ok_and(|found| found.contains(text));
            has("cgroup", &group) || has("cmdline", &folder)
        };
        entries.flatten().map(|entry| entry.path()).filter(ours).collect()
    };
    ensure!(!processes().is_empty(), "the search for processes finds none while the platform runs");
    ensure!(!groups(&group).is_empty(), "the search for control groups finds none while the platform runs");
    // The data directory goes with the platform, so what is mounted below it must be gone before.
    let status = platform.stop()?;
    ensure!(status.success(), "the platform ended with {status}");
    ensure!(processes().is_empty(), "processes are left: {:?}", processes());
    ensure!(groups(&group).is_empty(), "control groups are left: {:?}", groups(&group));
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    ensure!(!mounts.contains(&folder) && !mounts.contains(&id), "mounts are left");
    let links: Vec<_> = fs::read_dir("/sys/class/net")?.flatten().map(|link| link.file_name()).collect();
    ensure!(links.iter().all(|link| !link.to_string_lossy().contains(&id)), "links are left: {links:?}");
    let rules = std::process::Command::new("nft").args(["list", "tables"]).output()?;
    ensure!(!String::from_utf8_lossy(&rules.stdout).contains(&id), "firewall rules are left");
    Ok(())
}

/// Every control group of this name, in every hierarchy.
fn groups(name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut level = vec![PathBuf::from("/sys/fs/cgroup")];
    for _ in 0..5 {
        let folders = level.iter().filter_map(|folder| fs::read_dir(folder).ok()).flat_map(|entries| entries.flatten());
        level = folders.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect();
        found.extend(level.iter().filter(|path| path.ends_with(name)).cloned());
    }
    found
}
