//! The host's end of descriptor 3: requests out, answers in.
//!
//! There is no reader task. A call writes its request and then reads the channel itself until its answer is there, so
//! that a warm call costs one write, one wait and one read. When several calls are in flight, one of them reads and
//! hands the others what is theirs; when it has its own answer, the next one goes on reading. Only an answer that is
//! handed on in parts has a task, which reads for it until it ends.
//!
//! # Invariants
//! - A channel that broke stays broken: every call in flight and every later one fails. It breaks when the guest
//!   breaks the wire or closes its end.
//! - A call that is given up before its answer (deadline, or dropped by its caller) breaks the channel of a guest that
//!   serves one at a time, because a guest that may still be busy with it is of no use. Of several, it is cancelled,
//!   and the others go on.
//! - A frame is written whole or the channel breaks.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use dunlin_model::AttemptToken;
use http_body_util::BodyExt as _;
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use crate::call::Body;
use crate::flights::{Flights, Grant, Parts, Reply, Ticket, Upload};
use crate::frame::{self, CHUNK_BYTES, FLAG_MORE, Frame, HEADER_BYTES, Inbox, Kind, Request};

/// Up to this size a frame is written by the call itself; a larger one by a task, when there are other calls that a
/// half-written frame would hurt.
const WRITTEN_AT_ONCE: usize = 64 << 10;

/// The host's end of one guest's descriptor 3.
pub(crate) struct Channel {
    socket: UnixStream,
    writing: tokio::sync::Mutex<()>,
    inbox: tokio::sync::Mutex<Inbox>,
    flights: Mutex<Flights>,
    owed: Mutex<Owed>,
    /// How many calls the guest takes at a time.
    concurrency: AtomicUsize,
    /// Calls in flight may end; there shall be no more.
    retired: AtomicBool,
}

/// Grants the guest was not told of yet, one for each stream.
#[derive(Default)]
struct Owed {
    grants: Vec<Grant>,
    being_told: bool,
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

impl Channel {
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Arc<Self>> {
        let socket = std::os::unix::net::UnixStream::from(socket);
        socket.set_nonblocking(true)?;
        Ok(Arc::new(Self {
            socket: UnixStream::from_std(socket)?,
            writing: tokio::sync::Mutex::new(()),
            inbox: tokio::sync::Mutex::new(Inbox::default()),
            flights: Mutex::default(),
            owed: Mutex::default(),
            concurrency: AtomicUsize::new(1),
            retired: AtomicBool::new(false),
        }))
    }

    /// The guest takes so many calls at a time from now on.
    pub(crate) fn agree(&self, concurrency: u32) {
        self.concurrency.store(concurrency as usize, Ordering::Relaxed);
    }

    /// Tells the launcher what to become. Nothing answers when it works.
    pub(crate) async fn exec(&self, keep_channel: bool, head: &[u8], body: &[u8]) -> Result<(), ChannelError> {
        let flags = if keep_channel { frame::FLAG_KEEP_CHANNEL } else { 0 };
        let header = frame::header(Request::Exec, flags, 0, AttemptToken([0; 16]), head.len(), body.len());
        if self.write(&header, head, body).await? { Ok(()) } else { Err(self.breaks(ChannelError::Unread)) }
    }

    /// Tells the guest something that it does not answer. When it is gone, the next request says so.
    pub(crate) async fn tell(&self, what: Request, head: &[u8]) -> Result<(), ChannelError> {
        let header = frame::header(what, 0, 0, AttemptToken([0; 16]), head.len(), 0);
        self.write(&header, head, &[]).await.map(drop)
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

    /// Sends one request and waits for its answer, or for the beginning of one that is handed on in parts. Dropping
    /// the future before that gives the call up.
    pub(crate) async fn request(
        self: &Arc<Self>,
        kind: Request,
        head: &[u8],
        body: Bytes,
        parts: Parts,
        upload: Option<Body>,
    ) -> Result<Reply, ChannelError> {
        let Ticket { stream, token, reply: mut answer } = self.flights().take_off(AttemptToken::random(), parts)?;
        let mut guard = GiveUp { channel: self, stream, written: false, finished: false };
        let uploading = upload.and_then(|body| Some((body, self.flights().upload(stream)?)));
        let flags = if uploading.is_some() { FLAG_MORE } else { 0 };
        let header = frame::header(kind, flags, stream, token, head.len(), body.len());
        let result = async {
            let whole = self.write_request(header, head, body, &mut guard).await?;
            if let Some((body, upload)) = uploading {
                tokio::spawn(Arc::clone(self).carry_in(body, upload, stream, token));
            }
            let reply = tokio::select! {
                biased;
                reply = &mut answer => reply.map_err(|_| self.why_broken()),
                mut inbox = self.inbox.lock() => self.read_until(&mut inbox, &mut answer).await,
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

    /// Writes a request. Says whether it went out whole.
    async fn write_request(
        self: &Arc<Self>,
        header: [u8; HEADER_BYTES],
        head: &[u8],
        body: Bytes,
        guard: &mut GiveUp<'_>,
    ) -> Result<bool, ChannelError> {
        if self.several() && body.len() > WRITTEN_AT_ONCE {
            guard.written = true;
            let (channel, head) = (Arc::clone(self), head.to_vec());
            let writing = tokio::spawn(async move { channel.write(&header, &head, &body).await });
            return writing.await.unwrap_or(Err(ChannelError::Closed));
        }
        let whole = self.write(&header, head, &body).await;
        guard.written = true;
        whole
    }

    /// Sends a request's body as the guest takes it, until it ends or the request is answered.
    async fn carry_in(self: Arc<Self>, mut body: Body, upload: Upload, stream: u32, token: AttemptToken) {
        let Upload { credit, mut answered } = upload;
        loop {
            let frame = tokio::select! {
                _ = &mut answered => return,
                frame = body.frame() => frame,
            };
            let mut data = match frame {
                None => break,
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
                Some(Err(_)) => return self.abandon(stream),
            };
            while !data.is_empty() {
                let chunk = data.split_to(data.len().min(CHUNK_BYTES));
                let cost = u32::try_from(HEADER_BYTES + chunk.len()).expect("a chunk is small");
                tokio::select! {
                    _ = &mut answered => return,
                    permits = credit.acquire_many(cost) => match permits {
                        Ok(permits) => permits.forget(),
                        Err(_) => return,
                    },
                }
                let header = frame::header(Request::Chunk, FLAG_MORE, stream, token, 0, chunk.len());
                if !matches!(self.write(&header, &[], &chunk).await, Ok(true)) {
                    return;
                }
            }
        }
        let header = frame::header(Request::Chunk, 0, stream, token, 0, 0);
        // A guest that is gone is noticed by whoever waits for its answer.
        let _ = self.write(&header, &[], &[]).await;
    }

    /// Reads for an answer that is handed on in parts, until it has ended.
    pub(crate) async fn read_for(self: Arc<Self>, mut over: oneshot::Receiver<()>) {
        tokio::select! {
            biased;
            _ = &mut over => {}
            mut inbox = self.inbox.lock() => drop(self.read_until(&mut inbox, &mut over).await),
        }
    }

    /// The guest may send so much more on a stream.
    pub(crate) fn grant(self: &Arc<Self>, stream: u32, bytes: usize) {
        let grant = self.flights().grant(stream, bytes);
        if let Some(grant) = grant {
            self.tell_granted(grant);
        }
    }

    /// Leaves the telling to a task, of which there is one at most: whoever reads must not wait for a guest that does
    /// not, and a guest that does not must not make tasks pile up.
    fn tell_granted(self: &Arc<Self>, grant: Grant) {
        let mut owed = self.owed();
        match owed.grants.iter_mut().find(|other| other.stream == grant.stream) {
            Some(other) => other.bytes += grant.bytes,
            None => owed.grants.push(grant),
        }
        if !std::mem::replace(&mut owed.being_told, true) {
            tokio::spawn(Arc::clone(self).tell_all_granted());
        }
    }

    async fn tell_all_granted(self: Arc<Self>) {
        loop {
            let Grant { stream, token, bytes } = {
                let mut owed = self.owed();
                let Some(grant) = owed.grants.pop() else {
                    owed.being_told = false;
                    return;
                };
                grant
            };
            let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes();
            let header = frame::header(Request::Credit, 0, stream, token, 0, bytes.len());
            // A guest that is gone is noticed by whoever waits for its answer.
            let _ = self.write(&header, &[], &bytes).await;
        }
    }

    fn owed(&self) -> MutexGuard<'_, Owed> {
        self.owed.lock().expect("nothing panics while it holds the grants")
    }

    /// Nobody wants the answer any more.
    pub(crate) fn abandon(self: &Arc<Self>, stream: u32) {
        if !self.several() {
            return self.give_up("a call was given up before its answer");
        }
        let mut flights = self.flights();
        let Some(token) = flights.abandon(stream) else { return };
        if flights.abandoned() >= self.concurrency.load(Ordering::Relaxed) {
            // Whatever it does with them, it is not what it was asked to.
            self.retired.store(true, Ordering::Relaxed);
        }
        drop(flights);
        let channel = Arc::clone(self);
        tokio::spawn(async move {
            let header = frame::header(Request::Cancel, 0, stream, token, 0, 0);
            // A guest that is gone is noticed by whoever waits for its answer.
            let _ = channel.write(&header, &[], &[]).await;
        });
    }

    /// The guest gets no further calls; those in flight may end.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    fn several(&self) -> bool {
        self.concurrency.load(Ordering::Relaxed) > 1
    }

    /// Whether no further request has a chance.
    pub(crate) fn is_spent(&self) -> bool {
        self.retired.load(Ordering::Relaxed) || self.flights().broken.is_some()
    }

    /// Refuses all further requests.
    pub(crate) fn give_up(&self, why: &str) {
        self.breaks(ChannelError::Broken(why.to_owned()));
    }

    async fn read_until<T>(self: &Arc<Self>, inbox: &mut Inbox, done: &mut oneshot::Receiver<T>) -> Result<T, ChannelError> {
        loop {
            // Another reader may have had it already.
            match done.try_recv() {
                Ok(reply) => return Ok(reply),
                Err(oneshot::error::TryRecvError::Closed) => return Err(self.why_broken()),
                Err(oneshot::error::TryRecvError::Empty) => {}
            }
            let step = match self.next(inbox).await {
                Ok(frame) => self.flights().deliver(frame),
                Err(error) => Err(error),
            };
            if let Some(grant) = step.map_err(|error| self.breaks(error))? {
                self.tell_granted(grant);
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
        let error = if error == ChannelError::Unread && flights.len() > 1 { ChannelError::Closed } else { error };
        flights.clear();
        flights.broken.get_or_insert(error).clone()
    }

    /// Why it broke.
    pub(crate) fn why_broken(&self) -> ChannelError {
        self.flights().broken.clone().unwrap_or(ChannelError::Closed)
    }

    fn flights(&self) -> MutexGuard<'_, Flights> {
        self.flights.lock().expect("nothing panics while it holds the flights")
    }
}

/// Gives a request up unless it came to its end.
struct GiveUp<'c> {
    channel: &'c Arc<Channel>,
    stream: u32,
    written: bool,
    finished: bool,
}

impl Drop for GiveUp<'_> {
    fn drop(&mut self) {
        match (self.finished, self.written) {
            (true, _) => {}
            (false, true) => self.channel.abandon(self.stream),
            (false, false) => self.channel.give_up("a call was given up while it was written"),
        }
    }
}
