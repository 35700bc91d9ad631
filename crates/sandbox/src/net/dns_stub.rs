//! The resolver cells ask: forwards to the host's resolvers and gives out names of public addresses only.
//!
//! The firewall would stop a packet to a private address anyway; here the name already leads nowhere, so that what a
//! function is told is the truth about what it can reach. Every question goes on from a port of its own and under an id
//! of its own. Runs in the unprivileged server.
//!
//! # Invariants
//! - Questions in flight are bounded, in all and for one cell; what is above is dropped, and clients ask again.
//! - Only cells are answered.
//!
//! How often one cell may ask is the firewall's business.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::dns::DnsSockets;
use super::dns_message::{Code, QUERY_MAX, Query};
use super::ranges::{CELLS, Range4};

/// Questions and connections in progress at most, in all and of one cell. One of them takes a few kilobytes and a
/// descriptor.
const IN_FLIGHT_MAX: usize = 512;
const IN_FLIGHT_PER_CELL_MAX: usize = 48;
/// How long one resolver is waited for, and how often the list is gone through.
const RESOLVER_PATIENCE: Duration = Duration::from_secs(2);
const ROUNDS: usize = 2;
/// How long a connection may be silent, and how many questions it may carry.
const STREAM_PATIENCE: Duration = Duration::from_secs(5);
const STREAM_QUESTIONS_MAX: usize = 64;
/// How long what the host's file of resolvers says is believed.
const RESOLVERS_KEPT: Duration = Duration::from_secs(5);
/// As many as the C library uses.
const RESOLVERS_MAX: usize = 3;

/// Answers queries until the future is dropped, asking the resolvers of the host's `/etc/resolv.conf`. Runs on tokio.
pub async fn serve(sockets: DnsSockets) -> io::Result<()> {
    Stub { resolvers: Resolvers::of_host(), clients: CELLS }.serve(sockets).await
}

struct Stub {
    resolvers: Resolvers,
    clients: Range4,
}

impl Stub {
    async fn serve(self, sockets: DnsSockets) -> io::Result<()> {
        let udp = Arc::new(UdpSocket::from_std(sockets.udp.into())?);
        let tcp = TcpListener::from_std(sockets.tcp.into())?;
        let in_flight = InFlight::default();
        let this = Arc::new(self);
        let mut tasks = JoinSet::new();
        let mut message = [0; QUERY_MAX + 1];
        loop {
            tokio::select! {
                received = udp.recv_from(&mut message) => {
                    // An error here is about an earlier answer whose cell is gone.
                    let Ok((length, from)) = received else { continue };
                    let Some(place) = this.admit(&in_flight, from) else { continue };
                    let Some(query) = Query::parse(&message[..length]) else { continue };
                    let (this, udp) = (Arc::clone(&this), Arc::clone(&udp));
                    tasks.spawn(async move {
                        let _place = place;
                        let answer = this.resolve(&query, Transport::Datagram).await;
                        let _ = udp.send_to(&query.fit_datagram(answer), from).await;
                    });
                }
                accepted = tcp.accept() => {
                    let (stream, from) = match accepted {
                        Ok(accepted) => accepted,
                        Err(error) if out_of_descriptors(&error) => {
                            // Whoever holds them lets go sooner or later; spinning would keep them from it.
                            tokio::time::sleep(Duration::from_millis(100)).await;
                            continue;
                        }
                        Err(_) => continue,
                    };
                    let Some(place) = this.admit(&in_flight, from) else { continue };
                    let this = Arc::clone(&this);
                    tasks.spawn(async move {
                        let _place = place;
                        let _ = this.converse(stream).await;
                    });
                }
                Some(_) = tasks.join_next() => {}
            }
        }
    }

    fn admit(&self, in_flight: &InFlight, from: SocketAddr) -> Option<Place> {
        match from.ip() {
            IpAddr::V4(address) if self.clients.contains(address) => in_flight.enter(address),
            _ => None,
        }
    }

    /// Answers the questions of one connection, one after the other.
    async fn converse(&self, mut stream: TcpStream) -> io::Result<()> {
        for _ in 0..STREAM_QUESTIONS_MAX {
            let Some(query) = timeout(STREAM_PATIENCE, read_framed(&mut stream, QUERY_MAX)).await?? else { return Ok(()) };
            let Some(query) = Query::parse(&query) else { return Ok(()) };
            let answer = self.resolve(&query, Transport::Stream).await;
            timeout(STREAM_PATIENCE, write_framed(&mut stream, &answer)).await??;
        }
        Ok(())
    }

    async fn resolve(&self, query: &Query, transport: Transport) -> Vec<u8> {
        if query.is_meta() {
            return query.refuse(Code::NotImplemented);
        }
        let resolvers = self.resolvers.list();
        for resolver in resolvers.iter().cycle().take(resolvers.len() * ROUNDS) {
            let asked = async {
                match transport {
                    Transport::Datagram => ask_by_datagram(*resolver, query).await,
                    Transport::Stream => ask_by_stream(*resolver, query).await,
                }
            };
            match timeout(RESOLVER_PATIENCE, asked).await {
                Ok(Ok(answer)) => return answer,
                Ok(Err(error)) => tracing::debug!(%resolver, %error, "a resolver cannot be asked"),
                Err(_) => tracing::debug!(%resolver, "a resolver does not answer"),
            }
        }
        query.refuse(Code::ServerFailed)
    }
}

#[derive(Clone, Copy, Debug)]
enum Transport {
    Datagram,
    Stream,
}

fn random_id() -> u16 {
    let mut bytes = [0; 2];
    getrandom::fill(&mut bytes).expect("the kernel has randomness once it has booted");
    u16::from_le_bytes(bytes)
}

async fn ask_by_datagram(resolver: SocketAddr, query: &Query) -> io::Result<Vec<u8>> {
    let any: IpAddr = if resolver.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(resolver).await?;
    let id = random_id();
    socket.send(&query.forward(id)).await?;
    let mut message = [0; 4096];
    loop {
        let length = socket.recv(&mut message).await?;
        // What does not fit may be somebody's guess; the true answer may still come.
        if let Some(answer) = query.answer(id, &message[..length]) {
            return Ok(answer);
        }
    }
}

async fn ask_by_stream(resolver: SocketAddr, query: &Query) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(resolver).await?;
    let id = random_id();
    write_framed(&mut stream, &query.forward(id)).await?;
    let message = read_framed(&mut stream, usize::from(u16::MAX)).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    query.answer(id, &message).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// One message of a stream; `None` at its end.
async fn read_framed(stream: &mut TcpStream, length_max: usize) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u16().await {
        Ok(length) => usize::from(length),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    if length > length_max {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}

async fn write_framed(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut framed = Vec::with_capacity(message.len() + 2);
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(message);
    stream.write_all(&framed).await
}

fn out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

/// Who has how much in progress.
#[derive(Clone, Debug, Default)]
struct InFlight {
    of_cell: Arc<Mutex<HashMap<Ipv4Addr, usize>>>,
    all: Arc<std::sync::atomic::AtomicUsize>,
}

/// A place in flight; dropping it frees it.
#[derive(Debug)]
struct Place {
    of: InFlight,
    cell: Ipv4Addr,
}

impl InFlight {
    fn enter(&self, cell: Ipv4Addr) -> Option<Place> {
        use std::sync::atomic::Ordering::Relaxed;
        let mut of_cell = self.of_cell.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if self.all.load(Relaxed) >= IN_FLIGHT_MAX {
            return None;
        }
        let count = of_cell.entry(cell).or_default();
        if *count >= IN_FLIGHT_PER_CELL_MAX {
            return None;
        }
        *count += 1;
        self.all.fetch_add(1, Relaxed);
        Some(Place { of: self.clone(), cell })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut of_cell = self.of.of_cell.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.of.all.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
        match of_cell.get_mut(&self.cell) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(of_cell.remove(&self.cell)),
        }
    }
}

/// The resolvers to ask, in order.
#[derive(Debug)]
enum Resolvers {
    /// Those of the host's file, read again now and then: networks change.
    File(Mutex<(Option<Instant>, Vec<SocketAddr>)>),
    #[cfg(test)]
    Fixed(Vec<SocketAddr>),
}

impl Resolvers {
    fn of_host() -> Self {
        Self::File(Mutex::new((None, Vec::new())))
    }

    fn list(&self) -> Vec<SocketAddr> {
        match self {
            Self::File(kept) => {
                let mut kept = kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if kept.0.is_none_or(|read| read.elapsed() > RESOLVERS_KEPT) {
                    let text = std::fs::read_to_string(Path::new("/etc/resolv.conf")).unwrap_or_default();
                    *kept = (Some(Instant::now()), parse_resolvers(&text));
                }
                kept.1.clone()
            }
            #[cfg(test)]
            Self::Fixed(list) => list.clone(),
        }
    }
}

fn parse_resolvers(text: &str) -> Vec<SocketAddr> {
    let address = |line: &str| -> Option<SocketAddr> {
        let mut words = line.split_whitespace();
        let named = words.next()? == "nameserver";
        let address: IpAddr = words.next()?.parse().ok()?;
        named.then(|| SocketAddr::new(address, 53))
    };
    let mut found: Vec<_> = text.lines().filter_map(address).take(RESOLVERS_MAX).collect();
    if found.is_empty() {
        found.push(SocketAddr::from((Ipv4Addr::LOCALHOST, 53)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::dns_message::tests::{query, reply};
    use super::*;

    const LOCAL: Range4 = Range4::new(Ipv4Addr::new(127, 0, 0, 0), 8);

    /// A stub whose only resolver answers every question with `answers`, over datagrams and streams. Returns where to ask.
    async fn stub(clients: Range4, answers: &'static [(u16, &'static [u8])]) -> (SocketAddr, JoinSet<()>) {
        let mut tasks = JoinSet::new();
        let resolver = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = resolver.local_addr().unwrap();
        let streams = TcpListener::bind(address).await.unwrap();
        tasks.spawn(async move {
            let mut message = [0; 600];
            while let Ok((length, from)) = resolver.recv_from(&mut message).await {
                // A forged answer with the wrong id comes first.
                let mut forged = reply(&message[..length], &[(1, &[6, 6, 6, 6])]);
                forged[0] ^= 1;
                resolver.send_to(&forged, from).await.unwrap();
                resolver.send_to(&reply(&message[..length], answers), from).await.unwrap();
            }
        });
        tasks.spawn(async move {
            while let Ok((mut stream, _)) = streams.accept().await {
                let message = read_framed(&mut stream, 600).await.unwrap().unwrap();
                write_framed(&mut stream, &reply(&message, answers)).await.unwrap();
            }
        });
        let bound = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let at = bound.local_addr().unwrap();
        let listening = std::net::TcpListener::bind(at).unwrap();
        bound.set_nonblocking(true).unwrap();
        listening.set_nonblocking(true).unwrap();
        let stub = Stub { resolvers: Resolvers::Fixed(vec![address]), clients };
        tasks.spawn(async move { drop(stub.serve(DnsSockets { udp: bound.into(), tcp: listening.into() }).await) });
        (at, tasks)
    }

    async fn ask(at: SocketAddr, message: &[u8]) -> Option<Vec<u8>> {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(message, at).await.unwrap();
        let mut answer = vec![0; 2000];
        let length = timeout(Duration::from_secs(1), socket.recv(&mut answer)).await.ok()?.unwrap();
        answer.truncate(length);
        Some(answer)
    }

    #[tokio::test]
    async fn a_public_name_is_resolved_and_a_private_one_does_not_exist() {
        let (at, _tasks) = stub(LOCAL, &[(1, &[8, 8, 8, 8])]).await;
        let answer = ask(at, &query(9, "example.com", 1)).await.unwrap();
        assert_eq!((&answer[..2], &answer[answer.len() - 4..]), (&[0, 9][..], &[8, 8, 8, 8][..]));
        let (at, _tasks) = stub(LOCAL, &[(1, &[10, 0, 0, 1])]).await;
        let answer = ask(at, &query(9, "example.com", 1)).await.unwrap();
        assert_eq!((answer[3] & 15, answer.len()), (Code::NoSuchName as u8, query(9, "example.com", 1).len()));
    }

    #[tokio::test]
    async fn streams_are_answered_too() {
        let (at, _tasks) = stub(LOCAL, &[(16, &[7; 250]), (16, &[7; 250]), (16, &[7; 250])]).await;
        let short = ask(at, &query(3, "example.com", 16)).await.unwrap();
        assert_eq!(short[2] & 2, 2, "too long for a datagram");
        let mut stream = TcpStream::connect(at).await.unwrap();
        for _ in 0..2 {
            write_framed(&mut stream, &query(3, "example.com", 16)).await.unwrap();
            let answer = read_framed(&mut stream, 2000).await.unwrap().unwrap();
            assert!(answer.len() > 750);
        }
    }

    #[tokio::test]
    async fn only_cells_are_answered() {
        let (at, _tasks) = stub(CELLS, &[(1, &[8, 8, 8, 8])]).await;
        assert_eq!(ask(at, &query(9, "example.com", 1)).await, None);
    }

    #[tokio::test]
    async fn zone_transfers_are_not_implemented() {
        let (at, _tasks) = stub(LOCAL, &[(1, &[8, 8, 8, 8])]).await;
        let answer = ask(at, &query(9, "example.com", 252)).await.unwrap();
        assert_eq!(answer[3] & 15, Code::NotImplemented as u8);
    }

    #[tokio::test]
    async fn a_resolver_that_is_gone_is_a_server_failure() {
        let stub = Stub { resolvers: Resolvers::Fixed(vec!["127.0.0.1:1".parse().unwrap()]), clients: LOCAL };
        let query = Query::parse(&query(9, "example.com", 1)).unwrap();
        assert_eq!(stub.resolve(&query, Transport::Datagram).await, query.refuse(Code::ServerFailed));
    }

    #[test]
    fn one_cell_cannot_take_every_place() {
        let in_flight = InFlight::default();
        let cell = |n| CELLS.address(n);
        let held: Vec<_> = (0..IN_FLIGHT_PER_CELL_MAX).map(|_| in_flight.enter(cell(1)).unwrap()).collect();
        assert!(in_flight.enter(cell(1)).is_none());
        assert!(in_flight.enter(cell(2)).is_some());
        drop(held);
        assert!(in_flight.of_cell.lock().unwrap().is_empty());
        let all: Vec<_> = (0..IN_FLIGHT_MAX as u32).map(|n| in_flight.enter(cell(n)).unwrap()).collect();
        assert!(in_flight.enter(cell(600)).is_none());
        drop(all);
    }

    #[test]
    fn resolvers_are_read_as_the_c_library_does() {
        let text = "# a comment\nsearch lan\nnameserver 10.255.255.53\nnameserver ::1 # local\nnameserver bad\n\
             nameserver 9.9.9.9\nnameserver 8.8.8.8\n";
        let found: Vec<_> = parse_resolvers(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.255.255.53:53", "[::1]:53", "9.9.9.9:53"]);
        assert_eq!(parse_resolvers("").len(), 1);
    }
}
