//! Code on its way in and out.

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use dunlin_model::{AccountScope, CodePackage, Crc64, Digest, Limits};
use serde::Deserialize;

use crate::control::Control;
use crate::error::Error;

/// Where the code of a function comes from, in the wire's spelling.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InputCode<'a> {
    /// The zip in base64, not copied out of the request.
    #[serde(borrow, deserialize_with = "borrowed")]
    pub zip_file: Option<Cow<'a, str>>,
    /// The zip's CRC-64 in decimal; checked if given.
    pub checksum: Option<String>,
    /// The bucket the zip lies in.
    pub oss_bucket_name: Option<String>,
    /// Its name there.
    pub oss_object_name: Option<String>,
}

/// A derived `Option<Cow<str>>` would copy.
fn borrowed<'de: 'a, 'a, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Cow<'a, str>>, D::Error> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    Ok(Option::<Text<'a>>::deserialize(deserializer)?.map(|text| text.0))
}

const STANDARD: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl InputCode<'_> {
    /// Whether nothing is given, which on an update means: leave the code as it is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let unset = |text: Option<&str>| text.unwrap_or_default().is_empty();
        unset(self.zip_file.as_deref()) && unset(self.oss_bucket_name.as_deref()) && unset(self.oss_object_name.as_deref())
    }

    /// The bytes of the zip. Takes its time for a large one.
    ///
    /// # Errors
    /// The member that is missing or wrong, or more than `limits` allow.
    pub fn decode(&self, limits: &Limits) -> Result<Bytes, Error> {
        let present = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
        if present(&self.oss_bucket_name) || present(&self.oss_object_name) {
            return Err(Error::invalid("code.ossBucketName", "is not supported yet; send the zip in code.zipFile"));
        }
        let text = self.zip_file.as_deref().unwrap_or_default();
        if text.is_empty() {
            return Err(Error::invalid("code.zipFile", "is required: the base64 of a zip archive"));
        }
        let max = limits.code_bytes_max;
        let too_large = || Error::invalid("code.zipFile", format!("must be at most {max} bytes when decoded"));
        // Line breaks, which some encoders put in, are at most one in twenty.
        if text.len() / 4 * 3 > max + max / 16 + 16 {
            return Err(too_large());
        }
        let broken = |error| Error::invalid("code.zipFile", format!("is not base64: {error}"));
        let zip = if text.bytes().any(|byte| byte.is_ascii_whitespace()) {
            let packed: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
            STANDARD.decode(packed).map_err(broken)?
        } else {
            STANDARD.decode(text).map_err(broken)?
        };
        if zip.len() > max {
            return Err(too_large());
        }
        if let Some(given) = self.checksum.as_deref().filter(|given| !given.is_empty()) {
            let actual = Crc64::of(&zip).to_string();
            if given != actual {
                return Err(Error::invalid("code.checksum", format!("does not match the code: its CRC-64 is {actual}")));
            }
        }
        Ok(zip.into())
    }
}

/// A short-lived way to a function's zip that needs no signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeLink {
    /// Of the zip.
    pub checksum: Crc64,
    /// Goes behind `/-/code/`.
    pub token: String,
}

/// A zip to be sent.
#[derive(Debug)]
pub struct CodeDownload {
    /// The zip, verified against its digest.
    pub bytes: Bytes,
    /// Its digest, a good entity tag.
    pub digest: Digest,
}

impl Control {
    /// A link to the code of a function.
    ///
    /// # Errors
    /// When the function does not exist.
    pub fn code_link(&self, scope: &AccountScope, name: &str, qualifier: Option<&str>) -> Result<CodeLink, Error> {
        let (_, target) = self.target(scope, name, qualifier)?;
        if target.function().config.image.is_some() {
            return Err(Error::invalid(
                "functionName",
                "names a container function: its code is the image of customContainerConfig",
            ));
        }
        Ok(self.link_to(&target.function().code))
    }

    pub(crate) fn link_to(&self, code: &CodePackage) -> CodeLink {
        let lifetime = i64::try_from(self.inner.config.link_lifetime.as_secs()).unwrap_or(i64::MAX / 2);
        let expires = (self.inner.clock)().as_second().saturating_add(lifetime);
        let mut content = expires.to_le_bytes().to_vec();
        content.extend_from_slice(&code.digest.0);
        CodeLink { checksum: code.checksum, token: self.inner.seal.close(&["code"], &content) }
    }

    /// The zip behind a link.
    ///
    /// # Errors
    /// [`Error::BadLink`] when the link was made up, changed, or is too old.
    pub async fn code_by_token(&self, token: &str) -> Result<CodeDownload, Error> {
        let content = self.inner.seal.open(&["code"], token).ok_or(Error::BadLink)?;
        let (expires, digest) = content.split_first_chunk::<8>().ok_or(Error::BadLink)?;
        let digest = Digest(digest.try_into().map_err(|_| Error::BadLink)?);
        if (self.inner.clock)().as_second() > i64::from_le_bytes(*expires) {
            return Err(Error::BadLink);
        }
        let bytes = self.inner.packages.read(digest).await?.ok_or(Error::BadLink)?;
        Ok(CodeDownload { bytes, digest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(json: &str) -> Result<Bytes, Error> {
        let code: InputCode<'_> = serde_json::from_str(json).unwrap();
        code.decode(&Limits { code_bytes_max: 8, ..Limits::default() })
    }

    #[test]
    fn base64_is_read_with_and_without_padding_and_line_breaks() {
        for text in ["YWJjZA==", "YWJjZA", "YWJj\\nZA=="] {
            assert_eq!(decode(&format!(r#"{{"zipFile":"{text}"}}"#)).unwrap(), "abcd", "{text}");
        }
    }

    #[test]
    fn wrong_code_is_refused_by_the_member_that_is_wrong() {
        let large = base64::engine::general_purpose::STANDARD.encode([0; 9]);
        let huge = base64::engine::general_purpose::STANDARD.encode([0; 99]);
        for (json, field) in [
            (r"{}".to_owned(), "code.zipFile"),
            (r#"{"zipFile":""}"#.to_owned(), "code.zipFile"),
            (r#"{"zipFile":"!!!!"}"#.to_owned(), "code.zipFile"),
            (format!(r#"{{"zipFile":"{large}"}}"#), "code.zipFile"),
            (format!(r#"{{"zipFile":"{huge}"}}"#), "code.zipFile"),
            (r#"{"zipFile":"YWJjZA==","checksum":"1"}"#.to_owned(), "code.checksum"),
            (r#"{"zipFile":"YWJjZA==","checksum":"x"}"#.to_owned(), "code.checksum"),
        ] {
            match decode(&json) {
                Err(Error::Invalid(invalid)) => assert_eq!(invalid.field, field, "{json}"),
                other => panic!("{json}: {other:?}"),
            }
        }
        let checksum = Crc64::of(b"abcd");
        assert!(decode(&format!(r#"{{"zipFile":"YWJjZA==","checksum":"{checksum}"}}"#)).is_ok());
        let error = decode(r#"{"ossBucketName":"b","ossObjectName":"o"}"#).expect_err("buckets are not served yet");
        assert!(error.to_string().contains("code.ossBucketName is not supported yet"), "{error}");
    }
}
