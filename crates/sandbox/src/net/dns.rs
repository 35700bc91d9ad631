//! Where cells' name queries arrive.
//!
//! Every cell's `/etc/resolv.conf` names [`RESOLVER`], the same on all hosts. The firewall turns what goes there to a
//! pair of sockets that the supervisor binds and the server answers on (see [`super::dns_stub`]): the supervisor reads
//! none of it.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, listen, socket_with, sockopt};

/// The resolver's address as every cell sees it, on port 53. It exists nowhere, and nothing else is reached through it.
pub const RESOLVER: Ipv4Addr = dunlin_walls::DNS_ADDRESS;

/// How many connections wait to be accepted.
const BACKLOG: i32 = 128;
/// How many ports are tried that turn out to be free for datagrams only.
const PORTS_TRIED: usize = 16;

/// Bound, non-blocking sockets for the server's DNS stub.
#[derive(Debug)]
pub struct DnsSockets {
    /// Datagrams.
    pub udp: OwnedFd,
    /// Streams, listening.
    pub tcp: OwnedFd,
}

impl DnsSockets {
    /// Binds both to one free port of `gateway`, which no link needs to have yet. A fixed port could be another
    /// resolver's of this host.
    pub(super) fn bind(gateway: Ipv4Addr) -> io::Result<(Self, u16)> {
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..PORTS_TRIED {
            let udp = open(SocketType::DGRAM, SocketAddrV4::new(gateway, 0))?;
            let port = match getsockname(&udp)?.try_into() {
                Ok(std::net::SocketAddr::V4(bound)) => bound.port(),
                _ => return Err(io::ErrorKind::AddrNotAvailable.into()),
            };
            match open(SocketType::STREAM, SocketAddrV4::new(gateway, port)) {
                Ok(tcp) => {
                    listen(&tcp, BACKLOG)?;
                    return Ok((Self { udp, tcp }, port));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { udp: self.udp.try_clone()?, tcp: self.tcp.try_clone()? })
    }
}

fn open(kind: SocketType, address: SocketAddrV4) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::INET, kind, flags, None)?;
    sockopt::set_ip_freebind(&socket, true)?;
    bind(&socket, &address)?;
    Ok(socket)
}
