//! The text that ACS3-HMAC-SHA256 signs (contract section 2.3), built the same way by signer and verifier.
//!
//! Everything here works on the bytes of the request line as they were sent; nothing is normalised but the query, whose
//! canonical form is RFC 3986 while clients send it form-encoded.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

/// The one algorithm that is served.
pub(crate) const ALGORITHM: &str = "ACS3-HMAC-SHA256";

/// Everything under one signature.
pub(crate) struct Canonical<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
    /// Lower-case names in ascending order, with the values of every occurrence.
    pub(crate) headers: &'a [(&'a str, Vec<&'a [u8]>)],
    pub(crate) content_sha256: &'a [u8],
}

impl Canonical<'_> {
    /// The signature that `secret` makes.
    pub(crate) fn signature(&self, secret: &str) -> [u8; 32] {
        let text = format!("{ALGORITHM}\n{}", hex(&self.digest()));
        keyed_hash(secret, &[text.as_bytes()])
    }

    fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for part in [self.method, "\n", self.path, "\n", self.query, "\n"] {
            hash.update(part);
        }
        for (name, values) in self.headers {
            hash.update(name);
            hash.update(":");
            let mut values: Vec<&[u8]> = values.iter().map(|value| value.trim_ascii()).collect();
            values.sort_unstable();
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    hash.update(",");
                }
                hash.update(value);
            }
            hash.update("\n");
        }
        hash.update("\n");
        for (index, (name, _)) in self.headers.iter().enumerate() {
            if index > 0 {
                hash.update(";");
            }
            hash.update(name);
        }
        hash.update("\n");
        hash.update(self.content_sha256);
        hash.finalize().into()
    }
}

/// HMAC-SHA256 over the concatenation of `parts`.
pub(crate) fn keyed_hash(secret: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes a key of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// What the Node SDK signs instead of the path it sends, where the two differ. Each pair but the first decodes to the same
/// character, and no name of the contract holds any of them. (`%27` is not the SDK's doing but its URL library's.)
pub(crate) fn path_as_node_signs_it(path: &str) -> Option<String> {
    let mapped = path.replace('+', "%20").replace('*', "%2A").replace("%7E", "~").replace("%27", "'");
    (mapped != path).then_some(mapped)
}

/// The query as it is signed: decoded (`+` is a space), encoded by RFC 3986, sorted. `None` when an escape is broken.
pub(crate) fn canonical_query(raw: &str) -> Option<String> {
    let mut pairs = Vec::new();
    for part in raw.split('&').filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        pairs.push((decode(key)?, decode(value)?));
    }
    pairs.sort_unstable();
    let mut text = String::with_capacity(raw.len() + 16);
    for (key, value) in &pairs {
        if !text.is_empty() {
            text.push('&');
        }
        encode_into(&mut text, key);
        text.push('=');
        encode_into(&mut text, value);
    }
    Some(text)
}

/// Undoes form-encoding, once. `None` when an escape is broken.
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => nibble(bytes.next()?)? << 4 | nibble(bytes.next()?)?,
            other => other,
        });
    }
    Some(out)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

fn encode_into(text: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            text.push(char::from(byte));
        } else {
            text.push('%');
            text.push(char::from(DIGITS[usize::from(byte >> 4)]));
            text.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Reads 64 lower-case hex digits.
pub(crate) fn unhex32(text: &[u8]) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_signed_in_rfc_3986_whatever_form_it_was_sent_in() {
        for (sent, signed) in [
            ("", ""),
            ("limit=5&direction=BACKWARD", "direction=BACKWARD&limit=5"),
            ("k=a+b~%2A", "k=a%20b~%2A"),
            ("k=a%20b%7E*", "k=a%20b~%2A"),
            ("nextToken=", "nextToken="),
            ("flag", "flag="),
            ("a=2&a=1&&b=", "a=1&a=2&b="),
            ("p=a/b", "p=a%2Fb"),
            ("p=%e4%bd%a0", "p=%E4%BD%A0"),
            ("k=a=b", "k=a%3Db"),
        ] {
            assert_eq!(canonical_query(sent).as_deref(), Some(signed), "{sent}");
        }
    }

    #[test]
    fn a_broken_escape_has_no_canonical_form() {
        for sent in ["a=%", "a=%2", "a=%zz", "%=1"] {
            assert_eq!(canonical_query(sent), None, "{sent}");
        }
    }

    #[test]
    fn hex_is_lower_case_and_complete_or_nothing() {
        let bytes: [u8; 32] = std::array::from_fn(|i| u8::try_from(i * 7 % 256).unwrap());
        assert_eq!(unhex32(hex(&bytes).as_bytes()), Some(bytes));
        assert_eq!(unhex32(hex(&bytes).to_uppercase().as_bytes()), None);
        assert_eq!(unhex32(&hex(&bytes).as_bytes()[1..]), None);
    }
}
