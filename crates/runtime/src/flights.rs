//! The requests in flight on a channel, and what each frame from the guest means for the one it belongs to. Knows no
//! socket and no clock.
//!
//! # Invariants
//! - An answer reaches the call whose stream and token it carries, or the frame is refused and the channel breaks.
//! - What a guest sends in parts is bounded: by its credit where the parts are handed on, by the payload limit where
//!   they are collected.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use dunlin_model::{AttemptToken, ErrorType};
use serde::Deserialize;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::channel::ChannelError;
use crate::frame::{self, ANSWER_BYTES_MAX, Frame, HEADER_BYTES, Kind, WINDOW};

/// What was taken before the guest is told that it may send as much again.
pub(crate) const GRANTED_AT_ONCE: usize = WINDOW / 4;

/// How a request was answered.
#[derive(Debug)]
pub(crate) enum Reply {
    /// At once.
    End(Bytes),
    /// In parts, which were put together: the `Head`'s JSON and the whole body.
    Collected { head: Bytes, body: Bytes },
    /// In parts, which follow.
    Begun { stream: u32, head: Bytes, parts: mpsc::UnboundedReceiver<Part>, over: oneshot::Receiver<()> },
    /// With an error.
    Error { error_type: ErrorType, body: Bytes },
}

/// What a streamed answer consists of. When the sender goes away before its end, the channel broke.
#[derive(Debug)]
pub(crate) enum Part {
    Data(Bytes),
    End,
    Error { error_type: ErrorType, body: Bytes },
}

/// What a request's caller makes of an answer in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parts {
    /// There may be none: only `Invoke` is answered in parts.
    Refused,
    Collected,
    HandedOn,
}

/// A request that was taken up.
pub(crate) struct Ticket {
    pub(crate) stream: u32,
    pub(crate) token: AttemptToken,
    pub(crate) reply: oneshot::Receiver<Reply>,
}

/// The side of a request whose body follows in chunks.
pub(crate) struct Upload {
    /// Bytes that may still be sent.
    pub(crate) credit: Arc<Semaphore>,
    /// Resolves when the request is answered and nobody wants the rest.
    pub(crate) answered: oneshot::Receiver<()>,
}

/// A frame the host owes the guest: so much more may be sent on this stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) stream: u32,
    pub(crate) token: AttemptToken,
    pub(crate) bytes: usize,
}

/// The table.
#[derive(Default)]
pub(crate) struct Flights {
    last: u32,
    open: Vec<Flight>,
    /// Calls whose callers went away while the guest goes on with others.
    abandoned: usize,
    pub(crate) broken: Option<ChannelError>,
}

struct Flight {
    stream: u32,
    token: AttemptToken,
    parts: Parts,
    state: State,
    /// Credit and end of the request's body, when it follows in chunks.
    upload: Option<(Arc<Semaphore>, oneshot::Sender<()>)>,
}

enum State {
    /// Nothing came yet.
    Asked(oneshot::Sender<Reply>),
    /// The head came, and parts are put together.
    Collecting { reply: oneshot::Sender<Reply>, head: Bytes, body: BytesMut, taken: usize },
    /// The head came, and parts are handed on as long as the guest has credit.
    HandingOn { parts: mpsc::UnboundedSender<Part>, credit: usize, _over: oneshot::Sender<()> },
    /// Nobody waits any more.
    Abandoned { credit: usize },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ErrorHead {
    error_type: ErrorType,
    #[serde(default)]
    fatal: bool,
}

impl Flights {
    /// Takes a request up, unless the channel is broken.
    pub(crate) fn take_off(&mut self, token: AttemptToken, parts: Parts) -> Result<Ticket, ChannelError> {
        match &self.broken {
            None => {}
            // This request is certainly not read, whatever became of those before it.
            Some(ChannelError::Closed) => return Err(ChannelError::Unread),
            Some(broken) => return Err(broken.clone()),
        }
        // 0 belongs to no request.
        self.last = self.last.checked_add(1).unwrap_or(1);
        let stream = self.last;
        let (sender, reply) = oneshot::channel();
        self.open.push(Flight { stream, token, parts, state: State::Asked(sender), upload: None });
        Ok(Ticket { stream, token, reply })
    }

    /// The body of a request follows in chunks.
    pub(crate) fn upload(&mut self, stream: u32) -> Option<Upload> {
        let flight = self.open.iter_mut().find(|flight| flight.stream == stream)?;
        let (over, answered) = oneshot::channel();
        let credit = Arc::new(Semaphore::new(WINDOW));
        flight.upload = Some((Arc::clone(&credit), over));
        Some(Upload { credit, answered })
    }

    /// Nobody waits for an answer any more. Says the attempt's token when the guest is still at it.
    pub(crate) fn abandon(&mut self, stream: u32) -> Option<AttemptToken> {
        let flight = self.open.iter_mut().find(|flight| flight.stream == stream)?;
        let credit = match &flight.state {
            State::Asked(_) => WINDOW,
            // Whatever was granted on the way is not worth counting: no more is.
            State::Collecting { .. } => usize::MAX,
            State::HandingOn { credit, .. } => *credit,
            State::Abandoned { .. } => return None,
        };
        flight.state = State::Abandoned { credit };
        flight.upload = None;
        self.abandoned += 1;
        Some(flight.token)
    }

    /// How many answers are outstanding that nobody waits for.
    pub(crate) fn abandoned(&self) -> usize {
        self.abandoned
    }

    /// How many requests are in flight.
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    /// Ends all of them.
    pub(crate) fn clear(&mut self) {
        self.open.clear();
        self.abandoned = 0;
    }

    /// Allows the guest `bytes` more of an answer that is handed on. Nothing when that has ended.
    pub(crate) fn grant(&mut self, stream: u32, bytes: usize) -> Option<Grant> {
        let flight = self.open.iter_mut().find(|flight| flight.stream == stream)?;
        let State::HandingOn { credit, .. } = &mut flight.state else { return None };
        *credit += bytes;
        Some(Grant { stream, token: flight.token, bytes })
    }

    /// Gives a frame to the call it answers. Says when the guest is to be granted more at once.
    pub(crate) fn deliver(&mut self, frame: Frame) -> Result<Option<Grant>, ChannelError> {
        let broken = |what: String| Err(ChannelError::Broken(what));
        let Some(at) = self.open.iter().position(|flight| flight.stream == frame.stream) else {
            return broken(format!("{:?} on stream {}, which is not in flight", frame.kind, frame.stream));
        };
        if !same_token(&self.open[at].token, &frame.token) {
            return broken("an answer with a wrong token".to_owned());
        }
        match frame.kind {
            Kind::Ready => broken("a second Ready".to_owned()),
            Kind::Head if frame.body.is_empty() => self.open[at].head(frame.head).map(|()| None),
            Kind::Chunk if frame.head.is_empty() => self.open[at].chunk(frame.body),
            Kind::Credit if frame.head.is_empty() => self.open[at].credit(&frame.body).map(|()| None),
            Kind::Head | Kind::Chunk | Kind::Credit => broken(format!("a {:?} out of place", frame.kind)),
            Kind::End => {
                self.land(at).end(frame.body)?;
                Ok(None)
            }
            Kind::Error => {
                let Ok(ErrorHead { error_type, fatal }) = serde_json::from_slice(&frame.head) else {
                    return broken("an Error without a proper head".to_owned());
                };
                if fatal {
                    // It dies of this; whoever comes next must not be its victim.
                    self.broken.get_or_insert(ChannelError::Closed);
                }
                self.land(at).fail(error_type, frame.body);
                Ok(None)
            }
        }
    }

    fn land(&mut self, at: usize) -> Flight {
        let flight = self.open.swap_remove(at);
        if matches!(flight.state, State::Abandoned { .. }) {
            self.abandoned -= 1;
        }
        flight
    }
}

impl Flight {
    /// The answer begins and comes in parts.
    fn head(&mut self, head: Bytes) -> Result<(), ChannelError> {
        let abandoned = State::Abandoned { credit: WINDOW };
        self.state = match (std::mem::replace(&mut self.state, abandoned), self.parts) {
            (State::Asked(reply), Parts::Collected) => State::Collecting { reply, head, body: BytesMut::new(), taken: 0 },
            (State::Asked(reply), Parts::HandedOn) => {
                let (sender, parts) = mpsc::unbounded_channel();
                let (over_sender, over) = oneshot::channel();
                // Nobody listens when the call was given up meanwhile; its guard says so a moment later.
                let _ = reply.send(Reply::Begun { stream: self.stream, head, parts, over });
                State::HandingOn { parts: sender, credit: WINDOW, _over: over_sender }
            }
            (state @ State::Abandoned { .. }, _) => state,
            (State::Asked(_), Parts::Refused) | (State::Collecting { .. } | State::HandingOn { .. }, _) => {
                return Err(ChannelError::Broken("a Head out of place".to_owned()));
            }
        };
        Ok(())
    }

    fn chunk(&mut self, data: Bytes) -> Result<Option<Grant>, ChannelError> {
        let cost = HEADER_BYTES + data.len();
        let overdrawn = || ChannelError::Broken("a Chunk without credit".to_owned());
        match &mut self.state {
            State::Asked(_) => return Err(ChannelError::Broken("a Chunk without a Head".to_owned())),
            State::Collecting { body, taken, .. } => {
                append(body, &data)?;
                *taken += cost;
                if *taken >= GRANTED_AT_ONCE {
                    return Ok(Some(Grant { stream: self.stream, token: self.token, bytes: std::mem::take(taken) }));
                }
            }
            State::HandingOn { parts, credit, .. } => {
                *credit = credit.checked_sub(cost).ok_or_else(overdrawn)?;
                // Not a slice of a whole read: a small part that waits must not keep a large buffer.
                let data = if data.len() < frame::HEAD_BYTES_MAX { Bytes::copy_from_slice(&data) } else { data };
                let _ = parts.send(Part::Data(data));
            }
            State::Abandoned { credit } => *credit = credit.checked_sub(cost).ok_or_else(overdrawn)?,
        }
        Ok(None)
    }

    /// The guest takes more of the request's body.
    fn credit(&mut self, body: &[u8]) -> Result<(), ChannelError> {
        let refused = || ChannelError::Broken("a Credit out of place".to_owned());
        let bytes = frame::credit(body).ok_or_else(refused)?;
        match &self.upload {
            Some((credit, _)) if credit.available_permits() + bytes <= WINDOW => credit.add_permits(bytes),
            Some(_) => return Err(refused()),
            // What was on its way when the call was abandoned.
            None if matches!(self.state, State::Abandoned { .. }) => {}
            None => return Err(refused()),
        }
        Ok(())
    }

    fn end(self, last: Bytes) -> Result<(), ChannelError> {
        // Where nobody listens the call was given up; the channel is broken then or has been told.
        match self.state {
            State::Asked(reply) => drop(reply.send(Reply::End(last))),
            State::Collecting { reply, head, mut body, .. } => {
                append(&mut body, &last)?;
                drop(reply.send(Reply::Collected { head, body: body.freeze() }));
            }
            State::HandingOn { parts, credit, .. } => {
                if last.len() > credit {
                    return Err(ChannelError::Broken("an End without credit for its body".to_owned()));
                }
                if !last.is_empty() {
                    let _ = parts.send(Part::Data(last));
                }
                let _ = parts.send(Part::End);
            }
            State::Abandoned { .. } => {}
        }
        Ok(())
    }

    fn fail(self, error_type: ErrorType, body: Bytes) {
        match self.state {
            State::Asked(reply) | State::Collecting { reply, .. } => drop(reply.send(Reply::Error { error_type, body })),
            State::HandingOn { parts, .. } => drop(parts.send(Part::Error { error_type, body })),
            State::Abandoned { .. } => {}
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
