//! What a cell can reach: a network namespace of its own, taken from a pool of ready ones.
//!
//! Two kinds are kept ready: loopback alone, and loopback with a link to the host that stays closed until the
//! cell is bound. Over a link a cell reaches public addresses of the internet through the host's translation, and names through
//! the stub ([`dns_stub`]); one static set of rules ([`Caps`], [`ranges`]) refuses everything else. No rule changes when
//! a cell comes or goes.
//!
//! # Invariants
//! - A namespace is one cell's and is never used again, nor is its link's address before the link is gone.
//! - Where the host cannot filter, or filters us away, [`Net::Internet`] gets loopback only and [`NetPool::egress`] says
//!   why: never an open way out.
//! - All that is left behind, by whatever end, is called by the installation's id and swept at the next start.
//! - Nothing here runs a program other than `nft`.
//!
//! `links` makes namespaces, `pool` keeps them ready, `firewall` writes the rules, `probe` tries them, `guard` puts them
//! back.

mod addresses;
pub mod dns;
mod dns_message;
pub mod dns_stub;
pub(crate) mod firewall;
mod guard;
mod links;
mod netlink;
mod pool;
mod probe;
pub mod ranges;

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;

use self::addresses::Addresses;
use self::dns::DnsSockets;
pub use self::firewall::Caps;
use self::firewall::{LoadError, Rules};
use self::guard::Guard;
use self::links::{Made, Workshop, at};
use self::netlink::Netlink;
use self::pool::{Kind, Pool, Reach};
use self::ranges::{REFUSED, Range4};
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
    /// Ready namespaces of loopback alone.
    pub loopback_ready: usize,
    /// Ready namespaces with a link.
    pub internet_ready: usize,
    /// What one cell may do at most.
    pub caps: Caps,
    /// The addresses no cell reaches.
    pub refused: Vec<Range4>,
}

impl NetConfig {
    /// The defaults for an installation, with egress.
    #[must_use]
    pub fn new(installation: &Installation) -> Self {
        Self::named(installation.id(), installation.block().index())
    }

    fn named(installation: InstallationId, block: u32) -> Self {
        Self {
            installation,
            block,
            egress: true,
            loopback_ready: 16,
            internet_ready: 16,
            caps: Caps::default(),
            refused: REFUSED.to_vec(),
        }
    }
}

/// Why there is no network for a cell.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The network thread has ended.
    #[error("the network thread has ended")]
    Gone,
    /// A thread could not return from a cell's namespace and has ended.
    #[error("cannot return from a net namespace")]
    Lost(#[source] io::Error),
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

/// The pool of namespaces. Clones share it; the last one dropped ends its threads and removes its links and table.
#[derive(Clone, Debug)]
pub struct NetPool {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    pool: Pool,
    egress: Egress,
    dns: Option<DnsSockets>,
}

impl NetPool {
    /// Sweeps what an earlier run left, loads the firewall, tries it and starts to fill. Everything happens in the
    /// calling thread's net namespace.
    pub fn start(config: NetConfig) -> Result<Self, NetError> {
        let addresses = Addresses::new(config.installation, config.block);
        let mut workshop = Workshop::open(addresses.clone())?;
        workshop.sweep()?;
        let opened =
            if config.egress { try_egress(&mut workshop, &addresses, &config) } else { Err("it is switched off".to_owned()) };
        let (egress, dns, guard) = match opened {
            Ok((dns, guard)) => (Egress::On, Some(dns), Some(guard)),
            Err(reason) => {
                // Rules may be there from this attempt or from an earlier run; links may be there from the probe.
                let _ = firewall::load(&firewall::remove(&addresses.table()));
                workshop.sweep()?;
                (Egress::Off(reason), None, None)
            }
        };
        if let (true, Egress::Off(reason)) = (config.egress, &egress) {
            tracing::warn!(reason, "functions have no internet access");
        }
        let internet_ready = if egress == Egress::On { config.internet_ready } else { 0 };
        let pool = Pool::start(workshop, config.loopback_ready, internet_ready, guard)?;
        Ok(Self { inner: Arc::new(Inner { pool, egress, dns }) })
    }

    /// Whether there is a way out.
    #[must_use]
    pub fn egress(&self) -> Egress {
        self.inner.egress.clone()
    }

    /// A namespace nobody has used. Waits for one to be made if none is ready.
    pub fn take(&self, net: Net) -> Result<NetNs, NetError> {
        Ok(NetNs { made: self.inner.pool.take(self.kind(net))?, reach: self.inner.pool.reach() })
    }

    /// Makes the namespace of a new process, in which nothing is up yet, into a cell's.
    pub fn adopt(&self, ns: OwnedFd, net: Net) -> Result<NetNs, NetError> {
        let made = self.inner.pool.adopt(ns, self.kind(net))?;
        Ok(NetNs { made, reach: self.inner.pool.reach() })
    }

    fn kind(&self, net: Net) -> Kind {
        match (net, &self.inner.egress) {
            (Net::Internet, Egress::On) => Kind::Linked,
            (Net::Internet, Egress::Off(_)) | (Net::Loopback, _) => Kind::Loopback,
        }
    }

    /// What opens links, for the calling thread: nobody waits for another's.
    pub fn opener(&self) -> Result<LinkOpener, NetError> {
        Ok(LinkOpener(Netlink::open().map_err(at("open a netlink socket"))?))
    }

    /// The sockets the server's DNS stub answers on, bound where cells' queries arrive. `None` without egress.
    pub fn dns_sockets(&self) -> Result<Option<DnsSockets>, NetError> {
        self.inner.dns.as_ref().map(|dns| dns.try_clone().map_err(at("copy a socket"))).transpose()
    }
}

/// Opens cells' links from the host's side. Belongs to the net namespace it was made in, which must be the pool's.
#[derive(Debug)]
pub struct LinkOpener(Netlink);

impl LinkOpener {
    /// Opens the way out. Does nothing for a loopback-only namespace.
    pub fn open(&mut self, net: &NetNs) -> Result<(), NetError> {
        net.made.link.map_or(Ok(()), |link| link.open(&mut self.0))
    }
}

/// One cell's network namespace. Dropping it removes its link; the namespace goes with the last process in it.
#[derive(Debug)]
pub struct NetNs {
    made: Made,
    reach: Reach,
}

impl NetNs {
    /// The namespace, to be joined with `setns`.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.made.ns.as_fd()
    }

    /// A fresh, unconnected, non-blocking TCP/IPv4 socket inside the namespace.
    pub fn socket(&self) -> Result<OwnedFd, NetError> {
        self.reach.socket(&self.made.ns)
    }
}

impl Drop for NetNs {
    fn drop(&mut self) {
        if let Some(link) = self.made.link {
            self.reach.done_with(link);
        }
    }
}

/// Loads and tries everything a way out needs. What cannot be had is a reason, not an error: cells run without.
fn try_egress(workshop: &mut Workshop, addresses: &Addresses, config: &NetConfig) -> Result<(DnsSockets, Guard), String> {
    let (dns, resolver_port) =
        DnsSockets::bind(addresses.gateway()).map_err(|error| format!("the resolver's sockets cannot be bound: {error}"))?;
    let rules = Rules { addresses, refused: &config.refused, caps: &config.caps, resolver_port };
    let guard = Guard::load(addresses.table(), rules.text()).map_err(|error| match error {
        LoadError::Run(source) => format!("nft cannot be run: {source}"),
        other => other.to_string(),
    })?;
    forward().map_err(|error| format!("forwarding between links cannot be switched on: {error}"))?;
    let stopped = probe::run(workshop, &dns).map_err(|error| format!("the way out cannot be tried: {}", chain(error)))?;
    workshop.sweep().map_err(chain)?;
    match stopped {
        Some(reason) => Err(reason),
        None => Ok((dns, guard)),
    }
}

/// Whether this host has what a way out is made of: links and every kind of rule. Tried in a namespace that goes away.
pub(crate) fn try_rules() -> Result<(), String> {
    let attempt = || {
        let addresses = Addresses::new(InstallationId::random(), 0);
        let home = links::this_namespace().map_err(|error| format!("net namespaces cannot be used: {error}"))?;
        let text = Rules { addresses: &addresses, refused: REFUSED, caps: &Caps::default(), resolver_port: 53 }.text();
        let (_, loaded) = links::in_new_namespace(&home, |netlink| {
            let own = links::this_namespace().map_err(at("find a new net namespace"))?;
            netlink.add_link(links::pair_within("dn0", "dn1", &own)).map_err(at("make a link"))?;
            Ok(firewall::load(&text))
        })
        .map_err(chain)?;
        loaded.map_err(|error| error.to_string())
    };
    // A thread of its own, so that nobody else is in the namespace meanwhile, whatever happens.
    std::thread::spawn(attempt).join().unwrap_or_else(|_| Err("the trial failed".to_owned()))
}

/// An error with its cause, on one line.
fn chain(error: NetError) -> String {
    match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Has the kernel pass packets on between links, as it must for any container's network.
fn forward() -> io::Result<()> {
    const SWITCH: &str = "/proc/sys/net/ipv4/ip_forward";
    if std::fs::read_to_string(SWITCH)?.trim() != "1" {
        std::fs::write(SWITCH, "1")?;
        tracing::info!("switched on net.ipv4.ip_forward, so that functions reach the internet");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
