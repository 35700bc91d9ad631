//! Request bodies: bounded always, and compared with the digest that was signed.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dunlin_auth::{AuthError, ExpectedBody};
use http::StatusCode;
use http::header::EXPECT;
use http::request::Parts;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use sha2::{Digest as _, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::Problem;
use crate::{Body, BoxError};

/// How much more than may be sent, and for how long, is read of a body that was refused.
const DRAIN_BYTES_MAX: usize = 16 << 20;
const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);

/// The memory that bodies held whole may take together, in KiB.
pub(crate) struct Room(Arc<Semaphore>);

/// One body's part of the room; gives it back when dropped.
pub(super) type Share = OwnedSemaphorePermit;

/// A body is in memory as such, as the event made of it, and on its way to the guest.
const COPIES: usize = 3;

impl Room {
    pub(crate) fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new((bytes >> 10).min(Semaphore::MAX_PERMITS))))
    }

    /// Makes `share` large enough for a body of `bytes`. Never waits: two bodies that wait for each other would do so
    /// for ever.
    fn grow(&self, share: &mut Option<Share>, bytes: usize) -> Result<(), Problem> {
        let needed = bytes.div_ceil(1 << 10) * COPIES;
        let held = share.as_ref().map_or(0, Share::num_permits);
        if needed <= held {
            return Ok(());
        }
        let more = u32::try_from(needed - held).unwrap_or(u32::MAX);
        let more = Arc::clone(&self.0).try_acquire_many_owned(more).map_err(|_| {
            let message = "the platform has no memory for more bodies of this size now";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "ResourceThrottled", message).closing()
        })?;
        match share {
            Some(share) => share.merge(more),
            None => *share = Some(more),
        }
        Ok(())
    }
}

/// Reads a whole body. The share is the caller's to hold for as long as something made of the body is in memory.
pub(super) async fn collected(
    room: &Room,
    body: Incoming,
    limit: usize,
    signed: Option<ExpectedBody>,
) -> Result<(Bytes, Option<Share>), Problem> {
    let mut body = Checked::new(body, limit, signed);
    let mut share = None;
    let Some(first) = next(&mut body).await? else { return Ok((Bytes::new(), share)) };
    room.grow(&mut share, first.len())?;
    let Some(second) = next(&mut body).await? else { return Ok((first, share)) };
    let mut whole = BytesMut::from(first);
    let mut data = Some(second);
    while let Some(part) = data {
        if let Err(full) = room.grow(&mut share, whole.len() + part.len()) {
            drop((whole, share));
            rest(&mut body.body, limit).await;
            return Err(full);
        }
        whole.extend_from_slice(&part);
        data = next(&mut body).await?;
    }
    Ok((whole.freeze(), share))
}

async fn next(body: &mut Checked) -> Result<Option<Bytes>, Problem> {
    match body.frame().await {
        None => Ok(None),
        Some(Ok(frame)) => Ok(Some(frame.into_data().unwrap_or_default())),
        Some(Err(Broken::TooLarge { limit })) => {
            rest(&mut body.body, limit).await;
            Err(too_large(limit))
        }
        Some(Err(Broken::Forged(error))) => Err(Problem::from(error).closing()),
        Some(Err(broken @ Broken::Read(_))) => Err(Problem::invalid(broken.to_string()).closing()),
    }
}

/// Hands a body on while it arrives. What is wrong with it becomes an error before its end, so that nobody takes a
/// forged or cut body for a whole one.
pub(super) fn streamed(body: Incoming, limit: usize, signed: Option<ExpectedBody>) -> Body {
    Checked::new(body, limit, signed).map_err(|broken| Box::new(broken) as BoxError).boxed_unsync()
}

/// Reads on for a while and forgets it: a connection that is closed while its client still sends loses the answer. A
/// client that waits for 100 is not told to go on.
pub(super) async fn drain(head: &Parts, mut body: Incoming, limit: usize) {
    if !head.headers.contains_key(EXPECT) {
        rest(&mut body, limit).await;
    }
}

async fn rest(body: &mut Incoming, limit: usize) {
    let mut left = limit.saturating_add(DRAIN_BYTES_MAX);
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            let Some(less) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else { return };
            left = less;
        }
    };
    // Late or not, the answer is the same.
    let _ = tokio::time::timeout(DRAIN_TIME_MAX, reading).await;
}

pub(super) fn too_large(limit: usize) -> Problem {
    Problem::invalid(format!("the body is larger than {limit} bytes")).closing()
}

/// Why a body came to no good end.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the body is larger than {limit} bytes")]
    TooLarge { limit: usize },
    #[error(transparent)]
    Forged(AuthError),
    #[error("the body could not be read")]
    Read(#[source] hyper::Error),
}

struct Checked {
    body: Incoming,
    limit: usize,
    seen: usize,
    signed: Option<(ExpectedBody, Sha256)>,
}

impl Checked {
    fn new(body: Incoming, limit: usize, signed: Option<ExpectedBody>) -> Self {
        Self { body, limit, seen: 0, signed: signed.map(|expected| (expected, Sha256::new())) }
    }

    /// Once the last byte has passed: whether it was the body that was signed.
    fn finish(&mut self) -> Result<(), Broken> {
        match self.signed.take() {
            Some((expected, hash)) => expected.check_digest(&hash.finalize().into()).map_err(Broken::Forged),
            None => Ok(()),
        }
    }
}

impl HttpBody for Checked {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = self.get_mut();
        loop {
            let Some(frame) = ready!(Pin::new(&mut this.body).poll_frame(context)) else {
                return Poll::Ready(this.finish().err().map(Err));
            };
            // Trailers were refused when the message was framed; whatever else is no data ends here.
            let Ok(data) = frame.map_err(Broken::Read)?.into_data() else { continue };
            this.seen += data.len();
            if this.seen > this.limit {
                return Poll::Ready(Some(Err(Broken::TooLarge { limit: this.limit })));
            }
            if let Some((_, hash)) = &mut this.signed {
                hash.update(&data);
                if this.body.is_end_stream() {
                    // The digest is checked with the last piece in hand, which is not handed on if it is wrong.
                    this.finish()?;
                }
            }
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() && self.signed.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
