//! The host's end of descriptor 3: requests out, answers in.
//!
//! There is no reader task. A call writes its request and then reads the channel itself until its answer is there, so
//! that a warm call costs one write, one wait and one read. When several calls are in flight, one of them reads and
//! hands the others what is theirs; when it has its own answer, the next one goes on reading.
//!
//! # Invariants
//! - An answer reaches the call whose stream and token it carries, or the channel breaks.
//! - A channel that broke stays broken: every call in flight and every later one fails. It breaks when the guest
//!   breaks the wire or closes its end, and when a call is given up before its answer (deadline, or dropped by its
//!   caller), because a guest that may still answer it is of no use.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard};

use bytes::{Bytes, BytesMut};
use dunlin_model::{AttemptToken, ErrorType};
use serde::Deserialize;
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use crate::frame::{self, ANSWER_BYTES_MAX, Frame, Inbox, Kind, Request};

/// The host's end of one guest's descriptor 3.
pub(crate) struct Channel {
    socket: UnixStream,
    writing: tokio::sync::Mutex<()>,
    inbox: tokio::sync::Mutex<Inbox>,
    flights: Mutex<Flights>,
}

/// How a request was answered.
#[derive(Debug)]
pub(crate) enum Reply {
    End(Bytes),
    Error { error_type: ErrorType, body: Bytes },
}

/// What came before any request.
#[derive(Debug)]
pub(crate) enum Greeting {
    /// The bootstrap is up.
    Ready,
    /// The launcher could not become the program: errno and text.
    ExecFailed(String),
}

/// Why there is no reply. The channel is broken by then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChannelError {
    /// The guest closed its end: most likely it is dead.
    #[error("the guest closed its channel")]
    Closed,
    /// The guest closed its end before it had read the request.
    #[error("the guest closed its channel before it had read the request")]
    Unread,
    /// The guest broke the wire.
    #[error("{0}")]
    Broken(String),
    /// The parts of a streamed answer exceed the limit together.
    #[error("a streamed answer over the limit")]
    TooLarge,
}

#[derive(Default)]
struct Flights {
    last: u32,
    open: Vec<Flight>,
    broken: Option<ChannelError>,
}

struct Flight {
    stream: u32,
    token: AttemptToken,
    /// Only the answer of an `Invoke` may come in parts.
    may_stream: bool,
    parts: Option<BytesMut>,
    done: oneshot::Sender<Reply>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ErrorHead {
    error_type: ErrorType,
    #[serde(default)]
    fatal: bool,
}

impl Channel {
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        let socket = std::os::unix::net::UnixStream::from(socket);
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: UnixStream::from_std(socket)?,
            writing: tokio::sync::Mutex::new(()),
            inbox: tokio::sync::Mutex::new(Inbox::default()),
            flights: Mutex::default(),
        })
    }

    /// Tells the launcher what to become. Nothing answers when it works.
    pub(crate) async fn exec(&self, keep_channel: bool, head: &[u8], body: &[u8]) -> Result<(), ChannelError> {
        let flags = if keep_channel { frame::FLAG_KEEP_CHANNEL } else { 0 };
        let header = frame::header(Request::Exec, flags, 0, AttemptToken([0; 16]), head.len(), body.len());
        if self.write(&header, head, body).await? { Ok(()) } else { Err(self.breaks(ChannelError::Unread)) }
    }

    /// Waits for what comes before any request: `Ready`, or the launcher's failure. End of file is
    /// [`ChannelError::Closed`], and how a program that got no channel says that it was started.
    pub(crate) async fn greeting(&self) -> Result<Greeting, ChannelError> {
        let mut inbox = self.inbox.lock().await;
        let frame = self.next(&mut inbox).await.map_err(|error| self.breaks(error))?;
        match (frame.kind, frame.stream, frame.token.0 == [0; 16]) {
            (Kind::Ready, 0, true) => Ok(Greeting::Ready),
            (Kind::Error, 0, true) if frame.head.is_empty() && frame.body.len() <= 4096 => {
                Ok(Greeting::ExecFailed(String::from_utf8_lossy(&frame.body).into_owned()))
            }
            _ => Err(self.breaks(ChannelError::Broken(format!("{:?} where Ready was due", frame.kind)))),
        }
    }

    /// Sends one request and waits for its answer. When the future is dropped before that, the channel breaks.
    pub(crate) async fn request(&self, kind: Request, head: &[u8], body: &[u8]) -> Result<Reply, ChannelError> {
        let token = AttemptToken::random();
        let (stream, mut done) = self.take_off(token, kind == Request::Invoke)?;
        let mut guard = Unfinished { channel: self, finished: false };
        let header = frame::header(kind, 0, stream, token, head.len(), body.len());
        let result = async {
            let whole = self.write(&header, head, body).await?;
            let reply = tokio::select! {
                biased;
                reply = &mut done => reply.map_err(|_| self.why_broken()),
                mut inbox = self.inbox.lock() => self.read_until(&mut inbox, &mut done).await,
            };
            match reply {
                Err(ChannelError::Closed) if !whole => Err(ChannelError::Unread),
                other => other,
            }
        }
        .await;
        guard.finished = true;
        result
    }

    /// Whether no further request has a chance.
    pub(crate) fn is_broken(&self) -> bool {
        self.flights().broken.is_some()
    }

    /// Refuses all further requests.
    pub(crate) fn give_up(&self, why: &str) {
        self.breaks(ChannelError::Broken(why.to_owned()));
    }

    fn take_off(&self, token: AttemptToken, may_stream: bool) -> Result<(u32, oneshot::Receiver<Reply>), ChannelError> {
        let mut flights = self.flights();
        match &flights.broken {
            None => {}
            // This request is certainly not read, whatever became of those before it.
            Some(ChannelError::Closed) => return Err(ChannelError::Unread),
            Some(broken) => return Err(broken.clone()),
        }
        // 0 belongs to no request.
        flights.last = flights.last.checked_add(1).unwrap_or(1);
        let stream = flights.last;
        let (done, receiver) = oneshot::channel();
        flights.open.push(Flight { stream, token, may_stream, parts: None, done });
        Ok((stream, receiver))
    }

    async fn read_until(&self, inbox: &mut Inbox, done: &mut oneshot::Receiver<Reply>) -> Result<Reply, ChannelError> {
        loop {
            // Another reader may have had it already.
            match done.try_recv() {
                Ok(reply) => return Ok(reply),
                Err(oneshot::error::TryRecvError::Closed) => return Err(self.why_broken()),
                Err(oneshot::error::TryRecvError::Empty) => {}
            }
            let step = match self.next(inbox).await {
                Ok(frame) => self.deliver(frame),
                Err(error) => Err(error),
            };
            step.map_err(|error| self.breaks(error))?;
        }
    }

    /// Gives a frame to the call it answers.
    fn deliver(&self, frame: Frame) -> Result<(), ChannelError> {
        let broken = |what: String| Err(ChannelError::Broken(what));
        let mut flights = self.flights();
        let Some(at) = flights.open.iter().position(|flight| flight.stream == frame.stream) else {
            return broken(format!("{:?} on stream {}, which is not in flight", frame.kind, frame.stream));
        };
        if !same_token(&flights.open[at].token, &frame.token) {
            return broken("an answer with a wrong token".to_owned());
        }
        match frame.kind {
            Kind::Ready => broken("a second Ready".to_owned()),
            Kind::Head if flights.open[at].may_stream && flights.open[at].parts.is_none() && frame.body.is_empty() => {
                flights.open[at].parts = Some(BytesMut::new());
                Ok(())
            }
            Kind::Chunk if frame.head.is_empty() => match &mut flights.open[at].parts {
                Some(parts) => append(parts, &frame.body),
                None => broken("a Chunk without a Head".to_owned()),
            },
            Kind::Head | Kind::Chunk => broken(format!("a {:?} out of place", frame.kind)),
            Kind::End => {
                let mut flight = flights.open.swap_remove(at);
                let answer = match flight.parts.take() {
                    None => frame.body,
                    Some(mut parts) => {
                        append(&mut parts, &frame.body)?;
                        parts.freeze()
                    }
                };
                // Nobody listens when the call was given up; the channel is broken then anyway.
                let _ = flight.done.send(Reply::End(answer));
                Ok(())
            }
            Kind::Error => {
                let Ok(ErrorHead { error_type, fatal }) = serde_json::from_slice(&frame.head) else {
                    return broken("an Error without a proper head".to_owned());
                };
                let flight = flights.open.swap_remove(at);
                if fatal {
                    // It dies of this; whoever comes next must not be its victim.
                    flights.broken.get_or_insert(ChannelError::Closed);
                }
                let _ = flight.done.send(Reply::Error { error_type, body: frame.body });
                Ok(())
            }
        }
    }

    /// The next frame. Dropping the future loses nothing that was read.
    async fn next(&self, inbox: &mut Inbox) -> Result<Frame, ChannelError> {
        loop {
            if let Some(frame) = inbox.take().map_err(|error| ChannelError::Broken(error.to_string()))? {
                return Ok(frame);
            }
            match self.socket.try_read_buf(inbox.room()) {
                Ok(0) => return Err(ChannelError::Closed),
                Ok(_) => {}
                // The kernel's word for a peer that closed its end with something unread in it.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Err(ChannelError::Unread),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.socket.readable().await.map_err(|_| ChannelError::Closed)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(ChannelError::Closed),
            }
        }
    }

    /// Writes one frame, and says whether it went out whole. A future dropped in between leaves half a frame behind, so its caller must break the
    /// channel then.
    async fn write(&self, header: &[u8], head: &[u8], body: &[u8]) -> Result<bool, ChannelError> {
        let _writing = self.writing.lock().await;
        let total = header.len() + head.len() + body.len();
        let mut written = 0;
        while written < total {
            let mut parts = [IoSlice::new(header), IoSlice::new(head), IoSlice::new(body)];
            let mut rest = &mut parts[..];
            IoSlice::advance_slices(&mut rest, written);
            match self.socket.try_write_vectored(rest) {
                Ok(n) => written += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.socket.writable().await.map_err(|_| self.breaks(ChannelError::Closed))?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The guest may have said why before it went: what it sent is still there to be read.
                Err(_) => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Breaks the channel, if it is not broken yet, and answers why it is.
    fn breaks(&self, error: ChannelError) -> ChannelError {
        let mut flights = self.flights();
        // With several in flight nobody knows which of them was read.
        let error = if error == ChannelError::Unread && flights.open.len() > 1 { ChannelError::Closed } else { error };
        flights.open.clear();
        flights.broken.get_or_insert(error).clone()
    }

    fn why_broken(&self) -> ChannelError {
        self.flights().broken.clone().unwrap_or(ChannelError::Closed)
    }

    fn flights(&self) -> MutexGuard<'_, Flights> {
        self.flights.lock().expect("nothing panics while it holds the flights")
    }
}

/// Breaks the channel when a request is given up before its answer.
struct Unfinished<'c> {
    channel: &'c Channel,
    finished: bool,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.channel.give_up("a call was given up before its answer");
        }
    }
}

fn append(parts: &mut BytesMut, more: &[u8]) -> Result<(), ChannelError> {
    if parts.len() + more.len() > ANSWER_BYTES_MAX {
        return Err(ChannelError::TooLarge);
    }
    parts.extend_from_slice(more);
    Ok(())
}

/// Compares in constant time: user code can measure, and may be guessing.
fn same_token(a: &AttemptToken, b: &AttemptToken) -> bool {
    a.0.iter().zip(&b.0).fold(0, |difference, (x, y)| difference | (x ^ y)) == 0
}
