//! Cells forked from a template, on the real kernel. Needs root.

#![allow(clippy::unwrap_used, reason = "tests say what went wrong by panicking")]

#[path = "../shared_object.rs"]
mod shared_object;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use support::{Cell, Supervisor};

const LOAD: u8 = 2;
const INVOKE: u8 = 4;
const READY: u8 = 16;
const END: u8 = 18;
const ERROR: u8 = 19;

/// Says, line by line, what an instance draws and what it sees.
const CURIOUS: &str = r#"
import ctypes, os, random, ssl, tempfile, uuid
ballast = bytearray(os.urandom(1 << 16)) * 512
open("/tmp/made-by-the-template", "w").close()
libc = ctypes.CDLL(None, use_errno=True)

def tried(*arguments):
    result = libc.syscall(*arguments)
    return "yes" if result >= 0 else os.strerror(ctypes.get_errno())

def shared():
    rows = dict(line.split(":", 1) for line in open("/proc/self/smaps_rollup").read().splitlines()[1:])
    return int(rows["Rss"].split()[0]) - int(rows["Pss"].split()[0])

def handler(event, context):
    FORK, PRCTL = int(event), 157
    says = [random.random(), uuid.uuid4(), ssl.RAND_bytes(8).hex(), next(tempfile._get_candidate_names())]
    says.append(os.environ["WHO"])
    says.append("pid %d uid %d" % (os.getpid(), os.getuid()))
    says.append("processes " + " ".join(sorted(name for name in os.listdir("/proc") if name.isdigit())))
    says.append("tmp " + " ".join(os.listdir("/tmp")))
    says.append("open " + " ".join(str(fd) for fd in range(64) if os.path.exists("/proc/self/fd/%d" % fd)))
    says.append("clone " + tried(56, FORK, 0, 0, 0, 0))
    says.append("unshare " + tried(272, 0x02000000))
    says.append("user " + tried(272, 0x10000000))
    says.append("capset " + tried(126, 0, 0))
    says.append("prctl " + tried(PRCTL, 24, 0, 0, 0, 0))
    says.append("fork " + ("yes" if os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)[1] == 0 else "no"))
    says.append("shared %d" % shared())
    return "\n".join(str(line) for line in says)
"#;

/// What becomes `/rt`: zygote, shared object, bootstrap, and the user's module.
fn assets(module: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (python, code) = (directory.path().join("python"), directory.path().join("code"));
    fs::create_dir(&python).unwrap();
    fs::create_dir(&code).unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for file in ["zygote.py", "bootstrap.py", "rehearsal.py"] {
        fs::copy(root.join("runtimes/python").join(file), python.join(file)).unwrap();
    }
    fs::write(code.join("index.py"), module).unwrap();
    let built = shared_object::path(&root).unwrap();
    assert!(built.is_file(), "run `cargo xtask assets` first");
    fs::copy(built, python.join(shared_object::NAME)).unwrap();
    directory
}

/// A zygote, a forker, and a template that was told to load `module`.
struct World {
    zygote: Supervisor,
    forker: Supervisor,
    template: Cell,
    control: OwnedFd,
    _assets: tempfile::TempDir,
}

fn load(template: bool, who: &str) -> String {
    format!(
        r#"{{"codePath":"/rt/code","handler":"index.handler","env":{{"WHO":"{who}"}},"template":{template},"runtime":"python3.10"}}"#
    )
}

fn world(module: &str) -> World {
    let assets = assets(module);
    let (zygote, forker) = (Supervisor::zygote(assets.path(), "many"), Supervisor::forker(assets.path()));
    let (mut template, control) = zygote.make_template();
    assert_eq!(template.frame().expect("the template boots").0, READY);
    template.send(LOAD, 1, &load(true, "template"), "");
    World { zygote, forker, template, control, _assets: assets }
}

impl World {
    fn loaded(mut self) -> Self {
        let (kind, _, body) = self.template.frame().expect("an answer");
        assert_eq!(kind, END, "{body}");
        self
    }

    fn fork(&self) -> Cell {
        self.forker.fork(&self.template, &self.control, |_| true).expect("the template is forked")
    }
}

fn answer(cell: &mut Cell, who: &str) -> Vec<String> {
    let Some((READY, ..)) = cell.frame() else { panic!("{}", cell.output()) };
    cell.send(LOAD, 1, &load(false, who), "");
    assert_eq!(cell.frame().expect("an answer").0, END);
    cell.send(INVOKE, 2, r#"{"requestId":"1-0"}"#, &dunlin_walls::seccomp::FORK_FLAGS.to_string());
    let (kind, _, body) = cell.frame().expect("an answer");
    assert_eq!(kind, END, "{body}");
    body.lines().map(str::to_owned).collect()
}

/// What the host sees of a process.
fn seen(pid: i32, file: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap()
}

fn namespaces(pid: i32) -> Vec<String> {
    ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"]
        .map(|name| fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap().display().to_string())
        .to_vec()
}

#[test]
fn a_forked_cell_has_every_wall_before_it_runs() {
    let world = world(CURIOUS).loaded();
    let mut others: BTreeSet<String> = namespaces(world.template.pid).into_iter().collect();
    others.extend(namespaces(i32::try_from(std::process::id()).unwrap()));
    for _ in 0..3 {
        let cell = world
            .forker
            .fork(&world.template, &world.control, |pid| {
                let status = seen(pid, "status");
                for wanted in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
                    assert!(status.contains(&format!("{wanted}:\t0000000000000000")), "{status}");
                }
                assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2\nSeccomp_filters:\t1"), "{status}");
                let uid = world.template.uid;
                assert!(status.contains(&format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}")), "{status}");
                assert_eq!(seen(pid, "uid_map").split_whitespace().collect::<Vec<_>>(), ["1000", &uid.to_string(), "1"]);
                for namespace in namespaces(pid) {
                    assert!(others.insert(namespace.clone()), "{namespace} is another's");
                }
                true
            })
            .expect("the template is forked");
        // Its namespaces stay taken as long as it lives.
        std::mem::forget(cell);
    }
}

#[test]
fn siblings_share_memory_and_neither_randomness_nor_files() {
    let world = world(CURIOUS).loaded();
    let mut cells: Vec<Cell> = (0..3).map(|_| world.fork()).collect();
    let mut drawn = BTreeSet::new();
    for (number, cell) in cells.iter_mut().enumerate() {
        let who = format!("instance {number}");
        let lines = answer(cell, &who);
        for (source, line) in lines[..4].iter().enumerate() {
            assert!(drawn.insert((source, line.clone())), "source {source} repeats itself in {who}");
        }
        assert_eq!(lines[4], who);
        assert_eq!(lines[5], "pid 1 uid 1000");
        assert_eq!(lines[6], "processes 1");
        assert_eq!(lines[7], "tmp ");
        assert_eq!(lines[8], "open 0 1 2 3");
        for (line, outcome) in [
            (9, "clone Function not implemented"),
            (10, "unshare Function not implemented"),
            (11, "user Operation not permitted"),
            (12, "capset Bad address"),
            (13, "prctl Function not implemented"),
            (14, "fork yes"),
        ] {
            assert_eq!(lines[line], outcome);
        }
        let shared: u64 = lines[15].strip_prefix("shared ").unwrap().parse().unwrap();
        assert!(shared > 16 << 10, "32 MiB that the template filled are shared: {shared} KiB");
    }
}

#[test]
fn a_forked_cell_that_is_found_wanting_is_killed() {
    let world = world(CURIOUS).loaded();
    let cell = world.forker.fork(&world.template, &world.control, |_| false).expect("the template is forked");
    assert!(cell.ends());
    answer(&mut world.fork(), "the next");
}

#[test]
fn the_cells_of_a_template_end_with_it() {
    let world = world(CURIOUS).loaded();
    let cells = [world.fork(), world.fork()];
    drop(world.template);
    assert!(cells.iter().all(Cell::ends));
}

/// Whatever a template does instead of asking for its clone, the forker ends it and goes on.
#[test]
fn a_template_that_does_something_else_is_killed() {
    let instead = [
        // Another fork, with no walls at all.
        "os.fork()",
        // The right call with other flags.
        "libc.syscall(56, 0x10000011, 0, 0, 0, 0); os.fork()",
        // A call that only a child may be made to make.
        "libc.syscall(157, 24, 0, 0, 0, 0); time.sleep(60)",
        // Nothing.
        "time.sleep(60)",
        // The end.
        "os._exit(0)",
        // A flood of signals.
        "signal.signal(10, lambda *_: None)\nwhile True: os.kill(1, 10)",
    ];
    for does in instead {
        let module = format!(
            "import ctypes, os, signal, socket, time\nlibc = ctypes.CDLL(None)\ncontrol = socket.socket(fileno=4)\n\
             socket.recv_fds(control, 8, 2)\n{does}\ntime.sleep(60)\n"
        );
        let world = world(&module);
        let refused = world.forker.fork(&world.template, &world.control, |_| true).err().expect(does);
        assert_eq!((refused.pid, refused.step), (0, dunlin_walls::Step::Trace), "{does}");
        assert!(world.template.ends(), "{does}");
        // Nobody else suffers.
        let (other, _control) = world.zygote.make_template();
        drop(other);
    }
}

/// A child can be sent to code of its own between two calls: the kernel ends a restartable sequence by a jump. What it
/// is made to call there is not what it was asked to call, and it gets no further.
#[test]
fn a_child_that_calls_something_else_is_killed() {
    let world = world(&SEQUENCE.replace("FLAGS", &dunlin_walls::seccomp::FORK_FLAGS.to_string()));
    let refused = world.forker.fork(&world.template, &world.control, |pid| panic!("it got through: {}", seen(pid, "status")));
    let refused = refused.err().expect("it is refused");
    assert_eq!((refused.pid, refused.step), (0, dunlin_walls::Step::Capabilities));
}

/// Clones by itself, inside a restartable sequence that holds the instruction at which the forker has a child make its
/// calls. Its abort handler makes a call that succeeds and does nothing, again and again.
const SEQUENCE: &str = r#"
import ctypes, mmap, socket, struct
libc = ctypes.CDLL(None)
libc.pthread_self.restype = ctypes.c_void_p
area = libc.pthread_self() + ctypes.c_ssize_t.in_dll(libc, "__rseq_offset").value + 8
start, end = next(line.split()[0].split("-") for line in open("/proc/self/maps") if line.endswith("[vdso]\n"))
start, end = int(start, 16), int(end, 16)
call = start + ctypes.string_at(start, end - start).index(b"\x0f\x05")
page = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
base = ctypes.addressof(ctypes.c_char.from_buffer(page))
section, abort, code = base, base + 68, base + 256
arm = b"\x48\xb8" + struct.pack("<Q", area) + b"\x48\xb9" + struct.pack("<Q", section) + b"\x48\x89\x08"
page[0:32] = struct.pack("<IIQQQ", 0, 0, call, 2, abort)
page[64:68] = struct.pack("<I", 0x53053053)
handler = arm + b"\xb8\x18\x00\x00\x00\x0f\x05\xeb\xfe"
page[68:68 + len(handler)] = handler
clone = arm + b"\xb8\x38\x00\x00\x00\xbf" + struct.pack("<I", FLAGS)
clone += b"\x31\xf6\x31\xd2\x4d\x31\xd2\x4d\x31\xc0\x0f\x05\xeb\xfe"
page[256:256 + len(clone)] = clone
socket.recv_fds(socket.socket(fileno=4), 8, 2)
ctypes.CFUNCTYPE(None)(code)()
"#;

#[test]
fn code_with_ties_makes_no_template() {
    let ties = [
        ("import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()", "started 1 thread"),
        ("import subprocess; child = subprocess.Popen(['/bin/sleep', '60'])", "started a process"),
        ("import socket; server = socket.create_server(('127.0.0.1', 8000))", "opened socket:"),
        ("import asyncio; loop = asyncio.new_event_loop()", "opened anon_inode:[eventpoll]"),
        ("log = open('/tmp/log', 'w')", "opened /w/tmp/log"),
        ("import mmap; shared = mmap.mmap(-1, 4096)", "mapped memory that is shared"),
    ];
    for (does, told) in ties {
        let mut world = world(&format!("{does}\ndef handler(event, context):\n    pass\n"));
        let (kind, _, body) = world.template.frame().expect("an answer");
        assert_eq!(kind, ERROR, "{does}");
        assert!(body.contains("TemplateRefused") && body.contains(told), "{does}: {body}");
    }
}
