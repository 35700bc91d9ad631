//! Bodies, read whole and within bounds.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dunlin_auth::ExpectedBody;
use dunlin_runtime::BoxError;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use http_body::Body;
use http_body_util::BodyExt as _;
use sha2::Digest as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::error::ApiError;

/// How long a client may say nothing in the middle of a body.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How long the rest of a refused body is waited for, so that its sender gets to read the answer.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// From this size on a body is hashed and parsed where it holds up nobody.
pub(crate) const LARGE_BYTES: usize = 256 << 10;

/// The memory that all bodies together may take.
#[derive(Clone)]
pub(crate) struct Budget {
    kib: Arc<Semaphore>,
}

/// A body, and its share of the budget while it is held.
pub(crate) struct Held {
    pub(crate) bytes: Bytes,
    _share: Option<OwnedSemaphorePermit>,
}

impl Budget {
    pub(crate) fn new(bytes: usize) -> Self {
        Self { kib: Arc::new(Semaphore::new((bytes >> 10).min(Semaphore::MAX_PERMITS))) }
    }

    /// Reads a body of at most `limit` bytes.
    pub(crate) async fn read<B>(&self, body: B, limit: usize) -> Result<Held, ApiError>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let mut body = pin!(body);
        let mut reading = Reading { budget: self, share: None, kib: 0, parts: Vec::new(), total: 0 };
        // A length that is too large is refused before the first byte.
        let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        let refusal = if announced > limit {
            ApiError::too_large(limit)
        } else {
            loop {
                match timeout(SILENCE_MAX, body.frame()).await {
                    Ok(Some(Ok(frame))) => {
                        if let Ok(data) = frame.into_data()
                            && let Err(refusal) = reading.take(data, limit)
                        {
                            break refusal;
                        }
                    }
                    Ok(None) => return Ok(reading.finish()),
                    Ok(Some(Err(error))) => {
                        let error: BoxError = error.into();
                        return Err(ApiError::invalid(format!("the request's body is broken: {error}")));
                    }
                    Err(_) => {
                        return Err(ApiError::new(
                            StatusCode::REQUEST_TIMEOUT,
                            "RequestTimeout",
                            "the request's body did not arrive in time",
                        ));
                    }
                }
            }
        };
        drop(reading);
        drain(body, limit).await;
        Err(refusal)
    }
}

struct Reading<'a> {
    budget: &'a Budget,
    share: Option<OwnedSemaphorePermit>,
    kib: usize,
    parts: Vec<Bytes>,
    total: usize,
}

impl Reading<'_> {
    fn take(&mut self, data: Bytes, limit: usize) -> Result<(), ApiError> {
        self.total = self.total.saturating_add(data.len());
        if self.total > limit {
            return Err(ApiError::too_large(limit));
        }
        // Parts and the whole they are joined to exist at the same time.
        let needed = self.total.div_ceil(1 << 10) * 2;
        if needed > self.kib {
            let more = u32::try_from(needed - self.kib).unwrap_or(u32::MAX);
            let share = Arc::clone(&self.budget.kib).try_acquire_many_owned(more).map_err(|_| {
                ApiError::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "ResourceThrottled",
                    "the platform has no memory for more requests of this size now",
                )
            })?;
            match &mut self.share {
                Some(held) => held.merge(share),
                None => self.share = Some(share),
            }
            self.kib = needed;
        }
        self.parts.push(data);
        Ok(())
    }

    fn finish(self) -> Held {
        let bytes = match <[Bytes; 1]>::try_from(self.parts) {
            Ok([only]) => only,
            Err(parts) => parts.concat().into(),
        };
        Held { bytes, _share: self.share }
    }
}

/// Reads on for a while and forgets it: a connection that is closed while its client still sends loses the answer.
pub(crate) async fn drain<B>(mut body: std::pin::Pin<&mut B>, limit: usize)
where
    B: Body<Data = Bytes>,
{
    let mut rest = limit.saturating_add(16 << 20);
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            let size = frame.data_ref().map_or(0, Bytes::len);
            match rest.checked_sub(size) {
                Some(less) => rest = less,
                None => break,
            }
        }
    };
    // Late or not, the answer is the same.
    let _ = timeout(DRAIN_MAX, reading).await;
}

/// Whether the body is the one that was signed.
pub(crate) async fn check(expected: ExpectedBody, bytes: &Bytes) -> Result<(), ApiError> {
    if bytes.len() < LARGE_BYTES {
        return Ok(expected.check(bytes)?);
    }
    let body = bytes.clone();
    let digest: [u8; 32] = tokio::task::spawn_blocking(move || sha2::Sha256::digest(&body).into())
        .await
        .map_err(|error| ApiError::internal(format!("hashing a body: {error}")))?;
    Ok(expected.check_digest(&digest)?)
}

/// Refuses bodies that say they are something else. What clients of the contract send, and nothing at all, passes.
pub(crate) fn check_type(headers: &HeaderMap, body: &Bytes, json: bool) -> Result<(), ApiError> {
    let unsupported = |message: String| Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message));
    if headers.get(CONTENT_ENCODING).is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return unsupported("a Content-Encoding is not supported; send the body as it is".to_owned());
    }
    if !json || body.is_empty() {
        return Ok(());
    }
    let Some(kind) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let kind = kind.to_str().unwrap_or("?").split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if matches!(kind.as_str(), "" | "application/json" | "application/octet-stream" | "text/json" | "text/plain")
        || kind.ends_with("+json")
    {
        return Ok(());
    }
    unsupported(format!(
        "Content-Type '{}' is not supported; use application/json",
        kind.escape_debug().take(80).collect::<String>()
    ))
}
