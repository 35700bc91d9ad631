//! Checking a head byte by byte.

use super::{Length, Violation};

/// How large a head may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadLimits {
    /// Bytes of the whole head.
    pub(crate) bytes: usize,
    /// Header lines.
    pub(crate) lines: usize,
    /// Bytes of the request target.
    pub(crate) target: usize,
}

/// Where the head ends, or nothing if it is not complete. `searched` remembers how far a call before has looked.
pub(super) fn find_end(bytes: &[u8], searched: &mut usize, limits: &HeadLimits) -> Result<Option<usize>, Violation> {
    for at in *searched..bytes.len() {
        match bytes[at] {
            b'\n' if at == 0 || bytes[at - 1] != b'\r' => return Err(bare(bytes, at)),
            b'\n' if at >= 3 && bytes[at - 2] == b'\n' => {
                return if at < limits.bytes { Ok(Some(at + 1)) } else { Err(Violation::HeadTooLarge { limit: limits.bytes }) };
            }
            // An empty line before the request line.
            b'\n' if at == 1 => return Err(Violation::RequestLine),
            b'\n' => {}
            _ if at > 0 && bytes[at - 1] == b'\r' => return Err(bare(bytes, at)),
            0 => return Err(bare(bytes, at)),
            _ => {}
        }
    }
    *searched = bytes.len();
    if bytes.len() <= limits.bytes {
        return Ok(None);
    }
    // One endless line is the target's fault, not the headers'.
    Err(if bytes.contains(&b'\n') {
        Violation::HeadTooLarge { limit: limits.bytes }
    } else {
        Violation::TargetTooLong { limit: limits.target }
    })
}

fn bare(bytes: &[u8], at: usize) -> Violation {
    if bytes[..at].contains(&b'\n') { Violation::HeaderLine("a bare control character") } else { Violation::RequestLine }
}

/// Checks a complete head, which ends with an empty line, and says how its body is delimited.
pub(super) fn check(head: &[u8], limits: &HeadLimits) -> Result<Length, Violation> {
    // `find_end` has seen to it that every line ends with CR LF and holds no other.
    let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let first_version = check_request_line(lines.next().unwrap_or_default(), limits)?;
    let (mut length, mut chunked, mut count) = (None, false, 0);
    for line in lines.take_while(|line| !line.is_empty()) {
        count += 1;
        if count > limits.lines {
            return Err(Violation::TooManyHeaders { limit: limits.lines });
        }
        let (name, value) = check_header(line)?;
        if name.eq_ignore_ascii_case(b"content-length") {
            if length.is_some() {
                return Err(Violation::Length("more than one Content-Length"));
            }
            length = Some(check_length(value)?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if chunked {
                return Err(Violation::Length("more than one Transfer-Encoding"));
            }
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Violation::Coding);
            }
            chunked = true;
        }
    }
    match (length, chunked) {
        (Some(_), true) => Err(Violation::Length("both Content-Length and Transfer-Encoding")),
        (None, true) if first_version == 0 => Err(Violation::Length("Transfer-Encoding in HTTP/1.0")),
        (None, true) => Ok(Length::Chunked),
        (length, false) => Ok(Length::Counted(length.unwrap_or(0))),
    }
}

/// The minor version.
fn check_request_line(line: &[u8], limits: &HeadLimits) -> Result<u8, Violation> {
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next()) else {
        return Err(Violation::RequestLine);
    };
    if method.is_empty() || method.len() > 32 || !method.iter().copied().all(is_token) {
        return Err(Violation::RequestLine);
    }
    let minor = match version {
        b"HTTP/1.1" => 1,
        b"HTTP/1.0" => 0,
        other if other.starts_with(b"HTTP/") => return Err(Violation::Version),
        _ => return Err(Violation::RequestLine),
    };
    if target.len() > limits.target {
        return Err(Violation::TargetTooLong { limit: limits.target });
    }
    // What the parser behind this one would refuse is refused here, so that the answer is ours.
    if !target.iter().all(u8::is_ascii_graphic) || target.contains(&b'#') || http::Uri::try_from(target).is_err() {
        return Err(Violation::RequestLine);
    }
    Ok(minor)
}

fn check_header(line: &[u8]) -> Result<(&[u8], &[u8]), Violation> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(Violation::HeaderLine("a folded line"));
    }
    let colon = line.iter().position(|byte| *byte == b':').ok_or(Violation::HeaderLine("no colon"))?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() || !name.iter().copied().all(is_token) {
        return Err(Violation::HeaderLine("a name that is no token"));
    }
    if value.iter().any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f) {
        return Err(Violation::HeaderLine("a control character in a value"));
    }
    Ok((name, value.trim_ascii()))
}

fn check_length(value: &[u8]) -> Result<u64, Violation> {
    const WRONG: Violation = Violation::Length("a Content-Length that is no number");
    // Eighteen digits fit into any counter on the way.
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return Err(WRONG);
    }
    std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok()).ok_or(WRONG)
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { bytes: 300, lines: 4, target: 40 };

    fn check_all(head: &str) -> Result<Option<Length>, Violation> {
        match find_end(head.as_bytes(), &mut 0, &LIMITS)? {
            None => Ok(None),
            Some(end) => {
                assert_eq!(end, head.len(), "{head:?}");
                check(head.as_bytes(), &LIMITS).map(Some)
            }
        }
    }

    #[test]
    fn a_body_has_one_length_or_none() {
        for (headers, expected) in [
            ("", Length::Counted(0)),
            ("Content-Length: 12\r\n", Length::Counted(12)),
            ("Content-Length:\t0012 \r\n", Length::Counted(12)),
            ("Transfer-Encoding: Chunked\r\n", Length::Chunked),
        ] {
            assert_eq!(check_all(&format!("POST / HTTP/1.1\r\nhost: x\r\n{headers}\r\n")), Ok(Some(expected)), "{headers:?}");
        }
        for headers in [
            "content-length: 3\r\ntransfer-encoding: chunked\r\n",
            "transfer-encoding: chunked\r\ncontent-length: 3\r\n",
            "content-length: 3\r\ncontent-length: 3\r\n",
            "content-length: 3, 3\r\n",
            "content-length: +3\r\n",
            "content-length: -3\r\n",
            "content-length: 0x3\r\n",
            "content-length: \r\n",
            "content-length: 18446744073709551617\r\n",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
            "transfer-encoding: identity, chunked\r\n",
            "transfer-encoding: chunked, identity\r\n",
            "transfer-encoding: xchunked\r\n",
            "transfer-encoding:\x0bchunked\r\n",
            "transfer-encoding : chunked\r\n",
            "transfer-encoding\r\n : chunked\r\n",
            "x: y\r\n transfer-encoding: chunked\r\n",
            "x: y\ntransfer-encoding: chunked\r\n",
            "x: y\rtransfer-encoding: chunked\r\n",
            "x: \0\r\n",
            ": y\r\n",
            "no colon\r\n",
        ] {
            let refused = check_all(&format!("POST / HTTP/1.1\r\nhost: x\r\n{headers}\r\n"));
            assert!(refused.is_err(), "{headers:?} gave {refused:?}");
        }
        assert!(check_all("POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
    }

    #[test]
    fn a_request_line_has_three_words_and_one_space_between() {
        for line in [
            "GET  / HTTP/1.1",
            "GET / HTTP/1.1 ",
            " GET / HTTP/1.1",
            "GET /",
            "GET / HTTP/1.1x",
            "G\u{7f}T / HTTP/1.1",
            "GET /a b HTTP/1.1",
            "GET /ä HTTP/1.1",
            "GET /#a HTTP/1.1",
            "GET \t/ HTTP/1.1",
            "",
            "\r\nGET / HTTP/1.1",
        ] {
            let refused = check_all(&format!("{line}\r\n\r\n"));
            assert!(refused.is_err(), "{line:?} gave {refused:?}");
        }
        assert_eq!(check_all("PRI * HTTP/2.0\r\n\r\n"), Err(Violation::Version));
        assert_eq!(check_all("GET / HTTP/1.2\r\n\r\n"), Err(Violation::Version));
    }

    #[test]
    fn heads_are_bounded_in_every_direction() {
        let many = "a: b\r\n".repeat(5);
        assert_eq!(check_all(&format!("GET / HTTP/1.1\r\n{many}\r\n")), Err(Violation::TooManyHeaders { limit: 4 }));
        let long = "x".repeat(400);
        assert_eq!(check_all(&format!("GET / HTTP/1.1\r\na: {long}")), Err(Violation::HeadTooLarge { limit: 300 }));
        assert_eq!(check_all(&format!("GET / HTTP/1.1\r\na: {long}\r\n\r\n")), Err(Violation::HeadTooLarge { limit: 300 }));
        assert_eq!(check_all(&format!("GET /{long}")), Err(Violation::TargetTooLong { limit: 40 }));
        assert_eq!(check_all(&format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(50))), Err(Violation::TargetTooLong { limit: 40 }));
        assert_eq!(check_all("GET / HTTP/1.1\r\na: b\r\n"), Ok(None));
    }
}
