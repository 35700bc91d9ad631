//! Connections to the user's server, through sockets that were opened inside its cell.
//!
//! Connections are kept alive and reused: one per call in flight, so never more than the function's concurrency. A
//! kept connection that turns out to be closed before the request was handed to it costs nothing but a new one; once
//! any of a request may have been sent it is never sent again, because nobody here knows whether it may run twice.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use dunlin_model::CellId;
use dunlin_sandbox::{BindError, Sandboxes};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpSocket, TcpStream};

use crate::call::Body;

/// Bytes hyper may buffer of one response: above the header limit, and little per stream.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// First and longest pause between two attempts to reach the port.
const PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// A connection that can take one request.
pub(crate) type Connection = http1::SendRequest<Body>;

/// Connections to one server.
pub(crate) struct Connections {
    sandboxes: Arc<dyn Sandboxes>,
    cell: CellId,
    port: u16,
    keep_max: usize,
    idle: Mutex<Vec<Connection>>,
}

/// Why a request got no response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// No socket could be had inside the cell.
    #[error("no socket inside the cell")]
    Socket(#[from] BindError),
    /// Nothing listens any more.
    #[error("the server does not accept connections: {0}")]
    Connect(io::Error),
    /// The connection broke, or what came back was no HTTP.
    #[error("no proper response: {0}")]
    Response(hyper::Error),
}

impl Connections {
    pub(crate) fn new(sandboxes: Arc<dyn Sandboxes>, cell: CellId, port: u16, keep_max: usize) -> Self {
        Self { sandboxes, cell, port, keep_max, idle: Mutex::default() }
    }

    /// Tries until something listens on the port, and keeps that connection. Ends only in success or without a socket;
    /// the caller has the deadline.
    pub(crate) async fn wait_for_port(&self) -> Result<(), BindError> {
        let mut pause = PAUSE.0;
        loop {
            match self.connect().await {
                Ok(connection) => {
                    self.keep(connection);
                    return Ok(());
                }
                Err(SendError::Socket(error)) => return Err(error),
                Err(_) => tokio::time::sleep(pause).await,
            }
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    /// Sends one request and waits for the response's head. The connection comes back with it: hand it to
    /// [`Connections::keep`] when the body has been read to its end.
    pub(crate) async fn send(&self, mut request: Request<Body>) -> Result<(Response<Incoming>, Connection), SendError> {
        while let Some(mut connection) = self.take_idle() {
            // Errors here say that the kept connection is closed; the next one may not be.
            if connection.ready().await.is_err() {
                continue;
            }
            match connection.try_send_request(request).await {
                Ok(response) => return Ok((response, connection)),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(SendError::Response(error.into_error())),
                },
            }
        }
        let mut connection = self.connect().await?;
        let response = connection.send_request(request).await.map_err(SendError::Response)?;
        Ok((response, connection))
    }

    /// Keeps a connection whose last response was read to its end.
    pub(crate) fn keep(&self, connection: Connection) {
        let mut idle = self.idle();
        if !connection.is_closed() && idle.len() < self.keep_max {
            idle.push(connection);
        }
    }

    /// Closes the connections that wait for a request.
    pub(crate) fn close_idle(&self) {
        self.idle().clear();
    }

    /// The last one kept: the others may rest until the server closes them.
    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle();
        while let Some(connection) = idle.pop() {
            if !connection.is_closed() {
                return Some(connection);
            }
        }
        None
    }

    async fn connect(&self) -> Result<Connection, SendError> {
        let socket = self.sandboxes.socket(self.cell).await?;
        let stream = connect(socket.into(), self.port).await.map_err(SendError::Connect)?;
        let (connection, driver) = http1::Builder::new()
            .max_buf_size(BUFFER_BYTES_MAX)
            .max_headers(128)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(SendError::Response)?;
        // Ends with the connection: when its handle is dropped, or the server closes it. Its error reaches whoever
        // waits for a response.
        tokio::spawn(async move {
            let _ = driver.with_upgrades().await;
        });
        Ok(connection)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().expect("nothing panics while it holds the idle connections")
    }
}

async fn connect(socket: std::net::TcpStream, port: u16) -> io::Result<TcpStream> {
    // Not a stream yet, whatever its type says: the socket came unconnected.
    let stream = TcpSocket::from_std_stream(socket).connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
