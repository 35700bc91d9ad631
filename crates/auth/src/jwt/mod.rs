//! Tokens of a function's own callers: JSON Web Tokens (RFC 7519) under a key set (RFC 7517) that the function's owner gave.
//!
//! # Invariants
//! - The key decides which algorithms a token may name; the token only chooses among them. `none` is none of them.
//! - A token that names a key is checked with that key or refused.
//! - Keys, tokens and claims are in no error.

mod crypto;

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dunlin_model::InvalidField;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Map, Value};

/// Most keys of a set.
const KEYS_MAX: usize = 50;
/// Longest token, in bytes. A head has room for no more.
const TOKEN_BYTES_MAX: usize = 8 << 10;
/// How far a token's times may be from the platform's clock, in seconds: what clocks of different machines differ by.
const LEEWAY_S: u64 = 30;

/// Why a token is not accepted. Said to a caller as it is: it tells nothing but what the caller has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is not three parts of base64 with JSON in them.
    #[error("the token is malformed")]
    Malformed,
    /// It names no algorithm that its key is for.
    #[error("the token's alg is not one that its key is for")]
    Algorithm,
    /// It names a key that is not in the set, or none where one has to be named.
    #[error("the token's kid is not in the key set")]
    UnknownKey,
    /// Somebody else made it, or it was changed.
    #[error("the token's signature does not hold")]
    Signature,
    /// It is too late for it.
    #[error("the token has expired")]
    Expired,
    /// It is too early for it.
    #[error("the token is not valid yet")]
    NotYet,
}

/// What a token says.
pub type Claims = Map<String, Value>;

/// The keys of a set, ready to check tokens with.
#[derive(Clone, Debug)]
pub struct TokenKeys {
    keys: Vec<Key>,
}

#[derive(Clone, Debug)]
struct Key {
    kid: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl TokenKeys {
    /// Reads a key set that stands in `field`.
    ///
    /// # Errors
    /// The member that is wrong.
    pub fn read(jwks: &Value, field: &str) -> Result<Self, InvalidField> {
        let within = format!("{field}.keys");
        let Some(list) = jwks.get("keys").and_then(Value::as_array) else {
            return Err(InvalidField::new(within, "must be a list of JSON Web Keys"));
        };
        if list.is_empty() || list.len() > KEYS_MAX {
            return Err(InvalidField::new(within, format!("must hold 1 to {KEYS_MAX} keys (actual: {})", list.len())));
        }
        let keys: Vec<Key> = list
            .iter()
            .enumerate()
            .map(|(index, key)| Key::read(key, &format!("{within}[{index}]")))
            .collect::<Result<_, _>>()?;
        let mut seen = HashSet::new();
        match keys.iter().position(|key| !seen.insert(key.kid.as_deref())) {
            None => Ok(Self { keys }),
            Some(index) if keys[index].kid.is_none() => {
                Err(InvalidField::new(format!("{within}[{index}].kid"), "is required: one key at most may have none"))
            }
            Some(index) => Err(InvalidField::new(format!("{within}[{index}].kid"), "is that of another key")),
        }
    }

    /// What a token says, if one of the keys made it and its time is now.
    ///
    /// # Errors
    /// Why it is not accepted.
    pub fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        crypto::install();
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Malformed);
        }
        let header = header(token).ok_or(TokenError::Malformed)?;
        if header.contains_key("crit") {
            // It asks for something that has to be understood, and nothing beyond the standard is.
            return Err(TokenError::Malformed);
        }
        let key = match header.get("kid") {
            Some(Value::String(kid)) => self.keys.iter().find(|key| key.kid.as_deref() == Some(kid)),
            Some(_) => return Err(TokenError::Malformed),
            None => {
                self.keys.iter().find(|key| key.kid.is_none()).or(if self.keys.len() == 1 { self.keys.first() } else { None })
            }
        };
        let key = key.ok_or(TokenError::UnknownKey)?;
        let mut validation = Validation::default();
        validation.algorithms.clone_from(&key.algorithms);
        validation.leeway = LEEWAY_S;
        validation.validate_nbf = true;
        // Whom a token is for is between its maker and the function.
        validation.validate_aud = false;
        // A token without an end is its maker's choice.
        validation.required_spec_claims.clear();
        let decoded = jsonwebtoken::decode::<Claims>(token, &key.key, &validation);
        decoded.map(|token| token.claims).map_err(|error| match error.kind() {
            ErrorKind::InvalidSignature => TokenError::Signature,
            ErrorKind::ExpiredSignature => TokenError::Expired,
            ErrorKind::ImmatureSignature => TokenError::NotYet,
            ErrorKind::InvalidAlgorithm
            | ErrorKind::InvalidAlgorithmName
            | ErrorKind::UnsupportedAlgorithm
            | ErrorKind::MissingAlgorithm => TokenError::Algorithm,
            // A header that names an algorithm nobody knows is no header to the library.
            ErrorKind::Json(_) if !header.get("alg").is_some_and(is_known) => TokenError::Algorithm,
            _ => TokenError::Malformed,
        })
    }
}

fn header(token: &str) -> Option<Map<String, Value>> {
    let (first, _) = token.split_once('.')?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(first).ok()?).ok()
}

fn is_known(algorithm: &Value) -> bool {
    algorithm.as_str().is_some_and(|name| name.parse::<Algorithm>().is_ok())
}

impl Key {
    fn read(jwk: &Value, field: &str) -> Result<Self, InvalidField> {
        use Algorithm::{ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512};
        let wrong = |member: &str, problem: &str| InvalidField::new(format!("{field}.{member}"), problem);
        let text = |member: &str| match jwk.get(member) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(wrong(member, "must be a string")),
        };
        if !jwk.is_object() {
            return Err(InvalidField::new(field, "must be a JSON Web Key"));
        }
        if text("use")?.is_some_and(|what| what != "sig") {
            return Err(wrong("use", "must be 'sig' or left out"));
        }
        let bytes = |member: &str| -> Result<Vec<u8>, InvalidField> {
            let given = text(member)?.ok_or_else(|| wrong(member, "is required"))?;
            URL_SAFE_NO_PAD.decode(given.trim_end_matches('=')).map_err(|_| wrong(member, "must be base64url"))
        };
        let kty = text("kty")?.ok_or_else(|| wrong("kty", "is required: RSA, EC, OKP or oct"))?;
        if kty != "oct" && jwk.get("d").is_some() {
            return Err(wrong("d", "is the private half of the key; give the public half only"));
        }
        let (fitting, key): (&[Algorithm], _) = match kty {
            "RSA" => {
                let (n, e) = (bytes("n")?, bytes("e")?);
                let bits = n.iter().skip_while(|byte| **byte == 0).count() * 8;
                if !(2048..=8192).contains(&bits) {
                    return Err(wrong("n", &format!("must have 2048 to 8192 bits (actual: {bits})")));
                }
                let significant = |number: &[u8]| -> Vec<u8> { number.iter().copied().skip_while(|byte| *byte == 0).collect() };
                let key = DecodingKey::from_rsa_raw_components(&significant(&n), &significant(&e));
                (&[RS256, RS384, RS512, PS256, PS384, PS512], key)
            }
            "EC" => {
                let (fitting, size): (&[Algorithm], _) = match text("crv")? {
                    Some("P-256") => (&[ES256], 32),
                    Some("P-384") => (&[ES384], 48),
                    _ => return Err(wrong("crv", "must be P-256 or P-384")),
                };
                let mut point = vec![4];
                for coordinate in ["x", "y"] {
                    let number = bytes(coordinate)?;
                    if number.len() != size {
                        return Err(wrong(coordinate, &format!("must have {size} bytes (actual: {})", number.len())));
                    }
                    point.extend(number);
                }
                (fitting, DecodingKey::from_ec_der(&point))
            }
            "OKP" => {
                if text("crv")? != Some("Ed25519") {
                    return Err(wrong("crv", "must be Ed25519"));
                }
                let point = bytes("x")?;
                if point.len() != 32 {
                    return Err(wrong("x", &format!("must have 32 bytes (actual: {})", point.len())));
                }
                (&[EdDSA], DecodingKey::from_ed_der(&point))
            }
            "oct" => {
                let secret = bytes("k")?;
                // RFC 7518, section 3.2: as long as the hash at least.
                let fitting: &[Algorithm] = match secret.len() {
                    64.. => &[HS256, HS384, HS512],
                    48.. => &[HS256, HS384],
                    32.. => &[HS256],
                    short => return Err(wrong("k", &format!("must have 32 bytes or more (actual: {short})"))),
                };
                (fitting, DecodingKey::from_secret(&secret))
            }
            _ => return Err(wrong("kty", "must be RSA, EC, OKP or oct")),
        };
        let algorithms = match text("alg")? {
            None => fitting.to_vec(),
            Some(name) => {
                let named = name.parse().ok().filter(|algorithm| fitting.contains(algorithm));
                let names: Vec<String> = fitting.iter().map(|algorithm| format!("{algorithm:?}")).collect();
                vec![named.ok_or_else(|| wrong("alg", &format!("must be one that this key is for: {}", names.join(", "))))?]
            }
        };
        Ok(Self { kid: text("kid")?.map(str::to_owned), algorithms, key })
    }
}

#[cfg(test)]
mod tests;
