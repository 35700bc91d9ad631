//! Standard input, output and error of a guest.

use std::io::{self, Write as _};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

/// How much a guest may write before its write is looked at.
const PERMIT_BYTES: usize = 64 << 10;
/// A line of a log is passed on in parts of this size.
const LINE_BYTES: usize = 32 << 10;

/// Somewhere a guest's output goes, bytes by bytes.
pub(crate) trait Sink: Send + 'static {
    /// Takes more.
    fn take(&mut self, bytes: &[u8]) -> Result<(), TooMuch>;
}

/// There is no room for more, and never will be: the guest ends.
#[derive(Debug, thiserror::Error)]
#[error("the answer is larger than {limit} bytes")]
pub(crate) struct TooMuch {
    pub(crate) limit: usize,
}

/// Collects an answer.
pub(crate) struct Answer {
    bytes: BytesMut,
    limit: usize,
}

impl Answer {
    pub(crate) fn new(limit: usize) -> Self {
        Self { bytes: BytesMut::new(), limit }
    }

    pub(crate) fn finish(&mut self) -> Bytes {
        self.bytes.split().freeze()
    }
}

impl Sink for Answer {
    fn take(&mut self, bytes: &[u8]) -> Result<(), TooMuch> {
        if bytes.len() > self.limit - self.bytes.len() {
            return Err(TooMuch { limit: self.limit });
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

/// Passes output on to the log, whole lines at a time, so that those of several calls do not mix.
#[derive(Default)]
pub(crate) struct Log {
    line: Vec<u8>,
}

impl Log {
    fn pass_on(bytes: &[u8]) {
        // The other end reads as long as the cell lives, and drops what is too much.
        let _ = io::stderr().lock().write_all(bytes);
    }
}

impl Sink for Log {
    fn take(&mut self, mut bytes: &[u8]) -> Result<(), TooMuch> {
        if let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') {
            let (whole, rest) = bytes.split_at(end + 1);
            self.line.extend_from_slice(whole);
            Self::pass_on(&self.line);
            self.line.clear();
            bytes = rest;
        }
        self.line.extend_from_slice(bytes);
        if self.line.len() >= LINE_BYTES {
            Self::pass_on(&self.line);
            self.line.clear();
        }
        Ok(())
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            self.line.push(b'\n');
            Self::pass_on(&self.line);
        }
    }
}

/// A guest's end of a [`Sink`].
pub(crate) struct Output<S>(Arc<Mutex<S>>);

impl<S> Output<S> {
    pub(crate) fn new(sink: S) -> Self {
        Self(Arc::new(Mutex::new(sink)))
    }

    pub(crate) fn sink(&self) -> MutexGuard<'_, S> {
        // A sink is whole between any two writes.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> Clone for Output<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: Sink> IsTerminal for Output<S> {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl<S: Sink> StdoutStream for Output<S> {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl<S: Sink> Pollable for Output<S> {
    async fn ready(&mut self) {}
}

#[async_trait]
impl<S: Sink> OutputStream for Output<S> {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.sink().take(&bytes).map_err(|error| StreamError::Trap(error.into()))
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(PERMIT_BYTES)
    }
}

impl<S: Sink> AsyncWrite for Output<S> {
    fn poll_write(self: Pin<&mut Self>, _context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.sink().take(bytes).map(|()| bytes.len()).map_err(io::Error::other))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The body of a request as a program reads it.
pub(crate) struct Input {
    parts: mpsc::UnboundedReceiver<Bytes>,
    part: Bytes,
    taken: Box<dyn Fn(usize) + Send + Sync>,
}

impl Input {
    /// `taken` hears how much was read, so that as much more can be asked for.
    pub(crate) fn new(parts: mpsc::UnboundedReceiver<Bytes>, taken: impl Fn(usize) + Send + Sync + 'static) -> Self {
        Self { parts, part: Bytes::new(), taken: Box::new(taken) }
    }

    /// Nothing to be read.
    pub(crate) fn empty() -> Self {
        Self::new(mpsc::unbounded_channel().1, |_| {})
    }

    /// The next part; `None` at the end.
    pub(crate) fn poll_part(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let part = self.parts.poll_recv(context);
        if let Poll::Ready(Some(part)) = &part {
            (self.taken)(part.len());
        }
        part
    }
}

impl AsyncRead for Input {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.part.is_empty() {
            match std::task::ready!(self.poll_part(context)) {
                Some(part) => self.part = part,
                None => return Poll::Ready(Ok(())),
            }
        }
        let most = self.part.len().min(buffer.remaining());
        buffer.put_slice(&self.part.split_to(most));
        Poll::Ready(Ok(()))
    }
}
