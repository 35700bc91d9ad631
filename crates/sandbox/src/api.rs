//! The trait [`Sandboxes`] and the words it is spoken in.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

use async_trait::async_trait;
use dunlin_model::{CellId, Digest, InterpreterId};
use tokio::sync::watch;

use crate::Usage;

/// Makes, binds and ends cells. Held as `Arc<dyn Sandboxes>`; the real one is [`crate::Client`].
///
/// Every method may be called from many tasks at once; no call waits behind another that concerns a different cell.
#[async_trait]
pub trait Sandboxes: Send + Sync + 'static {
    /// Builds walls and starts a runtime inside them. Returns as soon as the process exists; that it has booted is
    /// said on its channel.
    async fn make(&self, kind: CellKind, net: Net) -> Result<Cell, MakeError>;

    /// One more cell of a bound [`CellKind::Template`], behind walls of its own: it has loaded what the template has loaded,
    /// and is bound to the same code. The template serves nothing else from then on. When it ends, all cells that were
    /// forked from it end; one that cannot be forked is ended.
    async fn fork(&self, template: CellId) -> Result<Cell, MakeError>;

    /// Mounts code at `/code` and sets the limits, except the CPU quota, which [`Sandboxes::set_cpu`] applies once the
    /// code is loaded. A cell is bound once.
    async fn bind(&self, cell: CellId, bind: &Bind) -> Result<(), BindError>;

    /// Limits the cell to `cpu_millis` thousandths of one CPU; 0 lifts the limit.
    async fn set_cpu(&self, cell: CellId, cpu_millis: u32) -> Result<(), BindError>;

    /// A fresh, unconnected, non-blocking TCP/IPv4 socket inside the cell's net namespace.
    async fn socket(&self, cell: CellId) -> Result<OwnedFd, BindError>;

    /// Stops every process of the cell, or lets them go on.
    async fn freeze(&self, cell: CellId, frozen: bool) -> Result<(), BindError>;

    /// Kills the cell and takes its walls down. Idempotent: ending a cell again, or one that died by itself, answers
    /// what is known about its end. Returns when cgroup, mounts, net namespace and uid are gone.
    async fn end(&self, cell: CellId) -> Result<Ended, EndError>;

    /// Unpacks a package into its tree, in a disposable sandbox, and prepares what is in it. Idempotent: a tree that is
    /// there is left alone.
    async fn unpack(
        &self,
        package: Digest,
        zip: OwnedFd,
        limits: UnpackLimits,
        prepare: Prepare,
    ) -> Result<UnpackReport, UnpackError>;

    /// Removes a package's tree. Instances that have it mounted keep what they see. Removing what is not there is fine.
    async fn discard_tree(&self, package: Digest) -> Result<(), BindError>;
}

/// What runs in a new cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CellKind {
    /// Waits for one `Exec` frame and becomes that program.
    Launcher,
    /// A fork of a zygote of this Python: the interpreter and its bootstrap, which send `Ready` and wait for `Load`.
    Python(InterpreterId),
    /// The same from a zygote that has imported little: made in half the time, for a call that waits for it.
    LeanPython(InterpreterId),
    /// The same as [`CellKind::Python`], to be forked itself once it has loaded a function; see [`Sandboxes::fork`].
    Template(InterpreterId),
    /// The host of WebAssembly programs, which sends `Ready` and waits for `Load`.
    Wasm,
    /// A launcher whose root is the image it is bound to, with a layer of its own to write: the code of its [`Bind`] is an
    /// image that was unpacked with [`Prepare::Image`]. Its one `Exec` frame says as whom the program runs.
    Container,
}

/// What a cell can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Net {
    /// Its own loopback and nothing else.
    Loopback,
    /// Public addresses too, from the moment it is bound.
    Internet,
}

/// Most packages at `/opt` of one cell.
pub const LAYERS_MAX: usize = 8;

/// What a cell is bound to. The supervisor clamps every number to what it was configured to grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// The unpacked package to mount at `/code`; a container's image.
    pub code: Option<Digest>,
    /// The unpacked packages to mount, merged, at `/opt`: of two that hold the same path, the first counts. At most
    /// [`LAYERS_MAX`].
    pub layers: Vec<Digest>,
    /// Memory of all processes and of every tmpfs together.
    pub memory_bytes: u64,
    /// Thousandths of one CPU that [`Sandboxes::set_cpu`] is going to apply; `bind` itself leaves CPU unlimited.
    pub cpu_millis: u32,
    /// Processes and threads together.
    pub pids: u32,
    /// Size of `/tmp`, or of all that a container writes, within `memory_bytes`.
    pub tmp_bytes: u64,
}

impl Bind {
    /// The package of this place: 0 is the code, the layers follow.
    pub(crate) fn package(&self, place: u8) -> Option<Digest> {
        match place.checked_sub(1) {
            None => self.code,
            Some(layer) => self.layers.get(usize::from(layer)).copied(),
        }
    }
}

/// A cell that was just made.
#[derive(Debug)]
pub struct Cell {
    /// Names it in every later call.
    pub id: CellId,
    /// The host's end of descriptor 3: a stream socket. Close-on-exec and blocking, as it arrived.
    pub channel: OwnedFd,
    /// Read end of the pipe that is the cell's stdout and stderr.
    pub log: OwnedFd,
    /// Reads what the cell uses.
    pub usage: Usage,
    /// Becomes `Some` once: when the cell has ended, by itself or by [`Sandboxes::end`], and its walls are down.
    pub ended: watch::Receiver<Option<Ended>>,
}

/// How a cell ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How its first process went.
    pub exit: Exit,
    /// Whether the kernel killed something in it for want of memory.
    pub out_of_memory: bool,
    /// CPU time of all its processes over its whole life.
    pub cpu_us: u64,
}

/// How a process went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It called exit with this status.
    Code(i32),
    /// A signal killed it.
    Signal(i32),
    /// Nobody saw: the supervisor went away first.
    Unknown,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit status {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Unknown => f.write_str("unknown exit"),
        }
    }
}

/// What a package may unpack to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnpackLimits {
    /// Bytes of all files together, counted as they are written.
    pub bytes: u64,
    /// Files, directories and links together.
    pub entries: u64,
}

/// What is done with a package's files once they are unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prepare {
    /// They stay as they are.
    #[default]
    Nothing,
    /// WebAssembly programs are compiled.
    Wasm,
    /// The package is a container image, and its tree becomes the image's file system, with the owners and modes that files
    /// have there.
    Image,
}

impl Prepare {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Nothing => 0,
            Self::Wasm => 1,
            Self::Image => 2,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        [Self::Nothing, Self::Wasm, Self::Image].into_iter().find(|prepare| prepare.code() == code)
    }
}

/// What an unpacked package holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnpackReport {
    /// Bytes of all files together.
    pub bytes: u64,
    /// Files, directories and links together.
    pub entries: u64,
    /// Digest of the list of paths, modes and contents; `None` when the tree was there already.
    pub manifest: Option<Digest>,
    /// The files that were prepared; `None` when the tree was there already.
    pub prepared: Option<Vec<String>>,
}

/// The part of the supervisor's work that a system call failed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Step {
    /// Making the cgroup, or changing its limits.
    Cgroup = 1,
    /// Taking a net namespace from the pool, or working in it.
    Net = 2,
    /// Finding a host uid that no live cell has.
    Uid = 3,
    /// Making the pipes and sockets a cell is born with.
    Descriptors = 4,
    /// Asking the spawner or the zygote.
    Spawner = 5,
    /// The clone itself, in the spawner or the zygote.
    Clone = 6,
    /// Opening the cell's namespaces from outside.
    Namespaces = 7,
    /// Opening the package's tree.
    Tree = 8,
    /// Mounting into the cell.
    Mount = 9,
    /// Killing the cell or waiting for its end.
    Kill = 10,
    /// Giving the unpacked tree its owner, its modes and its name.
    Publish = 11,
    /// Starting an interpreter's zygote.
    Interpreter = 12,
    /// Merging the layers' trees.
    Layers = 13,
    /// Forking a template, or what was found of its child.
    Fork = 14,
    /// Making an image a cell's root.
    Image = 15,
}

impl Step {
    /// All steps, in the order of their numbers.
    pub const ALL: [Self; 15] = [
        Self::Cgroup,
        Self::Net,
        Self::Uid,
        Self::Descriptors,
        Self::Spawner,
        Self::Clone,
        Self::Namespaces,
        Self::Tree,
        Self::Mount,
        Self::Kill,
        Self::Publish,
        Self::Interpreter,
        Self::Layers,
        Self::Fork,
        Self::Image,
    ];
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cgroup => "set up the cgroup",
            Self::Net => "set up the network",
            Self::Uid => "find a free uid",
            Self::Descriptors => "make the pipes",
            Self::Spawner => "reach the spawner",
            Self::Clone => "clone the process",
            Self::Namespaces => "open the namespaces",
            Self::Tree => "open the package's tree",
            Self::Mount => "mount into the cell",
            Self::Kill => "kill the cell",
            Self::Publish => "publish the unpacked tree",
            Self::Interpreter => "start the interpreter",
            Self::Layers => "merge the layers",
            Self::Fork => "fork the template",
            Self::Image => "make the image the root",
        })
    }
}

/// Why there is no cell.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// The supervisor's socket is closed. Everything it made is gone with it.
    #[error("the supervisor is gone")]
    Gone,
    /// As many cells are alive as the supervisor grants.
    #[error("the supervisor grants no more cells at a time")]
    Full,
    /// There is no template of this number any more, or it was never bound.
    #[error("{0} is no template")]
    NoTemplate(CellId),
    /// The kernel refused.
    #[error("cannot {step}")]
    Failed {
        /// Doing what.
        step: Step,
        /// With which error.
        source: io::Error,
    },
}

/// Why a cell or a tree could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The supervisor's socket is closed.
    #[error("the supervisor is gone")]
    Gone,
    /// The cell has ended, or never was.
    #[error("{0} is not alive")]
    NoSuchCell(CellId),
    /// A cell is bound once.
    #[error("{0} is bound already")]
    AlreadyBound(CellId),
    /// The package was never unpacked, or its tree was discarded.
    #[error("package {0} is not unpacked")]
    NoSuchTree(Digest),
    /// The kernel refused.
    #[error("cannot {step}")]
    Failed {
        /// Doing what.
        step: Step,
        /// With which error.
        source: io::Error,
    },
}

/// Why a cell's end is not known.
#[derive(Debug, thiserror::Error)]
pub enum EndError {
    /// The supervisor's socket is closed. The cell died with it.
    #[error("the supervisor is gone")]
    Gone,
    /// No cell of this number was made here, or its end was too long ago to be remembered.
    #[error("{0} is not known")]
    NoSuchCell(CellId),
    /// Something of the cell could not be removed.
    #[error("cannot {step}")]
    Failed {
        /// Doing what.
        step: Step,
        /// With which error.
        source: io::Error,
    },
}

/// Why a package is not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The package is bad: the user's fault.
    #[error("the package was refused: {message}")]
    Rejected {
        /// A word for programs, for example `traversal`; empty when the unpacker gave none.
        code: String,
        /// A sentence for the user.
        message: String,
    },
    /// It took longer than the supervisor waits.
    #[error("unpacking took too long")]
    TimedOut,
    /// The unpacker ended without a report.
    #[error("the unpacker ended early: {}", .0.exit)]
    Died(Ended),
    /// The unpacker's report is no report.
    #[error("the unpacker's report cannot be read")]
    BadReport,
    /// The supervisor's socket is closed.
    #[error("the supervisor is gone")]
    Gone,
    /// As many cells are alive as the supervisor grants.
    #[error("the supervisor grants no more cells at a time")]
    Full,
    /// The kernel refused.
    #[error("cannot {step}")]
    Failed {
        /// Doing what.
        step: Step,
        /// With which error.
        source: io::Error,
    },
}
