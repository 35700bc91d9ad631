//! Makes cells: everything a cell is born with, then one request to the spawner or the zygote.
//!
//! One thread per kind of spawner. It replaces its spawner when it breaks, and before it is old: a fresh one is
//! started ahead and takes over when it has had time to boot, so that no cell waits for an interpreter to start.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use dunlin_walls as walls;
use rustix::net::sockopt::Timeout;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::pipe::PipeFlags;

use super::cells::{Body, Container, LiveCell, Owner, Template};
use super::queue::Next;
use super::session::Session;
use super::{Shared, SpawnerKind};
use crate::protocol::{Message, Refusal};
use crate::zygote::Imports;
use crate::{Ended, Net, Step, seqpacket};

/// A spawner that says nothing for so long is broken.
const SPAWNER_PATIENCE: Duration = Duration::from_secs(20);

/// When the next spawner is started, and when it takes over.
const AGE_TO_START: Duration = Duration::from_secs(9 * 60 + 30);
const AGE_TO_SWAP: Duration = Duration::from_secs(10 * 60);
const FORKS_TO_START: u32 = 900;
const FORKS_TO_SWAP: u32 = 1000;

/// How often an idle thread looks at its spawner's age.
const TICK: Duration = Duration::from_secs(10);

/// Size of `/tmp` until the cell is bound.
pub(super) const UNBOUND_TMP_BYTES: u64 = 64 << 20;
const UNBOUND_MEMORY_BYTES: u64 = 1 << 30;
const UNBOUND_PIDS: u32 = 128;

/// A cell somebody wants.
pub(super) struct MakeJob {
    pub(super) kind: walls::CellKind,
    pub(super) net: Net,
    pub(super) wanted: MakeFor,
}

/// By whom.
pub(super) enum MakeFor {
    /// Nobody yet: only the spawner is to be there when somebody does.
    Nobody,
    Server {
        session: Arc<Session>,
        id: u64,
    },
    Unpack {
        package: OwnedFd,
        ended: SyncSender<Option<Ended>>,
        made: SyncSender<Result<Made, Refusal>>,
    },
}

/// A cell, and the host's ends of what it was born with.
pub(super) struct Made {
    pub(super) cell: Arc<LiveCell>,
    pub(super) uid: u32,
    pub(super) channel: OwnedFd,
    pub(super) log: OwnedFd,
}

impl From<crate::CellKind> for walls::CellKind {
    fn from(kind: crate::CellKind) -> Self {
        match kind {
            crate::CellKind::Launcher => Self::Launcher,
            crate::CellKind::Python(_) | crate::CellKind::LeanPython(_) => Self::Python,
            crate::CellKind::Template(_) => Self::Template,
            crate::CellKind::Wasm => Self::Wasm,
            crate::CellKind::Container => Self::Container,
        }
    }
}

/// The thread that makes one kind of cells.
pub(super) struct Maker {
    shared: Arc<Shared>,
    kind: SpawnerKind,
    current: Option<Spawner>,
    next: Option<Spawner>,
    twin_called: bool,
}

struct Spawner {
    socket: OwnedFd,
    born: Instant,
    forks: u32,
}

impl Maker {
    pub(super) fn new(shared: Arc<Shared>, kind: SpawnerKind) -> Self {
        Self { shared, kind, current: None, next: None, twin_called: false }
    }

    /// Makes cells until the queue is closed.
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let queue = match self.kind {
            SpawnerKind::Plain => Some(&shared.launchers),
            SpawnerKind::Python(interpreter, imports) => shared.pythons.get(&(interpreter, imports)),
            SpawnerKind::Forker => None,
        };
        let Some(queue) = queue else { return };
        loop {
            match queue.next(TICK) {
                Next::Job(job) => {
                    self.serve(job);
                    self.call_lean_twin();
                }
                Next::Idle => {}
                Next::Closed => return,
            }
            self.renew();
        }
    }

    /// Where cells of Python wait, calls will come that find none: what makes cells for them is started once, ahead.
    fn call_lean_twin(&mut self) {
        let SpawnerKind::Python(interpreter, Imports::Many) = self.kind else { return };
        let Some(twin) = self.shared.pythons.get(&(interpreter, Imports::Few)) else { return };
        if !std::mem::replace(&mut self.twin_called, true) {
            let job = MakeJob { kind: walls::CellKind::Python, net: Net::Loopback, wanted: MakeFor::Nobody };
            drop(twin.push(job));
        }
    }

    fn serve(&mut self, job: MakeJob) {
        match job.wanted {
            MakeFor::Nobody => {
                if let Err(error) = self.spawner() {
                    tracing::warn!(kind = ?self.kind, %error, "a spawner could not be started ahead");
                }
            }
            MakeFor::Server { session, id } => {
                if session.over() {
                    return;
                }
                let owner = Owner::Server(Arc::clone(&session));
                match self.make(job.kind, job.net, None, owner) {
                    Err(why) => session.refuse(id, why),
                    Ok((made, usage)) => {
                        let descriptors = [made.channel.as_fd(), made.log.as_fd(), usage.memory.as_fd(), usage.cpu.as_fd()];
                        session.say(&Message::Made { id, cell: made.cell.id }, &descriptors);
                        if session.over() {
                            // Whoever ended the session may have looked for its cells just before this one was there.
                            made.cell.kill();
                        }
                    }
                }
            }
            MakeFor::Unpack { package, ended, made } => {
                let result = self.make(job.kind, job.net, Some(package.as_fd()), Owner::Unpack(ended));
                if let Err(std::sync::mpsc::SendError(Ok(unwanted))) = made.send(result.map(|(made, _)| made)) {
                    unwanted.cell.kill();
                }
            }
        }
    }

    fn make(
        &mut self,
        kind: walls::CellKind,
        net: Net,
        extra: Option<BorrowedFd<'_>>,
        owner: Owner,
    ) -> Result<(Made, crate::cgroup::UsageFds), Refusal> {
        let shared = Arc::clone(&self.shared);
        let place = shared.cells.place().ok_or(Refusal::Full)?;
        let uid = if kind.has_many_ids() { shared.uids().take_range() } else { shared.uids().take() };
        let uid = uid.ok_or(Refusal::Failed { step: Step::Uid, errno: libc::EAGAIN })?;
        let id = shared.cells.number();
        let prepared = (|| {
            let namespace = shared.net.take(net).map_err(|error| super::net_failed(&error))?;
            let control = (kind == walls::CellKind::Template).then(seqpacket::pair).transpose();
            let control = control.map_err(|error| Refusal::failed(Step::Descriptors, &error))?;
            Ok((namespace, control, prepare(&shared, id)?))
        })();
        let (namespace, control, (cgroup, mut parts)) = match prepared {
            Ok(prepared) => prepared,
            Err(why) => {
                shared.uids().give_back(uid);
                return Err(why);
            }
        };
        let (control, guest_control) = control.unzip();
        let extra = extra.or(guest_control.as_ref().map(AsFd::as_fd));
        let request = walls::MakeRequest {
            kind,
            host_uid: uid,
            tmp_bytes: UNBOUND_TMP_BYTES,
            // The pipe that tells when the walls stand goes along as one more file to join by: what the cell writes
            // into it is ignored, and it is closed with every other descriptor once the mounts are made.
            cgroups: u32::try_from(parts.joins.len() + 1).expect("a handful of hierarchies"),
            has_extra: extra.is_some(),
            full_proc: shared.full_proc,
            without: shared.without,
        };
        let cloned = {
            let mut descriptors = vec![parts.guest_channel.as_fd(), parts.guest_log.as_fd(), namespace.fd()];
            descriptors.extend(extra);
            descriptors.extend(parts.joins.iter().map(AsFd::as_fd));
            descriptors.push(parts.guest_walls.as_fd());
            self.clone_cell(&request, &descriptors)
        };
        let (pid, pidfd) = match cloned {
            Ok(cloned) => cloned,
            Err(why) => {
                // No process of it exists, or the spawner that knew it is dead, and then the group kills what is left.
                drop(parts);
                match cgroup.remove() {
                    Ok(()) => shared.uids().give_back(uid),
                    Err(error) => tracing::error!(%error, "cannot remove the cgroup of a cell that was not made"),
                }
                return Err(why);
            }
        };
        parts.joins.clear();
        let body = Body {
            cgroup,
            net: namespace,
            uid: Some(uid),
            walls: Some(parts.walls.into()),
            bound: false,
            code: None,
            layers: Vec::new(),
            container: (kind == walls::CellKind::Container).then_some(Container { pid, first_uid: uid }),
            frozen: false,
            dying: false,
            oom: parts.oom,
        };
        let template = control.map(|control| Template { control, pid, uid, net });
        let cell = Arc::new(LiveCell { id, pidfd, owner, body: Some(body).into(), template, parent: None });
        if let Err(error) = shared.cells.add(Arc::clone(&cell), place) {
            // Without a watch its end would never be seen. The sweep of the next start removes what it leaves.
            cell.kill();
            return Err(Refusal::failed(Step::Kill, &error));
        }
        Ok((Made { cell, uid, channel: parts.channel, log: parts.log }, parts.usage))
    }

    /// Sends the request; a spawner that breaks is replaced once.
    fn clone_cell(&mut self, request: &walls::MakeRequest, descriptors: &[BorrowedFd<'_>]) -> Result<(i32, OwnedFd), Refusal> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let spawner = self.spawner().map_err(|error| Refusal::failed(Step::Spawner, &error))?;
            let asked = request.send(&spawner.socket, descriptors);
            let answered = asked.and_then(|()| walls::MakeReply::receive(&spawner.socket));
            match answered {
                Ok((reply, Some(pidfd))) if reply.pid > 0 => {
                    spawner.forks += 1;
                    return Ok((reply.pid, pidfd));
                }
                Ok((reply, _)) => {
                    tracing::warn!(step = %reply.step, errno = reply.errno, "the spawner made no cell");
                    return Err(Refusal::Failed { step: Step::Clone, errno: reply.errno });
                }
                Err(error) => {
                    self.say_broken(&error);
                    self.current = None;
                    // Whether the request was carried out is not known once it was sent: only its end being closed
                    // before says that it was not.
                    if attempts >= 2 || error.raw_os_error() != Some(libc::EPIPE) {
                        let step = if self.kind == SpawnerKind::Plain { Step::Spawner } else { Step::Interpreter };
                        return Err(Refusal::failed(step, &error));
                    }
                }
            }
        }
    }

    fn say_broken(&self, error: &io::Error) {
        match self.kind {
            SpawnerKind::Plain | SpawnerKind::Forker => tracing::warn!(%error, "the spawner broke"),
            SpawnerKind::Python(interpreter, _) => {
                let program = self.shared.interpreters.get(interpreter).map_or("", |found| found.program.as_str());
                tracing::error!(program, %error, "a Python zygote broke; if it cannot start, it has said above why");
            }
        }
    }

    fn spawner(&mut self) -> io::Result<&mut Spawner> {
        let current = match self.current.take().or_else(|| self.next.take()) {
            Some(spawner) => spawner,
            None => self.start()?,
        };
        Ok(self.current.insert(current))
    }

    fn start(&self) -> io::Result<Spawner> {
        let socket = self.shared.start_spawner(self.kind)?;
        rustix::net::sockopt::set_socket_timeout(&socket, Timeout::Recv, Some(SPAWNER_PATIENCE))?;
        Ok(Spawner { socket, born: Instant::now(), forks: 0 })
    }

    /// Starts the next spawner when the current one is nearly old, and lets it take over when it is.
    fn renew(&mut self) {
        if self.kind == SpawnerKind::Plain {
            // It execs before anything random is drawn, so it does not age.
            return;
        }
        let Some(current) = &self.current else { return };
        let age = current.born.elapsed();
        if self.next.is_none() && (age >= AGE_TO_START || current.forks >= FORKS_TO_START) {
            match self.start() {
                Ok(next) => self.next = Some(next),
                Err(error) => tracing::error!(%error, "cannot start the next zygote"),
            }
        } else if self.next.is_some() && (age >= AGE_TO_SWAP || current.forks >= FORKS_TO_SWAP) {
            self.current = self.next.take();
        }
    }
}

/// What a cell is born with, both ends.
pub(super) struct Parts {
    pub(super) joins: Vec<OwnedFd>,
    pub(super) usage: crate::cgroup::UsageFds,
    pub(super) oom: Option<OwnedFd>,
    pub(super) channel: OwnedFd,
    pub(super) guest_channel: OwnedFd,
    pub(super) log: OwnedFd,
    pub(super) guest_log: OwnedFd,
    walls: OwnedFd,
    guest_walls: OwnedFd,
}

/// A cgroup with the limits of a cell that nobody is bound to, and the descriptors a cell is born with.
pub(super) fn prepare(shared: &Shared, id: dunlin_model::CellId) -> Result<(crate::cgroup::CellCgroup, Parts), Refusal> {
    let (channel, guest_channel) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(|error| Refusal::failed(Step::Descriptors, &error.into()))?;
    let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|error| Refusal::failed(Step::Descriptors, &error.into()));
    let (log, guest_log) = pipe()?;
    let (walls, guest_walls) = pipe()?;
    let cgroup = shared.cgroups.create(id).map_err(|error| super::cgroup_failed(&error))?;
    let opened = (|| {
        cgroup.set_limits(UNBOUND_MEMORY_BYTES, UNBOUND_PIDS)?;
        Ok((cgroup.join_fds()?, cgroup.usage_fds()?, cgroup.oom_event()?))
    })();
    match opened {
        Ok((joins, usage, oom)) => {
            let parts = Parts { joins, usage, oom, channel, guest_channel, log, guest_log, walls, guest_walls };
            Ok((cgroup, parts))
        }
        Err(error) => {
            if let Err(error) = cgroup.remove() {
                tracing::error!(%error, "cannot remove the cgroup of a cell that was not made");
            }
            Err(Refusal::failed(Step::Cgroup, &error))
        }
    }
}
