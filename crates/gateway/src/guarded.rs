//! One connection's bytes, checked and under deadlines.
//!
//! [`Guarded`] stands between the socket and hyper. Input goes through [`Framing`]. When a head breaks a rule, hyper is
//! given a harmless head in its place and nothing after it; [`Connection`] remembers that this request is to be refused, and
//! why. When a body breaks a rule, reading it fails. Both end the connection behind one answer.
//!
//! A client that starts a head must finish it in time; one that has announced a body must go on sending while it is
//! waited for; one that is being answered must take the answer. Time in which nobody waits for the client is not counted.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use dunlin_runtime::Tunnel;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::config::Config;
use crate::framing::{Framing, HeadLimits, Step, Violation};
use crate::url::Handover;

/// What hyper reads in place of a head that broke a rule.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: -\r\nconnection: close\r\n\r\n";
/// How much is read from the socket at a time.
const READ_BYTES: usize = 8 << 10;
/// How long, and how much, a closing connection listens so that the client can read the answer before a reset.
const LINGER: (Duration, usize) = (Duration::from_secs(1), 256 << 10);

/// What the input of a connection and the requests on it tell each other.
#[derive(Debug, Default)]
pub(crate) struct Connection {
    requests: AtomicU64,
    /// What the connection becomes after the answer at hand.
    handover: OnceLock<Handover>,
    refused: OnceLock<(u64, Violation)>,
}

impl Connection {
    /// Notes that the answer at hand changes the protocol.
    pub(crate) fn hand_over(&self, handover: Handover) {
        // hyper reads no request behind one that it answers with 101.
        let _ = self.handover.set(handover);
    }

    /// The tunnel that the connection has become, once.
    pub(crate) fn tunnel(&self) -> Option<Tunnel> {
        self.handover.get()?.take()
    }

    /// Counts a request that hyper handed on; the reason when it is the one that stands for a broken head.
    pub(crate) fn next_request(&self) -> Option<Violation> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        self.refused.get().and_then(|(refused, violation)| (*refused == number).then_some(*violation))
    }
}

/// A deadline that runs only while somebody waits.
#[derive(Default)]
struct Patience(Option<Pin<Box<Sleep>>>);

impl Patience {
    fn reset(&mut self) {
        self.0 = None;
    }

    /// Pending while there is time left, which begins with the first poll.
    fn poll(&mut self, limit: Duration, context: &mut Context<'_>) -> Poll<()> {
        self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + limit))).as_mut().poll(context)
    }
}

/// A socket whose input is framed strictly and whose peer has to keep going.
pub(crate) struct Guarded<S> {
    socket: S,
    framing: Framing,
    connection: Arc<Connection>,
    /// What has arrived and was not handed on.
    inbox: BytesMut,
    /// How much of the inbox's front may be handed on.
    cleared: usize,
    heads: u64,
    /// Nothing more is read: a head was refused.
    shut: bool,
    head: Patience,
    body: Patience,
    write: Patience,
    head_patience: Duration,
    body_patience: Duration,
    write_patience: Duration,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Guarded<S> {
    pub(crate) fn new(socket: S, connection: Arc<Connection>, config: &Config) -> Self {
        let limits = HeadLimits { bytes: config.head_bytes_max, lines: config.headers_max, target: config.target_bytes_max };
        Self {
            socket,
            framing: Framing::new(limits),
            connection,
            inbox: BytesMut::new(),
            cleared: 0,
            heads: 0,
            shut: false,
            head: Patience::default(),
            body: Patience::default(),
            write: Patience::default(),
            head_patience: config.head_patience,
            body_patience: config.body_patience,
            write_patience: config.write_patience,
        }
    }

    /// The bare socket, with what it has said already before it: `read` by hyper and what waits here. Nothing when a
    /// head was refused meanwhile: what the client said is not known any more.
    pub(crate) fn into_raw(self, read: &[u8]) -> Option<Raw<S>> {
        if self.shut {
            return None;
        }
        let mut said = BytesMut::from(read);
        said.extend_from_slice(&self.inbox);
        Some(Raw { socket: self.socket, said, write: self.write, write_patience: self.write_patience })
    }

    /// Ends the connection so that the client can still read the last answer: a socket that is closed over unread
    /// input resets, and a reset takes the answer with it.
    pub(crate) async fn close(mut self) {
        let (time, mut bytes) = LINGER;
        let _ = tokio::time::timeout(time, async {
            self.socket.shutdown().await?;
            let mut sink = [0; 4096];
            while bytes > 0 {
                match self.socket.read(&mut sink).await? {
                    0 => break,
                    n => bytes = bytes.saturating_sub(n),
                }
            }
            Ok::<_, io::Error>(())
        })
        .await;
    }

    fn refuse(&mut self, violation: Violation) {
        let _ = self.connection.refused.set((self.heads, violation));
        self.shut = true;
        self.inbox.clear();
        self.inbox.extend_from_slice(STAND_IN);
        self.cleared = self.inbox.len();
    }

    /// Reads once from the socket; how much, 0 at the end.
    fn poll_socket(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.inbox.reserve(READ_BYTES);
        let before = self.inbox.len();
        self.inbox.resize(before + READ_BYTES, 0);
        let mut space = ReadBuf::new(&mut self.inbox[before..]);
        let polled = Pin::new(&mut self.socket).poll_read(context, &mut space);
        let filled = space.filled().len();
        self.inbox.truncate(before + filled);
        if self.inbox.is_empty() {
            // An idle connection holds no buffer.
            self.inbox = BytesMut::new();
        }
        polled.map_ok(|()| filled)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, space: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.cleared > 0 {
                let handed = this.cleared.min(space.remaining());
                space.put_slice(&this.inbox[..handed]);
                this.inbox.advance(handed);
                this.cleared -= handed;
                return Poll::Ready(Ok(()));
            }
            if this.shut {
                // Not the end: hyper would take that for a client that went away and drop the calls in flight.
                return Poll::Pending;
            }
            let at_head = this.framing.at_head();
            match this.framing.step(&this.inbox) {
                Ok(Step::Head(bytes)) => {
                    this.head.reset();
                    this.heads += 1;
                    this.cleared = bytes;
                    continue;
                }
                Ok(Step::Body(bytes)) => {
                    this.cleared = bytes;
                    continue;
                }
                Ok(Step::More) => {}
                Err(violation) if at_head => {
                    this.refuse(violation);
                    continue;
                }
                Err(violation) => return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, violation))),
            }
            match this.poll_socket(context) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(_)) => this.body.reset(),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if !at_head => {
                    ready!(this.body.poll(this.body_patience, context));
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the body did not arrive in time")));
                }
                Poll::Pending if this.inbox.is_empty() => return Poll::Pending,
                Poll::Pending => {
                    ready!(this.head.poll(this.head_patience, context));
                    this.refuse(Violation::HeadTooSlow);
                }
            }
        }
    }
}

impl Patience {
    /// Lets a write wait for the client so long and no longer.
    fn written<T>(&mut self, polled: Poll<io::Result<T>>, limit: Duration, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.reset();
            return polled;
        }
        ready!(self.poll(limit, context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not take the answer")))
    }
}

/// A connection after a change of protocol. Its bytes mean nothing to the door; its client must still take what is
/// written.
pub(crate) struct Raw<S> {
    socket: S,
    said: BytesMut,
    write: Patience,
    write_patience: Duration,
}

impl<S: AsyncRead + Unpin> AsyncRead for Raw<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, space: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.said.is_empty() {
            return Pin::new(&mut this.socket).poll_read(context, space);
        }
        let handed = this.said.len().min(space.remaining());
        space.put_slice(&this.said.split_to(handed));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Raw<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.socket).poll_write(context, bytes);
        this.write.written(polled, this.write_patience, context)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(context)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.socket).poll_write(context, bytes);
        this.write.written(polled, this.write_patience, context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.socket).poll_write_vectored(context, bytes);
        this.write.written(polled, this.write_patience, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(context)
    }
}
