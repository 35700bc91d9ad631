//! What the tests are made of.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dunlin_model::Digest;
use dunlin_sandbox::harness::Harness;
use dunlin_sandbox::supervisor::Config;
use dunlin_sandbox::{Bind, Cell, CellKind, Client, Ended, Net, Sandboxes, uids};
use tokio::runtime::Runtime;

/// Longer than anything here takes on a slow machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A supervisor with a data directory of its own, and a client of it.
pub(crate) struct Platform {
    pub(crate) client: Client,
    pub(crate) runtime: Runtime,
    harness: Option<Harness>,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) identity: Identity,
}

impl Platform {
    pub(crate) fn start() -> Self {
        Self::start_with(|_| {})
    }

    pub(crate) fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let (harness, socket, dir) = start_raw(change);
        let runtime = Runtime::new().unwrap();
        let client = runtime.block_on(async { Client::new(socket).unwrap() });
        let identity = Identity::read(dir.path());
        Self { client, runtime, harness: Some(harness), dir, identity }
    }

    pub(crate) fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(async { tokio::time::timeout(LONG, work).await.expect("it takes forever") })
    }

    pub(crate) fn make(&self) -> Cell {
        self.wait(self.client.make(CellKind::Launcher, Net::Loopback)).expect("a cell")
    }

    pub(crate) fn bind(&self, cell: &Cell, code: Option<Digest>) {
        self.wait(self.client.bind(cell.id, &Bind { code, ..small() })).expect("a bound cell");
    }

    pub(crate) fn end(&self, cell: &Cell) -> Ended {
        self.wait(self.client.end(cell.id)).expect("an end")
    }

    /// Waits for a cell to end by itself.
    pub(crate) fn ended(&self, cell: &Cell) -> Ended {
        let mut ended = cell.ended.clone();
        self.wait(async move { ended.wait_for(Option::is_some).await.unwrap().clone().unwrap() })
    }

    /// Puts a file into a tree, as if it had been unpacked.
    pub(crate) fn tree(&self, name: &str, text: &str) -> Digest {
        let digest = Digest::of(text.as_bytes());
        let tree = self.trees().join(digest.to_string());
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join(name), text).unwrap();
        digest
    }

    pub(crate) fn trees(&self) -> PathBuf {
        self.dir.path().join("trees")
    }

    /// Runs Python code in a fresh bound cell; returns what it printed, and how it ended.
    pub(crate) fn python(&self, bind: &Bind, code: &str) -> (String, Ended) {
        let cell = self.make();
        self.wait(self.client.bind(cell.id, bind)).expect("a bound cell");
        exec(&cell, &["/usr/bin/python3", "-I", "-S", "-c", code]);
        let printed = read_log(&cell);
        (printed, self.ended(&cell))
    }

    pub(crate) fn traces(&self) -> Traces {
        Traces::of(&self.identity)
    }

    pub(crate) fn stop(mut self) {
        self.harness.take().unwrap().stop().expect("a clean stop");
    }
}

pub(crate) fn start_raw(change: impl FnOnce(&mut Config)) -> (Harness, OwnedFd, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::new(dir.path().to_path_buf());
    config.egress = false;
    change(&mut config);
    let (harness, socket) = Harness::start(config).expect("a supervisor");
    (harness, socket, dir)
}

pub(crate) fn small() -> Bind {
    Bind { code: None, layers: Vec::new(), memory_bytes: 128 << 20, cpu_millis: 1000, pids: 64, tmp_bytes: 16 << 20 }
}

/// Sends the one frame a launcher waits for.
pub(crate) fn exec(cell: &Cell, argv: &[&str]) {
    let head = format!("/\0{}\0", argv.join("\0")).into_bytes();
    let body = b"PATH=/usr/bin:/bin\0HOME=/tmp\0";
    let mut frame = vec![0; 32];
    frame[0] = 1;
    frame[8..12].copy_from_slice(&u32::try_from(head.len()).unwrap().to_le_bytes());
    frame[12..16].copy_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
    frame.extend(head);
    frame.extend(body);
    channel(cell).write_all(&frame).unwrap();
}

pub(crate) fn channel(cell: &Cell) -> UnixStream {
    cell.channel.try_clone().unwrap().into()
}

/// Everything the cell prints until it closes its output.
pub(crate) fn read_log(cell: &Cell) -> String {
    let mut text = Vec::new();
    fs::File::from(cell.log.try_clone().unwrap()).read_to_end(&mut text).unwrap();
    String::from_utf8_lossy(&text).into_owned()
}

/// Reads one line of what the cell prints.
pub(crate) fn read_line(cell: &Cell) -> String {
    let mut log = fs::File::from(cell.log.try_clone().unwrap());
    let mut line = Vec::new();
    let mut byte = [0];
    while log.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    String::from_utf8_lossy(&line).into_owned()
}

/// What names a platform's belongings on the host.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    installation: String,
    first_uid: u32,
    dir: String,
}

impl Identity {
    pub(crate) fn read(dir: &Path) -> Self {
        let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap().trim().to_owned();
        let block: u32 = read("uids").parse().unwrap();
        let first_uid = uids::FIRST_UID + block * uids::BLOCK_SIZE;
        Self { installation: read("installation"), first_uid, dir: dir.display().to_string() }
    }
}

/// What of a platform is on the host: control groups, mounts, uids that something runs under, links, root's processes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Traces {
    pub(crate) cgroups: BTreeSet<PathBuf>,
    pub(crate) mounts: Vec<String>,
    pub(crate) uids: BTreeSet<u32>,
    pub(crate) links: BTreeSet<String>,
    pub(crate) spawners: BTreeSet<String>,
}

impl Traces {
    pub(crate) fn of(identity: &Identity) -> Self {
        let mut found = Self::default();
        find_groups(Path::new("/sys/fs/cgroup"), 4, &identity.installation, &mut found.cgroups);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        found.mounts = mounts.lines().filter(|line| line.contains(&identity.dir)).map(str::to_owned).collect();
        let me = std::process::id().to_string();
        for path in fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path()) {
            let Ok(status) = fs::read_to_string(path.join("status")) else { continue };
            let field = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name));
                line.and_then(|line| line.split_whitespace().next()).unwrap_or_default().to_owned()
            };
            let uid: u32 = field("Uid:").parse().unwrap();
            let command = String::from_utf8_lossy(&fs::read(path.join("cmdline")).unwrap_or_default()).into_owned();
            let groups = fs::read_to_string(path.join("cgroup")).unwrap_or_default();
            // Other platforms may be running on this host, and other tests.
            let server = uid == identity.first_uid && command.ends_with("\0server\0");
            if server || groups.contains(&identity.installation) {
                found.uids.insert(uid);
            }
            if uid == 0 && field("PPid:") == me && !command.contains("\0up\0") {
                found.spawners.insert(format!("{} {}", path.display(), field("Name:")));
            }
        }
        let links = fs::read_dir("/sys/class/net").unwrap().map(|link| link.unwrap().file_name().into_string().unwrap());
        found.links = links.filter(|name| name.contains(&identity.installation)).collect();
        found
    }
}

fn find_groups(directory: &Path, depth: u32, installation: &str, found: &mut BTreeSet<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for path in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()) {
        if path.to_string_lossy().contains(installation) {
            found.insert(path.clone());
        }
        if depth > 0 {
            find_groups(&path, depth - 1, installation, found);
        }
    }
}

/// Waits until `holds`, checking often.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
