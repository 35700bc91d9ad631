//! Walls around one instance: the supervisor, its client, and the trait between them.
//!
//! A [`Cell`] is a process tree with its own files, process ids and network, allowed a short list of system calls and
//! no more memory, CPU and pids than it was bound to. It has never heard of functions. [`Sandboxes::make`] builds the
//! walls and boots a runtime inside them, ahead of need; [`Sandboxes::bind`] gives the waiting cell its code and its
//! limits; [`Sandboxes::end`] leaves nothing.
//!
//! ```text
//!  server (unprivileged)             supervisor (root)                     spawner, zygote (root, pivoted)
//!  Client ── SOCK_SEQPACKET ──▶ make · bind · reap threads ── SEQPACKET ──▶ clone3(… CLONE_PARENT) ──▶ cell
//!         numbers, digests, fds         cgroups, net, uids                                      walls, then its program
//! ```
//!
//! # Invariants
//! - Nothing a tenant wrote is parsed on the privileged side; requests to it carry numbers, digests and descriptors.
//! - A host uid, a cgroup and a net namespace belong to at most one live cell, and the last two to one cell ever.
//! - When [`Sandboxes::end`] returns, the process tree, its cgroup, its mounts and its net namespace are gone, and its
//!   uid is free. A step that fails while a cell is made leaves nothing behind either.
//! - Only stdio and the runtime channel survive into a cell.
//! - When the supervisor dies, everything it started dies with it.
//!
//! Warm reuse lives in `pool`; the bytes on the channel in `runtime`; what a cell's walls are made of in `walls`.

mod api;
pub mod assets;
pub mod cgroup;
mod client;
mod credentials;
pub mod doctor;
mod inherited;
pub mod installation;
pub mod interpreters;
pub mod net;
mod protocol;
mod report;
mod seqpacket;
pub mod spawner;
pub mod supervisor;
mod sys;
pub mod uids;
mod unpacker;
mod usage;
mod zygote;

pub mod harness;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use api::{
    Bind, BindError, Cell, CellKind, EndError, Ended, Exit, LAYERS_MAX, MakeError, Net, Prepare, Sandboxes, Step, UnpackError,
    UnpackLimits, UnpackReport,
};
pub use client::Client;
pub use credentials::{Credentials, CredentialsError};
pub use inherited::{BootFacts, Inherited, inherited};
pub use usage::{Sample, Usage};
