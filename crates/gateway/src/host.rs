//! The `Host` of a request.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A host and perhaps a port, as a client named it: lower case, without a final dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    name: String,
    port: Option<u16>,
}

impl Host {
    /// Reads `name`, `name:port`, `[v6]` or `[v6]:port`. No user, no space, no second reading.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (name, port) = match text.rfind(']') {
            Some(end) => (&text[..=end], text[end + 1..].strip_prefix(':').or((end + 1 == text.len()).then_some(""))?),
            None => text.split_once(':').unwrap_or((text, "")),
        };
        let bracketed = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let well_formed = match bracketed {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None => {
                !name.is_empty()
                    && name.len() <= 253
                    && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
                    && !name.starts_with('.')
                    && !name.contains("..")
            }
        };
        if !well_formed || !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let port = if port.is_empty() { None } else { Some(port.parse().ok()?) };
        Some(Self { name: name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase(), port })
    }

    /// The name without the port.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The address, when the name is one.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        match self.name.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(|address| IpAddr::V6(address).to_canonical()),
            None => self.name.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_one_reading_or_none() {
        for (text, name, port) in [
            ("Example.COM", "example.com", None),
            ("a.fn.localhost:7900", "a.fn.localhost", Some(7900)),
            ("a.:80", "a", Some(80)),
            ("a:", "a", None),
            ("[::1]:7900", "[::1]", Some(7900)),
            ("127.0.0.1", "127.0.0.1", None),
        ] {
            let host = Host::parse(text.as_bytes()).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((host.name(), host.port), (name, port), "{text}");
        }
        for text in
            ["", ":80", "a b", "a@b", "a/b", "a:b", "a:1:2", "a:99999", "[::1", "::1", "[x]", "[::1]x", ".a", "a..b", "a,b", "ä"]
        {
            assert_eq!(Host::parse(text.as_bytes()), None, "{text}");
        }
    }
}
