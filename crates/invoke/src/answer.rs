//! Bodies that stream through the desk: an answer, whose end is the call's end, and a request, which is counted.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use dunlin_model::Outcome;
use dunlin_runtime::{Body, BoxError, CallError};
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::run::Account;

/// Passes a body on, counts it, holds it to the function's deadline, and closes the account when it ends or is dropped.
pub(crate) struct Streamed {
    inner: Body,
    account: Account,
    deadline: Pin<Box<Sleep>>,
    over: bool,
}

/// The function's time was up while its answer streamed.
#[derive(Debug, thiserror::Error)]
#[error("the function timed out while its answer was streamed")]
struct TimedOut;

impl Streamed {
    /// Wraps `inner`, whose call must end by `deadline`.
    pub(crate) fn wrap(inner: Body, account: Account, deadline: Instant) -> Body {
        let mut streamed = Self { inner, account, deadline: Box::pin(sleep_until(deadline)), over: false };
        // Nobody polls a body that is known to be empty.
        if streamed.inner.is_end_stream() {
            streamed.close(Outcome::Succeeded, None);
        }
        Body::new(streamed)
    }

    fn close(&mut self, outcome: Outcome, error_type: Option<&str>) {
        self.over = true;
        self.account.close_stream(outcome, error_type);
    }
}

impl http_body::Body for Streamed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if this.over {
            return Poll::Ready(None);
        }
        if this.deadline.as_mut().poll(context).is_ready() {
            this.close(Outcome::TimedOut, Some("FunctionTimeoutError"));
            return Poll::Ready(Some(Err(Box::new(TimedOut))));
        }
        let frame = std::task::ready!(Pin::new(&mut this.inner).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                this.account.add_bytes_out(frame.data_ref().map_or(0, Bytes::len));
                // A reader that knows the length stops here.
                if this.inner.is_end_stream() {
                    this.close(Outcome::Succeeded, None);
                }
            }
            Some(Err(error)) => {
                let (outcome, error_type) = match error.downcast_ref() {
                    Some(CallError::Function(error)) => (Outcome::FunctionError, error.error_type.as_str()),
                    Some(CallError::TimedOut) => (Outcome::TimedOut, "FunctionTimeoutError"),
                    Some(CallError::Exited(ended)) if ended.out_of_memory => (Outcome::OutOfMemory, "FunctionOOMError"),
                    _ => (Outcome::Exited, "FunctionUnhandledError"),
                };
                this.close(outcome, Some(error_type));
            }
            None => this.close(Outcome::Succeeded, None),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.over
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Passes a request's body on and counts it.
pub(crate) struct Counted {
    inner: Body,
    bytes: Arc<AtomicU64>,
}

impl Counted {
    /// Adds what passes to `bytes`.
    pub(crate) fn wrap(inner: Body, bytes: Arc<AtomicU64>) -> Body {
        Body::new(Self { inner, bytes })
    }
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let frame = std::task::ready!(Pin::new(&mut this.inner).poll_frame(context));
        if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()).and_then(Frame::data_ref) {
            this.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
