//! The frames of `docs/design/wire.md`: their header, their caps, and the cutting of a byte stream into them.
//!
//! Everything that comes in here comes from a guest. A header is checked as soon as its 32 bytes are there, before
//! memory for what it announces is reserved; memory then grows with what has arrived, not with what was promised.

use bytes::{Bytes, BytesMut};
use dunlin_model::AttemptToken;

/// Bytes of a header.
pub(crate) const HEADER_BYTES: usize = 32;
/// Most bytes of a head.
pub(crate) const HEAD_BYTES_MAX: usize = 64 << 10;
/// Most bytes of one answer, and so of one body from the guest.
pub(crate) const ANSWER_BYTES_MAX: usize = 32 << 20;

/// How many bytes of `Chunk` frames, headers included, one side may send on a stream before the other grants more.
pub(crate) const WINDOW: usize = 256 << 10;
/// Most bytes of a body in a `Chunk` from the host.
pub(crate) const CHUNK_BYTES: usize = 64 << 10;

/// The only flag a guest may set: chunks follow.
pub(crate) const FLAG_MORE: u8 = 1;
/// Of `Exec`: descriptor 3 stays open in the program.
pub(crate) const FLAG_KEEP_CHANNEL: u8 = 2;

/// What the host says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Request {
    Exec = 1,
    Load = 2,
    Init = 3,
    Invoke = 4,
    Chunk = 5,
    Cancel = 6,
    PreStop = 7,
    Credit = 8,
    Prepare = 9,
    Rehearse = 10,
}

/// What a guest says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Chunk,
    Ready,
    Head,
    End,
    Error,
    Credit,
}

impl Kind {
    fn parse(byte: u8) -> Option<Self> {
        Some(match byte {
            5 => Self::Chunk,
            16 => Self::Ready,
            17 => Self::Head,
            18 => Self::End,
            19 => Self::Error,
            20 => Self::Credit,
            _ => return None,
        })
    }
}

/// A frame from a guest. That its token and stream are right is for `channel` to check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) stream: u32,
    pub(crate) token: AttemptToken,
    pub(crate) head: Bytes,
    pub(crate) body: Bytes,
}

/// How a guest's frame breaks the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("unknown frame kind {0}")]
    Kind(u8),
    #[error("reserved bits are set")]
    Reserved,
    #[error("a head of {0} bytes")]
    HeadTooLong(u32),
    #[error("a body of {0} bytes")]
    BodyTooLong(u32),
}

/// The header of a frame from the host.
pub(crate) fn header(
    request: Request,
    flags: u8,
    stream: u32,
    token: AttemptToken,
    head: usize,
    body: usize,
) -> [u8; HEADER_BYTES] {
    let length = |bytes: usize| u32::try_from(bytes).expect("heads and events are capped far below 4 GiB").to_le_bytes();
    let mut header = [0; HEADER_BYTES];
    header[0] = request as u8;
    header[1] = flags;
    header[4..8].copy_from_slice(&stream.to_le_bytes());
    header[8..12].copy_from_slice(&length(head));
    header[12..16].copy_from_slice(&length(body));
    header[16..].copy_from_slice(&token.0);
    header
}

struct Header {
    kind: Kind,
    stream: u32,
    head: usize,
    body: usize,
    token: AttemptToken,
}

fn parse_header(bytes: &[u8; HEADER_BYTES]) -> Result<Header, FrameError> {
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes of a header"));
    let kind = Kind::parse(bytes[0]).ok_or(FrameError::Kind(bytes[0]))?;
    let flags_allowed = if matches!(kind, Kind::Head | Kind::Chunk) { FLAG_MORE } else { 0 };
    if bytes[1] & !flags_allowed != 0 || bytes[2] != 0 || bytes[3] != 0 {
        return Err(FrameError::Reserved);
    }
    let (head, body) = (number(8), number(12));
    if head as usize > HEAD_BYTES_MAX {
        return Err(FrameError::HeadTooLong(head));
    }
    let body_max = match kind {
        Kind::Chunk => WINDOW,
        Kind::Credit => CREDIT_BYTES,
        Kind::Ready | Kind::Head | Kind::End | Kind::Error => ANSWER_BYTES_MAX,
    };
    if body as usize > body_max {
        return Err(FrameError::BodyTooLong(body));
    }
    let token = AttemptToken(bytes[16..].try_into().expect("sixteen bytes of a header"));
    Ok(Header { kind, stream: number(4), head: head as usize, body: body as usize, token })
}

/// Bytes of a `Credit`'s body: the number of bytes granted.
const CREDIT_BYTES: usize = 4;

/// The number in a `Credit`.
pub(crate) fn credit(body: &[u8]) -> Option<usize> {
    body.try_into().ok().map(|bytes| u32::from_le_bytes(bytes) as usize)
}

/// Bytes that have arrived and are not a whole frame yet.
#[derive(Default)]
pub(crate) struct Inbox {
    bytes: BytesMut,
}

impl Inbox {
    /// Takes the next frame out, if it is complete.
    pub(crate) fn take(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some(first) = self.bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let Header { kind, stream, head, body, token } = parse_header(first)?;
        if self.bytes.len() < HEADER_BYTES + head + body {
            return Ok(None);
        }
        let mut frame = self.bytes.split_to(HEADER_BYTES + head + body).freeze();
        if self.bytes.is_empty() {
            // Not a slice of the answer's allocation any more: a small answer must not keep a large one alive.
            self.bytes = BytesMut::new();
        }
        let mut rest = frame.split_off(HEADER_BYTES);
        let content = rest.split_off(head);
        Ok(Some(Frame { kind, stream, token, head: rest, body: content }))
    }

    /// Room for the next read: what the frame under way still lacks, but never more than doubles what is held.
    pub(crate) fn room(&mut self) -> &mut BytesMut {
        let lacking = match self.bytes.first_chunk::<HEADER_BYTES>().map(parse_header) {
            Some(Ok(header)) => (HEADER_BYTES + header.head + header.body).saturating_sub(self.bytes.len()),
            _ => 0,
        };
        let most = self.bytes.len().max(4 << 10);
        self.bytes.reserve(lacking.clamp(2 << 10, most));
        &mut self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest_frame(kind: u8, flags: u8, head: u32, body: u32) -> Vec<u8> {
        let mut bytes = vec![kind, flags, 0, 0, 7, 0, 0, 0];
        bytes.extend(head.to_le_bytes());
        bytes.extend(body.to_le_bytes());
        bytes.extend([9; 16]);
        bytes
    }

    fn take(bytes: &[u8]) -> Result<Option<Frame>, FrameError> {
        let mut inbox = Inbox::default();
        inbox.room().extend_from_slice(bytes);
        inbox.take()
    }

    #[test]
    fn a_frame_is_taken_when_it_is_whole_and_not_before() {
        let mut bytes = guest_frame(18, 0, 2, 3);
        bytes.extend(b"{}abc");
        let mut inbox = Inbox::default();
        for byte in &bytes[..bytes.len() - 1] {
            inbox.room().extend_from_slice(&[*byte]);
            assert_eq!(inbox.take(), Ok(None));
        }
        inbox.room().extend_from_slice(b"c");
        let frame = inbox.take().unwrap().unwrap();
        assert_eq!((frame.kind, frame.stream, &frame.head[..], &frame.body[..]), (Kind::End, 7, &b"{}"[..], &b"abc"[..]));
        assert!(inbox.bytes.is_empty());
    }

    #[test]
    fn two_frames_in_one_read_are_two_frames() {
        let mut bytes = guest_frame(18, 0, 0, 1);
        bytes.push(b'x');
        bytes.extend(guest_frame(19, 0, 0, 0));
        let mut inbox = Inbox::default();
        inbox.room().extend_from_slice(&bytes);
        assert_eq!(inbox.take().unwrap().unwrap().body, "x");
        assert_eq!(inbox.take().unwrap().unwrap().kind, Kind::Error);
        assert_eq!(inbox.take(), Ok(None));
    }

    #[test]
    fn a_header_over_its_caps_is_refused_before_its_body_comes() {
        assert_eq!(take(&guest_frame(18, 0, 0, (32 << 20) + 1)), Err(FrameError::BodyTooLong((32 << 20) + 1)));
        assert_eq!(take(&guest_frame(18, 0, (64 << 10) + 1, 0)), Err(FrameError::HeadTooLong((64 << 10) + 1)));
        assert_eq!(take(&guest_frame(18, 0, u32::MAX, u32::MAX)), Err(FrameError::HeadTooLong(u32::MAX)));
    }

    #[test]
    fn unknown_kinds_and_reserved_bits_are_refused() {
        for kind in [0, 1, 2, 4, 7, 8, 15, 21, 255] {
            assert_eq!(take(&guest_frame(kind, 0, 0, 0)), Err(FrameError::Kind(kind)));
        }
        assert_eq!(take(&guest_frame(18, 1, 0, 0)), Err(FrameError::Reserved));
        assert_eq!(take(&guest_frame(5, 4, 0, 0)), Err(FrameError::Reserved));
        let mut reserved = guest_frame(18, 0, 0, 0);
        reserved[3] = 1;
        assert_eq!(take(&reserved), Err(FrameError::Reserved));
    }

    #[test]
    fn a_promised_length_reserves_no_memory() {
        let mut inbox = Inbox::default();
        inbox.room().extend_from_slice(&guest_frame(18, 0, 0, 32 << 20));
        assert_eq!(inbox.take(), Ok(None));
        assert!(inbox.room().capacity() < 64 << 10);
    }

    #[test]
    fn what_the_host_writes_reads_back_field_by_field() {
        let bytes = header(Request::Invoke, 0, 0x0102_0304, AttemptToken([5; 16]), 6, 7);
        assert_eq!(bytes[..16], [4, 0, 0, 0, 4, 3, 2, 1, 6, 0, 0, 0, 7, 0, 0, 0]);
        assert_eq!(bytes[16..], [5; 16]);
    }
}
