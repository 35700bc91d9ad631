//! The client's side: what the command line and the tests sign with.

use jiff::Timestamp;

use crate::acs3::{ALGORITHM, Canonical, canonical_query, hex};

/// An access key, as whoever holds it keeps it.
#[derive(Clone)]
pub struct SigningKey {
    /// The public half.
    pub id: String,
    /// The secret half.
    pub secret: String,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Signs a request now, with a fresh nonce. See [`sign_at`].
#[must_use]
pub fn sign(key: &SigningKey, method: &str, target: &str, headers: &[(String, String)], body: &[u8]) -> Vec<(String, String)> {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).expect("the kernel has randomness once it has booted");
    sign_at(key, method, target, headers, body, Timestamp::now(), &hex(&nonce))
}

/// Signs a request: `target` is the path with its query as it will be sent, `headers` holds at least `host`. Answers
/// with every header to send: those given, then `x-acs-date`, `x-acs-signature-nonce` and `x-acs-content-sha256` where they
/// were not given, and `authorization`. All of them are under the signature.
#[must_use]
pub fn sign_at(
    key: &SigningKey,
    method: &str,
    target: &str,
    headers: &[(String, String)],
    body: &[u8],
    date: Timestamp,
    nonce: &str,
) -> Vec<(String, String)> {
    let content_sha256 = dunlin_model::Digest::of(body).to_string();
    let mut all: Vec<(String, String)> =
        headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
    let made = [
        ("x-acs-date", date.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
        ("x-acs-signature-nonce", nonce.to_owned()),
        ("x-acs-content-sha256", content_sha256),
    ];
    for (name, value) in made {
        if !all.iter().any(|(given, _)| given == name) {
            all.push((name.to_owned(), value));
        }
    }

    let mut names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let lines: Vec<(&str, Vec<&[u8]>)> = names
        .iter()
        .map(|name| (*name, all.iter().filter(|(other, _)| other == name).map(|(_, value)| value.as_bytes()).collect()))
        .collect();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let query = canonical_query(query).unwrap_or_else(|| query.to_owned());
    let signed_sha256 = all.iter().find(|(name, _)| name == "x-acs-content-sha256").map_or("", |(_, value)| value);
    let canonical = Canonical { method, path, query: &query, headers: &lines, content_sha256: signed_sha256.as_bytes() };
    let signature = hex(&canonical.signature(&key.secret));
    let authorization = format!("{ALGORITHM} Credential={},SignedHeaders={},Signature={signature}", key.id, names.join(";"));
    all.push(("authorization".into(), authorization));
    all
}
