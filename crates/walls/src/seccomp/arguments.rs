//! The calls whose arguments decide. Only the low 32 bits are looked at, as the kernel does in these calls.

use super::bpf::{self, Fragment};
use super::errno;
use super::table::Check;

pub(super) fn fragment(check: Check) -> Fragment {
    match check {
        Check::Clone => clone(),
        Check::Socket => socket(),
        Check::SocketPair => socket_pair(),
        Check::Ioctl => ioctl(),
        Check::Prctl => prctl(),
        Check::SetSocketOption => set_socket_option(),
        Check::Personality => personality(),
    }
}

fn allow() -> Fragment {
    bpf::answer(libc::SECCOMP_RET_ALLOW)
}

pub(super) fn refuse() -> Fragment {
    bpf::answer(errno(libc::EPERM))
}

/// Every flag that makes a namespace. The time namespace has no flag here: its bit belongs to the exit signal.
pub(super) const NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET)
    .cast_unsigned();

fn clone() -> Fragment {
    bpf::load(bpf::argument(0), clone_word())
}

/// What follows once the flags are loaded.
pub(super) fn clone_word() -> Fragment {
    bpf::any_bit(NAMESPACES, refuse(), allow())
}

const UNIX: u32 = libc::AF_UNIX as u32;
const INET: u32 = libc::AF_INET as u32;
const INET6: u32 = libc::AF_INET6 as u32;
const STREAM: u32 = libc::SOCK_STREAM as u32;
const DATAGRAM: u32 = libc::SOCK_DGRAM as u32;
const SEQPACKET: u32 = libc::SOCK_SEQPACKET as u32;
/// A socket's type without its flags (close-on-exec, non-blocking).
const TYPE: u32 = 0xf;

fn socket() -> Fragment {
    let types = |then| bpf::load(bpf::argument(1), bpf::masked(TYPE, bpf::among(&[STREAM, DATAGRAM], then, refuse())));
    // No MPTCP, SCTP or SMC behind an innocent type, and no ICMP.
    let protocols = [0, libc::IPPROTO_TCP.cast_unsigned(), libc::IPPROTO_UDP.cast_unsigned()];
    let internet = types(bpf::load(bpf::argument(2), bpf::among(&protocols, allow(), bpf::answer(errno(libc::EPROTONOSUPPORT)))));
    let unknown = bpf::answer(errno(libc::EAFNOSUPPORT));
    bpf::load(bpf::argument(0), bpf::equal(UNIX, types(allow()), bpf::among(&[INET, INET6], internet, unknown)))
}

fn socket_pair() -> Fragment {
    let types = bpf::load(bpf::argument(1), bpf::masked(TYPE, bpf::among(&[STREAM, DATAGRAM, SEQPACKET], allow(), refuse())));
    bpf::load(bpf::argument(0), bpf::equal(UNIX, types, bpf::answer(errno(libc::EAFNOSUPPORT))))
}

/// Put characters into a terminal's input, take over a console, change a line discipline.
pub(super) const TERMINAL: [u32; 4] =
    [libc::TIOCSTI as u32, libc::TIOCLINUX as u32, libc::TIOCSETD as u32, libc::TIOCCONS as u32];

/// Requests of the network family that only read, or set the owner of a socket's signals.
pub(super) const NETWORK_READS: [u32; 19] = [
    0x8901, 0x8902, 0x8903, 0x8904, 0x8905, 0x8906, 0x8907, // FIOSETOWN to SIOCGSTAMPNS
    0x8910, 0x8912, 0x8913, 0x8915, 0x8917, 0x8919, 0x891b, 0x891d, // SIOCGIFNAME to SIOCGIFMETRIC
    0x8921, 0x8927, 0x8933, 0x8942, // SIOCGIFMTU, HWADDR, INDEX, TXQLEN
];

/// The network family and, above it, the wireless one.
pub(super) const NETWORK: (u32, u32) = (0x8900, 0x89ff);
pub(super) const WIRELESS: (u32, u32) = (0x8b00, 0x8bff);

fn ioctl() -> Fragment {
    let network = bpf::among(&NETWORK_READS, allow(), refuse());
    let others = bpf::among(&TERMINAL, refuse(), allow());
    let ranges = bpf::between(NETWORK.0, NETWORK.1, network, bpf::between(WIRELESS.0, WIRELESS.1, refuse(), others));
    bpf::load(bpf::argument(1), ranges)
}

/// Options that read, name, or make things stricter.
pub(super) const PRCTL: [i32; 18] = [
    libc::PR_GET_PDEATHSIG,
    libc::PR_GET_DUMPABLE,
    libc::PR_SET_DUMPABLE,
    libc::PR_SET_NAME,
    libc::PR_GET_NAME,
    libc::PR_GET_SECCOMP,
    libc::PR_CAPBSET_READ,
    libc::PR_GET_SECUREBITS,
    libc::PR_SET_TIMERSLACK,
    libc::PR_GET_TIMERSLACK,
    libc::PR_SET_CHILD_SUBREAPER,
    libc::PR_GET_CHILD_SUBREAPER,
    libc::PR_SET_NO_NEW_PRIVS,
    libc::PR_GET_NO_NEW_PRIVS,
    libc::PR_SET_THP_DISABLE,
    libc::PR_GET_THP_DISABLE,
    libc::PR_GET_SPECULATION_CTRL,
    PR_SET_VMA,
];

/// Names a mapping.
const PR_SET_VMA: i32 = 0x5356_4d41;

pub(super) fn prctl() -> Fragment {
    let options = PRCTL.map(i32::cast_unsigned);
    let kill_only = bpf::load(bpf::argument(1), bpf::equal(libc::SIGKILL as u32, allow(), refuse()));
    let death_signal = libc::PR_SET_PDEATHSIG.cast_unsigned();
    bpf::load(bpf::argument(0), bpf::equal(death_signal, kill_only, bpf::among(&options, allow(), refuse())))
}

/// Options refused at the socket level: binding to a device, filters, marks, buffers beyond the limit.
pub(super) const SOCKET_REFUSED: [i32; 9] = [
    libc::SO_BINDTODEVICE,
    libc::SO_ATTACH_FILTER,
    libc::SO_SNDBUFFORCE,
    libc::SO_RCVBUFFORCE,
    libc::SO_MARK,
    SO_ATTACH_BPF,
    SO_ATTACH_REUSEPORT_CBPF,
    SO_ATTACH_REUSEPORT_EBPF,
    SO_BINDTOIFINDEX,
];
const SO_ATTACH_BPF: i32 = 50;
const SO_ATTACH_REUSEPORT_CBPF: i32 = 51;
const SO_ATTACH_REUSEPORT_EBPF: i32 = 52;
const SO_BINDTOIFINDEX: i32 = 62;

/// Upper layer protocols in the kernel (TLS and worse), and repair mode.
pub(super) const TCP_REFUSED: [i32; 2] = [TCP_REPAIR, TCP_ULP];
const TCP_REPAIR: i32 = 19;
const TCP_ULP: i32 = 31;

/// Encapsulation.
pub(super) const UDP_REFUSED: [i32; 1] = [UDP_ENCAP];
const UDP_ENCAP: i32 = 100;

/// IPv4: IPsec policies; memberships, source filters and the rest of that family; the firewalls' numbers.
pub(super) const IPV4_REFUSED: [(u32, u32); 3] = [(16, 17), (35, 48), (64, u32::MAX)];

/// IPv6: memberships and anycast, IPsec policies, the multicast family, the firewall's two and whatever is newer than
/// the options we know.
pub(super) const IPV6_REFUSED: [(u32, u32); 6] = [(20, 21), (27, 28), (34, 35), (42, 48), (64, 65), (79, u32::MAX)];

fn set_socket_option() -> Fragment {
    let option = |then| bpf::load(bpf::argument(2), then);
    let listed = |refused: &[i32]| {
        let refused: Vec<u32> = refused.iter().map(|option| option.cast_unsigned()).collect();
        option(bpf::among(&refused, refuse(), allow()))
    };
    let ranged = |refused: &[(u32, u32)]| {
        let checked = refused.iter().rfold(allow(), |rest, (first, last)| bpf::between(*first, *last, refuse(), rest));
        option(checked)
    };
    let levels = [
        (libc::SOL_SOCKET, listed(&SOCKET_REFUSED)),
        (libc::IPPROTO_IP, ranged(&IPV4_REFUSED)),
        (libc::IPPROTO_IPV6, ranged(&IPV6_REFUSED)),
        (libc::IPPROTO_TCP, listed(&TCP_REFUSED)),
        (libc::IPPROTO_UDP, listed(&UDP_REFUSED)),
    ];
    let checked = levels.into_iter().rfold(refuse(), |rest, (level, then)| bpf::equal(level.cast_unsigned(), then, rest));
    bpf::load(bpf::argument(1), checked)
}

fn personality() -> Fragment {
    bpf::load(bpf::argument(0), bpf::among(&[0, u32::MAX], allow(), refuse()))
}
