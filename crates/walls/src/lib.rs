//! Walls around one process tree, built from the inside.
//!
//! This crate is what runs between `clone` and the first instruction of a runtime. It is linked into the binary (for
//! the spawner, from which node and custom runtimes start), and `cargo xtask assets` builds it once more as the shared
//! object that the Python zygote loads. (Not as a second crate type: Cargo would then write the library for everyone
//! to a name without a hash, where two builds of it overwrite each other.)
//!
//! ```text
//! supervisor ──MakeRequest + descriptors──▶ spawner or zygote      (root, in the prepared read-only root)
//!            ◀──MakeReply + pidfd─────────     │ clone3, child of the supervisor
//!                                              ▼
//!                                        build::walls             (cgroups, net, mounts, uid, user namespace,
//!                                              │                   capabilities, landlock, seccomp)
//!                                              ▼
//!                                        launcher, bootstrap or unpacker
//! ```
//!
//! # Invariants
//! - A child either stands behind every wall it was asked to build, or it says which step failed and exits. There is
//!   no degraded child: what a kernel cannot do is found by [`probe`] before anything is served.
//! - Only stdio, the channel and, for the unpacker, its input survive into the child.
//! - The child's user namespace owns none of its other namespaces.
//! - Nothing a tenant wrote is parsed here: requests come from the supervisor, `Exec` frames from the server.
//!
//! `unsafe` and raw system calls live in `sys` only. Cgroups, uids and net namespaces are made by the supervisor
//! (crate `sandbox`) and arrive as descriptors.

mod build;
pub mod forker;
pub mod ids;
mod landlock;
pub mod launcher;
pub mod limit;
pub mod probe;
pub mod protocol;
pub mod root;
pub mod seccomp;
pub mod serve;
mod step;
mod sys;
mod template;
mod wall;

pub use forker::ForkRequest;
pub use limit::limit_namespace;
pub use probe::probe;
pub use protocol::{CellKind, MakeReply, MakeRequest, Step, Wall, Without};
pub use root::{DNS_ADDRESS, RootSpec, prepare_root};
pub use serve::{Child, serve};
