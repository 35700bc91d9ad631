//! The verifier.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use dunlin_model::{AccessKeyId, AccountScope};
use dunlin_store::{Store, StoreError};
use http::request::Parts;
use http::{HeaderMap, Version};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::acs3::{Canonical, canonical_query, keyed_hash, path_as_node_signs_it, unhex32};
use crate::authorization::{Authorization, Scheme, single};
use crate::error::AuthError;
use crate::nonces::{Nonces, Stale};

/// Tells the time of day. Injected, so that a test can stand anywhere in the window.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The machine's clock.
#[must_use]
pub fn system_clock() -> Clock {
    Arc::new(Timestamp::now)
}

/// What the operator may change.
#[derive(Clone, Debug)]
pub struct Config {
    /// How far a request's date may be from the platform's clock, both ways. Default 15 minutes, the vendor's.
    pub skew_max: Duration,
    /// Most nonces held; when there are more, the busiest key's window shrinks. Default about a million (some 50 MB).
    pub nonces_max: usize,
    /// How often new nonces are handed to the store. Default 100 ms: that much of them a power cut may forget.
    pub write_interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { skew_max: Duration::from_secs(900), nonces_max: 1 << 20, write_interval: Duration::from_millis(100) }
    }
}

/// A caller whose signature held.
#[derive(Clone, Debug)]
pub struct Verified {
    /// On whose behalf.
    pub scope: AccountScope,
    /// Which key signed.
    pub access_key: AccessKeyId,
    /// What the body must be. Nothing may happen before it was compared.
    pub body: ExpectedBody,
}

/// The hash that was signed for the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpectedBody([u8; 32]);

impl ExpectedBody {
    /// Whether `body` is the one that was signed.
    ///
    /// # Errors
    /// [`AuthError::BodyMismatch`].
    pub fn check(&self, body: &[u8]) -> Result<(), AuthError> {
        self.check_digest(&Sha256::digest(body).into())
    }

    /// The same for a body that was hashed while it streamed by.
    ///
    /// # Errors
    /// [`AuthError::BodyMismatch`].
    pub fn check_digest(&self, sha256: &[u8; 32]) -> Result<(), AuthError> {
        if self.0 == *sha256 { Ok(()) } else { Err(AuthError::BodyMismatch) }
    }
}

/// Checks signatures. Cheap to clone.
#[derive(Clone)]
pub struct Verifier {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Store>,
    config: Config,
    clock: Clock,
    skew_s: i64,
    nonces: Mutex<Nonces>,
}

impl Verifier {
    /// A verifier that knows the keys of `store` and the nonces it remembers.
    ///
    /// # Errors
    /// When the store cannot say which nonces were used.
    pub async fn open(store: Arc<dyn Store>, config: Config, clock: Clock) -> Result<Self, StoreError> {
        let skew_s = i64::try_from(config.skew_max.as_secs()).unwrap_or(i64::MAX / 4).min(86_400);
        let mut nonces = Nonces::new(config.nonces_max.max(2), skew_s);
        nonces.restore(store.nonces_after(clock().as_second()).await?);
        Ok(Self { inner: Arc::new(Inner { store, config, clock, skew_s, nonces: Mutex::new(nonces) }) })
    }

    /// Says whose request this is. The nonce counts as used from here on, whatever becomes of the request.
    ///
    /// # Errors
    /// Why the request is nobody's.
    pub fn verify(&self, parts: &Parts) -> Result<Verified, AuthError> {
        match Scheme::of(parts) {
            None => return Err(AuthError::Unsigned),
            Some(Scheme::Acs3) => {}
            Some(other) => return Err(AuthError::SchemeNotSupported { scheme: other.as_str().to_owned() }),
        }
        let headers = &parts.headers;
        let authorization = Authorization::read(headers)?;
        if headers.contains_key("x-acs-security-token") {
            return Err(AuthError::SchemeNotSupported { scheme: "a security token (STS)".to_owned() });
        }
        let content_sha256 = required(headers, "x-acs-content-sha256")?;
        let body = unhex32(content_sha256)
            .ok_or(AuthError::Malformed { what: "x-acs-content-sha256", rule: "it is the body's SHA-256 in lower-case hex" })?;
        let nonce = required(headers, "x-acs-signature-nonce")?;
        if nonce.is_empty() || nonce.len() > 128 || !nonce.iter().all(u8::is_ascii_graphic) {
            return Err(AuthError::Malformed { what: "x-acs-signature-nonce", rule: "it has 1 to 128 visible ASCII characters" });
        }
        let date = read_date(required(headers, "x-acs-date")?)?;
        let now = (self.inner.clock)().as_second();
        if now.abs_diff(date) > self.inner.skew_s.unsigned_abs() {
            return Err(AuthError::Skewed { window_s: self.inner.skew_s });
        }
        check_coverage(parts, &authorization.signed_headers)?;

        let view = self.inner.store.view();
        let key = view.access_key(&authorization.credential).ok_or(AuthError::UnknownAccessKey)?;
        if !signature_holds(parts, &authorization, content_sha256, &key.secret)? {
            return Err(AuthError::SignatureMismatch);
        }
        let hash = keyed_hash(&key.secret, &[b"dunlin nonce\0", nonce]);
        let hash = u64::from_le_bytes(hash[..8].try_into().expect("eight of thirty-two bytes"));
        self.nonces().take(&key.id, hash, date, now).map_err(|stale| match stale {
            Stale::Used => AuthError::Replayed,
            Stale::BelowFloor { floor } => AuthError::Skewed { window_s: now.saturating_sub(floor).max(0) },
        })?;
        Ok(Verified { scope: AccountScope::verified(key.account.clone()), access_key: key.id.clone(), body: ExpectedBody(body) })
    }

    /// Hands new nonces to the store until `stop` resolves, and once more then.
    pub async fn run(&self, stop: impl Future<Output = ()>) {
        let mut writes = tokio::time::interval(self.inner.config.write_interval.max(Duration::from_millis(1)));
        writes.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut forgotten = i64::MIN;
        tokio::pin!(stop);
        loop {
            let last = tokio::select! {
                () = &mut stop => true,
                _ = writes.tick() => false,
            };
            if let Err(error) = self.flush().await {
                tracing::warn!(%error, "nonces could not be written; they are tried again");
            }
            if last {
                return;
            }
            let now = (self.inner.clock)().as_second();
            if now.saturating_sub(forgotten) > 60 {
                forgotten = now;
                if let Err(error) = self.inner.store.forget_nonces(now - 1).await {
                    tracing::warn!(%error, "old nonces could not be forgotten");
                }
            }
        }
    }

    /// Hands the nonces that were used since the last time to the store.
    ///
    /// # Errors
    /// When the store does not take them; they are kept for the next time.
    pub async fn flush(&self) -> Result<(), StoreError> {
        let pending = self.nonces().take_pending();
        if pending.is_empty() {
            return Ok(());
        }
        match self.inner.store.put_nonces(&pending).await {
            Ok(()) => Ok(()),
            Err(error) => {
                self.nonces().put_back(pending);
                Err(error)
            }
        }
    }

    fn nonces(&self) -> MutexGuard<'_, Nonces> {
        // What a panic left behind is at worst one nonce short of its second; forgetting all of them would be worse.
        self.inner.nonces.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn required<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<&'a [u8], AuthError> {
    single(headers, name)?.ok_or(AuthError::MissingHeader { name })
}

/// Reads `2026-01-02T03:04:05Z` and nothing else, to the second.
fn read_date(text: &[u8]) -> Result<i64, AuthError> {
    let malformed = AuthError::Malformed { what: "x-acs-date", rule: "the form is 2026-01-02T03:04:05Z" };
    let in_form = text.len() == 20
        && text.iter().zip(b"dddd-dd-ddTdd:dd:ddZ").all(|(byte, form)| match form {
            b'd' => byte.is_ascii_digit(),
            form => byte == form,
        });
    let text = std::str::from_utf8(text).ok().filter(|_| in_form).ok_or(malformed.clone())?;
    let date: DateTime = text.trim_end_matches('Z').parse().map_err(|_| malformed)?;
    // The last day of the year 9999 is a date but no timestamp. It is far off anyway.
    Ok(TimeZone::UTC.to_timestamp(date).map_or(i64::MAX, Timestamp::as_second))
}

/// Every header that steers what the request does is under the signature: `host` and all of `x-acs-`.
fn check_coverage(parts: &Parts, signed: &[&str]) -> Result<(), AuthError> {
    let is_signed = |name: &str| signed.binary_search(&name).is_ok();
    if !is_signed("host") {
        return Err(AuthError::HeaderNotSigned { name: "host".to_owned() });
    }
    single(&parts.headers, "host")?;
    match parts.headers.keys().map(http::HeaderName::as_str).find(|name| name.starts_with("x-acs-") && !is_signed(name)) {
        Some(name) => Err(AuthError::HeaderNotSigned { name: name.to_owned() }),
        None => Ok(()),
    }
}

fn signature_holds(
    parts: &Parts,
    authorization: &Authorization<'_>,
    content_sha256: &[u8],
    secret: &str,
) -> Result<bool, AuthError> {
    let authority = parts.uri.authority().map(http::uri::Authority::as_str);
    if authority.is_some() && parts.version < Version::HTTP_2 {
        return Err(AuthError::Malformed { what: "the request line", rule: "a signed request names a path, not a whole URL" });
    }
    let mut lines: Vec<(&str, Vec<&[u8]>)> = Vec::with_capacity(authorization.signed_headers.len());
    for name in &authorization.signed_headers {
        let mut values: Vec<&[u8]> = parts.headers.get_all(*name).iter().map(http::HeaderValue::as_bytes).collect();
        if values.is_empty() && *name == "host" {
            values.extend(authority.map(str::as_bytes));
        }
        if values.is_empty() {
            return Err(AuthError::SignatureMismatch);
        }
        lines.push((name, values));
    }
    let query = canonical_query(parts.uri.query().unwrap_or_default())
        .ok_or(AuthError::Malformed { what: "the query", rule: "'%' is followed by two hex digits" })?;
    let holds = |path: &str| {
        let canonical = Canonical { method: parts.method.as_str(), path, query: &query, headers: &lines, content_sha256 };
        bool::from(canonical.signature(secret).ct_eq(&authorization.signature))
    };
    let path = parts.uri.path();
    Ok(holds(path) || path_as_node_signs_it(path).is_some_and(|mapped| holds(&mapped)))
}
