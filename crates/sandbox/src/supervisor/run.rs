//! The main thread: builds everything, then waits for its children, for orders and for the word to stop.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit, Signal};

use super::cells::Cells;
use super::children::{Nursery, Process};
use super::make::Maker;
use super::queue::Queue;
use super::session::Session;
use super::trees::Trees;
use super::{Config, Order, Shared, SpawnerKind, bind, unpack};
use crate::cgroup::{CgroupError, Cgroups};
use crate::credentials::{Credentials, CredentialsError};
use crate::inherited::BootFacts;
use crate::installation::{Installation, OpenError};
use crate::net::dns::DnsSockets;
use crate::net::{NetConfig, NetError, NetPool};
use crate::sys::Reserved;
use crate::{Exit, assets, seqpacket};

/// Where the server finds its state.
const STATE_IN_SERVER: &str = "/mnt/dunlin/state";

/// Requests that wait for a thread, per kind.
const QUEUE: usize = 8192;
const BINDERS: usize = 3;
const TREE_THREADS: usize = 2;
const TEARDOWN_THREADS: usize = 2;

/// How long cells may take to go when the platform stops.
const CELLS_PATIENCE: Duration = Duration::from_secs(15);
const SPAWNERS_PATIENCE: Duration = Duration::from_secs(2);

/// The pause before a dead server is started again: doubled each time, up to the second, forgotten after the third.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
const HEALTHY: Duration = Duration::from_secs(30);
/// A server that dies as often without once being healthy is not started again.
const DEATHS_MAX: u32 = 10;

/// The supervisor's own exit status when it gives its server up.
const EXIT_GAVE_UP: u8 = 70;

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

fn io_failed(what: &'static str) -> impl FnOnce(io::Error) -> RunError {
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

struct ServerPlan {
    facts: BootFacts,
    listeners: Vec<OwnedFd>,
    dns: Option<DnsSockets>,
    uid: u32,
    state: OwnedFd,
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
            extra_roots: config.extra_roots,
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
            grants: config.grants,
            without: config.without,
            launchers: Queue::new(QUEUE),
            pythons: Queue::new(QUEUE),
            binds: Queue::new(QUEUE),
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
        let (reap_stop, reap_stopped) =
            io::pipe().map_err(io_failed("make a pipe"))?;
        let crew = Crew::start(&shared, reap_stop.into()).map_err(io_failed("start a thread"))?;
        let mut main = Main {
            shared: Arc::clone(&shared),
            orders,
            nursery,
            plan: server,
            grace,
            spawners: Vec::new(),
            server: None,
            sessions: 0,
            start_at: None,
            pause: PAUSE_FIRST,
            deaths: 0,
            stop_by: None,
            verdict: None,
        };
        match test_socket {
            Some(socket) => main.open_session(socket).map(drop).map_err(io_failed("open the session"))?,
            None => main.start_at = Some(Instant::now()),
        }
        let verdict = main.serve(&stop);
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
        for (name, kind) in [("make", SpawnerKind::Plain), ("make python", SpawnerKind::Python)] {
            makers.push(start(shared, name, move |shared| {
                Maker::new(Arc::clone(shared), kind).run();
                Ok(())
            })?);
        }
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
fn start(
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

struct Main {
    shared: Arc<Shared>,
    orders: Receiver<Order>,
    nursery: Nursery,
    plan: Option<ServerPlan>,
    grace: Duration,
    spawners: Vec<Process>,
    server: Option<Server>,
    /// How many sessions there have been: the number of the newest.
    sessions: u64,
    /// When the server is to be started.
    start_at: Option<Instant>,
    pause: Duration,
    deaths: u32,
    /// Set once the platform is to stop: the server is killed then.
    stop_by: Option<Instant>,
    verdict: Option<Result<ExitCode, RunError>>,
}

struct Server {
    /// `None` when a test is the server.
    process: Option<Process>,
    session: Arc<Session>,
    reader: JoinHandle<()>,
    since: Instant,
}

impl Main {
    fn serve(&mut self, stop: &OwnedFd) -> Result<ExitCode, RunError> {
        loop {
            if let Some(verdict) = self.verdict.take() {
                return verdict;
            }
            let now = Instant::now();
            if self.start_at.is_some_and(|at| at <= now) {
                self.start_at = None;
                self.start_server()?;
            }
            if self.stop_by.is_some_and(|by| by <= now) {
                tracing::warn!("the server did not stop in time");
                return Ok(ExitCode::SUCCESS);
            }
            let wake_at = [self.start_at, self.stop_by].into_iter().flatten().min();
            match self.wait(stop.as_fd(), wake_at).map_err(io_failed("wait"))? {
                Woken::Nothing => {}
                Woken::Stop => self.stop(),
                Woken::Orders => self.take_orders()?,
                Woken::Server => self.server_died(),
                Woken::Spawner(index) => {
                    let exit = self.spawners.swap_remove(index).reap();
                    tracing::info!(%exit, "a spawner ended");
                }
            }
        }
    }

    fn wait(&self, stop: BorrowedFd<'_>, wake_at: Option<Instant>) -> io::Result<Woken> {
        let mut polled = vec![PollFd::new(&stop, PollFlags::IN), PollFd::new(&self.shared.wake, PollFlags::IN)];
        polled.extend(self.spawners.iter().map(|spawner| PollFd::new(&spawner.pidfd, PollFlags::IN)));
        let server = self.server.as_ref().and_then(|server| server.process.as_ref());
        polled.extend(server.map(|process| PollFd::new(&process.pidfd, PollFlags::IN)));
        let patience = wake_at.map(|at| {
            let left = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            Timespec::try_from(left).expect("the grace and the pauses fit")
        });
        match rustix::event::poll(&mut polled, patience.as_ref()) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(Woken::Nothing),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let ready = |index: usize| !polled[index].revents().is_empty();
        if ready(0) {
            // A signal is taken out, so that the next one is seen; what a test wrote says the same each time.
            let mut ignored = [0; 128];
            rustix::io::retry_on_intr(|| rustix::io::read(stop, &mut ignored))?;
            return Ok(Woken::Stop);
        }
        if ready(1) {
            return Ok(Woken::Orders);
        }
        let spawners = self.spawners.len();
        if let Some(index) = (0..spawners).find(|index| ready(2 + index)) {
            return Ok(Woken::Spawner(index));
        }
        Ok(Woken::Server)
    }

    fn stop(&mut self) {
        let now = Instant::now();
        match self.server.as_ref().and_then(|server| server.process.as_ref()) {
            None => self.verdict = Some(Ok(ExitCode::SUCCESS)),
            Some(_) if self.stop_by.is_some() => {
                // Asked twice: at once.
                self.stop_by = Some(now);
            }
            Some(process) => {
                process.signal(Signal::TERM);
                self.stop_by = Some(now + self.grace);
            }
        }
    }

    fn take_orders(&mut self) -> Result<(), RunError> {
        let mut count = [0; 8];
        // Nobody else reads it, and it was readable.
        let _ = rustix::io::read(&self.shared.wake, &mut count);
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::StartSpawner { kind, started } => {
                    let made = self.nursery.spawner(kind).map(|(socket, process)| {
                        self.spawners.push(process);
                        socket
                    });
                    // The asker waits; if it has panicked, its socket is closed here and the spawner ends.
                    drop(started.send(made));
                }
                Order::SessionOver(number) if number == self.sessions => self.session_over(),
                Order::SessionOver(_) => {}
                Order::Broken { thread, error } => return Err(RunError::Thread { thread, source: error }),
            }
        }
        Ok(())
    }

    fn session_over(&mut self) {
        let Some(server) = &self.server else { return };
        match &server.process {
            // Its death is seen next.
            Some(process) => process.signal(Signal::KILL),
            None => self.verdict = Some(Ok(ExitCode::SUCCESS)),
        }
    }

    fn open_session(&mut self, socket: OwnedFd) -> io::Result<()> {
        let session = Session::new(socket)?;
        self.sessions += 1;
        let number = self.sessions;
        let reading = Arc::clone(&session);
        let reader = start(&self.shared, "session", move |shared| {
            reading.serve(shared);
            shared.order(Order::SessionOver(number));
            Ok(())
        })?;
        self.server = Some(Server { process: None, session, reader, since: Instant::now() });
        Ok(())
    }

    fn start_server(&mut self) -> Result<(), RunError> {
        let Some(plan) = &self.plan else { return Ok(()) };
        let failed = io_failed("start the server");
        let (ours, theirs) = seqpacket::pair().map_err(io_failed("make the server's socket"))?;
        let mut descriptors = vec![theirs.as_fd()];
        descriptors.extend(plan.listeners.iter().map(AsFd::as_fd));
        descriptors.extend(plan.dns.iter().flat_map(|dns| [dns.udp.as_fd(), dns.tcp.as_fd()]));
        let process = self.nursery.server(&plan.facts, &descriptors, plan.uid, &plan.state).map_err(failed)?;
        let opened = self.open_session(ours);
        if let Some(server) = self.server.as_mut().filter(|_| opened.is_ok()) {
            server.process = Some(process);
        } else {
            process.signal(Signal::KILL);
            process.reap();
        }
        opened.map_err(io_failed("open the session"))
    }

    fn server_died(&mut self) {
        let Some(server) = self.server.take() else { return };
        let lived = server.since.elapsed();
        let exit = server.process.map_or(Exit::Unknown, Process::reap);
        server.session.finish();
        self.shared.cells.kill_all();
        join(server.reader);
        if self.stop_by.is_some() {
            let code = if exit == Exit::Code(0) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
            self.verdict = Some(Ok(code));
            return;
        }
        match exit {
            // It meant to: a wrong configuration, or the end of its work.
            Exit::Code(code @ (0..=2 | 64..=78)) => {
                self.verdict = Some(Ok(ExitCode::from(u8::try_from(code).expect("at most 78"))));
            }
            _ => {
                if lived >= HEALTHY {
                    self.deaths = 0;
                    self.pause = PAUSE_FIRST;
                }
                self.deaths += 1;
                if self.deaths >= DEATHS_MAX {
                    tracing::error!(%exit, deaths = self.deaths, "the server keeps dying");
                    self.verdict = Some(Ok(ExitCode::from(EXIT_GAVE_UP)));
                    return;
                }
                tracing::error!(%exit, pause = ?self.pause, "the server died; it is started again");
                self.start_at = Some(Instant::now() + self.pause);
                self.pause = (self.pause * 2).min(PAUSE_MAX);
            }
        }
    }

    /// Takes everything down, from the door inwards.
    fn wind_up(self, crew: Crew, reap_stopped: io::PipeWriter) -> Result<(), RunError> {
        let Self { shared, orders, spawners, server, .. } = self;
        if let Some(server) = server {
            if let Some(process) = server.process {
                process.signal(Signal::KILL);
                process.reap();
            }
            server.session.finish();
            join(server.reader);
        }
        // From here on nobody is told to start a spawner.
        drop(orders);
        for queue in [&shared.launchers, &shared.pythons] {
            queue.close();
        }
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

enum Woken {
    Nothing,
    Stop,
    Orders,
    Server,
    Spawner(usize),
}

fn join(thread: JoinHandle<()>) {
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
