//! The addresses no function may reach, in one list: the firewall drops what goes there and the resolver's stub
//! withholds names that lead there.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A block of IPv4 addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range4 {
    first: Ipv4Addr,
    bits: u8,
}

impl Range4 {
    /// The block of `bits` fixed bits that begins at `first`.
    #[must_use]
    pub const fn new(first: Ipv4Addr, bits: u8) -> Self {
        assert!(bits >= 1 && bits <= 32 && first.to_bits() & !Self::mask(bits) == 0, "a range begins at its first address");
        Self { first, bits }
    }

    const fn mask(bits: u8) -> u32 {
        u32::MAX << (32 - bits)
    }

    /// Whether `address` is in it.
    #[must_use]
    pub const fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & Self::mask(self.bits) == self.first.to_bits()
    }

    /// Its `n`th address.
    #[must_use]
    pub const fn address(self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first.to_bits() + n)
    }
}

impl fmt::Display for Range4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.bits)
    }
}

const fn v4(a: u8, b: u8, c: u8, bits: u8) -> Range4 {
    Range4::new(Ipv4Addr::new(a, b, c, 0), bits)
}

/// Where cells' own addresses are from: set aside for benchmarks of networks (RFC 2544), so that neither the internet
/// nor a sensible private network uses it.
pub const CELLS: Range4 = v4(198, 18, 0, 15);

/// IPv4 addresses that are not the public internet.
pub const REFUSED: &[Range4] = &[
    v4(0, 0, 0, 8),       // this network
    v4(10, 0, 0, 8),      // private
    v4(100, 64, 0, 10),   // carriers' translation; some clouds' metadata
    v4(127, 0, 0, 8),     // loopback
    v4(169, 254, 0, 16),  // link-local; clouds' metadata
    v4(172, 16, 0, 12),   // private
    v4(192, 0, 0, 24),    // protocol assignments; some clouds' metadata
    v4(192, 0, 2, 24),    // documentation; the resolver's own address
    v4(192, 168, 0, 16),  // private
    CELLS,                // other cells
    v4(198, 51, 100, 24), // documentation
    v4(203, 0, 113, 24),  // documentation
    v4(224, 0, 0, 4),     // multicast
    v4(240, 0, 0, 4),     // reserved; broadcast
];

/// IPv6 blocks that are not the public internet, as first address and fixed bits. Cells have no IPv6; the list is for
/// names.
const REFUSED6: &[(Ipv6Addr, u32)] = &[
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 0), 8), // unspecified, loopback, embedded IPv4
    (Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48), // local translation
    (Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 0), 64), // discard
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23), // protocol assignments, Teredo
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32), // documentation
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20), // documentation
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7), // unique local; some clouds' metadata
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 9), // link-local, site-local
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8), // multicast
];

/// Whether no function may reach `address`. IPv4 addresses inside IPv6 ones (mapped, translated, 6to4) count as what
/// they hold.
#[must_use]
pub fn is_refused(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => REFUSED.iter().any(|range| range.contains(address)),
        IpAddr::V6(address) => {
            let inner = embedded(address);
            let refused = REFUSED6.iter().any(|(first, bits)| (address.to_bits() ^ first.to_bits()) >> (128 - bits) == 0);
            match inner {
                Some(inner) => is_refused(inner.into()),
                None => refused,
            }
        }
    }
}

/// The IPv4 address a host would really talk to.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, ..] = address.segments();
    let low = || Ipv4Addr::from_bits((address.to_bits() & u128::from(u32::MAX)) as u32);
    match address.to_ipv4_mapped() {
        Some(mapped) => Some(mapped),
        None if [a, b, c, d] == [0x64, 0xff9b, 0, 0] => Some(low()),
        None if a == 0x2002 => Some(Ipv4Addr::from_bits(u32::from(b) << 16 | u32::from(c))),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_the_public_internet_is_refused() {
        let refused = "10.1.2.3 172.31.255.255 192.168.0.1 169.254.169.254 100.100.100.200 127.0.0.53 0.0.0.0 224.0.0.1 \
             255.255.255.255 192.0.0.192 198.19.255.255 ::1 :: fe80::1 fec0::1 fd00:ec2::254 ff02::1 ::ffff:10.0.0.1 \
             64:ff9b::a00:1 2002:a9fe:a9fe:: 2001:db8::1 ::10.0.0.1";
        for address in refused.split_whitespace() {
            assert!(is_refused(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn the_public_internet_is_not() {
        let open = "8.8.8.8 1.1.1.1 172.15.255.255 172.32.0.0 100.63.0.1 100.128.0.1 198.17.1.1 198.20.0.1 223.255.255.255 \
             2606:4700::1111 2a00::1 64:ff9b::808:808 ::ffff:8.8.8.8 2002:808:808::1 2001:4860::8888";
        for address in open.split_whitespace() {
            assert!(!is_refused(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn no_two_ranges_overlap() {
        for (at, range) in REFUSED.iter().enumerate() {
            assert!(REFUSED.iter().skip(at + 1).all(|other| !range.contains(other.first) && !other.contains(range.first)));
        }
    }
}
