//! The guest's end of `docs/design/wire.md`.
//!
//! Frames that go out are queued whole, so that a call that is given up never leaves half a frame behind.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;

use crate::failure::Failure;

pub(crate) const LOAD: u8 = 2;
pub(crate) const INIT: u8 = 3;
pub(crate) const INVOKE: u8 = 4;
pub(crate) const CHUNK: u8 = 5;
pub(crate) const CANCEL: u8 = 6;
pub(crate) const PRE_STOP: u8 = 7;
pub(crate) const CREDIT: u8 = 8;
const READY: u8 = 16;
const HEAD: u8 = 17;
const END: u8 = 18;
const ERROR: u8 = 19;
const CREDIT_OUT: u8 = 20;

/// Chunks follow.
const MORE: u8 = 1;

const HEADER_BYTES: usize = 32;
/// What each side may send on a stream before the other grants more.
const WINDOW: usize = 256 << 10;
/// Most bytes of a chunk of ours.
const CHUNK_BYTES: usize = 64 << 10;
/// Most bytes of an answer.
pub(crate) const ANSWER_BYTES_MAX: usize = 32 << 20;
/// Most bytes the host sends in a frame: a head, and an event of the payload limit with room to spare.
const FRAME_BYTES_MAX: usize = (64 << 20) + (64 << 10);

/// The head of every error: all of ours are the function's own, and none is fatal.
const ERROR_HEAD: &[u8] = br#"{"errorType":"UnhandledInvocationError"}"#;

/// Names one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Address {
    stream: u32,
    token: [u8; 16],
}

/// A frame from the host.
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) more: bool,
    pub(crate) address: Address,
    pub(crate) head: Bytes,
    pub(crate) body: Bytes,
}

struct Header {
    kind: u8,
    more: bool,
    address: Address,
    head: usize,
    body: usize,
}

impl Header {
    fn parse(bytes: &[u8; HEADER_BYTES]) -> io::Result<Self> {
        let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes of a header"));
        let (head, body) = (number(8) as usize, number(12) as usize);
        if head + body > FRAME_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let token = bytes[16..].try_into().expect("sixteen bytes of a header");
        Ok(Self { kind: bytes[0], more: bytes[1] & MORE != 0, address: Address { stream: number(4), token }, head, body })
    }

    fn frame(self, content: Vec<u8>) -> Frame {
        let mut head = Bytes::from(content);
        let body = head.split_off(self.head);
        Frame { kind: self.kind, more: self.more, address: self.address, head, body }
    }
}

/// Reads a frame without a runtime. `None` when the host has closed its end.
pub(crate) fn read(mut socket: impl Read) -> io::Result<Option<Frame>> {
    let mut header = [0; HEADER_BYTES];
    match socket.read_exact(&mut header) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let header = Header::parse(&header)?;
    let mut content = vec![0; header.head + header.body];
    socket.read_exact(&mut content)?;
    Ok(Some(header.frame(content)))
}

/// The same, inside a runtime.
pub(crate) async fn next(socket: &mut OwnedReadHalf) -> io::Result<Option<Frame>> {
    let mut header = [0; HEADER_BYTES];
    match socket.read_exact(&mut header).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    };
    let header = Header::parse(&header)?;
    let mut content = vec![0; header.head + header.body];
    socket.read_exact(&mut content).await?;
    Ok(Some(header.frame(content)))
}

/// The frame that says that the guest is up.
pub(crate) fn ready(head: &[u8]) -> Vec<u8> {
    let mut frame = header(READY, 0, Address { stream: 0, token: [0; 16] }, head.len(), 0).to_vec();
    frame.extend_from_slice(head);
    frame
}

/// The frame that answers a request well, without anything.
pub(crate) fn done(address: Address) -> Vec<u8> {
    header(END, 0, address, 0, 0).to_vec()
}

/// The frame that answers a request with an error.
pub(crate) fn failed(address: Address, body: &[u8]) -> Vec<u8> {
    let mut frame = header(ERROR, 0, address, ERROR_HEAD.len(), body.len()).to_vec();
    frame.extend_from_slice(ERROR_HEAD);
    frame.extend_from_slice(body);
    frame
}

fn header(kind: u8, flags: u8, address: Address, head: usize, body: usize) -> [u8; HEADER_BYTES] {
    let length = |bytes: usize| u32::try_from(bytes).expect("answers are capped far below 4 GiB").to_le_bytes();
    let mut header = [0; HEADER_BYTES];
    header[0] = kind;
    header[1] = flags;
    header[4..8].copy_from_slice(&address.stream.to_le_bytes());
    header[8..12].copy_from_slice(&length(head));
    header[12..16].copy_from_slice(&length(body));
    header[16..].copy_from_slice(&address.token);
    header
}

/// Frames on their way out: a header with its head, and a body.
type Queue = mpsc::UnboundedSender<(Vec<u8>, Bytes)>;

/// The calls in flight, and the way out.
pub(crate) struct Calls {
    queue: Queue,
    flying: Mutex<HashMap<u32, Flying>>,
}

struct Flying {
    credit: Arc<Semaphore>,
    /// Parts of the request's body go here, until its end.
    parts: Option<mpsc::UnboundedSender<Bytes>>,
    task: Option<AbortHandle>,
}

impl Calls {
    /// Calls that answer through `socket`. Must be called inside a runtime.
    pub(crate) fn new(mut socket: OwnedWriteHalf) -> Arc<Self> {
        let (queue, mut frames) = mpsc::unbounded_channel::<(Vec<u8>, Bytes)>();
        tokio::spawn(async move {
            while let Some((head, body)) = frames.recv().await {
                // A host that is gone ends the process from the reading side.
                if socket.write_all(&head).await.is_err() || socket.write_all(&body).await.is_err() {
                    return;
                }
            }
        });
        Arc::new(Self { queue, flying: Mutex::default() })
    }

    /// Takes a call up. Its body comes from the receiver when the frame announced one.
    pub(crate) fn begin(self: &Arc<Self>, frame: &Frame) -> (Reply, Option<mpsc::UnboundedReceiver<Bytes>>) {
        let credit = Arc::new(Semaphore::new(WINDOW));
        let (sender, receiver) = mpsc::unbounded_channel();
        let parts = frame.more.then_some(sender);
        let body = frame.more.then_some(receiver);
        self.flying().insert(frame.address.stream, Flying { credit: Arc::clone(&credit), parts, task: None });
        (Reply { calls: Arc::clone(self), address: frame.address, credit, answered: false }, body)
    }

    /// Says which task runs a call, so that it can be given up.
    pub(crate) fn runs(&self, address: Address, task: AbortHandle) {
        if let Some(flying) = self.flying().get_mut(&address.stream) {
            flying.task = Some(task);
        }
    }

    /// A part of a request's body.
    pub(crate) fn part(&self, frame: Frame) {
        let mut flying = self.flying();
        let Some(call) = flying.get_mut(&frame.address.stream) else { return };
        if let Some(parts) = &call.parts
            && !frame.body.is_empty()
        {
            // A guest that does not read its input to the end is no fault of anybody's.
            let _ = parts.send(frame.body);
        }
        if !frame.more {
            call.parts = None;
        }
    }

    /// More of an answer may be sent.
    pub(crate) fn grant(&self, frame: &Frame) {
        if let (Some(call), Ok(bytes)) = (self.flying().get(&frame.address.stream), <[u8; 4]>::try_from(&frame.body[..])) {
            call.credit.add_permits(u32::from_le_bytes(bytes) as usize);
        }
    }

    /// Nobody wants the answer any more: ends the guest, and answers for the form's sake.
    pub(crate) fn cancel(&self, address: Address) {
        let call = self.flying().remove(&address.stream);
        if let Some(call) = call {
            if let Some(task) = call.task {
                task.abort();
            }
            self.send(failed(address, b"{}"), Bytes::new());
        }
    }

    /// Answers a request that needs no work.
    pub(crate) fn done(&self, address: Address) {
        self.send(done(address), Bytes::new());
    }

    fn send(&self, head: Vec<u8>, body: Bytes) {
        // The queue closes when the host is gone.
        let _ = self.queue.send((head, body));
    }

    fn flying(&self) -> MutexGuard<'_, HashMap<u32, Flying>> {
        self.flying.lock().expect("nothing panics while it holds the calls")
    }
}

/// The way to answer one call. Dropped without an answer it says that the platform failed.
pub(crate) struct Reply {
    calls: Arc<Calls>,
    address: Address,
    credit: Arc<Semaphore>,
    answered: bool,
}

impl Reply {
    /// Which call it answers.
    pub(crate) fn address(&self) -> Address {
        self.address
    }

    /// Begins an answer in parts.
    pub(crate) fn head(&self, head: &[u8]) {
        let mut frame = header(HEAD, MORE, self.address, head.len(), 0).to_vec();
        frame.extend_from_slice(head);
        self.calls.send(frame, Bytes::new());
    }

    /// The next part, as soon as the host has room for it.
    pub(crate) async fn chunk(&self, mut data: Bytes) {
        while !data.is_empty() {
            let chunk = data.split_to(data.len().min(CHUNK_BYTES));
            let cost = u32::try_from(HEADER_BYTES + chunk.len()).expect("a chunk is small");
            if let Ok(permits) = self.credit.acquire_many(cost).await {
                permits.forget();
            }
            let header = header(CHUNK, MORE, self.address, 0, chunk.len()).to_vec();
            self.calls.send(header, chunk);
        }
    }

    /// Answers well.
    pub(crate) fn end(mut self, body: Bytes) {
        let header = header(END, 0, self.address, 0, body.len()).to_vec();
        self.answer(header, body);
    }

    /// Answers with an error.
    pub(crate) fn fail(mut self, failure: &Failure) {
        let frame = failed(self.address, &failure.body());
        self.answer(frame, Bytes::new());
    }

    /// Answers with an error the function has worded itself.
    pub(crate) fn fail_with(mut self, body: &[u8]) {
        let frame = failed(self.address, body);
        self.answer(frame, Bytes::new());
    }

    /// Hears how much of the request's body was read, and asks for as much more in large steps.
    pub(crate) fn granting(&self) -> impl Fn(usize) + Send + Sync + use<> {
        let (calls, address, owed) = (Arc::clone(&self.calls), self.address, Mutex::new(0));
        move |bytes| {
            let mut owed = owed.lock().expect("nothing panics while it counts");
            *owed += HEADER_BYTES + bytes;
            if *owed >= WINDOW / 4 {
                let granted = u32::try_from(std::mem::take(&mut *owed)).expect("no more than was granted before");
                let frame = header(CREDIT_OUT, 0, address, 0, 4).to_vec();
                calls.send(frame, Bytes::copy_from_slice(&granted.to_le_bytes()));
            }
        }
    }

    fn answer(&mut self, head: Vec<u8>, body: Bytes) {
        self.answered = true;
        // A call that was cancelled has its answer.
        if self.calls.flying().remove(&self.address.stream).is_some() {
            self.calls.send(head, body);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.answered {
            let failure = Failure::worded("PlatformError", "the platform failed to run the program");
            self.answer(failed(self.address, &failure.body()), Bytes::new());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_as_it_was_written() {
        let address = Address { stream: 7, token: [3; 16] };
        let frame = read(&failed(address, b"{}")[..]).unwrap().unwrap();
        assert_eq!((frame.kind, frame.address.stream, frame.address.token, frame.more), (ERROR, 7, [3; 16], false));
        assert_eq!((&frame.head[..], &frame.body[..]), (ERROR_HEAD, &b"{}"[..]));
        assert!(read(&b""[..]).unwrap().is_none());
        assert!(read(&done(address)[..31]).unwrap().is_none());
        assert!(read(&failed(address, b"{}")[..40]).is_err());
    }

    #[test]
    fn a_frame_over_the_limit_is_refused() {
        let huge = header(INVOKE, 0, Address { stream: 1, token: [0; 16] }, 0, FRAME_BYTES_MAX + 1);
        assert!(read(&huge[..]).is_err());
    }
}
