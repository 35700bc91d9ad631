//! Builds a platform, and takes it down again. What happens in between is in `main_loop`.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use dunlin_model::Language;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit, Signal};

use super::cells::Cells;
use super::children::{Nursery, Process};
use super::fork::Forks;
use super::layers::Opt;
use super::main_loop::Main;
use super::make::Maker;
use super::queue::Queue;
use super::trees::Trees;
use super::{Config, Order, Shared, SpawnerKind, bind, unpack};
use crate::cgroup::{CgroupError, Cgroups};
use crate::credentials::{Credentials, CredentialsError};
use crate::inherited::BootFacts;
use crate::installation::{Installation, OpenError};
use crate::net::dns::DnsSockets;
use crate::net::{NetConfig, NetError, NetPool};
use crate::sys::Reserved;
use crate::zygote::Imports;
use crate::{assets, seqpacket};

/// Where the server finds its state.
const STATE_IN_SERVER: &str = "/mnt/dunlin/state";

/// Requests that wait for a thread, per kind.
const QUEUE: usize = 8192;
const BINDERS: usize = 2;
const TREE_THREADS: usize = 2;
const TEARDOWN_THREADS: usize = 2;

/// How long cells may take to go when the platform stops.
const CELLS_PATIENCE: Duration = Duration::from_secs(15);
const SPAWNERS_PATIENCE: Duration = Duration::from_secs(2);

/// Why a platform does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Building walls takes root's rights.
    #[error("dunlin must be started as root (for example with sudo): it builds namespaces, control groups and mounts")]
    NotRoot,
    /// Signals cannot be received.
    #[error("cannot receive signals")]
    Signals(#[source] io::Error),
    /// The data directory cannot be used.
    #[error("cannot open the data directory")]
    DataDir(#[from] OpenError),
    /// Control groups cannot be used.
    #[error("cannot use control groups")]
    Cgroups(#[from] CgroupError),
    /// The network cannot be used.
    #[error("cannot prepare the network")]
    Net(#[from] NetError),
    /// The root key cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// A directory or file of the platform cannot be used.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// A thread of the supervisor cannot do its work.
    #[error("the thread {thread} broke")]
    Thread {
        /// Which one.
        thread: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// Cells did not go in time.
    #[error("some cells did not end")]
    CellsLeft,
}

pub(super) fn io_failed(what: &'static str) -> impl FnOnce(io::Error) -> RunError {
    move |source| RunError::Io { what, source }
}

/// A platform that is about to run.
pub struct Supervisor {
    shared: Arc<Shared>,
    orders: Receiver<Order>,
    nursery: Nursery,
    /// `None` when a test holds the server's socket.
    server: Option<ServerPlan>,
    test_socket: Option<OwnedFd>,
    grace: Duration,
    installation: Installation,
}

/// How the server is started.
pub(super) struct ServerPlan {
    pub(super) facts: BootFacts,
    pub(super) listeners: Vec<OwnedFd>,
    pub(super) dns: Option<DnsSockets>,
    pub(super) uid: u32,
    pub(super) state: OwnedFd,
}

impl Supervisor {
    /// Refuses whatever can be refused, sweeps what an earlier run left, and prepares everything but processes.
    pub fn start(config: Config) -> Result<Self, RunError> {
        if !rustix::process::geteuid().is_root() {
            return Err(RunError::NotRoot);
        }
        raise_descriptor_limit().map_err(io_failed("raise the limit of open files"))?;
        let reserved = Reserved::new().map_err(io_failed("reserve descriptors"))?;
        let installation = Installation::open(&config.data_dir)?;
        let cgroups = Cgroups::open(installation.id())?;
        let swept = cgroups.sweep()?;
        if swept > 0 {
            tracing::info!(cgroups = swept, "removed what an earlier run left");
        }
        let net = NetPool::start(NetConfig { egress: config.egress, ..NetConfig::new(&installation) })?;
        let trees = Trees::open(&installation.trees_dir()).map_err(io_failed("open the directory of packages"))?;
        let opt = Opt::open(&config.interpreters, &installation.dir().join("opt"))
            .map_err(io_failed("prepare what functions see of layers"))?;
        let assets = assets::install(installation.dir()).map_err(io_failed("write the runtimes' files"))?;
        let mount_point = installation.dir().join("root");
        make_private(&mount_point).map_err(io_failed("make the mount point of guests' roots"))?;
        let (main, orders) = channel();
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| RunError::Io { what: "make an event", source: error.into() })?;
        let nursery = Nursery {
            reserved,
            program: config.program,
            spawner_arguments: config.spawner_arguments,
            server_arguments: config.server_arguments.clone().unwrap_or_default(),
            mount_point,
            assets,
            interpreters: config.interpreters.clone(),
        };
        let server = match config.server_arguments {
            None => None,
            Some(_) => {
                let owner = std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse().ok()).unwrap_or(0);
                let root = Credentials::open(installation.dir(), &config.endpoint, &config.region, owner)?;
                let dns = net.dns_sockets()?;
                let facts = BootFacts {
                    state_dir: STATE_IN_SERVER.into(),
                    installation: installation.id().to_string(),
                    root,
                    listeners: config.listeners.len(),
                    dns: dns.is_some(),
                    interpreters: config.interpreters.clone(),
                };
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let state = rustix::fs::open(installation.state_dir(), flags, Mode::empty())
                    .map_err(|error| RunError::Io { what: "open the state directory", source: error.into() })?;
                let uid = installation.block().server_uid();
                Some(ServerPlan { facts, listeners: config.listeners, dns, uid, state })
            }
        };
        let shared = Arc::new(Shared {
            cells: Cells::new(config.cells_max).map_err(io_failed("make an event queue"))?,
            cgroups,
            net,
            uids: Mutex::new(installation.block().cells()),
            trees,
            opt,
            grants: config.grants,
            without: config.without,
            full_proc: config.full_proc,
            launchers: Queue::new(QUEUE),
            pythons: config
                .interpreters
                .usable(Language::Python)
                .flat_map(|(id, ..)| [(id, Imports::Many), (id, Imports::Few)])
                .map(|zygote| (zygote, Queue::new(QUEUE)))
                .collect(),
            interpreters: config.interpreters,
            binds: Queue::new(QUEUE),
            forks: Queue::new(QUEUE),
            trees_queue: Queue::new(QUEUE),
            main: Mutex::new(main),
            wake,
        });
        Ok(Self { shared, orders, nursery, server, test_socket: None, grace: config.grace, installation })
    }

    /// The socket a server would be given. For tests, which take the server's place; `None` with a server.
    pub(crate) fn take_server_place(&mut self) -> io::Result<Option<OwnedFd>> {
        if self.server.is_some() {
            return Ok(None);
        }
        let (ours, theirs) = seqpacket::pair()?;
        self.test_socket = Some(ours);
        Ok(Some(theirs))
    }

    /// Runs until `stop` becomes readable, the server stops by itself, or something breaks; then takes everything
    /// down. All children are started by the calling thread, and die with it.
    pub fn run(self, stop: OwnedFd) -> Result<ExitCode, RunError> {
        let Self { shared, orders, nursery, server, test_socket, grace, installation } = self;
        let (reap_stop, reap_stopped) = io::pipe().map_err(io_failed("make a pipe"))?;
        let crew = Crew::start(&shared, reap_stop.into()).map_err(io_failed("start a thread"))?;
        let mut main = Main::new(Arc::clone(&shared), orders, nursery, grace);
        let opened = match test_socket {
            Some(socket) => main.open_session(socket).map_err(io_failed("open the session")),
            None => {
                main.plan = server;
                main.start_at = Some(Instant::now());
                Ok(())
            }
        };
        let verdict = opened.and_then(|()| main.serve(&stop));
        let ended = main.wind_up(crew, reap_stopped);
        if let Err(error) = shared.cgroups.sweep() {
            tracing::error!(error = &error as &dyn std::error::Error, "cannot remove the control groups");
        }
        drop(shared);
        drop(installation);
        ended.and(verdict)
    }
}

/// The supervisor's threads.
struct Crew {
    /// Those that end when their queue is closed.
    workers: Vec<JoinHandle<()>>,
    makers: Vec<JoinHandle<()>>,
    reaper: JoinHandle<()>,
    teardown: Vec<JoinHandle<()>>,
}

impl Crew {
    fn start(shared: &Arc<Shared>, reap_stop: OwnedFd) -> io::Result<Self> {
        let mut workers = Vec::new();
        for _ in 0..BINDERS {
            workers.push(start(shared, "bind", |shared| bind::run(shared))?);
        }
        for _ in 0..TREE_THREADS {
            workers.push(start(shared, "trees", |shared| unpack::run(shared))?);
        }
        let mut makers = Vec::new();
        let python = |&(interpreter, imports)| {
            let name = if imports == Imports::Many { "make python" } else { "make lean" };
            (name, SpawnerKind::Python(interpreter, imports))
        };
        let pythons = shared.pythons.keys().map(python);
        for (name, kind) in [("make", SpawnerKind::Plain)].into_iter().chain(pythons) {
            makers.push(start(shared, name, move |shared| {
                Maker::new(Arc::clone(shared), kind).run();
                Ok(())
            })?);
        }
        makers.push(start(shared, "fork", |shared| {
            Forks::new(Arc::clone(shared)).run();
            Ok(())
        })?);
        let reaper = start(shared, "reap", move |shared| shared.cells.watch(reap_stop.as_fd()))?;
        let mut teardown = Vec::new();
        for _ in 0..TEARDOWN_THREADS {
            teardown.push(start(shared, "teardown", |shared| {
                shared.cells.tear_down(shared);
                Ok(())
            })?);
        }
        Ok(Self { workers, makers, reaper, teardown })
    }
}

/// Starts a thread whose failure stops the platform.
pub(super) fn start(
    shared: &Arc<Shared>,
    name: &'static str,
    work: impl FnOnce(&Arc<Shared>) -> io::Result<()> + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let shared = Arc::clone(shared);
    thread::Builder::new().name(name.into()).spawn(move || {
        let panicked = || io::Error::other("it panicked");
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&shared)));
        if let Err(error) = worked.unwrap_or_else(|_| Err(panicked())) {
            shared.order(Order::Broken { thread: name, error });
        }
    })
}

impl Main {
    /// Takes everything down, from the door inwards.
    fn wind_up(self, crew: Crew, reap_stopped: io::PipeWriter) -> Result<(), RunError> {
        let Self { shared, orders, spawners, server, .. } = self;
        if let Some(server) = server {
            if let Some(process) = server.process {
                process.signal(Signal::KILL);
                process.reap();
            }
            server.session.finish();
            server.readers.into_iter().for_each(join);
        }
        // From here on nobody is told to start a spawner.
        drop(orders);
        for queue in [&shared.launchers].into_iter().chain(shared.pythons.values()) {
            queue.close();
        }
        shared.forks.close();
        shared.binds.close();
        crew.makers.into_iter().for_each(join);
        // No cell is made any more; these are all. Unpackers die too, and with them the waiting for their reports.
        shared.cells.kill_all();
        let empty = shared.cells.wait_until_empty(CELLS_PATIENCE);
        shared.trees_queue.close();
        crew.workers.into_iter().for_each(join);
        drop(reap_stopped);
        join(crew.reaper);
        shared.cells.reaped.close();
        crew.teardown.into_iter().for_each(join);
        end_spawners(spawners);
        if empty { Ok(()) } else { Err(RunError::CellsLeft) }
    }
}

/// Their sockets are closed, so they end by themselves.
fn end_spawners(spawners: Vec<Process>) {
    let by = Instant::now() + SPAWNERS_PATIENCE;
    for spawner in spawners {
        let left = Timespec::try_from(by.saturating_duration_since(Instant::now())).expect("two seconds fit");
        let mut polled = [PollFd::new(&spawner.pidfd, PollFlags::IN)];
        if !matches!(rustix::event::poll(&mut polled, Some(&left)), Ok(1)) {
            spawner.signal(Signal::KILL);
        }
        spawner.reap();
    }
}

pub(super) fn join(thread: JoinHandle<()>) {
    // A panic was caught inside and ordered the stop.
    let _ = thread.join();
}

fn raise_descriptor_limit() -> io::Result<()> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    Ok(())
}

fn make_private(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    match std::fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}
