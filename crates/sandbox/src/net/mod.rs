//! What a cell can reach: a network namespace of its own, taken from a pool of ready ones.

pub mod dns;
pub mod dns_stub;

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use crate::Net;
use crate::installation::{Installation, InstallationId};

/// How many namespaces are kept ready, and whether there is a way out.
#[derive(Clone, Debug)]
pub struct NetConfig {
    /// Names links and the table.
    pub installation: InstallationId,
    /// Chooses the addresses: the index of the installation's uid block.
    pub block: u32,
    /// Whether [`Net::Internet`] is to reach the internet. If not, or if the host cannot filter, such cells get loopback.
    pub egress: bool,
    /// Ready namespaces of kind [`Net::Loopback`].
    pub loopback_ready: usize,
    /// Ready namespaces of kind [`Net::Internet`].
    pub internet_ready: usize,
}

impl NetConfig {
    /// The defaults for an installation, with egress.
    #[must_use]
    pub fn new(installation: &Installation) -> Self {
        Self {
            installation: installation.id(),
            block: installation.block().index(),
            egress: true,
            loopback_ready: 16,
            internet_ready: 16,
        }
    }
}

/// Why there is no network for a cell.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The network thread is gone.
    #[error("the network thread has ended")]
    Gone,
    /// One step failed.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The cause.
        source: io::Error,
    },
}

/// Whether cells of kind [`Net::Internet`] reach the internet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Egress {
    /// They do, filtered.
    On,
    /// They have loopback only, for this reason.
    Off(String),
}

/// The pool of namespaces. Clones share it; the last one dropped ends its thread and removes its links and table.
#[derive(Clone, Debug)]
pub struct NetPool {}

impl NetPool {
    /// Sweeps what an earlier run left, loads the firewall and starts to fill.
    pub fn start(config: NetConfig) -> Result<Self, NetError> {
        let _ = config;
        Err(NetError::Gone)
    }

    /// Whether there is a way out.
    #[must_use]
    pub fn egress(&self) -> Egress {
        Egress::Off(String::new())
    }

    /// A namespace nobody has used. Waits for one to be made if none is ready.
    pub fn take(&self, net: Net) -> Result<NetNs, NetError> {
        let _ = net;
        Err(NetError::Gone)
    }

    /// The sockets the server's DNS stub answers on, bound where cells' queries arrive. `None` without egress.
    pub fn dns_sockets(&self) -> Result<Option<dns::DnsSockets>, NetError> {
        Ok(None)
    }
}

/// One cell's network namespace. Dropping it removes its link; the namespace goes with the last process in it.
#[derive(Debug)]
pub struct NetNs {
    fd: OwnedFd,
}

impl NetNs {
    /// The namespace, to be joined with `setns`.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        use std::os::fd::AsFd as _;
        self.fd.as_fd()
    }

    /// Opens the way out. Does nothing for a loopback-only namespace.
    pub fn link_up(&self) -> Result<(), NetError> {
        Ok(())
    }

    /// A fresh, unconnected, non-blocking TCP/IPv4 socket inside the namespace.
    pub fn socket(&self) -> Result<OwnedFd, NetError> {
        Err(NetError::Gone)
    }
}
