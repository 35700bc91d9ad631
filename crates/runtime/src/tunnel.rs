//! A connection that changed its protocol: a WebSocket between a caller and the user's server.
//!
//! The server said 101, and from then on bytes go both ways as they come. The call lasts as long as the tunnel.
//!
//! # Invariants
//! - A tunnel ends by the deadline of its call, with its cell, and soon after either side has ended.
//! - It holds a fixed amount of memory: what one side does not take is not read from the other.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::Instant;

use crate::guest::{Cut, InFlight, Watched};

/// Bytes held per direction.
const BUFFER_BYTES: usize = 16 << 10;
/// How long one side may go on after the other has ended.
const LINGER: Duration = Duration::from_secs(5);

/// Marks a request that asks for another protocol, which its value names: an extension of the request in
/// [`crate::Payload::Http`]. Without it a server's 101 is a bad response.
#[derive(Clone, Debug)]
pub struct Upgrade(pub http::HeaderValue);

/// How a tunnel came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelEnd {
    /// One side closed it.
    Closed,
    /// The deadline of its call passed.
    TimedOut,
    /// The cell ended.
    Exited,
}

/// What went through a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried {
    /// Bytes from the caller.
    pub bytes_in: u64,
    /// Bytes from the function.
    pub bytes_out: u64,
    /// How it ended.
    pub end: TunnelEnd,
}

/// The function's side of a tunnel. Dropping it closes the connection to the user's server.
pub struct Tunnel {
    server: TokioIo<Upgraded>,
    deadline: Instant,
    in_flight: InFlight,
    watched: Arc<Watched>,
    spent: Arc<AtomicBool>,
    /// Told once, when the tunnel has ended.
    told: Vec<Box<dyn FnOnce(Carried) + Send>>,
}

impl Tunnel {
    pub(crate) fn new(
        server: Upgraded,
        deadline: Instant,
        in_flight: InFlight,
        watched: Arc<Watched>,
        spent: Arc<AtomicBool>,
    ) -> Self {
        Self { server: TokioIo::new(server), deadline, in_flight, watched, spent, told: Vec::new() }
    }

    /// Has `tell` called when the tunnel has ended. It is dropped uncalled when the tunnel is never carried, or is
    /// given up on the way.
    #[must_use]
    pub fn on_end(mut self, tell: impl FnOnce(Carried) + Send + 'static) -> Self {
        self.told.push(Box::new(tell));
        self
    }

    /// Carries bytes between `caller` and the function until either ends, the deadline passes or the cell is gone.
    pub async fn carry(self, caller: impl AsyncRead + AsyncWrite + Send + Unpin) -> Carried {
        let (bytes_in, bytes_out) = (AtomicU64::new(0), AtomicU64::new(0));
        let mut caller = Counted { inner: caller, read: &bytes_in };
        let mut server = Counted { inner: self.server, read: &bytes_out };
        let ended = self.watched.until(self.deadline, both_ways(&mut caller, &mut server)).await;
        let end = match ended {
            Ok(()) => TunnelEnd::Closed,
            Err(Cut::Ended(_)) => TunnelEnd::Exited,
            Err(Cut::Deadline) => {
                // The server may still be at work for it.
                self.spent.store(true, Ordering::Relaxed);
                TunnelEnd::TimedOut
            }
        };
        drop(server);
        // What was written is delivered; nobody waits for the answer.
        let _ = tokio::time::timeout(LINGER, caller.inner.shutdown()).await;
        self.in_flight.end();
        let carried = Carried { bytes_in: bytes_in.load(Ordering::Relaxed), bytes_out: bytes_out.load(Ordering::Relaxed), end };
        self.told.into_iter().for_each(|tell| tell(carried));
        carried
    }
}

impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnel").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

/// Copies until both directions have ended, or one has and the other lingers too long. An error is an end.
async fn both_ways<A, B>(caller: &mut A, server: &mut B)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut from_caller, mut to_caller) = tokio::io::split(caller);
    let (mut from_server, mut to_server) = tokio::io::split(server);
    let mut inward = std::pin::pin!(one_way(&mut from_caller, &mut to_server));
    let mut outward = std::pin::pin!(one_way(&mut from_server, &mut to_caller));
    tokio::select! {
        () = &mut inward => drop(tokio::time::timeout(LINGER, outward).await),
        () = &mut outward => drop(tokio::time::timeout(LINGER, inward).await),
    }
}

async fn one_way(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) {
    let mut from = tokio::io::BufReader::with_capacity(BUFFER_BYTES, from);
    // An error of either side ends this direction, as an end of file does.
    let _ = tokio::io::copy_buf(&mut from, to).await;
    let _ = to.shutdown().await;
}

/// Counts what is read.
struct Counted<'n, S> {
    inner: S,
    read: &'n AtomicU64,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<'_, S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, space: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        let before = space.filled().len();
        let read = ready!(Pin::new(&mut this.inner).poll_read(context, space));
        this.read.fetch_add((space.filled().len() - before) as u64, Ordering::Relaxed);
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<'_, S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_one_side_says_before_its_end_reaches_the_other() {
        let (mut caller, caller_end) = tokio::io::duplex(64);
        let (mut server, server_end) = tokio::io::duplex(64);
        let (read_in, read_out) = (AtomicU64::new(0), AtomicU64::new(0));
        let mut a = Counted { inner: caller_end, read: &read_in };
        let mut b = Counted { inner: server_end, read: &read_out };
        let talk = async {
            caller.write_all(b"hello").await.unwrap();
            caller.shutdown().await.unwrap();
            let mut heard = Vec::new();
            tokio::io::AsyncReadExt::read_to_end(&mut server, &mut heard).await.unwrap();
            assert_eq!(heard, b"hello");
            server.write_all(b"goodbye").await.unwrap();
            drop(server);
            let mut heard = Vec::new();
            tokio::io::AsyncReadExt::read_to_end(&mut caller, &mut heard).await.unwrap();
            assert_eq!(heard, b"goodbye");
        };
        tokio::join!(both_ways(&mut a, &mut b), talk);
        assert_eq!((read_in.into_inner(), read_out.into_inner()), (5, 7));
    }
}
