//! Whether packets really get from a cell to the internet and back, past whatever else filters on this host.
//!
//! Other firewalls have the last word too: a forward policy of drop (Docker sets one) or an input policy that knows
//! nothing of our links. Reading their rules would be guessing, so a datagram is sent: from a cell's namespace through
//! the host to a second namespace that plays the internet, and back. Nothing leaves the host.

use std::io;
use std::net::{Ipv4Addr, ToSocketAddrs, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::NetError;
use super::dns::{DnsSockets, RESOLVER};
use super::links::{Made, Workshop, at};

/// Belongs to nobody since 6to4 relays were given up (RFC 7526). A host's route to it is replaced for a moment.
const INTERNET: Ipv4Addr = Ipv4Addr::new(192, 88, 99, 1);
const PORT: u16 = 9;
/// A datagram between namespaces takes microseconds; only a dropped one takes this long.
const PATIENCE: Duration = Duration::from_millis(100);
/// The link's carrier comes up a moment after the link, so the first datagrams may be lost.
const TRIES: usize = 16;

/// What stops packets, if anything does.
pub(super) fn run(workshop: &mut Workshop, dns: &DnsSockets) -> Result<Option<String>, NetError> {
    let cell = workshop.linked()?;
    let outcome = try_path(workshop, &cell, dns);
    if let Some(link) = cell.link {
        workshop.dispose(link)?;
    }
    outcome
}

fn try_path(workshop: &mut Workshop, cell: &Made, dns: &DnsSockets) -> Result<Option<String>, NetError> {
    let link = cell.link.expect("a linked namespace has a link");
    link.open(&mut workshop.netlink)?;
    let outside = workshop.outside(INTERNET)?;
    let bound = |ns: &OwnedFd, port: u16| {
        workshop.inside(ns, || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            Ok(socket)
        })
    };
    let (here, there) = (bound(&cell.ns, 0)?, bound(&outside, PORT)?);
    let mut word = [0; 4];
    let arrived =
        send_until(&here, (INTERNET, PORT), || there.recv_from(&mut word).map(|(_, from)| from)).map_err(at("send a probe"))?;
    let Some(from) = arrived else {
        return Ok(Some("another firewall on this host drops what cells send (forward policy)".to_owned()));
    };
    let answered = send_until(&there, from, || here.recv_from(&mut word)).map_err(at("answer a probe"))?;
    if answered.is_none() {
        return Ok(Some("another firewall on this host drops the answers to what cells send (forward policy)".to_owned()));
    }
    // The stub's own socket does not wait; a copy of it shares that.
    let resolver = UdpSocket::from(dns.try_clone().map_err(at("copy a socket"))?.udp);
    let asked = send_until(&here, (RESOLVER, 53), || wait_readable(&resolver).and_then(|()| resolver.recv_from(&mut word)))
        .map_err(at("send a probe"))?;
    if asked.is_none() {
        return Ok(Some("another firewall on this host drops cells' name queries (input policy)".to_owned()));
    }
    Ok(None)
}

/// Sends until `receive` has something, for as many times as are sensible.
fn send_until<T>(
    socket: &UdpSocket,
    to: impl ToSocketAddrs + Copy,
    mut receive: impl FnMut() -> io::Result<T>,
) -> io::Result<Option<T>> {
    for _ in 0..TRIES {
        match socket.send_to(b"dunl", to) {
            // A filter may say so instead of dropping.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(None),
            sent => sent?,
        };
        match receive() {
            Ok(got) => return Ok(Some(got)),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn wait_readable(socket: &UdpSocket) -> io::Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let patience = Timespec { tv_sec: 0, tv_nsec: PATIENCE.subsec_nanos().into() };
    poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&patience))?;
    Ok(())
}
