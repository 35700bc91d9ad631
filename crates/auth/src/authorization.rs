//! What the `Authorization` header says, before anything is believed.

use dunlin_model::AccessKeyId;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use http::request::Parts;

use crate::acs3::{ALGORITHM, unhex32};
use crate::error::AuthError;

/// Which scheme a request is signed with. The doors choose the dialect of the answer by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `ACS3-…`, or unsigned but with the headers that belong to it.
    Acs3,
    /// `FC ak:signature`, version 2016-08-15.
    LegacyFc,
    /// `acs ak:signature`.
    Roa,
    /// OSS, version 1 or 4.
    Oss,
    /// AWS signature version 4.
    Aws4,
    /// `MNS ak:signature`.
    Mns,
    /// A bearer token.
    Bearer,
    /// Signature in the query of an RPC call.
    Rpc,
    /// Something else.
    Unknown,
}

impl Scheme {
    /// Reads the scheme off the head of a request; `None` when nothing hints at one.
    #[must_use]
    pub fn of(parts: &Parts) -> Option<Self> {
        if let Some(value) = parts.headers.get(AUTHORIZATION) {
            let bytes = value.as_bytes().trim_ascii();
            let word = bytes.split(|byte| *byte == b' ').next().unwrap_or_default();
            return Some(match word {
                _ if word.starts_with(b"ACS3-") => Self::Acs3,
                b"FC" => Self::LegacyFc,
                b"acs" => Self::Roa,
                b"OSS" | b"OSS2" => Self::Oss,
                _ if word.starts_with(b"OSS4-") => Self::Oss,
                _ if word.starts_with(b"AWS4-") => Self::Aws4,
                b"MNS" => Self::Mns,
                _ if word.eq_ignore_ascii_case(b"bearer") => Self::Bearer,
                _ => Self::Unknown,
            });
        }
        if parts.headers.contains_key("x-acs-bearer-token") {
            return Some(Self::Bearer);
        }
        if ["x-acs-action", "x-acs-version", "x-acs-signature-nonce"].iter().any(|name| parts.headers.contains_key(*name)) {
            return Some(Self::Acs3);
        }
        let query = parts.uri.query().unwrap_or_default();
        let has =
            |name: &str| query.split('&').any(|pair| pair.split('=').next().is_some_and(|key| key.eq_ignore_ascii_case(name)));
        if has("OSSAccessKeyId") || has("x-oss-signature") {
            Some(Self::Oss)
        } else if has("X-Amz-Signature") {
            Some(Self::Aws4)
        } else if has("Action") && has("SignatureMethod") {
            Some(Self::Rpc)
        } else {
            None
        }
    }

    /// The scheme's name, for the user.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Acs3 => ALGORITHM,
            Self::LegacyFc => "signature scheme FC",
            Self::Roa => "signature scheme acs (ROA)",
            Self::Oss => "signature scheme OSS",
            Self::Aws4 => "signature scheme AWS4-HMAC-SHA256",
            Self::Mns => "signature scheme MNS",
            Self::Bearer => "bearer authentication",
            Self::Rpc => "the RPC signature scheme",
            Self::Unknown => "this signature scheme",
        }
    }
}

/// The three members of the header.
#[derive(Debug)]
pub(crate) struct Authorization<'a> {
    pub(crate) credential: AccessKeyId,
    /// Lower-case, strictly ascending.
    pub(crate) signed_headers: Vec<&'a str>,
    pub(crate) signature: [u8; 32],
}

const FORM: &str = "the form is 'ACS3-HMAC-SHA256 Credential=…,SignedHeaders=…,Signature=…'";

impl<'a> Authorization<'a> {
    pub(crate) fn read(headers: &'a HeaderMap) -> Result<Self, AuthError> {
        let malformed = |rule| AuthError::Malformed { what: "Authorization", rule };
        let value = single(headers, "authorization")?.ok_or(AuthError::Unsigned)?;
        let text = std::str::from_utf8(value).map_err(|_| malformed(FORM))?.trim();
        let (algorithm, members) = text.split_once(' ').ok_or(malformed(FORM))?;
        if algorithm != ALGORITHM {
            return Err(AuthError::SchemeNotSupported { scheme: named(algorithm) });
        }
        let (mut credential, mut signed_headers, mut signature) = (None, None, None);
        for member in members.split(',') {
            let (name, value) = member.trim().split_once('=').ok_or(malformed(FORM))?;
            let slot = match name {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut signed_headers,
                "Signature" => &mut signature,
                _ => return Err(malformed(FORM)),
            };
            if slot.replace(value).is_some() {
                return Err(malformed("a member is given twice"));
            }
        }
        let (Some(credential), Some(signed_headers), Some(signature)) = (credential, signed_headers, signature) else {
            return Err(malformed(FORM));
        };
        // An id that no key can have is an id that no key has.
        let credential = credential.parse().map_err(|_| AuthError::UnknownAccessKey)?;
        let signature = unhex32(signature.as_bytes()).ok_or(AuthError::SignatureMismatch)?;
        let signed_headers: Vec<&str> = signed_headers.split(';').collect();
        let lower_case =
            signed_headers.iter().all(|name| !name.is_empty() && !name.bytes().any(|byte| byte.is_ascii_uppercase()));
        if !lower_case || !signed_headers.is_sorted_by(|a, b| a < b) {
            return Err(malformed("SignedHeaders lists lower-case names, each once, in ascending order"));
        }
        Ok(Self { credential, signed_headers, signature })
    }
}

/// The one value of header `name`.
pub(crate) fn single<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Option<&'a [u8]>, AuthError> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(AuthError::Malformed { what: name, rule: "it is given more than once" });
    }
    Ok(first.map(http::HeaderValue::as_bytes))
}

/// An algorithm's name as far as it is fit to be repeated.
fn named(algorithm: &str) -> String {
    let fit = algorithm.len() <= 40 && algorithm.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if fit { format!("signature algorithm {algorithm}") } else { "this signature algorithm".to_owned() }
}
