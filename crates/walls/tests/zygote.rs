//! Cells forked from the Python zygote, on the real kernel. Needs root.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests say what went wrong by panicking")]

#[path = "../shared_object.rs"]
mod shared_object;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use dunlin_walls::{CellKind, Without};
use support::Supervisor;

/// A bootstrap that says what it finds instead of serving.
const NOSY: &str = r#"
import ctypes, os, struct, sys

def prepare_logging():
    pass

def rehearse():
    pass

def draws():
    import hashlib, random, secrets, ssl, tempfile, uuid
    yield random.random()
    yield secrets.token_hex()
    yield uuid.uuid4()
    yield ssl.RAND_bytes(16).hex()
    yield next(tempfile._get_candidate_names())
    crypto = ctypes.CDLL(sys.modules["_ssl"].__file__)
    private = ctypes.create_string_buffer(16)
    crypto.RAND_priv_bytes(private, 16)
    yield private.raw.hex()

def main(_template):
    seen = [str(draw) for draw in draws()]
    import _thread
    lock = _thread.RLock()
    with lock, lock:
        pass
    seen.append("pid %d native %d" % (os.getpid(), _thread.get_native_id()))
    seen.append("open " + " ".join(str(fd) for fd in range(64) if is_open(fd)))
    seen.append("path " + " ".join(sys.path))
    status = dict(line.split(":\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\t" in line)
    seen.append(" ".join(status[key].strip() for key in ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp")))
    body = "\n".join(seen).encode()
    os.write(3, struct.pack("<BBHIII16s", 16, 0, 0, 0, 0, len(body), bytes(16)) + body)
    os.read(3, 1)
    os._exit(0)

def is_open(descriptor):
    try:
        os.fstat(descriptor)
        return True
    except OSError:
        return False
"#;

fn runtimes() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../runtimes/python")
}

/// What becomes `/rt`: the zygote, the shared object and a bootstrap.
fn assets(bootstrap: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let python = directory.path().join("python");
    fs::create_dir(&python).unwrap();
    fs::copy(runtimes().join("zygote.py"), python.join("zygote.py")).unwrap();
    fs::copy(runtimes().join("rehearsal.py"), python.join("rehearsal.py")).unwrap();
    fs::write(python.join("bootstrap.py"), bootstrap).unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let built = shared_object::path(&root).unwrap();
    assert!(built.is_file(), "run `cargo xtask assets` first");
    fs::copy(built, python.join(shared_object::NAME)).unwrap();
    directory
}

#[test]
fn siblings_share_no_randomness() {
    let assets = assets(NOSY);
    for imports in ["many", "few"] {
        let supervisor = Supervisor::zygote(assets.path(), imports);
        let mut drawn = BTreeSet::new();
        for round in 0..4 {
            let mut cell = supervisor.make(CellKind::Python, Without::NOTHING);
            let Some((16, _, body)) = cell.frame() else { panic!("{}", cell.output()) };
            let lines: Vec<&str> = body.lines().collect();
            for (source, line) in lines[..6].iter().enumerate() {
                assert!(drawn.insert((source, (*line).to_owned())), "{imports}: source {source} repeats itself in round {round}");
            }
            assert_eq!(lines[6], "pid 1 native 1");
            assert_eq!(lines[7], "open 0 1 2 3");
            assert!(!lines[8].contains("/rt"), "{}", lines[8]);
            assert_eq!(lines[9], "0000000000000000 0000000000000000 1 2");
        }
    }
}

#[test]
fn the_bootstrap_gets_ready_in_a_forked_cell() {
    let assets = assets(&fs::read_to_string(runtimes().join("bootstrap.py")).unwrap());
    let supervisor = Supervisor::zygote(assets.path(), "many");
    let mut times = Vec::new();
    for _ in 0..30 {
        let started = Instant::now();
        let mut cell = supervisor.make(CellKind::Python, Without::NOTHING);
        let answered = started.elapsed();
        let Some((16, head, _)) = cell.frame() else { panic!("{}", cell.output()) };
        assert!(head.starts_with("{\"runtime\":\"python 3."), "{head}");
        times.push((started.elapsed(), answered));
        cell.channel.shutdown(std::net::Shutdown::Both).unwrap();
        assert!(cell.ends());
    }
    times.sort();
    eprintln!("fork: median {:?} to Ready, of which {:?} to the reply", times[15].0, times[15].1);
}
