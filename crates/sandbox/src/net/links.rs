//! Making network namespaces: loopback alone, or loopback and one end of a link whose other end is on the host.
//!
//! ```text
//!  cell's namespace                                  host
//!  lo   127.0.0.1, ::1
//!  eth0 198.18.x.y  02:…:02 ───────── 02:…:01  dn<installation><slot>  198.18.x.1
//!       default via 198.18.x.1                  without its address until the cell is bound
//! ```
//!
//! A link has two ends, two addresses and two fixed link-layer addresses, and no bridge: there is nobody to listen to or
//! to speak for. It has no IPv6. Both ends are up from the start, because the kernel takes up to a second to let packets
//! through a link that has just come up; what opens it is the address of the host's end, which brings the route to the
//! cell: without one the firewall takes what the cell sends for forged.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::Arc;

use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::NetError;
use super::addresses::{Addresses, Slot, Slots};
use super::netlink::{Mac, Netlink};

/// Locally administered, and the same on every link: each link is a world of its own.
const HOST_MAC: Mac = [2, 0, 0, 0, 0, 1];
const CELL_MAC: Mac = [2, 0, 0, 0, 0, 2];
/// `lo` comes first in every namespace.
const LOOPBACK: u32 = 1;
/// How many names are tried when one is still held by a link that is going away.
const NAMES_TRIED: usize = 64;

/// A namespace that nobody is in yet.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) ns: Arc<OwnedFd>,
    pub(super) link: Option<Link>,
}

/// The host's end of a cell's link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) slot: Slot,
    pub(super) gateway: Ipv4Addr,
    pub(super) address: Ipv4Addr,
}

impl Link {
    /// Lets packets through, in both directions.
    pub(super) fn open(&self, netlink: &mut Netlink) -> Result<(), NetError> {
        netlink.add_address(self.index, self.gateway, self.address).map_err(at("open a cell's link"))
    }
}

/// The host's side of making namespaces. Belongs to one thread, which is in the host's namespace between calls.
#[derive(Debug)]
pub(super) struct Workshop {
    home: OwnedFd,
    /// Lives in the host's namespace and is used to look names up there.
    lookup: OwnedFd,
    pub(super) netlink: Netlink,
    addresses: Addresses,
    slots: Slots,
}

/// A step's name beside its failure.
pub(super) fn at(what: &'static str) -> impl FnOnce(io::Error) -> NetError {
    move |source| NetError::Io { what, source }
}

impl Workshop {
    /// A workshop for the calling thread's namespace.
    pub(super) fn open(addresses: Addresses) -> Result<Self, NetError> {
        Ok(Self {
            home: this_namespace().map_err(at("find this thread's net namespace"))?,
            lookup: rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
                .map_err(|errno| at("open a socket")(errno.into()))?,
            netlink: Netlink::open().map_err(at("open a netlink socket"))?,
            addresses,
            slots: Slots::new(),
        })
    }

    /// A namespace with loopback.
    pub(super) fn loopback(&mut self) -> Result<Made, NetError> {
        let (ns, _) = in_new_namespace(&self.home, |_| Ok(()))?;
        Ok(Made { ns: Arc::new(ns), link: None })
    }

    /// The same of a namespace that is there.
    pub(super) fn furnish(&mut self, ns: OwnedFd) -> Result<Made, NetError> {
        in_namespace(&self.home, &ns, |_| Ok(()))?;
        Ok(Made { ns: Arc::new(ns), link: None })
    }

    /// A namespace with loopback and a link that is still closed.
    pub(super) fn linked(&mut self) -> Result<Made, NetError> {
        self.link(None)
    }

    /// The same of a namespace that is there.
    pub(super) fn link_into(&mut self, ns: OwnedFd) -> Result<Made, NetError> {
        self.link(Some(ns))
    }

    fn link(&mut self, into: Option<OwnedFd>) -> Result<Made, NetError> {
        let slot = self.slots.take().ok_or_else(|| at("find a free address")(io::ErrorKind::AddrNotAvailable.into()))?;
        let made = self.linked_at(slot, into);
        if made.is_err() {
            self.slots.give_back(slot);
        }
        made
    }

    fn linked_at(&mut self, mut slot: Slot, into: Option<OwnedFd>) -> Result<Made, NetError> {
        let gateway = self.addresses.gateway();
        let home = self.home.as_fd();
        let (addresses, slots) = (&self.addresses, &mut self.slots);
        let work = |netlink: &mut Netlink| {
            // Before there is a link: what is set for all to come holds for it. A host without IPv6 has no such file.
            let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
            let mut tried = 0;
            let (name, address) = loop {
                let (name, address) = addresses.slot(slot);
                match netlink.add_link(pair("eth0", CELL_MAC, &name, HOST_MAC, home.as_raw_fd(), addresses.group())) {
                    Ok(()) => break (name, address),
                    Err(error) if error.raw_os_error() == Some(libc::EEXIST) && tried < NAMES_TRIED => {
                        tried += 1;
                        let next = slots.take().ok_or_else(|| at("find a free address")(error))?;
                        slots.give_back(slot);
                        slot = next;
                    }
                    Err(error) => return Err(at("make a link")(error)),
                }
            };
            let eth0 = index_of("eth0").map_err(at("find the cell's end of a link"))?;
            netlink.set_up(eth0).map_err(at("set the cell's end of a link up"))?;
            netlink.add_address(eth0, address, gateway).map_err(at("give a cell its address"))?;
            netlink.add_neighbour(eth0, gateway, HOST_MAC).map_err(at("give a cell its neighbour"))?;
            netlink.add_default_route(eth0, gateway).map_err(at("give a cell its route"))?;
            Ok((name, address))
        };
        let (ns, (name, address)) = match into {
            Some(ns) => {
                let done = in_namespace(&self.home, &ns, work)?;
                (ns, done)
            }
            None => in_new_namespace(&self.home, work)?,
        };
        // In time: an address of the sixth version comes with the link's going up.
        let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
        let index = self.index(&name)?;
        self.netlink.add_neighbour(index, address, CELL_MAC).map_err(at("give a link its neighbour"))?;
        self.netlink.set_up(index).map_err(at("set the host's end of a link up"))?;
        Ok(Made { ns: Arc::new(ns), link: Some(Link { index, slot, gateway, address }) })
    }

    /// A namespace that stands for the internet at `address`, with the host's end of its link up.
    pub(super) fn outside(&mut self, address: Ipv4Addr) -> Result<OwnedFd, NetError> {
        let (name, own) = (self.addresses.probe_link(), self.addresses.probe());
        let home = self.home.as_fd();
        let group = self.addresses.group();
        let (ns, ()) = in_new_namespace(&self.home, |netlink| {
            netlink.add_link(pair("eth0", CELL_MAC, &name, HOST_MAC, home.as_raw_fd(), group)).map_err(at("make a link"))?;
            let eth0 = index_of("eth0").map_err(at("find a link"))?;
            netlink.set_up(eth0).map_err(at("set a link up"))?;
            netlink.add_address(eth0, address, own).map_err(at("give a link its address"))?;
            netlink.add_neighbour(eth0, own, HOST_MAC).map_err(at("give a link its neighbour"))
        })?;
        let index = self.index(&name)?;
        self.netlink.add_address(index, own, address).map_err(at("give a link its address"))?;
        self.netlink.add_neighbour(index, address, CELL_MAC).map_err(at("give a link its neighbour"))?;
        self.netlink.set_up(index).map_err(at("set a link up"))?;
        Ok(ns)
    }

    /// Deletes a link, if its namespace has not taken it along already, and frees its place.
    pub(super) fn dispose(&mut self, link: Link) -> Result<(), NetError> {
        match self.netlink.delete_link(link.index) {
            Err(error) if error.raw_os_error() != Some(libc::ENODEV) => return Err(at("delete a link")(error)),
            _ => self.slots.give_back(link.slot),
        }
        Ok(())
    }

    /// Deletes every link of this installation.
    pub(super) fn sweep(&mut self) -> Result<(), NetError> {
        self.netlink.delete_group(self.addresses.group()).map_err(at("delete this installation's links"))
    }

    fn index(&self, name: &str) -> Result<u32, NetError> {
        rustix::net::netdevice::name_to_index(&self.lookup, name).map_err(|errno| at("find a link")(errno.into()))
    }

    /// Runs `work` inside `ns` and comes back.
    pub(super) fn inside<T>(&self, ns: &OwnedFd, work: impl FnOnce() -> io::Result<T>) -> Result<T, NetError> {
        inside(&self.home, ns, work)
    }
}

/// The calling thread's net namespace.
pub(super) fn this_namespace() -> io::Result<OwnedFd> {
    Ok(std::fs::File::open("/proc/thread-self/ns/net")?.into())
}

/// Runs `work` inside `ns` and returns to `home`.
pub(super) fn inside<T>(home: &OwnedFd, ns: &OwnedFd, work: impl FnOnce() -> io::Result<T>) -> Result<T, NetError> {
    enter(ns).map_err(at("enter a net namespace"))?;
    let done = work();
    enter(home).map_err(NetError::Lost)?;
    done.map_err(at("work inside a net namespace"))
}

fn enter(ns: &OwnedFd) -> io::Result<()> {
    Ok(move_into_link_name_space(ns.as_fd(), Some(LinkNameSpaceType::Network))?)
}

/// Makes a namespace with loopback up, runs `work` inside it and returns to `home`.
pub(super) fn in_new_namespace<T>(
    home: &OwnedFd,
    work: impl FnOnce(&mut Netlink) -> Result<T, NetError>,
) -> Result<(OwnedFd, T), NetError> {
    #[expect(deprecated, reason = "only what may divide descriptor tables is unsafe in its successor; this does not")]
    rustix::thread::unshare(UnshareFlags::NEWNET).map_err(|errno| at("make a net namespace")(errno.into()))?;
    let made = (|| {
        let ns = this_namespace().map_err(at("find a new net namespace"))?;
        Ok((ns, furnished(work)?))
    })();
    enter(home).map_err(NetError::Lost)?;
    made
}

/// Sets loopback up in `ns`, runs `work` inside it and returns to `home`.
fn in_namespace<T>(home: &OwnedFd, ns: &OwnedFd, work: impl FnOnce(&mut Netlink) -> Result<T, NetError>) -> Result<T, NetError> {
    enter(ns).map_err(at("enter a net namespace"))?;
    let made = furnished(work);
    enter(home).map_err(NetError::Lost)?;
    made
}

/// In a namespace that has nothing up yet.
fn furnished<T>(work: impl FnOnce(&mut Netlink) -> Result<T, NetError>) -> Result<T, NetError> {
    let mut netlink = Netlink::open().map_err(at("open a netlink socket"))?;
    netlink.set_up(LOOPBACK).map_err(at("set loopback up"))?;
    // There is nobody else here: a server may have any port. Kernels before 4.11 have no such file.
    let _ = std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
    work(&mut netlink)
}

/// The index of the calling namespace's link called `name`.
pub(super) fn index_of(name: &str) -> io::Result<u32> {
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    Ok(rustix::net::netdevice::name_to_index(socket, name)?)
}

/// A pair of connected links in one namespace.
pub(super) fn pair_within(name: &str, peer: &str, ns: &OwnedFd) -> rtnetlink::packet_route::link::LinkMessage {
    pair(name, CELL_MAC, peer, HOST_MAC, ns.as_raw_fd(), 0)
}

/// A pair of connected links: `name` here and `peer` in the namespace `peer_ns`, both down.
pub(super) fn pair(
    name: &str,
    mac: Mac,
    peer: &str,
    peer_mac: Mac,
    peer_ns: std::os::fd::RawFd,
    peer_group: u32,
) -> rtnetlink::packet_route::link::LinkMessage {
    // One queue: as many as the host has processors would cost memory for nothing.
    let one_queue = [LinkAttribute::NumTxQueues(1), LinkAttribute::NumRxQueues(1)];
    let mut other = LinkMessageBuilder::<LinkUnspec>::new()
        .name(peer)
        .address(peer_mac.to_vec())
        .link_group(peer_group)
        .setns_by_fd(peer_ns)
        .build();
    other.attributes.extend(one_queue.clone());
    let mut link = LinkMessageBuilder::<LinkVeth>::new(name, peer)
        .address(mac.to_vec())
        .set_info_data(InfoData::Veth(InfoVeth::Peer(other)))
        .build();
    link.attributes.extend(one_queue);
    link
}
