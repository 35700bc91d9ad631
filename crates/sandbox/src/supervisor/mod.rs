//! The privileged process: it owns the listeners, makes cells and takes them down, and keeps the server alive.
//!
//! ```text
//!  main      starts and waits for server, spawner, zygote; signals; decides when to stop
//!  session ×2  reads requests of the server, binds: code, limits, the link  ─┐
//!  make ×n     one per spawner: cgroup, net, uid, descriptors, clone         │ bounded queues
//!  bind ×2     binds that have to wait, CPU, freezing, sockets               │
//!  fork        one more cell of a template                                   │
//!  trees ×2    unpacking, discarding                                        ─┘
//!  reap      waits for the death of cells ──▶ teardown ×2 takes their walls down
//! ```
//!
//! # Invariants
//! - Nothing a tenant wrote is parsed here. What the server says is taken for hostile.
//! - Every number a request brings is clamped to [`Grants`].
//! - Every child is started by the thread that runs [`Supervisor::run`], and dies with it; so do all cells, which the
//!   spawners make as that thread's children.
//! - When `run` returns, no process, cgroup, mount, net namespace or temporary directory of this platform is left.

mod bind;
mod cells;
mod children;
mod fork;
mod image;
mod layers;
mod main_loop;
mod make;
mod queue;
mod run;
mod session;
mod trees;
mod unpack;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{Sender, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use dunlin_model::{InterpreterId, Interpreters};
use dunlin_walls::Without;

pub use run::{RunError, Supervisor};

use crate::cgroup::{CgroupError, Cgroups};
use crate::net::{NetError, NetPool};
use crate::protocol::Refusal;
use crate::uids::Uids;
use crate::zygote::Imports;
use crate::{Bind, Step, sys};

/// What a platform is started with.
#[derive(Debug)]
pub struct Config {
    /// Everything the platform keeps. Made if it is not there.
    pub data_dir: PathBuf,
    /// Bound and listening; handed to every server in this order.
    pub listeners: Vec<OwnedFd>,
    /// Where users reach the first listener, for `credentials.json`.
    pub endpoint: String,
    /// The region the platform takes itself for, for `credentials.json`.
    pub region: String,
    /// The program that becomes spawner and server; `/proc/self/exe` in the product.
    pub program: PathBuf,
    /// Its arguments as a spawner: they must lead to [`crate::spawner::run`].
    pub spawner_arguments: Vec<OsString>,
    /// Its arguments as a server: they must lead to [`crate::inherited`]. `None` starts no server; then a test holds
    /// its socket (`harness`).
    pub server_arguments: Option<Vec<OsString>>,
    /// Walls left out: [`Without::NOTHING`] except in a test that shows what a wall is for.
    pub without: Without,
    /// What functions are served by. Cells see those outside `/usr` as well, read-only.
    pub interpreters: Interpreters,
    /// Whether cells see all of `/proc` that concerns no process, rather than processes only: their own either way.
    pub full_proc: bool,
    /// Whether cells of kind [`crate::Net::Internet`] reach the internet.
    pub egress: bool,
    /// How long the server may take to stop.
    pub grace: Duration,
    /// What one cell may have at most.
    pub grants: Grants,
    /// How many cells may be alive at a time.
    pub cells_max: usize,
}

impl Config {
    /// The product's defaults for a data directory; no listener, no server.
    #[must_use]
    pub fn new(data_dir: PathBuf) -> Self {
        Self {
            data_dir,
            listeners: Vec::new(),
            endpoint: String::new(),
            region: "cn-hangzhou".into(),
            program: "/proc/self/exe".into(),
            spawner_arguments: vec!["spawner".into()],
            server_arguments: None,
            without: Without::NOTHING,
            interpreters: Interpreters::usual(),
            full_proc: false,
            egress: true,
            grace: Duration::from_secs(30),
            grants: Grants::default(),
            cells_max: 4096,
        }
    }
}

/// The most one cell gets, whatever is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grants {
    /// Memory. The contract's largest function has 32 GB.
    pub memory_bytes: u64,
    /// Thousandths of one CPU. The contract's largest function has 16.
    pub cpu_millis: u32,
    /// The least CPU: less makes a process impossible to end by itself in bounded time.
    pub cpu_millis_min: u32,
    /// Processes and threads.
    pub pids: u32,
}

impl Default for Grants {
    fn default() -> Self {
        Self { memory_bytes: 32 << 30, cpu_millis: 16_000, cpu_millis_min: 10, pids: 4096 }
    }
}

impl Grants {
    /// The least memory a limit may say: less and the kernel kills the bootstrap.
    const MEMORY_BYTES_MIN: u64 = 16 << 20;
    const PIDS_MIN: u32 = 1;
    const TMP_BYTES_MIN: u64 = 1 << 20;

    fn clamp(&self, bind: &Bind) -> Bind {
        let memory_bytes = bind.memory_bytes.clamp(Self::MEMORY_BYTES_MIN, self.memory_bytes);
        Bind {
            code: bind.code,
            layers: bind.layers.clone(),
            memory_bytes,
            cpu_millis: bind.cpu_millis.clamp(self.cpu_millis_min, self.cpu_millis),
            pids: bind.pids.clamp(Self::PIDS_MIN, self.pids),
            tmp_bytes: bind.tmp_bytes.clamp(Self::TMP_BYTES_MIN, memory_bytes),
        }
    }
}

/// Runs a platform in this process until it is asked to stop by a signal, or its server gives up.
///
/// Must be called while the process has one thread, by the thread that lives as long as the process.
pub fn run(config: Config) -> Result<ExitCode, RunError> {
    let stop = sys::stop_signals().map_err(RunError::Signals)?;
    Supervisor::start(config)?.run(stop)
}

/// Where cells come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SpawnerKind {
    /// Clones that exec or unpack.
    Plain,
    /// Clones of a booted Python, this one, with so much imported.
    Python(InterpreterId, Imports),
    /// Forks of cells that are templates.
    Forker,
}

/// What every thread of the supervisor knows.
struct Shared {
    cells: Arc<cells::Cells>,
    cgroups: Cgroups,
    net: NetPool,
    uids: Mutex<Uids>,
    trees: trees::Trees,
    opt: layers::Opt,
    grants: Grants,
    without: Without,
    full_proc: bool,
    interpreters: Interpreters,
    launchers: queue::Queue<make::MakeJob>,
    /// Two for each Python that serves.
    pythons: BTreeMap<(InterpreterId, Imports), queue::Queue<make::MakeJob>>,
    binds: queue::Queue<bind::BindJob>,
    forks: queue::Queue<fork::ForkJob>,
    trees_queue: queue::Queue<unpack::TreeJob>,
    main: Mutex<Sender<Order>>,
    wake: OwnedFd,
}

/// Something only the main thread does.
enum Order {
    StartSpawner {
        kind: SpawnerKind,
        started: SyncSender<io::Result<OwnedFd>>,
    },
    /// The session of this number is over.
    SessionOver(u64),
    /// A thread cannot go on.
    Broken {
        thread: &'static str,
        error: io::Error,
    },
}

impl Shared {
    fn uids(&self) -> MutexGuard<'_, Uids> {
        self.uids.lock().expect("nothing panics while it holds the uids")
    }

    fn order(&self, order: Order) {
        // The main thread takes no orders any more once it has decided to stop.
        let _ = self.main.lock().expect("sending does not panic").send(order);
        // A full counter wakes as well.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    fn start_spawner(&self, kind: SpawnerKind) -> io::Result<OwnedFd> {
        let (started, answer) = sync_channel(1);
        self.order(Order::StartSpawner { kind, started });
        answer.recv().unwrap_or_else(|_| Err(io::Error::from_raw_os_error(libc::ESHUTDOWN)))
    }
}

fn net_failed(error: &NetError) -> Refusal {
    tracing::warn!(error = error as &dyn std::error::Error, "the network failed a cell");
    match error {
        NetError::Io { source, .. } => Refusal::failed(Step::Net, source),
        _ => Refusal::Failed { step: Step::Net, errno: libc::EIO },
    }
}

fn cgroup_failed(error: &CgroupError) -> Refusal {
    tracing::warn!(error = error as &dyn std::error::Error, "control groups failed a cell");
    match error {
        CgroupError::Io { source, .. } => Refusal::failed(Step::Cgroup, source),
        _ => Refusal::Failed { step: Step::Cgroup, errno: libc::EIO },
    }
}
