//! Counting a chunked body.
//!
//! Extensions and trailers are refused: no client of this platform sends them, and both have been used to make two
//! parsers disagree about where a message ends.

use super::Violation;

/// Where in a chunked body the input stands.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    at: At,
    left: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    /// `digits` hex digits of a size were read.
    #[default]
    SizeStart,
    Size {
        digits: u8,
    },
    SizeLf,
    Data,
    DataCr,
    DataLf,
    LastCr,
    LastLf,
    Over,
}

impl Chunks {
    /// Takes in `bytes` up to the body's end and says how many belong to it.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Result<usize, Violation> {
        let mut passed = 0;
        while passed < bytes.len() && self.at != At::Over {
            if self.at == At::Data {
                let data = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - passed);
                self.left -= data as u64;
                passed += data;
                if self.left == 0 {
                    self.at = At::DataCr;
                }
                continue;
            }
            self.at = self.byte(bytes[passed])?;
            passed += 1;
        }
        Ok(passed)
    }

    /// Whether the last byte of the body has passed.
    pub(super) fn is_over(&self) -> bool {
        self.at == At::Over
    }

    fn byte(&mut self, byte: u8) -> Result<At, Violation> {
        let digit = char::from(byte).to_digit(16).map(u64::from);
        match (self.at, byte) {
            (At::SizeStart, _) => {
                self.left = digit.ok_or(Violation::Chunk("a size that is no number"))?;
                Ok(At::Size { digits: 1 })
            }
            (At::Size { .. }, b'\r') => Ok(At::SizeLf),
            (At::Size { .. }, b';') => Err(Violation::Chunk("extensions are not served")),
            // Eight digits are four gigabytes, more than any body here.
            (At::Size { digits }, _) if digits < 8 => {
                self.left = self.left * 16 + digit.ok_or(Violation::Chunk("a size that is no number"))?;
                Ok(At::Size { digits: digits + 1 })
            }
            (At::Size { .. }, _) => Err(Violation::Chunk("a size that is too large")),
            (At::SizeLf, b'\n') => Ok(if self.left == 0 { At::LastCr } else { At::Data }),
            (At::DataCr, b'\r') => Ok(At::DataLf),
            (At::DataLf, b'\n') => Ok(At::SizeStart),
            (At::LastCr, b'\r') => Ok(At::LastLf),
            (At::LastCr, _) => Err(Violation::Chunk("trailers are not served")),
            (At::LastLf, b'\n') => Ok(At::Over),
            _ => Err(Violation::Chunk("a line that does not end with CR LF")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_ends_behind_its_last_chunk() {
        for (body, rest) in [("0\r\n\r\n", ""), ("3\r\nabc\r\n0\r\n\r\n", "GET"), ("00a\r\n0123456789\r\n0\r\n\r\n", "x")] {
            let mut chunks = Chunks::default();
            let input = [body, rest].concat();
            assert_eq!(chunks.advance(input.as_bytes()), Ok(body.len()), "{input:?}");
            assert!(chunks.is_over(), "{input:?}");
        }
    }

    #[test]
    fn every_second_reading_of_a_chunk_is_refused() {
        for body in [
            "3;x=y\r\nabc\r\n",
            "3 \r\nabc\r\n",
            " 3\r\nabc\r\n",
            "0x3\r\nabc\r\n",
            "+3\r\nabc\r\n",
            "-3\r\nabc\r\n",
            "3_0\r\nabc",
            "3\nabc\r\n",
            "3\rabc",
            "\r\n",
            "3\r\nabcX",
            "3\r\nabc\nX",
            "123456789\r\n",
            "0\r\nx: y\r\n\r\n",
            "0\r\ncontent-length: 3\r\n\r\n",
            "0\r\n\rX",
            "g\r\n",
            "0;\r\n\r\n",
        ] {
            assert!(Chunks::default().advance(body.as_bytes()).is_err(), "{body:?}");
        }
    }
}
