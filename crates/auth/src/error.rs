//! Why a caller is not let in.

/// Why a request is not the work of a known account. The doors map each variant to a status and a code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// There is no signature at all.
    #[error("the request is not signed: the Authorization header is missing")]
    Unsigned,
    /// A header that every signed request carries is absent.
    #[error("required header {name} is missing")]
    MissingHeader {
        /// Its name.
        name: &'static str,
    },
    /// A header of the signature is there but does not read as it must.
    #[error("{what} is malformed: {rule}")]
    Malformed {
        /// Which header, or which part of it.
        what: &'static str,
        /// What a right one looks like.
        rule: &'static str,
    },
    /// A header that matters is not under the signature.
    #[error("header {name} must be one of the signed headers")]
    HeaderNotSigned {
        /// Its name.
        name: String,
    },
    /// A scheme or an algorithm that is known but not served.
    #[error("{scheme} is not supported yet; sign with ACS3-HMAC-SHA256")]
    SchemeNotSupported {
        /// For the user.
        scheme: String,
    },
    /// Nobody has this access key.
    #[error("the access key is not known")]
    UnknownAccessKey,
    /// The signature is not the one this key makes for this request.
    #[error("the signature does not match: check the access key secret and the signing method")]
    SignatureMismatch,
    /// The date is too far from the platform's clock.
    #[error("x-acs-date is too far from the platform's time (at most {window_s} s apart)")]
    Skewed {
        /// How far it may be.
        window_s: i64,
    },
    /// The nonce was used before.
    #[error("x-acs-signature-nonce was used before: sign every request with a new one")]
    Replayed,
    /// The body is not the one that was signed.
    #[error("the body does not match x-acs-content-sha256")]
    BodyMismatch,
}
