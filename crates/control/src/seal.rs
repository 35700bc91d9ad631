//! Texts that go out to a client and come back: opaque, and good only as they were given out.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

/// Longest text that is looked at.
const TEXT_BYTES_MAX: usize = 1024;
const TAG_BYTES: usize = 16;

/// Makes and opens such texts.
pub(crate) struct Seal {
    key: [u8; 32],
}

impl Seal {
    pub(crate) fn new(key: [u8; 32]) -> Self {
        Self { key }
    }

    /// Seals `content` for one `purpose`; it opens for no other.
    pub(crate) fn close(&self, purpose: &[&str], content: &[u8]) -> String {
        let mut bytes = self.tag(purpose, content).to_vec();
        bytes.extend_from_slice(content);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// What was sealed for `purpose`; `None` when the text is anything else.
    pub(crate) fn open(&self, purpose: &[&str], text: &str) -> Option<Vec<u8>> {
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let mut bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        if bytes.len() < TAG_BYTES {
            return None;
        }
        let content = bytes.split_off(TAG_BYTES);
        bool::from(self.tag(purpose, &content).ct_eq(&bytes)).then_some(content)
    }

    fn tag(&self, purpose: &[&str], content: &[u8]) -> [u8; TAG_BYTES] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes a key of any length");
        for part in purpose {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part.as_bytes());
        }
        mac.update(&u64::MAX.to_le_bytes());
        mac.update(content);
        let tag: [u8; 32] = mac.finalize().into_bytes().into();
        tag[..TAG_BYTES].try_into().expect("sixteen of thirty-two bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_opens_only_as_it_was_closed_and_for_what() {
        let seal = Seal::new([7; 32]);
        let text = seal.close(&["functions", "1"], b"last");
        assert_eq!(seal.open(&["functions", "1"], &text).as_deref(), Some(&b"last"[..]));
        assert_eq!(seal.open(&["functions", "2"], &text), None);
        assert_eq!(seal.open(&["functions1"], &text), None);
        assert_eq!(Seal::new([8; 32]).open(&["functions", "1"], &text), None);
        for i in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[i] = if changed[i] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(seal.open(&["functions", "1"], &changed), None, "{i}");
        }
        for text in ["", "x", "????", &"A".repeat(2000)] {
            assert_eq!(seal.open(&["functions", "1"], text), None);
        }
    }
}
