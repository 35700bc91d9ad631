//! Names and ids. Each is a newtype whose constructor checks its form, so that one never stands in for another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is not the id or name it was taken for. `what` is the wire's member name, `rule` says what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} is invalid: {rule}")]
pub struct InvalidId {
    /// The member as the wire spells it, for example `functionName`.
    pub what: &'static str,
    /// What a right value looks like.
    pub rule: &'static str,
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Box<str>);

        impl $name {
            /// The text form, as it goes over the wire.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let check: fn(&str) -> bool = $check;
                if check(text) { Ok(Self(text.into())) } else { Err(InvalidId { what: $what, rule: $rule }) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

fn is_name(text: &str, max: usize) -> bool {
    let bytes = text.as_bytes();
    matches!(bytes.first(), Some(b'A'..=b'Z' | b'a'..=b'z' | b'_'))
        && bytes.len() <= max
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

text_id!(
    /// An account: 16 decimal digits, like the vendor's.
    AccountId, "accountId", "16 decimal digits", |t| t.len() == 16 && t.bytes().all(|b| b.is_ascii_digit())
);
text_id!(
    /// A function's name, unique within its account. Source: contract section 13.
    FunctionName, "functionName",
    "it must match ^[A-Za-z_][A-Za-z0-9_-]{0,63}$ (1 to 64 characters)", |t| is_name(t, 64)
);
text_id!(
    /// A trigger's name, unique within its function. Source: contract section 13.
    TriggerName, "triggerName",
    "it must match ^[A-Za-z_][A-Za-z0-9_-]{0,127}$ (1 to 128 characters)", |t| is_name(t, 128)
);
text_id!(
    /// An alias's name, unique within its function. Source: contract section 13.
    AliasName, "aliasName",
    "it must match ^[A-Za-z_][A-Za-z0-9_-]{0,127}$ (1 to 128 characters) and not be LATEST",
    |t| is_name(t, 128) && t != "LATEST"
);
text_id!(
    /// A layer's name, unique within its account. Source: contract section 13.
    LayerName, "layerName",
    "it must match ^[A-Za-z_][A-Za-z0-9_-]{0,127}$ (1 to 128 characters)", |t| is_name(t, 128)
);
text_id!(
    /// The public half of an access key.
    AccessKeyId, "accessKeyId", "4 to 128 letters, digits, '.', '_' or '-'",
    |t| (4..=128).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
);
text_id!(
    /// Names one request for ever: logs, records and bills refer to it. Reads `1-xxxxxxxx-xxxxxxxx-xxxxxxxxxxxx`.
    RequestId, "requestId", "1-, 8 hex, -, 8 hex, -, 12 hex digits", |t| {
        let b = t.as_bytes();
        b.len() == 32 && b.starts_with(b"1-") && b[10] == b'-' && b[19] == b'-'
            && b.iter().enumerate().all(|(i, c)| matches!(i, 1 | 10 | 19) || c.is_ascii_hexdigit())
    }
);
text_id!(
    /// Names one instance. Never reused, even after the instance is gone. Reads `c-xxxxxxxx-xxxxxxxx-xxxxxxxxxxxx`.
    InstanceId, "instanceId", "c-, 8 hex, -, 8 hex, -, 12 hex digits", |t| {
        let b = t.as_bytes();
        b.len() == 32 && b.starts_with(b"c-") && b[10] == b'-' && b[19] == b'-'
            && b.iter().enumerate().all(|(i, c)| matches!(i, 1 | 10 | 19) || c.is_ascii_hexdigit())
    }
);

fn spaced_hex(prefix: char, random: u128) -> Box<str> {
    let hex = format!("{random:032x}");
    format!("{prefix}-{}-{}-{}", &hex[..8], &hex[8..16], &hex[16..28]).into()
}

impl RequestId {
    /// A fresh id out of 112 random bits from the kernel.
    #[must_use]
    pub fn random() -> Self {
        Self(spaced_hex('1', random_u128()))
    }

    /// A number between 0 and 1, 1 excluded, that follows from the id: evenly distributed over random ids, and the same
    /// whenever the same call is looked at.
    #[must_use]
    pub fn chance(&self) -> f64 {
        let last = u64::from_str_radix(&self.0[20..], 16).expect("an id ends in twelve hex digits");
        #[expect(clippy::cast_precision_loss, reason = "48 bits fit")]
        let chance = last as f64 / (1_u64 << 48) as f64;
        chance
    }
}

impl InstanceId {
    /// A fresh id out of 112 random bits from the kernel.
    #[must_use]
    pub fn random() -> Self {
        Self(spaced_hex('c', random_u128()))
    }
}

pub(crate) fn random_u128() -> u128 {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the kernel has randomness once it has booted");
    u128::from_le_bytes(bytes)
}

/// A cell's number within one run of the supervisor. Numbers count up and are never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CellId(pub u64);

impl fmt::Display for CellId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cell {}", self.0)
    }
}

/// The version of one stored object. A write names the revision it replaces; 0 is never stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

/// A SHA-256 digest: the address of a code package.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        const WRONG: InvalidId = InvalidId { what: "digest", rule: "64 lower-case hex digits" };
        if text.len() != 64 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(WRONG);
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| WRONG)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| WRONG)?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The checksum the vendor's tools compare: CRC-64/XZ, written as a decimal number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Crc64(pub u64);

impl Crc64 {
    /// The checksum of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        const ALGORITHM: crc::Crc<u64, crc::Table<16>> = crc::Crc::<u64, crc::Table<16>>::new(&crc::CRC_64_XZ);
        Self(ALGORITHM.checksum(bytes))
    }
}

impl fmt::Display for Crc64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Crc64 {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        text.parse().map(Self).map_err(|_| InvalidId { what: "checksum", rule: "a CRC-64/XZ as a decimal number" })
    }
}

impl Serialize for Crc64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Crc64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Which version of a function a caller means.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Qualifier {
    /// The mutable head.
    #[default]
    Latest,
    /// A published version or an alias, by its text.
    Named(Box<str>),
}

impl Qualifier {
    /// Reads the wire form; absent, empty and `LATEST` mean the head.
    #[must_use]
    pub fn from_wire(text: Option<&str>) -> Self {
        match text {
            None | Some("" | "LATEST") => Self::Latest,
            Some(other) => Self::Named(other.into()),
        }
    }
}

impl fmt::Display for Qualifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("LATEST"),
            Self::Named(text) => f.write_str(text),
        }
    }
}

/// Addresses one function: no store or pool key is without its account.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunctionKey {
    pub(crate) account: AccountId,
    pub(crate) name: FunctionName,
}

impl FunctionKey {
    /// The account that owns the function.
    #[must_use]
    pub fn account(&self) -> &AccountId {
        &self.account
    }

    /// The function's name.
    #[must_use]
    pub fn name(&self) -> &FunctionName {
        &self.name
    }

    /// Restores a key that the store itself wrote. Requests build keys through [`crate::AccountScope`] only.
    #[must_use]
    pub fn from_stored(account: AccountId, name: FunctionName) -> Self {
        Self { account, name }
    }
}

impl fmt::Display for FunctionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.account, self.name)
    }
}

/// Addresses one trigger of one function.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TriggerKey {
    /// The function the trigger calls.
    pub function: FunctionKey,
    /// The trigger's name.
    pub name: TriggerName,
}

/// Addresses one alias of one function.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AliasKey {
    /// The function whose versions it names.
    pub function: FunctionKey,
    /// The alias's name.
    pub name: AliasName,
}

/// What one instance is bound to for its whole life: function, version and configuration hash. Two instances with
/// equal keys are interchangeable; an instance never serves another key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VersionKey {
    /// Whose function it is.
    pub function: FunctionKey,
    /// `LATEST` or a version's number.
    pub version: Box<str>,
    /// Changes whenever code or configuration that an instance sees changes.
    pub revision: Revision,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_ascii_words_of_bounded_length() {
        for good in ["a", "_", "A-b_9", &"x".repeat(64)] {
            assert!(good.parse::<FunctionName>().is_ok(), "{good}");
        }
        for bad in ["", "9a", "-a", "a b", "a/b", "..", "a\n", "ä", "a\0", "a\u{202e}", &"x".repeat(65)] {
            assert!(bad.parse::<FunctionName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn generated_ids_parse_as_their_own_kind_only() {
        let request = RequestId::random().to_string();
        assert!(request.parse::<RequestId>().is_ok());
        assert!(request.parse::<InstanceId>().is_err());
        assert_eq!("1-00000000-00000000-000000000000".parse::<RequestId>().unwrap().chance(), 0.0);
        assert_eq!("1-00000000-00000000-800000000000".parse::<RequestId>().unwrap().chance(), 0.5);
        assert!("1-ffffffff-ffffffff-ffffffffffff".parse::<RequestId>().unwrap().chance() < 1.0);
        assert!(InstanceId::random().to_string().parse::<InstanceId>().is_ok());
    }

    #[test]
    fn the_checksum_is_crc64_xz_in_decimal() {
        assert_eq!(Crc64::of(b"123456789").to_string(), "11051210869376104954");
    }

    #[test]
    fn a_digest_reads_back_what_it_writes() {
        let digest = Digest::of(b"code");
        assert_eq!(digest.to_string().parse::<Digest>(), Ok(digest));
        assert!("AB".repeat(32).parse::<Digest>().is_err());
    }
}
