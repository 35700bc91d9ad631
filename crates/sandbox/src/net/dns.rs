//! Where cells' name queries arrive.

use std::os::fd::OwnedFd;

/// The resolver's address as every cell sees it. It exists nowhere: the firewall sends what goes there to the stub.
pub const RESOLVER: std::net::Ipv4Addr = std::net::Ipv4Addr::new(192, 0, 2, 53);

/// Bound sockets for the server's DNS stub.
#[derive(Debug)]
pub struct DnsSockets {
    /// Datagrams.
    pub udp: OwnedFd,
    /// Streams, listening.
    pub tcp: OwnedFd,
}
