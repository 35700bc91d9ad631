//! A whole platform as a process: supervisor and server, and what is left when one of them goes.

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode};
use std::time::Duration;

use dunlin_sandbox::supervisor::{self, Config};
use dunlin_sandbox::{CellKind, Client, Credentials, Net, Sandboxes, inherited};

use crate::parts::{Identity, Traces, eventually};

/// The server process of these tests: makes two cells, writes down what it sees, and waits for its end.
pub(crate) fn server() -> ExitCode {
    let inherited = inherited().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = Client::new(inherited.supervisor).unwrap();
        let cells = [
            client.make(CellKind::Launcher, Net::Loopback).await.unwrap(),
            client.make(CellKind::Launcher, Net::Loopback).await.unwrap(),
        ];
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let state = inherited.facts.state_dir;
        let descriptors: Vec<_> = fs::read_dir("/proc/self/fd").unwrap().map(|fd| fd.unwrap().file_name()).collect();
        let seen = format!(
            "{status}root\t{}\nhome\t{:?}\nwritable\t{}\ndescriptors\t{descriptors:?}\nendpoint\t{}\n",
            fs::metadata("/root/.ssh").is_ok(),
            std::env::var("HOME"),
            fs::write("/mnt/dunlin/x", "").is_ok() || fs::write("/etc/x", "").is_ok(),
            inherited.facts.root.endpoint,
        );
        fs::write(state.join("seen.new"), seen).unwrap();
        fs::rename(state.join("seen.new"), state.join("seen")).unwrap();
        let listener = inherited.listeners.into_iter().next().unwrap();
        tokio::task::spawn_blocking(move || {
            for connection in listener.incoming() {
                connection.unwrap().write_all(std::process::id().to_string().as_bytes()).unwrap();
            }
        });
        let mut stop = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
        stop.recv().await;
        drop(cells);
        std::process::exit(0)
    })
}

/// The supervisor process of these tests.
pub(crate) fn up(arguments: &[String]) -> ExitCode {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = Config::new(arguments[0].clone().into());
    config.endpoint = format!("http://{}", listener.local_addr().unwrap());
    config.listeners = vec![listener.into()];
    config.server_arguments = Some(vec!["server".into()]);
    config.egress = false;
    match supervisor::run(config) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(3)
        }
    }
}

struct Platform {
    process: Child,
    dir: tempfile::TempDir,
}

impl Platform {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let process = start(dir.path());
        let platform = Self { process, dir };
        platform.wait_until_up();
        platform
    }

    fn wait_until_up(&self) {
        eventually("the server is up", || self.seen().is_some());
    }

    fn seen(&self) -> Option<String> {
        fs::read_to_string(self.dir.path().join("state/seen")).ok()
    }

    /// The server's pid, as it says itself on its listener.
    fn server(&self) -> String {
        let text = fs::read(self.dir.path().join("credentials.json")).unwrap();
        let credentials: Credentials = serde_json::from_slice(&text).unwrap();
        let address = credentials.endpoint.strip_prefix("http://").unwrap().to_owned();
        let mut pid = String::new();
        std::io::Read::read_to_string(&mut TcpStream::connect(address).unwrap(), &mut pid).unwrap();
        pid
    }

    fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.process), signal).unwrap();
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        // Not killed: a platform that stops by itself leaves nothing on the host that runs the tests.
        if matches!(self.process.try_wait(), Ok(None)) {
            self.signal(rustix::process::Signal::TERM);
            let _ = self.process.wait();
        }
    }
}

fn start(dir: &Path) -> Child {
    Command::new("/proc/self/exe").arg("up").arg(dir).env("HOME", "/root").spawn().unwrap()
}

pub(crate) fn a_dead_server_is_started_again_on_the_same_listener() {
    let platform = Platform::start();
    let first = platform.server();
    fs::remove_file(platform.dir.path().join("state/seen")).unwrap();
    let pid = rustix::process::Pid::from_raw(first.parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    // The listener is open all the while: the connection waits for the next server.
    let second = platform.server();
    assert_ne!(first, second);
    platform.wait_until_up();
}

pub(crate) fn the_server_has_no_rights() {
    let platform = Platform::start();
    let seen = platform.seen().unwrap();
    let field = |name: &str| {
        let line = seen.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}: {seen}"));
        line.trim().to_owned()
    };
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Groups:"), "");
    assert!(field("Uid:").split_whitespace().all(|uid| uid.parse::<u32>().unwrap() >= 1_000_000_000));
    assert_eq!(field("root\t"), "false");
    assert_eq!(field("home\t"), "Err(NotPresent)");
    assert_eq!(field("writable\t"), "false");
    assert!(field("endpoint\t").starts_with("http://127.0.0.1:"));
}

pub(crate) fn a_stopped_platform_leaves_nothing() {
    let mut platform = Platform::start();
    let identity = Identity::read(platform.dir.path());
    // A cell that was just made is root's still.
    eventually("there are a server and two cells", || Traces::of(&identity).uids.len() == 3);
    platform.signal(rustix::process::Signal::TERM);
    assert!(platform.process.wait().unwrap().success());
    assert_eq!(Traces::of(&identity), Traces::default());
    let left: Vec<_> = fs::read_dir(platform.dir.path().join("trees")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

pub(crate) fn a_killed_supervisor_takes_everything_with_it() {
    let mut platform = Platform::start();
    let identity = Identity::read(platform.dir.path());
    platform.signal(rustix::process::Signal::KILL);
    assert_eq!(platform.process.wait().unwrap().signal(), Some(9));
    // Only what is no process may be left, and the next start sweeps it.
    eventually("no process is left", || {
        let left = Traces::of(&identity);
        left.uids.is_empty() && left.spawners.is_empty()
    });
    fs::remove_file(platform.dir.path().join("state/seen")).unwrap();
    fs::create_dir_all(platform.dir.path().join("trees/.tmp-9/half/done")).unwrap();
    platform.process = start(platform.dir.path());
    platform.wait_until_up();
    platform.signal(rustix::process::Signal::TERM);
    assert!(platform.process.wait().unwrap().success());
    assert_eq!(Traces::of(&identity), Traces::default());
    assert!(fs::read_dir(platform.dir.path().join("trees")).unwrap().next().is_none());
}

pub(crate) fn a_second_platform_on_the_same_directory_is_refused() {
    let platform = Platform::start();
    let second = start(platform.dir.path()).wait().unwrap();
    assert_eq!(second.code(), Some(3));
    assert_eq!(platform.server(), platform.server());
    // Giving the first a moment would hide that the second had killed its cells.
    std::thread::sleep(Duration::from_millis(50));
    assert!(platform.seen().is_some());
}
