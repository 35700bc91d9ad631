//! Where one message ends and the next begins.
//!
//! hyper is lenient where the standard lets it be: it takes a bare line feed for a line's end and forgets a
//! `Content-Length` beside a `Transfer-Encoding`. Behind another proxy each such kindness is a way to smuggle a request. So
//! every byte passes [`Framing`] before hyper sees it. What passes is a subset of HTTP/1.1 that has one reading only;
//! all else is a [`Violation`], which ends the connection after one answer.
//!
//! # Invariants
//! - A head is passed on only as a whole, after it was checked.
//! - No byte behind a violation is ever passed on.
//! - Memory is bounded by the head's limit: bodies are counted, not kept.

mod chunks;
mod head;

use chunks::Chunks;
pub(crate) use head::HeadLimits;

/// Why a connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    #[error("the request line is malformed")]
    RequestLine,
    #[error("only HTTP/1.0 and HTTP/1.1 are served here")]
    Version,
    #[error("the request target is longer than {limit} bytes")]
    TargetTooLong { limit: usize },
    #[error("a header line is malformed: {0}")]
    HeaderLine(&'static str),
    #[error("the head is larger than {limit} bytes")]
    HeadTooLarge { limit: usize },
    #[error("there are more than {limit} header lines")]
    TooManyHeaders { limit: usize },
    #[error("the message's length is ambiguous: {0}")]
    Length(&'static str),
    #[error("a transfer coding other than 'chunked' is not served")]
    Coding,
    #[error("the chunked body is malformed: {0}")]
    Chunk(&'static str),
    #[error("the head was not complete in time")]
    HeadTooSlow,
}

/// What to do with the bytes at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The first so many bytes are a whole head.
    Head(usize),
    /// The first so many bytes belong to a body.
    Body(usize),
    /// Nothing can be said before there are more.
    More,
}

/// How the body that follows a head is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    /// By a count of bytes, which may be 0.
    Counted(u64),
    /// By chunks.
    Chunked,
}

/// Follows one connection's input.
#[derive(Debug)]
pub(crate) struct Framing {
    limits: HeadLimits,
    state: State,
}

#[derive(Debug)]
enum State {
    /// `searched` bytes of the head were looked at already.
    Head {
        searched: usize,
    },
    Body {
        left: u64,
    },
    Chunked(Chunks),
}

impl Framing {
    pub(crate) fn new(limits: HeadLimits) -> Self {
        Self { limits, state: State::Head { searched: 0 } }
    }

    /// Whether the next byte begins a head or continues one.
    pub(crate) fn at_head(&self) -> bool {
        matches!(self.state, State::Head { .. })
    }

    /// Looks at `bytes`, everything that has arrived and was not passed on. Bytes that are said to be a head or
    /// part of a body count as passed on.
    pub(crate) fn step(&mut self, bytes: &[u8]) -> Result<Step, Violation> {
        if bytes.is_empty() {
            return Ok(Step::More);
        }
        match &mut self.state {
            State::Head { searched } => {
                let Some(end) = head::find_end(bytes, searched, &self.limits)? else {
                    return Ok(Step::More);
                };
                self.state = match head::check(&bytes[..end], &self.limits)? {
                    Length::Counted(0) => State::Head { searched: 0 },
                    Length::Counted(left) => State::Body { left },
                    Length::Chunked => State::Chunked(Chunks::default()),
                };
                Ok(Step::Head(end))
            }
            State::Body { left } => {
                let passed = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= passed as u64;
                if *left == 0 {
                    self.state = State::Head { searched: 0 };
                }
                Ok(Step::Body(passed))
            }
            State::Chunked(chunks) => {
                let passed = chunks.advance(bytes)?;
                if chunks.is_over() {
                    self.state = State::Head { searched: 0 };
                }
                Ok(Step::Body(passed))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `input` in pieces of `size` bytes and says how it was cut.
    fn cut(input: &[u8], size: usize) -> Result<Vec<(bool, Vec<u8>)>, Violation> {
        let mut framing = Framing::new(HeadLimits { bytes: 1024, lines: 8, target: 64 });
        let (mut waiting, mut cuts) = (Vec::new(), Vec::<(bool, Vec<u8>)>::new());
        for piece in input.chunks(size) {
            waiting.extend_from_slice(piece);
            loop {
                match framing.step(&waiting)? {
                    Step::More => break,
                    Step::Head(n) => cuts.push((true, waiting.drain(..n).collect())),
                    Step::Body(n) => {
                        let part: Vec<u8> = waiting.drain(..n).collect();
                        match cuts.last_mut() {
                            Some((false, body)) => body.extend(part),
                            _ => cuts.push((false, part)),
                        }
                    }
                }
            }
        }
        Ok(cuts)
    }

    #[test]
    fn messages_are_cut_the_same_however_they_arrive() {
        let input = b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabcGET / HTTP/1.1\r\nhost: x\r\n\r\n\
            POST /b HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\nGET /c HTTP/1.0\r\n\r\n";
        let whole = cut(input, input.len()).expect("every message is well formed");
        let kinds: Vec<bool> = whole.iter().map(|(head, _)| *head).collect();
        assert_eq!(kinds, [true, false, true, true, false, true]);
        assert_eq!(whole[1].1, b"abc");
        assert!(whole[4].1.ends_with(b"0\r\n\r\n"));
        for size in 1..20 {
            assert_eq!(cut(input, size), Ok(whole.clone()), "pieces of {size}");
        }
    }

    #[test]
    fn nothing_behind_a_violation_is_passed_on() {
        let input = b"GET / HTTP/1.1\r\nhost: x\r\n\r\nGET /\x00 HTTP/1.1\r\n\r\n";
        for size in 1..input.len() {
            assert_eq!(cut(input, size), Err(Violation::RequestLine), "pieces of {size}");
        }
    }
}
