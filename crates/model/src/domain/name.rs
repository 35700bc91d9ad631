//! Names of custom domains.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::AccountId;
use crate::limits::InvalidField;

/// A fully qualified host name, in lower case. No address, no port, no wildcard; other scripts in their ASCII form.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DomainName(Box<str>);

impl DomainName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the name is `parent` or lies below it.
    #[must_use]
    pub fn is_within(&self, parent: &str) -> bool {
        let parent = parent.trim_matches('.');
        let Some(at) = self.0.len().checked_sub(parent.len()) else { return false };
        !parent.is_empty()
            && self.0.is_char_boundary(at)
            && self.0[at..].eq_ignore_ascii_case(parent)
            && (at == 0 || self.0.as_bytes()[at - 1] == b'.')
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for DomainName {
    type Err = InvalidField;

    fn from_str(text: &str) -> Result<Self, InvalidField> {
        let wrong = |problem: &str| Err(InvalidField::new("domainName", problem));
        if text.is_empty() || text.len() > 253 {
            return wrong("must be a host name of 1 to 253 characters, for example www.example.com");
        }
        if text.contains('*') {
            return wrong("must be one name: domains with a wildcard are not supported; create each name");
        }
        if !text.is_ascii() {
            return wrong("must be in its ASCII form: write labels of other scripts as xn--…");
        }
        if text.contains(':') || text.contains('/') {
            return wrong("must be a host name alone: no scheme, no port, no path");
        }
        let labels: Vec<&str> = text.split('.').collect();
        let well_formed = |label: &&str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if labels.len() < 2 || !labels.iter().all(well_formed) {
            return wrong(
                "must be two or more labels with dots between them, each of 1 to 63 letters, digits and '-', neither beginning nor ending with '-'",
            );
        }
        // What a resolver takes for an address is none of our names; no top-level domain is a number.
        let last = labels.last().copied().unwrap_or_default();
        let number = last.bytes().all(|byte| byte.is_ascii_digit()) || last.to_ascii_lowercase().starts_with("0x");
        if number {
            return wrong("must be a host name, not an IP address");
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }
}

impl TryFrom<String> for DomainName {
    type Error = InvalidField;

    fn try_from(text: String) -> Result<Self, InvalidField> {
        text.parse()
    }
}

impl From<DomainName> for String {
    fn from(name: DomainName) -> Self {
        name.0.into()
    }
}

/// Addresses one custom domain of one account. The name alone is unique as well: a host belongs to one account.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DomainKey {
    pub(crate) account: AccountId,
    pub(crate) name: DomainName,
}

impl DomainKey {
    /// The account that owns the domain.
    #[must_use]
    pub fn account(&self) -> &AccountId {
        &self.account
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &DomainName {
        &self.name
    }

    /// Restores a key that the store itself wrote. Requests build keys through [`crate::AccountScope`] only.
    #[must_use]
    pub fn from_stored(account: AccountId, name: DomainName) -> Self {
        Self { account, name }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_a_qualified_host_name_in_lower_case() {
        for (text, name) in [
            ("www.Example.COM", "www.example.com"),
            ("a.b", "a.b"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("1.2.3.example", "1.2.3.example"),
        ] {
            assert_eq!(text.parse::<DomainName>().unwrap().as_str(), name);
        }
        let long_label = format!("{}.com", "a".repeat(64));
        let long_name = format!("{}com", "abcdefgh.".repeat(30));
        for text in [
            "",
            "localhost",
            ".",
            "a.",
            ".a",
            "a..b",
            "-a.com",
            "a-.com",
            "a_b.com",
            "*.example.com",
            "a.*.com",
            "bücher.example",
            "example.com:8080",
            "http://example.com",
            "example.com/a",
            "127.0.0.1",
            "1.2.3.0x4",
            "::1",
            "[::1]",
            "a b.com",
            "a.com\n",
            "a.com\0",
            "example.com.",
            "\u{202e}moc.elpmaxe",
            &long_label,
            &long_name,
        ] {
            let refused = text.parse::<DomainName>().expect_err(text);
            assert_eq!(refused.field, "domainName", "{text:?}");
        }
    }

    #[test]
    fn a_name_lies_within_its_parents_only() {
        let name: DomainName = "a.fn.example.com".parse().unwrap();
        for parent in ["a.fn.example.com", "fn.example.com", "EXAMPLE.com.", "com"] {
            assert!(name.is_within(parent), "{parent}");
        }
        for parent in ["", ".", "n.example.com", "b.fn.example.com", "x.a.fn.example.com"] {
            assert!(!name.is_within(parent), "{parent}");
        }
    }
}
