//! What each wall is for: the same attempt, once behind all walls and once with the walls that keep it left out.
//!
//! An attempt prints `denied` or `breached`. A row holds when it is denied behind all walls and breached without the ones
//! it names: an attempt that fails anyway would prove nothing. The shipped binary cannot leave a wall out; this harness links
//! the supervisor itself.

use std::io::Read as _;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use dunlin_sandbox::harness::Harness;
use dunlin_sandbox::supervisor::Config;
use dunlin_sandbox::{Bind, CellKind, Client, Net, Sandboxes as _};
use dunlin_walls::{Wall, Without};
use libtest_mimic::{Arguments, Trial};

const PROBE: &str = include_str!("hostile/probe.py");

struct Row {
    claim: &'static str,
    walls: &'static [Wall],
    /// Python; ends with `verdict(breached)`.
    attempt: &'static str,
}

const SECCOMP: &[Wall] = &[Wall::Seccomp];

const ROWS: &[Row] = &[
    Row {
        claim: "c01_processes_are_counted",
        walls: &[Wall::Cgroups],
        attempt: "
import signal
count = 0
try:
    while count < 200:
        if os.fork() == 0:
            signal.pause()
        count += 1
except OSError:
    pass
verdict(count >= 200)",
    },
    Row {
        claim: "c03_memory_is_counted",
        walls: &[Wall::Cgroups],
        attempt: "
# A child is what the kernel kills first; then the cell ends as a whole.
child = os.fork()
if child == 0:
    held = bytearray(400 << 20)
    for at in range(0, len(held), 4096):
        held[at] = 1
    os._exit(0)
verdict(os.waitpid(child, 0)[1] == 0)",
    },
    Row {
        claim: "c12_core_dumps_cannot_be_allowed",
        walls: &[Wall::Rlimits],
        attempt: "import resource\nverdict(attempt(lambda: resource.setrlimit(resource.RLIMIT_CORE, (4096, 4096))) == 'ok')",
    },
    Row {
        claim: "c13_memory_cannot_be_locked",
        walls: &[Wall::Rlimits],
        attempt: "
import mmap
held = mmap.mmap(-1, 1 << 20)
address = ctypes.addressof(ctypes.c_char.from_buffer(held))
verdict(libc.mlock(ctypes.c_void_p(address), 1 << 20) == 0)",
    },
    Row {
        claim: "c07_c08_tmp_is_bounded",
        walls: &[Wall::TmpSize],
        attempt: "
try:
    for n in range(20_000):
        os.close(os.open(f'/tmp/{n}', os.O_CREAT | os.O_WRONLY))
    breached = True
except OSError:
    breached = False
verdict(breached)",
    },
    Row {
        claim: "c09_the_root_is_read_only",
        walls: &[Wall::ReadOnlyRoot, Wall::Landlock, Wall::HostUid, Wall::UserNamespace, Wall::Capabilities],
        attempt: "verdict(attempt(lambda: open('/opt/x', 'w')) == 'ok')",
    },
    Row {
        claim: "c14_no_message_queues",
        walls: &[Wall::Seccomp, Wall::Rlimits, Wall::Landlock],
        attempt: "
result = syscall(240, b'q', os.O_CREAT | os.O_RDWR, 0o600, 0)
print(result)
verdict(result == 'ok')",
    },
    Row { claim: "c14_ipc_objects_are_its_own", walls: &[Wall::Ipc], attempt: "verdict(namespace('ipc') == HOST['ipc'])" },
    Row {
        claim: "c17_c18_other_processes_are_not_in_proc",
        walls: &[Wall::PrivateProc, Wall::PidNamespace],
        attempt: "verdict(len([p for p in os.listdir('/proc') if p.isdigit()]) > 5)",
    },
    Row {
        claim: "c21_no_descriptor_leaks_in",
        walls: &[Wall::Descriptors],
        attempt: "verdict(any(attempt(lambda: os.fstat(n)) == 'ok' for n in range(4, 64)))",
    },
    Row {
        claim: "c22_proc_self_cannot_be_written",
        walls: &[Wall::Landlock],
        attempt: "verdict(attempt(lambda: open('/proc/self/comm', 'w').write('x')) == 'ok')",
    },
    Row {
        claim: "c18_proc_has_no_kernel_settings",
        walls: &[Wall::PrivateProc],
        attempt: "verdict(os.path.exists('/proc/sys/kernel/core_pattern') and os.path.exists('/proc/kallsyms'))",
    },
    Row {
        claim: "c24_the_host_name_is_hidden",
        walls: &[Wall::Uts],
        attempt: "import socket\nverdict(socket.gethostname() == HOST['name'])",
    },
    Row {
        claim: "c25_keyrings_are_closed",
        walls: SECCOMP,
        attempt: "verdict(syscall(248, b'user', b'k', b'v', 1, -3) == 'ok')",
    },
    Row { claim: "c27_mincore_is_closed", walls: SECCOMP, attempt: "verdict(syscall(27, 0, 0, 0) == 'ok')" },
    Row {
        claim: "c28_the_calls_of_i386_are_closed",
        walls: SECCOMP,
        attempt: "
import mmap
# push rbx; mov eax, 20 (getpid); int 0x80; pop rbx; ret
code = mmap.mmap(-1, 4096, prot=7)
code.write(bytes.fromhex('53 b8 14 00 00 00 cd 80 5b c3'))
call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
child = os.fork()
if child == 0:
    os._exit(0 if call() == os.getpid() else 1)
verdict(os.waitpid(child, 0)[1] == 0)",
    },
    Row {
        claim: "c29_files_have_no_handles",
        walls: SECCOMP,
        attempt: "verdict(syscall(303, -100, b'/usr', 0, 0, 0) not in ('EPERM', 'ENOSYS'))",
    },
    Row {
        claim: "c30_nothing_can_be_mounted",
        walls: &[Wall::Seccomp, Wall::Landlock, Wall::Capabilities, Wall::UserNamespace, Wall::HostUid],
        attempt: "verdict(syscall(165, b'x', b'/tmp', b'tmpfs', 0, 0) == 'ok')",
    },
    Row {
        claim: "c31_no_new_user_namespace",
        walls: &[Wall::Seccomp, Wall::NamespaceLimit],
        attempt: "verdict(syscall(272, 0x10000000) == 'ok')",
    },
    Row {
        claim: "c32_no_netlink_sockets",
        walls: SECCOMP,
        attempt: "import socket\nverdict(attempt(lambda: socket.socket(16, 3)) == 'ok')",
    },
    Row {
        claim: "c33_no_socket_filters",
        walls: SECCOMP,
        attempt: "
import socket, struct
code = ctypes.create_string_buffer(struct.pack('HBBI', 6, 0, 0, 0xffff))
program = struct.pack('HxxxxxxP', 1, ctypes.addressof(code))
# A datagram socket: the kernel itself keeps filters off an unbound stream of somebody without rights.
verdict(attempt(lambda: socket.socket(2, 2).setsockopt(1, 26, program)) == 'ok')",
    },
    Row {
        claim: "c33_no_encapsulation",
        walls: SECCOMP,
        attempt: "import socket\nverdict(attempt(lambda: socket.socket(2, 2).setsockopt(17, 100, 2)) == 'ok')",
    },
    Row {
        claim: "c33_no_multicast_membership",
        walls: SECCOMP,
        attempt: "
import socket
member = socket.inet_aton('224.0.0.251') + socket.inet_aton('127.0.0.1')
verdict(attempt(lambda: socket.socket(2, 2).setsockopt(0, 35, member)) == 'ok')",
    },
    Row {
        claim: "c34_no_splice",
        walls: SECCOMP,
        attempt: "
r, w = os.pipe()
f = os.open('/etc/passwd', os.O_RDONLY)
verdict(attempt(lambda: os.splice(f, w, 10)) == 'ok' if hasattr(os, 'splice') else syscall(275, f, 0, w, 0, 10, 0) == 'ok')",
    },
    Row { claim: "c35_no_tracing", walls: SECCOMP, attempt: "verdict(syscall(101, 1, 0, 0, 0) == 'ESRCH')" },
    Row {
        claim: "c36_no_capabilities",
        walls: &[Wall::Capabilities],
        attempt: "verdict(any(int(l.split()[1], 16) for l in open('/proc/self/status') if l.startswith('Cap')))",
    },
    Row {
        claim: "c36_no_new_privileges",
        walls: &[Wall::NoNewPrivs, Wall::Seccomp, Wall::Landlock],
        attempt: "verdict('NoNewPrivs:\\t0' in open('/proc/self/status').read())",
    },
    Row { claim: "c37_no_special_files", walls: SECCOMP, attempt: "verdict(syscall(133, b'/tmp/trap', 0o10600, 0) == 'ok')" },
    Row {
        claim: "c38_terminal_injection_is_filtered",
        walls: SECCOMP,
        attempt: "verdict(syscall(16, 0, ctypes.c_ulong(0x5412), b'x') == 'ENOTTY')",
    },
    Row {
        claim: "c40_abstract_sockets_of_the_host_are_out_of_reach",
        walls: &[Wall::NetNamespace, Wall::Landlock],
        attempt: "import socket\nverdict(attempt(lambda: socket.socket(socket.AF_UNIX).connect('\\0' + HOST['abstract'])) == 'ok')",
    },
    Row {
        claim: "c41_other_processes_cannot_be_signalled",
        walls: &[Wall::PidNamespace, Wall::HostUid, Wall::UserNamespace, Wall::Landlock],
        attempt: "verdict(attempt(lambda: os.kill(HOST['pid'], 0)) == 'ok')",
    },
    Row { claim: "c42_personality_is_fixed", walls: SECCOMP, attempt: "verdict(syscall(135, 0x40000) == 'ok')" },
    Row {
        claim: "c45_ports_of_the_host_are_out_of_reach",
        walls: &[Wall::NetNamespace],
        attempt: "import socket\nverdict(attempt(lambda: socket.create_connection(('127.0.0.1', HOST['port']), 5)) == 'ok')",
    },
    Row {
        claim: "f2_the_user_namespace_is_its_own",
        walls: &[Wall::UserNamespace],
        attempt: "verdict(namespace('user') == HOST['user'] or open('/proc/self/uid_map').read().split()[2] != '1')",
    },
    Row {
        claim: "f2_the_host_uid_is_its_own",
        walls: &[Wall::HostUid],
        attempt: "verdict(open('/proc/self/uid_map').read().split()[1] == '0')",
    },
    Row {
        claim: "c19_the_cgroup_namespace_is_its_own",
        walls: &[Wall::CgroupNamespace],
        attempt: "verdict(namespace('cgroup') == HOST['cgroup'])",
    },
];

/// What an attempt may know of the host, so that reaching it can be told from reaching a twin.
struct Host {
    facts: String,
    _listeners: (TcpListener, UnixListener),
}

fn host() -> Result<Host> {
    let tcp = TcpListener::bind("127.0.0.1:0")?;
    let name = format!("dunlin-walls-{}", std::process::id());
    let unix = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
    let link = |kind: &str| -> Result<String> { Ok(std::fs::read_link(format!("/proc/self/ns/{kind}"))?.display().to_string()) };
    let facts = serde_json::json!({
        "pid": std::process::id(), "port": tcp.local_addr()?.port(), "abstract": name,
        "name": std::fs::read_to_string("/proc/sys/kernel/hostname")?.trim(),
        "ipc": link("ipc")?, "user": link("user")?, "cgroup": link("cgroup")?,
    });
    Ok(Host { facts: facts.to_string(), _listeners: (tcp, unix) })
}

/// The one frame a launcher waits for.
fn exec_frame(script: &str) -> Vec<u8> {
    let head = format!("/\0/usr/bin/python3\0-I\0-c\0{script}\0").into_bytes();
    let body = b"PATH=/usr/bin:/bin\0HOME=/tmp\0LANG=C.UTF-8\0".to_vec();
    let mut frame = vec![1, 0, 0, 0, 0, 0, 0, 0];
    frame.extend_from_slice(&u32::try_from(head.len()).expect("scripts are short").to_le_bytes());
    frame.extend_from_slice(&u32::try_from(body.len()).expect("three variables").to_le_bytes());
    frame.extend_from_slice(&[0; 16]);
    frame.extend_from_slice(&head);
    frame.extend_from_slice(&body);
    frame
}

fn spawner_program() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("DUNLIN_BIN") {
        return Ok(path.into());
    }
    let test = std::env::current_exe()?;
    let found = test.ancestors().map(|folder| folder.join("dunlin")).find(|path| path.is_file());
    found.context("build the binary first: cargo build -p dunlin-cli")
}

/// Runs `attempt` in a cell without `without` and says what it printed last.
fn run(data: &Path, attempt: &str, without: Without) -> Result<String> {
    let host = host()?;
    let script = format!(
        "{PROBE}\nimport json\nHOST = json.loads({:?})\n\ndef namespace(kind):\n    return os.readlink('/proc/self/ns/' + kind)\n\ndef verdict(breached):\n    print('breached' if breached else 'denied', flush=True)\n\n{attempt}\n",
        host.facts
    );
    let config = Config { program: spawner_program()?, without, egress: false, ..Config::new(data.to_owned()) };
    let (harness, socket) = Harness::start(config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let printed = runtime.block_on(async {
        let client = Client::new(socket)?;
        let cell = client.make(CellKind::Launcher, Net::Loopback).await?;
        let bind =
            Bind { code: None, layers: Vec::new(), memory_bytes: 192 << 20, cpu_millis: 1000, pids: 64, tmp_bytes: 32 << 20 };
        client.bind(cell.id, &bind).await?;
        let (id, channel, log) = (cell.id, cell.channel, cell.log);
        let printed = tokio::task::spawn_blocking(move || talk(channel, log, &script)).await??;
        let ended = client.end(id).await?;
        // Who runs out of memory does not live to say so.
        let printed = if ended.out_of_memory && printed.is_empty() { "denied".to_owned() } else { printed };
        Ok::<_, anyhow::Error>(printed)
    });
    harness.stop()?;
    printed
}

/// Starts the script and reads what it prints, until it ends.
fn talk(channel: OwnedFd, log: OwnedFd, script: &str) -> Result<String> {
    let mut channel = UnixStream::from(channel);
    std::io::Write::write_all(&mut channel, &exec_frame(script))?;
    let mut answer = Vec::new();
    channel.read_to_end(&mut answer)?;
    ensure!(answer.is_empty(), "the program was not started: {}", String::from_utf8_lossy(&answer));
    // Nothing is killed before the verdict: the attempt's own children may hold the pipe open.
    let mut reader = std::io::BufReader::new(std::fs::File::from(log));
    let mut printed = String::new();
    loop {
        let mut line = String::new();
        let length = std::io::BufRead::read_line(&mut reader, &mut line)?;
        if length == 0 || line.starts_with("denied") || line.starts_with("breached") {
            printed.push_str(&line);
            return Ok(printed);
        }
        printed.push_str(&line);
    }
}

fn check(row: &Row) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let closed = run(&folder.path().join("data"), row.attempt, Without::NOTHING)?;
    let without = row.walls.iter().fold(Without::NOTHING, |without, wall| without.and(*wall));
    let open = run(&folder.path().join("data"), row.attempt, without)?;
    // An attempt may print reasons before its verdict.
    let verdict = |printed: &str| printed.trim_end().lines().next_back().unwrap_or_default().to_owned();
    if verdict(&closed) != "denied" || verdict(&open) != "breached" {
        bail!("behind all walls: {closed:?}; without {:?}: {open:?}", row.walls);
    }
    Ok(())
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let trials =
        ROWS.iter().map(|row| Trial::test(row.claim, || check(row).map_err(|error| format!("{error:#}").into()))).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}
