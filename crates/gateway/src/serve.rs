//! Accepting connections, bounding them, and letting the last calls out.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use dunlin_model::RequestId;
use futures_util::future::select_all;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use crate::Body;
use crate::config::Config;
use crate::dispatch::{Dispatch, Peer};
use crate::doors::Doors;
use crate::guarded::{Connection, Guarded};
use crate::handshake;
use crate::url::Handover;

/// Most clients without room that are listened to at a time.
const TURNED_AWAY_MAX: usize = 64;

/// One address that the door listens at.
#[derive(Debug)]
pub struct Listener {
    /// The socket.
    pub socket: TcpListener,
    /// Whether TLS is spoken there. What comes in is then for custom domains only.
    pub is_tls: bool,
}

/// How the door was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Connections whose calls were still running when the grace period ended.
    pub interrupted: usize,
}

/// Serves connections from `listeners` until `stop` is ready, then lets the calls in flight end.
///
/// Nothing new is accepted from the moment `stop` is ready; idle connections are closed at once, busy ones after
/// their answer, and what is left after [`Config::grace`] is cut off.
///
/// # Panics
/// When `listeners` is empty.
pub async fn serve(listeners: Vec<Listener>, doors: Doors, config: Config, stop: impl Future<Output = ()>) -> Closed {
    assert!(!listeners.is_empty(), "a door needs a listener");
    let room = Arc::new(Semaphore::new(config.connections_max));
    let (closing, closed) = watch::channel(false);
    let host =
        Host { dispatch: Arc::new(Dispatch::new(doors, config.body_bytes_in_flight_max)), config: Arc::new(config), closed };
    let mut connections = JoinSet::new();
    let mut spare = Spare::hold();
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stop => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listeners) => accepted,
        };
        match accepted {
            Ok((socket, peer, is_tls)) => match Arc::clone(&room).try_acquire_owned() {
                Ok(permit) => {
                    connections.spawn(host.clone().connection(socket, is_tls, peer, permit));
                }
                // Nobody could read a refusal that is not encrypted.
                Err(_) if is_tls => drop(socket),
                Err(_) => {
                    // Most are heard out for a moment, so that they can read the answer; not so many that it adds up.
                    if connections.len() < host.config.connections_max + TURNED_AWAY_MAX {
                        connections.spawn(turn_away_politely(socket));
                    } else {
                        turn_away(socket);
                    }
                }
            },
            Err(error) if out_of_descriptors(&error) => {
                spare.turn_one_away(&listeners);
                // Descriptors come back when connections end; asking again at once would only burn a core.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => tracing::debug!(%error, "a connection was gone before it was accepted"),
        }
    }
    drop(listeners);
    let _ = closing.send(true);
    let drained = tokio::time::timeout(host.config.grace, async { while connections.join_next().await.is_some() {} }).await;
    let interrupted = if drained.is_ok() { 0 } else { connections.len() };
    connections.shutdown().await;
    Closed { interrupted }
}

async fn accept(listeners: &[Listener]) -> io::Result<(TcpStream, SocketAddr, bool)> {
    select_all(listeners.iter().map(|listener| Box::pin(listener.accept()))).await.0
}

impl Listener {
    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr, bool)> {
        let (stream, peer) = self.socket.accept().await?;
        Ok((stream, peer, self.is_tls))
    }
}

/// Whether accepting failed because this process or the machine has no descriptor left.
fn out_of_descriptors(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
}

/// A descriptor held back, so that there is one to say "no room" with when all others are gone.
struct Spare(Option<std::fs::File>);

impl Spare {
    fn hold() -> Self {
        Self(std::fs::File::open("/dev/null").ok())
    }

    fn turn_one_away(&mut self, listeners: &[Listener]) {
        if self.0.take().is_some() {
            for listener in listeners {
                let mut context = std::task::Context::from_waker(std::task::Waker::noop());
                if let std::task::Poll::Ready(Ok((socket, _))) = listener.socket.poll_accept(&mut context) {
                    if !listener.is_tls {
                        turn_away(socket);
                    }
                    break;
                }
            }
        }
        *self = Self::hold();
    }
}

/// What is sent to a client for whom there is no room. Complete and small enough to fit into an empty socket buffer.
fn no_room() -> Vec<u8> {
    let id = RequestId::random();
    let (code, message) = ("ResourceThrottled", "too many connections");
    let body = serde_json::json!({ "Code": code, "Message": message, "RequestId": id.as_str(), "ErrorCode": code, "ErrorMessage": message }).to_string();
    format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
        x-fc-request-id: {}\r\nretry-after: 1\r\nconnection: close\r\n\r\n{body}",
        body.len(),
        id.as_str()
    )
    .into_bytes()
}

/// Answers and then listens for a moment: a socket that is closed over unread input resets, and takes the answer with it.
async fn turn_away_politely(mut socket: TcpStream) {
    let _ = tokio::time::timeout(Duration::from_secs(1), async {
        socket.write_all(&no_room()).await?;
        socket.shutdown().await?;
        let mut sink = [0; 1024];
        while socket.read(&mut sink).await? > 0 {}
        Ok::<_, io::Error>(())
    })
    .await;
}

/// Answers without reading, without waiting and without a task of its own.
fn turn_away(socket: TcpStream) {
    if let Ok(socket) = socket.into_std() {
        use std::io::Write as _;
        let _ = (&socket).write(&no_room());
        let _ = socket.shutdown(std::net::Shutdown::Write);
    }
}

/// What every connection shares.
#[derive(Clone)]
struct Host {
    dispatch: Arc<Dispatch>,
    config: Arc<Config>,
    closed: watch::Receiver<bool>,
}

impl Host {
    async fn connection(self, mut socket: TcpStream, is_tls: bool, remote: SocketAddr, permit: OwnedSemaphorePermit) {
        let _ = socket.set_nodelay(true);
        let Ok(local) = socket.local_addr() else {
            let _ = socket.shutdown().await;
            return;
        };
        if !is_tls {
            self.requests(socket, Peer { remote, local, tls: None }).await;
        } else if let Some((stream, name)) = handshake::shake(socket, &self.dispatch, self.config.head_patience).await {
            self.requests(stream, Peer { remote, local, tls: Some(name) }).await;
        }
        drop(permit);
    }

    async fn requests<S: AsyncRead + AsyncWrite + Send + Unpin>(mut self, socket: S, peer: Peer) {
        let remote = peer.remote;
        let connection = Arc::new(Connection::default());
        let io = TokioIo::new(Guarded::new(socket, Arc::clone(&connection), &self.config));
        let shared = Arc::clone(&connection);
        let service = Requests { dispatch: self.dispatch, connection, peer };
        let mut http = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            // Before the first byte of a head; from there on the guard's own, shorter patience counts.
            .header_read_timeout(self.config.idle_max)
            .max_headers(self.config.headers_max + 8)
            .max_buf_size(self.config.head_bytes_max.max(64 << 10))
            .half_close(false)
            .serve_connection(io, service);
        let ended = {
            let mut told = false;
            loop {
                tokio::select! {
                    ended = poll_fn(|context| http.poll_without_shutdown(context)) => break ended,
                    _ = self.closed.wait_for(|closed| *closed), if !told => {
                        told = true;
                        Pin::new(&mut http).graceful_shutdown();
                    }
                }
            }
        };
        let parts = http.into_parts();
        let io = parts.io.into_inner();
        match (ended, shared.tunnel()) {
            (Ok(()), Some(tunnel)) => {
                if let Some(raw) = io.into_raw(&parts.read_buf) {
                    tunnel.carry(raw).await;
                }
            }
            (Ok(()), None) => io.close().await,
            (Err(error), _) => {
                tracing::debug!(%error, peer = %remote, "connection ended");
                io.close().await;
            }
        }
    }
}

/// hyper's view of one connection.
struct Requests {
    dispatch: Arc<Dispatch>,
    connection: Arc<Connection>,
    peer: Peer,
}

impl Service<Request<Incoming>> for Requests {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let refused = self.connection.next_request();
        let (dispatch, connection, peer) = (Arc::clone(&self.dispatch), Arc::clone(&self.connection), self.peer.clone());
        Box::pin(async move {
            let mut response = match refused {
                Some(violation) => dispatch.refuse(violation),
                None => dispatch.request(request, &peer).await,
            };
            if let Some(handover) = response.extensions_mut().remove::<Handover>() {
                connection.hand_over(handover);
            }
            Ok(response)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_made_refusal_announces_its_own_length() {
        let text = String::from_utf8(no_room()).expect("the refusal is text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
        let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert!(head.contains(&format!("x-fc-request-id: {}", body["RequestId"].as_str().expect("an id"))), "{head}");
    }
}
