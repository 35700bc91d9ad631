//! The body of an answer that a bootstrap gives in parts.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use dunlin_model::{FunctionError, RequestId};
use http_body::Frame;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::call::BoxError;
use crate::channel::Channel;
use crate::error::CallError;
use crate::flights::{GRANTED_AT_ONCE, Part};
use crate::frame::HEADER_BYTES;
use crate::guest::{END_GRACE, InFlight, Watched, end_line};

/// The parts of one answer, as they come. Ends well or with a [`CallError`]; dropping it before gives the call up.
pub(crate) struct StreamedAnswer {
    channel: Arc<Channel>,
    stream: u32,
    parts: mpsc::UnboundedReceiver<Part>,
    reader: AbortHandle,
    taken: usize,
    watched: Arc<Watched>,
    request: RequestId,
    in_flight: Option<InFlight>,
    /// Set when the channel broke: how the cell ends is worth waiting for.
    last_words: Option<Pin<Box<dyn Future<Output = CallError> + Send>>>,
}

impl StreamedAnswer {
    pub(crate) fn begin(
        channel: &Arc<Channel>,
        stream: u32,
        (parts, over): (mpsc::UnboundedReceiver<Part>, oneshot::Receiver<()>),
        watched: &Arc<Watched>,
        request: &RequestId,
        in_flight: InFlight,
    ) -> Self {
        Self {
            channel: Arc::clone(channel),
            stream,
            parts,
            reader: tokio::spawn(Arc::clone(channel).read_for(over)).abort_handle(),
            taken: 0,
            watched: Arc::clone(watched),
            request: request.clone(),
            in_flight: Some(in_flight),
            last_words: None,
        }
    }

    /// The call is over in the log's eyes.
    fn finish(&mut self, failed: bool) {
        if let Some(in_flight) = self.in_flight.take() {
            in_flight.end();
            self.watched.peak.look();
            self.watched.output.platform_line(&self.request, &end_line("Invoke", &self.request, failed));
        }
    }

    fn fails(&mut self, error: CallError) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.finish(true);
        Poll::Ready(Some(Err(Box::new(error))))
    }
}

impl http_body::Body for StreamedAnswer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if this.in_flight.is_none() {
            return Poll::Ready(None);
        }
        if let Some(last_words) = &mut this.last_words {
            let error = ready!(last_words.as_mut().poll(context));
            return this.fails(error);
        }
        match ready!(this.parts.poll_recv(context)) {
            Some(Part::Data(data)) => {
                this.taken += HEADER_BYTES + data.len();
                if this.taken >= GRANTED_AT_ONCE {
                    this.channel.grant(this.stream, std::mem::take(&mut this.taken));
                }
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Some(Part::End) => {
                this.finish(false);
                Poll::Ready(None)
            }
            Some(Part::Error { error_type, body }) => {
                this.fails(CallError::Function(FunctionError { error_type, body: body.into() }))
            }
            None => {
                let watched = Arc::clone(&this.watched);
                let broken = this.channel.why_broken();
                this.last_words = Some(Box::pin(async move {
                    match watched.end_within(END_GRACE).await {
                        Some(ended) => CallError::Exited(ended),
                        None => CallError::Protocol(broken.to_string()),
                    }
                }));
                Pin::new(this).poll_frame(context)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.in_flight.is_none()
    }
}

impl Drop for StreamedAnswer {
    fn drop(&mut self) {
        self.reader.abort();
        if self.in_flight.is_some() {
            self.channel.abandon(self.stream);
            self.finish(true);
        }
    }
}
