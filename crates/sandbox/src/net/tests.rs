//! Each test is a host of its own: a thread in a fresh net namespace, with a second namespace that plays the internet.
//! Needs root and `nft`.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use super::links::{in_new_namespace, index_of, inside, pair, this_namespace};
use super::netlink::Netlink;
use super::*;

const PUBLIC: Ipv4Addr = Ipv4Addr::new(8, 8, 8, 8);
const HOST: Ipv4Addr = Ipv4Addr::new(9, 9, 9, 2);
const WORLD: Ipv4Addr = Ipv4Addr::new(9, 9, 9, 1);
/// Addresses the internet of these tests has besides; cells must not reach them.
const PRIVATE: [Ipv4Addr; 5] = [
    Ipv4Addr::new(10, 0, 0, 1),
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(192, 168, 1, 1),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(203, 0, 113, 10),
];
/// How long a connection that must not come about is given.
const NEVER: Duration = Duration::from_millis(150);

struct Host {
    home: OwnedFd,
    config: NetConfig,
}

/// Runs `test` on a host that has an uplink to an internet on which every address answers on port 80.
fn on_a_host(test: impl FnOnce(&Host) + Send + 'static) {
    let run = move || {
        #[expect(deprecated, reason = "as in links")]
        rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET).unwrap();
        let home = this_namespace().unwrap();
        let mut netlink = Netlink::open().unwrap();
        netlink.set_up(1).unwrap();
        let mac = |last| [2, 0, 0, 0, 1, last];
        let (world, listener) = in_new_namespace(&home, |netlink| {
            netlink.add_link(pair("eth0", mac(1), "up0", mac(2), home.as_raw_fd(), 0)).unwrap();
            let eth0 = index_of("eth0").unwrap();
            netlink.set_up(eth0).unwrap();
            netlink.add_address(eth0, WORLD, HOST).unwrap();
            for address in PRIVATE.into_iter().chain([PUBLIC]) {
                netlink.add_address(1, address, address).unwrap();
            }
            Ok(TcpListener::bind("0.0.0.0:80").unwrap())
        })
        .unwrap();
        let up0 = index_of("up0").unwrap();
        netlink.set_up(up0).unwrap();
        netlink.add_address(up0, HOST, WORLD).unwrap();
        netlink.add_default_route(up0, WORLD).unwrap();
        greet(listener);
        greet(TcpListener::bind("0.0.0.0:8080").unwrap());
        let config = NetConfig { loopback_ready: 1, internet_ready: 1, ..NetConfig::named(InstallationId::random(), 7) };
        test(&Host { home, config });
        drop(world);
    };
    std::thread::spawn(run).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// Answers every connection with who is calling.
fn greet(listener: TcpListener) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let peer = stream.peer_addr().unwrap().ip();
            std::thread::spawn(move || {
                let _ = stream.write_all(format!("{peer}\n").as_bytes());
                let _ = stream.read(&mut [0]); // until the caller goes
            });
        }
    });
}

impl Host {
    /// Connects from inside `cell`.
    fn connect(&self, cell: &NetNs, to: (Ipv4Addr, u16), patience: Duration) -> Result<TcpStream, NetError> {
        inside(&self.home, &cell.made.ns, || TcpStream::connect_timeout(&SocketAddr::from(to), patience))
    }

    fn greeting(&self, cell: &NetNs, to: (Ipv4Addr, u16)) -> String {
        let mut stream = self.connect(cell, to, Duration::from_secs(5)).unwrap();
        let mut line = [0; 32];
        let n = stream.read(&mut line).unwrap();
        String::from_utf8_lossy(&line[..n]).trim().to_owned()
    }

    fn bound_cell(&self, pool: &NetPool) -> NetNs {
        let cell = pool.take(Net::Internet).unwrap();
        pool.opener().unwrap().open(&cell).unwrap();
        cell
    }

    /// How many links of this installation the host has.
    fn links(&self) -> usize {
        let listed = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
        listed.matches(&format!("dn{}", self.config.installation)).count()
    }

    fn tables(&self) -> String {
        firewall::nft(&["list", "tables"], "").unwrap()
    }
}

fn start(config: &NetConfig) -> NetPool {
    let pool = NetPool::start(config.clone()).unwrap();
    assert_eq!(pool.egress(), Egress::On);
    pool
}

fn eventually(mut holds: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        if holds() {
            return true;
        }
        std::thread::yield_now();
    }
    false
}

#[test]
fn an_internet_cell_reaches_public_addresses_and_nothing_else() {
    on_a_host(|host| {
        // That these answer at all is what makes the rest mean something.
        for address in PRIVATE.into_iter().chain([PUBLIC]) {
            TcpStream::connect_timeout(&SocketAddr::from((address, 80)), Duration::from_secs(5)).unwrap();
        }
        let pool = start(&host.config);
        let cell = host.bound_cell(&pool);
        assert_eq!(host.greeting(&cell, (PUBLIC, 80)), HOST.to_string(), "seen from outside, a cell is the host");
        for address in PRIVATE {
            assert!(host.connect(&cell, (address, 80), NEVER).is_err(), "{address}");
        }
        let gateway = Addresses::new(host.config.installation, host.config.block).gateway();
        for address in [HOST, gateway, dns::RESOLVER, Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::UNSPECIFIED] {
            assert!(host.connect(&cell, (address, 8080), NEVER).is_err(), "{address}");
        }
    });
}

#[test]
fn a_loopback_cell_reaches_itself_only() {
    on_a_host(|host| {
        let pool = start(&host.config);
        let cell = pool.take(Net::Loopback).unwrap();
        pool.opener().unwrap().open(&cell).unwrap();
        for address in PRIVATE.into_iter().chain([PUBLIC, HOST, dns::RESOLVER]) {
            let error = host.connect(&cell, (address, 80), NEVER).unwrap_err();
            let NetError::Io { source, .. } = error else { panic!("{error}") };
            assert_eq!(source.raw_os_error(), Some(libc::ENETUNREACH), "{address}");
        }
        let listener = inside(&host.home, &cell.made.ns, || TcpListener::bind("127.0.0.1:80")).unwrap();
        let socket = cell.socket().unwrap();
        assert!(rustix::fs::fcntl_getfl(&socket).unwrap().contains(rustix::fs::OFlags::NONBLOCK));
        let connected = rustix::net::connect(&socket, &listener.local_addr().unwrap());
        assert!(matches!(connected, Ok(()) | Err(rustix::io::Errno::INPROGRESS)));
        listener.accept().unwrap();
    });
}

#[test]
fn the_way_out_is_closed_until_the_cell_is_bound() {
    on_a_host(|host| {
        let pool = start(&host.config);
        let cell = pool.take(Net::Internet).unwrap();
        assert!(host.connect(&cell, (PUBLIC, 80), NEVER).is_err());
        pool.opener().unwrap().open(&cell).unwrap();
        host.greeting(&cell, (PUBLIC, 80));
    });
}

#[test]
fn a_cell_has_no_address_of_the_sixth_version_but_loopback() {
    on_a_host(|host| {
        let pool = start(&host.config);
        let cell = host.bound_cell(&pool);
        host.greeting(&cell, (PUBLIC, 80));
        let seen = || std::fs::read_to_string("/proc/thread-self/net/if_inet6");
        let inner = inside(&host.home, &cell.made.ns, seen).unwrap();
        assert!(inner.lines().all(|line| line.ends_with(" lo")), "{inner}");
        let outer = seen().unwrap();
        assert!(!outer.contains(" dn"), "{outer}");
    });
}

#[test]
fn cells_do_not_reach_each_other_on_one_platform_or_two() {
    on_a_host(|host| {
        let second = NetConfig { installation: InstallationId::random(), block: 8, ..host.config.clone() };
        let (pool, neighbour) = (start(&host.config), start(&second));
        let cells = [host.bound_cell(&pool), host.bound_cell(&pool), host.bound_cell(&neighbour)];
        let address = |cell: &NetNs| {
            let inner = || {
                let socket = UdpSocket::bind("0.0.0.0:0")?;
                socket.connect((PUBLIC, 80))?;
                socket.local_addr()
            };
            match inside(&host.home, &cell.made.ns, inner).unwrap() {
                SocketAddr::V4(address) => *address.ip(),
                SocketAddr::V6(address) => panic!("{address}"),
            }
        };
        for cell in &cells {
            greet(inside(&host.home, &cell.made.ns, || TcpListener::bind("0.0.0.0:80")).unwrap());
            host.greeting(cell, (PUBLIC, 80));
        }
        let addresses = cells.each_ref().map(address);
        for (at, cell) in cells.iter().enumerate() {
            for (other, address) in addresses.into_iter().enumerate().filter(|(other, _)| *other != at) {
                assert!(host.connect(cell, (address, 80), NEVER).is_err(), "{at} reaches {other}");
            }
        }
    });
}

#[test]
fn name_queries_reach_the_stubs_sockets_and_answers_come_back_from_the_resolver() {
    on_a_host(|host| {
        let pool = start(&host.config);
        let cell = host.bound_cell(&pool);
        let dns = pool.dns_sockets().unwrap().unwrap();
        let stub = UdpSocket::from(dns.udp);
        stub.set_nonblocking(false).unwrap();
        stub.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let asking = inside(&host.home, &cell.made.ns, || UdpSocket::bind("0.0.0.0:0")).unwrap();
        asking.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut bytes = [0; 64];
        host.greeting(&cell, (PUBLIC, 80));
        asking.send_to(b"question", (dns::RESOLVER, 53)).unwrap();
        // The probe's own datagrams may still be there.
        let from = loop {
            let (n, from) = stub.recv_from(&mut bytes).unwrap();
            if &bytes[..n] == b"question" {
                break from;
            }
        };
        stub.send_to(b"answer", from).unwrap();
        let (n, from) = asking.recv_from(&mut bytes).unwrap();
        assert_eq!((&bytes[..n], from), (&b"answer"[..], SocketAddr::from((dns::RESOLVER, 53))));
        host.connect(&cell, (dns::RESOLVER, 53), Duration::from_secs(5)).unwrap();
    });
}

#[test]
fn a_cell_holds_no_more_connections_than_its_cap() {
    on_a_host(|host| {
        let caps = Caps { open: 3, ..Caps::default() };
        let pool = start(&NetConfig { caps, ..host.config.clone() });
        let (cell, other) = (host.bound_cell(&pool), host.bound_cell(&pool));
        let held: Vec<_> = (0..3).map(|_| host.connect(&cell, (PUBLIC, 80), Duration::from_secs(5)).unwrap()).collect();
        assert!(host.connect(&cell, (PUBLIC, 80), NEVER).is_err());
        // Its neighbour has a cap of its own.
        host.greeting(&other, (PUBLIC, 80));
        drop(held);
    });
}

#[test]
fn a_host_whose_firewall_drops_us_gives_loopback_and_says_so() {
    on_a_host(|host| {
        let policy = "table ip other { chain forward { type filter hook forward priority 10; policy drop; }; }";
        firewall::load(policy).unwrap();
        let pool = NetPool::start(host.config.clone()).unwrap();
        let Egress::Off(reason) = pool.egress() else { panic!("the way out is open") };
        assert!(reason.contains("forward policy"), "{reason}");
        assert!(pool.dns_sockets().unwrap().is_none());
        let cell = host.bound_cell(&pool);
        assert!(cell.made.link.is_none());
        assert!(!host.tables().contains("dunlin"));
    });
}

#[test]
fn a_host_whose_firewall_drops_name_queries_says_so() {
    on_a_host(|host| {
        firewall::load("table ip other { chain input { type filter hook input priority 10; policy drop; }; }").unwrap();
        let pool = NetPool::start(host.config.clone()).unwrap();
        let Egress::Off(reason) = pool.egress() else { panic!("the way out is open") };
        assert!(reason.contains("input policy"), "{reason}");
    });
}

#[test]
fn a_dropped_namespace_takes_its_link_along_and_a_dropped_pool_everything() {
    on_a_host(|host| {
        let pool = start(&NetConfig { internet_ready: 0, ..host.config.clone() });
        let cells: Vec<_> = (0..5).map(|_| pool.take(Net::Internet).unwrap()).collect();
        assert_eq!(host.links(), 5);
        drop(cells);
        assert!(eventually(|| host.links() == 0));
        let cell = pool.take(Net::Internet).unwrap();
        let mut opener = pool.opener().unwrap();
        drop(pool);
        assert_eq!(host.links(), 0);
        assert!(!host.tables().contains("dunlin"));
        assert!(matches!(opener.open(&cell), Err(NetError::Io { .. })));
    });
}

#[test]
fn what_an_earlier_run_left_is_swept_and_what_is_anothers_is_not() {
    on_a_host(|host| {
        let config = NetConfig { internet_ready: 0, ..host.config.clone() };
        let other = NetConfig { installation: InstallationId::random(), block: 9, ..config.clone() };
        let neighbour = start(&other);
        let kept = host.bound_cell(&neighbour);
        // What a killed run leaves: links in namespaces that something still holds, and rules that nobody watches.
        let addresses = Addresses::new(config.installation, config.block);
        let caps = Caps { open: 1, ..Caps::default() };
        let rules = Rules { addresses: &addresses, refused: &[Range4::new(PUBLIC, 32)], caps: &caps, resolver_port: 1 };
        firewall::load(&rules.text()).unwrap();
        let mut killed = Workshop::open(addresses.clone()).unwrap();
        let _left: Vec<_> = (0..20).map(|_| killed.linked().unwrap()).collect();
        assert_eq!(host.links(), 20);
        let pool = start(&config);
        assert_eq!(host.links(), 0);
        host.greeting(&kept, (PUBLIC, 80));
        host.greeting(&host.bound_cell(&pool), (PUBLIC, 80));
    });
}

#[test]
fn rules_that_somebody_flushes_come_back() {
    on_a_host(|host| {
        let pool = start(&host.config);
        let cell = host.bound_cell(&pool);
        let table = Addresses::new(host.config.installation, host.config.block).table();
        for flush in ["flush ruleset".to_owned(), format!("flush chain inet {table} outward")] {
            firewall::load(&flush).unwrap();
            assert!(eventually(
                || firewall::nft(&["list", "table", "inet", &table], "").is_ok_and(|text| text.contains("@refused"))
            ));
            host.greeting(&cell, (PUBLIC, 80));
            assert!(host.connect(&cell, (PRIVATE[0], 80), NEVER).is_err());
        }
        drop(pool);
        assert!(!host.tables().contains("dunlin"));
    });
}

#[test]
fn without_egress_there_is_no_rule_and_no_link() {
    on_a_host(|host| {
        let pool = NetPool::start(NetConfig { egress: false, ..host.config.clone() }).unwrap();
        assert!(pool.take(Net::Internet).unwrap().made.link.is_none());
        assert_eq!((host.links(), host.tables().as_str()), (0, ""));
    });
}

#[test]
#[ignore = "a measurement"]
fn how_long_things_take() {
    on_a_host(|host| {
        let pool = start(&NetConfig { loopback_ready: 100, internet_ready: 300, ..host.config.clone() });
        let began = Instant::now();
        let cells: Vec<_> = (0..300).map(|_| pool.take(Net::Internet).unwrap()).collect();
        eprintln!("300 linked: {:?}", began.elapsed());
        let mut up = Vec::new();
        let mut connected = Vec::new();
        let mut opener = pool.opener().unwrap();
        for cell in cells.iter().take(50) {
            let began = Instant::now();
            opener.open(cell).unwrap();
            up.push(began.elapsed());
            let began = Instant::now();
            host.connect(cell, (PUBLIC, 80), Duration::from_secs(5)).unwrap();
            connected.push(began.elapsed());
        }
        up.sort();
        connected.sort();
        eprintln!("link up p50 {:?} max {:?}; first connection p50 {:?} max {:?}", up[25], up[49], connected[25], connected[49]);
        let began = Instant::now();
        drop(cells);
        drop(pool);
        eprintln!("all down: {:?}", began.elapsed());
        assert_eq!(host.links(), 0);
    });
}
