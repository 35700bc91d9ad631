//! A supervisor in miniature: one spawner, one net namespace, cells on demand.

#![allow(dead_code, reason = "each test uses its part")]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use dunlin_walls::{CellKind, ForkRequest, MakeReply, MakeRequest, Without};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// No two cells of a test run share a uid.
static NEXT_UID: AtomicU32 = AtomicU32::new(700_001);

/// Generous: a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Supervisor {
    spawner: Child,
    holder: Child,
    socket: OwnedFd,
    network: OwnedFd,
    _directory: tempfile::TempDir,
}

/// One cell, seen from outside.
pub(crate) struct Cell {
    pub(crate) channel: UnixStream,
    pub(crate) log: File,
    pub(crate) uid: u32,
    pub(crate) pid: i32,
    pidfd: OwnedFd,
}

impl Supervisor {
    /// Starts a spawner for launcher cells. `assets` becomes `/rt`.
    pub(crate) fn spawner(assets: &Path) -> Supervisor {
        Supervisor::start(assets, &[])
    }

    /// Starts the Python zygote that lies in `assets`; `imports` is its third argument.
    pub(crate) fn zygote(assets: &Path, imports: &str) -> Supervisor {
        Supervisor::start(assets, &["zygote", imports])
    }

    /// Starts what forks the templates of a zygote.
    pub(crate) fn forker(assets: &Path) -> Supervisor {
        Supervisor::start(assets, &["forker"])
    }

    fn start(assets: &Path, role: &[&str]) -> Supervisor {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let spawner = Command::new(env!("CARGO_BIN_EXE_walls-test-spawner"))
            .arg(directory.path())
            .arg(assets)
            .args(role)
            .stdin(Stdio::from(theirs))
            .spawn()
            .unwrap();
        let (holder, network) = network();
        Supervisor { spawner, holder, socket: ours, network, _directory: directory }
    }

    /// Asks for a cell. Panics when the spawner refuses.
    pub(crate) fn make(&self, kind: CellKind, without: Without) -> Cell {
        self.try_make(kind, without, None).expect("the spawner makes the cell")
    }

    /// Asks for an unpacker with this package.
    pub(crate) fn make_unpacker(&self, package: &File) -> Cell {
        self.try_make(CellKind::Unpacker, Without::NOTHING, Some(package)).expect("the spawner makes the cell")
    }

    /// Asks for a cell that can be forked, and the end of the socket on which it is told to.
    pub(crate) fn make_template(&self) -> (Cell, OwnedFd) {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let theirs = File::from(theirs);
        (self.try_make(CellKind::Template, Without::NOTHING, Some(&theirs)).expect("the zygote makes the cell"), ours)
    }

    /// Asks a forker for one more cell of a template. `verdict` sees it before it runs.
    pub(crate) fn fork(&self, template: &Cell, control: &OwnedFd, verdict: impl FnOnce(i32) -> bool) -> Result<Cell, MakeReply> {
        let (request, channel, theirs, log, log_end) = self.request(CellKind::Python, Without::NOTHING);
        let fork = ForkRequest {
            template: template.pid,
            host_uid: template.uid,
            tmp_bytes: request.tmp_bytes,
            cgroups: 0,
            full_proc: false,
        };
        fork.send(&self.socket, &[template.pidfd.as_fd(), control.as_fd(), theirs.as_fd(), log_end.as_fd()]).unwrap();
        let cell = self.finish(template.uid, channel, log)?;
        ForkRequest::conclude(&self.socket, verdict(cell.pid)).unwrap();
        Ok(cell)
    }

    /// Asks for a cell whose cgroup file is not one.
    pub(crate) fn make_with_cgroup(&self, file: &File) -> Cell {
        let (request, channel, theirs, log, log_end) = self.request(CellKind::Launcher, Without::NOTHING);
        let request = MakeRequest { cgroups: 1, ..request };
        let descriptors = [theirs.as_fd(), log_end.as_fd(), self.network.as_fd(), file.as_fd()];
        request.send(&self.socket, &descriptors).unwrap();
        self.finish(request.host_uid, channel, log).unwrap()
    }

    fn try_make(&self, kind: CellKind, without: Without, package: Option<&File>) -> Result<Cell, MakeReply> {
        let (request, channel, theirs, log, log_end) = self.request(kind, without);
        let request = MakeRequest { has_extra: package.is_some(), ..request };
        let mut descriptors = vec![theirs.as_fd(), log_end.as_fd(), self.network.as_fd()];
        descriptors.extend(package.map(AsFd::as_fd));
        request.send(&self.socket, &descriptors).unwrap();
        self.finish(request.host_uid, channel, log)
    }

    fn request(&self, kind: CellKind, without: Without) -> (MakeRequest, UnixStream, UnixStream, File, OwnedFd) {
        let (channel, theirs) = UnixStream::pair().unwrap();
        channel.set_read_timeout(Some(PATIENCE)).unwrap();
        let (log, log_end) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let host_uid = NEXT_UID.fetch_add(1, Ordering::Relaxed);
        let request =
            MakeRequest { kind, host_uid, tmp_bytes: 64 << 20, cgroups: 0, has_extra: false, full_proc: false, without };
        (request, channel, theirs, File::from(log), log_end)
    }

    fn finish(&self, uid: u32, channel: UnixStream, log: File) -> Result<Cell, MakeReply> {
        let (reply, pidfd) = MakeReply::receive(&self.socket).unwrap();
        match pidfd {
            Some(pidfd) if reply.errno == 0 => Ok(Cell { channel, log, uid, pid: reply.pid, pidfd }),
            _ => Err(reply),
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        for child in [&mut self.spawner, &mut self.holder] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A net namespace with its loopback up, held by a sleeping process.
fn network() -> (Child, OwnedFd) {
    let mut holder = Command::new("unshare")
        .args(["--net", "sh", "-c", "ip link set lo up && echo up && read never"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("util-linux is installed");
    let mut up = [0; 2];
    holder.stdout.as_mut().unwrap().read_exact(&mut up).expect("the loopback comes up");
    let namespace = File::open(format!("/proc/{}/ns/net", holder.id())).unwrap();
    (holder, namespace.into())
}

impl Cell {
    /// Sends an `Exec` frame.
    pub(crate) fn exec(&mut self, flags: u8, arguments: &[&str], environment: &[&str]) {
        let head = std::iter::once("/").chain(arguments.iter().copied()).collect::<Vec<_>>().join("\0");
        let body = environment.join("\0");
        let mut frame = vec![0; 32];
        frame[0] = 1;
        frame[1] = flags;
        frame[8..12].copy_from_slice(&u32::try_from(head.len()).unwrap().to_le_bytes());
        frame[12..16].copy_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
        frame.extend(head.as_bytes());
        frame.extend(body.as_bytes());
        self.channel.write_all(&frame).unwrap();
    }

    /// Sends one frame.
    pub(crate) fn send(&mut self, kind: u8, stream: u32, head: &str, body: &str) {
        let mut frame = vec![0; 32];
        frame[0] = kind;
        frame[4..8].copy_from_slice(&stream.to_le_bytes());
        frame[8..12].copy_from_slice(&u32::try_from(head.len()).unwrap().to_le_bytes());
        frame[12..16].copy_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
        frame.extend(head.as_bytes());
        frame.extend(body.as_bytes());
        self.channel.write_all(&frame).unwrap();
    }

    /// Reads one frame: kind, head, body. `None` at end-of-file.
    pub(crate) fn frame(&mut self) -> Option<(u8, String, String)> {
        let mut header = [0; 32];
        if let Err(error) = self.channel.read_exact(&mut header) {
            assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof, "{error}");
            return None;
        }
        let length = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap()) as usize;
        let mut part = |length: usize| {
            let mut bytes = vec![0; length];
            self.channel.read_exact(&mut bytes).unwrap();
            String::from_utf8(bytes).unwrap()
        };
        Some((header[0], part(length(8)), part(length(12))))
    }

    /// Everything the cell prints until nobody in it holds the log any more.
    pub(crate) fn output(&mut self) -> String {
        let mut text = String::new();
        self.log.read_to_string(&mut text).unwrap();
        text
    }

    /// Whether the cell ends within the tests' patience.
    pub(crate) fn ends(&self) -> bool {
        let mut polled = [rustix::event::PollFd::new(&self.pidfd, rustix::event::PollFlags::IN)];
        let timeout = rustix::event::Timespec::try_from(PATIENCE).unwrap();
        rustix::event::poll(&mut polled, Some(&timeout)).unwrap() == 1
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, rustix::process::Signal::KILL);
        assert!(self.ends() || std::thread::panicking(), "a killed cell ends");
    }
}
