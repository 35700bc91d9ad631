//! Pulling images: the pull side of the distribution protocol, over the one client there is.
//!
//! What comes out is an archive in the OCI's image layout, written as it is received: the same form in which an image is brought
//! without a registry, so that one place unpacks both. Manifests and indexes are read here, for what to fetch and how much of it;
//! layers are not.
//!
//! # Invariants
//! - Every address is judged as [`Outbound`] judges addresses: the registry's, that of who gives out tokens, and wherever
//!   either of them sends us. Without the operator's leave nothing goes out in the clear.
//! - Nothing is handed on that does not have the digest and the size by which it was asked for.
//! - A password goes to the registry and to whom the registry names for tokens, and to nobody that these redirect to.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use dunlin_model::{Digest, ImageReference, tar};
use http::header::{ACCEPT, AUTHORIZATION, HeaderValue, LOCATION, WWW_AUTHENTICATE};
use http::{HeaderMap, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;

use crate::{FetchError, Outbound};

/// How long an answer may take to begin, and to go on.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long an image may take as a whole.
const PULL_PATIENCE: Duration = Duration::from_secs(600);
/// Largest manifest, index or token, in bytes.
const DOCUMENT_BYTES_MAX: usize = 4 << 20;
const REDIRECTS_MAX: usize = 5;
/// Most layers of an image.
const LAYERS_MAX: usize = 127;
const KINDS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
                     application/vnd.docker.distribution.manifest.list.v2+json, \
                     application/vnd.docker.distribution.manifest.v2+json";

/// Who pulls.
#[derive(Clone)]
pub struct Credentials {
    /// The user.
    pub user: String,
    /// The password.
    pub password: String,
}

impl Credentials {
    fn header(&self) -> Option<HeaderValue> {
        let mut value =
            HeaderValue::try_from(format!("Basic {}", STANDARD.encode(format!("{}:{}", self.user, self.password)))).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// Where a pulled image goes, a chunk at a time. False when nothing more is taken.
#[async_trait::async_trait]
pub trait Sink: Send {
    /// Takes a chunk.
    async fn write(&mut self, chunk: Bytes) -> bool;
}

/// Why an image was not pulled. Fit to be said to whoever named it.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// An address cannot be reached, or must not be.
    #[error("{what} {why}")]
    Address {
        /// Which one.
        what: &'static str,
        /// What is wrong with it.
        why: FetchError,
    },
    /// Nobody answers any more.
    #[error("{0} does not answer in time, or the connection breaks off")]
    Silent(&'static str),
    /// It wants to know who asks, or does not like who does.
    #[error("the registry refuses access (status {0}); set registryConfig.authConfig.userName and password to who may pull")]
    Denied(StatusCode),
    /// It has no such image.
    #[error("the registry has no such image")]
    NotFound,
    /// It answers something else.
    #[error("{what} answers status {status}")]
    Status {
        /// Who.
        what: &'static str,
        /// With which.
        status: StatusCode,
    },
    /// It sends us around.
    #[error("{0} redirects too often, or to nowhere")]
    Redirects(&'static str),
    /// What it answers cannot be read.
    #[error("the registry's answer cannot be read: {0}")]
    Malformed(String),
    /// Something has another digest or size than it should have.
    #[error("{0} is not what the registry announced: its digest or its size is another")]
    Mismatch(String),
    /// It is for another machine.
    #[error("there is no image for linux/amd64 under this name, but for {0}")]
    Platform(String),
    /// Too much.
    #[error("the image is larger than {0} bytes")]
    TooLarge(u64),
    /// Nobody takes what is pulled.
    #[error("it cannot be stored")]
    Unwanted,
}

/// An image's manifest, or the index it is in, as the reference names it.
#[derive(Debug)]
pub struct Manifest {
    /// Of its bytes.
    pub digest: Digest,
    bytes: Bytes,
}

/// What was pulled.
#[derive(Debug)]
pub struct Pulled {
    /// Bytes of configuration and layers.
    pub bytes: u64,
}

/// One repository of one registry.
pub struct Registry<'a> {
    outbound: &'a Outbound,
    reference: &'a ImageReference,
    credentials: Option<&'a Credentials>,
    bytes_max: u64,
    base: String,
    repository: String,
    /// What the registry wants to see, once it has said so.
    authorization: Mutex<Option<HeaderValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<Platform>,
}

#[derive(Clone, Deserialize)]
struct Platform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Outbound {
    /// The repository that an image is in. An image has at most `bytes_max` bytes.
    #[must_use]
    pub fn registry<'a>(
        &'a self,
        reference: &'a ImageReference,
        credentials: Option<&'a Credentials>,
        bytes_max: u64,
    ) -> Registry<'a> {
        let (host, repository) = match (reference.registry.as_str(), reference.repository.as_str()) {
            // It is spoken with at another name than it is called by, and its own images have a folder that nobody writes.
            ("docker.io" | "index.docker.io", name) if !name.contains('/') => ("registry-1.docker.io", format!("library/{name}")),
            ("docker.io" | "index.docker.io", name) => ("registry-1.docker.io", name.to_owned()),
            (host, name) => (host, name.to_owned()),
        };
        let scheme = if self.allow_inside && is_loopback(host) { "http" } else { "https" };
        let base = format!("{scheme}://{host}/v2/{repository}");
        Registry { outbound: self, reference, credentials, bytes_max, base, repository, authorization: Mutex::new(None) }
    }
}

/// Whether a registry is on this very machine, where none has a certificate.
fn is_loopback(host: &str) -> bool {
    let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let name = name.map_or(host, |(name, _)| name).trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl Registry<'_> {
    /// What the reference names right now.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub async fn manifest(&self) -> Result<Manifest, PullError> {
        let manifest = self.document(&self.reference.version.to_string()).await?;
        match &self.reference.version {
            dunlin_model::ImageVersion::Digest(digest) if *digest != manifest.digest => {
                Err(PullError::Mismatch(format!("the manifest sha256:{digest}")))
            }
            _ => Ok(manifest),
        }
    }

    /// Pulls the image of `manifest`, or of the part of it that is for this machine, as an archive.
    ///
    /// # Errors
    /// Why not; what was written is of no use then.
    pub async fn pull(&self, manifest: &Manifest, sink: &mut dyn Sink) -> Result<Pulled, PullError> {
        tokio::time::timeout(PULL_PATIENCE, self.pull_now(manifest, sink)).await.map_err(|_| PullError::Silent("the registry"))?
    }

    async fn pull_now(&self, manifest: &Manifest, sink: &mut dyn Sink) -> Result<Pulled, PullError> {
        let (digest, bytes, document) = self.for_this_machine(manifest).await?;
        let config = document.config.ok_or_else(|| PullError::Malformed("the manifest names no configuration".to_owned()))?;
        if document.layers.len() > LAYERS_MAX {
            return Err(PullError::Malformed(format!("the manifest has more than {LAYERS_MAX} layers")));
        }
        let blobs: Vec<&Descriptor> = std::iter::once(&config).chain(&document.layers).collect();
        let total = blobs.iter().fold(0u64, |total, blob| total.saturating_add(blob.size));
        if total > self.bytes_max {
            return Err(PullError::TooLarge(self.bytes_max));
        }
        let index = serde_json::json!({
            "schemaVersion": 2,
            "manifests": [{
                "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": format!("sha256:{digest}"), "size": bytes.len(),
            }],
        });
        member(sink, "oci-layout", Bytes::from_static(br#"{"imageLayoutVersion":"1.0.0"}"#)).await?;
        member(sink, "index.json", Bytes::from(index.to_string())).await?;
        member(sink, &format!("blobs/sha256/{digest}"), bytes).await?;
        let mut seen = HashSet::new();
        for blob in blobs {
            let digest = sha256(&blob.digest)?;
            if seen.insert(digest) {
                self.blob(digest, blob.size, sink).await?;
            }
        }
        put(sink, Bytes::from_static(&tar::END)).await?;
        Ok(Pulled { bytes: total })
    }

    /// The manifest itself, or the first of an index that fits.
    async fn for_this_machine(&self, manifest: &Manifest) -> Result<(Digest, Bytes, Document), PullError> {
        let document = read(&manifest.bytes)?;
        if document.config.is_some() {
            return Ok((manifest.digest, manifest.bytes.clone(), document));
        }
        let is_ours = |descriptor: &&Descriptor| match &descriptor.platform {
            Some(Platform { os, architecture }) => (os.as_str(), architecture.as_str()) == ("linux", "amd64"),
            None => !descriptor.media_type.contains("index"),
        };
        let Some(found) = document.manifests.iter().find(is_ours) else {
            let platforms = document.manifests.iter().filter_map(|descriptor| descriptor.platform.as_ref());
            let named: Vec<_> = platforms.take(5).map(|platform| format!("{}/{}", platform.os, platform.architecture)).collect();
            return Err(PullError::Platform(if named.is_empty() { "nothing".to_owned() } else { named.join(", ") }));
        };
        let digest = sha256(&found.digest)?;
        let own = self.document(&format!("sha256:{digest}")).await?;
        if own.digest != digest {
            return Err(PullError::Mismatch(format!("the manifest sha256:{digest}")));
        }
        let document = read(&own.bytes)?;
        Ok((digest, own.bytes, document))
    }

    async fn document(&self, version: &str) -> Result<Manifest, PullError> {
        let response = self.get(&format!("{}/manifests/{version}", self.base)).await?;
        let bytes = collect(response, "the registry").await?;
        Ok(Manifest { digest: Digest(Sha256::digest(&bytes).into()), bytes })
    }

    /// Copies a blob, which must be what it is called.
    async fn blob(&self, digest: Digest, size: u64, sink: &mut dyn Sink) -> Result<(), PullError> {
        let mismatch = || PullError::Mismatch(format!("the blob sha256:{digest}"));
        let response = self.get(&format!("{}/blobs/sha256:{digest}", self.base)).await?;
        put(sink, header(&format!("blobs/sha256/{digest}"), size)).await?;
        let mut body = response.into_body();
        let (mut hash, mut left) = (Sha256::new(), size);
        let silent = || PullError::Silent("the registry");
        while let Some(frame) = tokio::time::timeout(PATIENCE, body.frame()).await.map_err(|_| silent())? {
            let Ok(chunk) = frame.map_err(|_| silent())?.into_data() else { continue };
            left = left.checked_sub(chunk.len() as u64).ok_or_else(mismatch)?;
            hash.update(&chunk);
            put(sink, chunk).await?;
        }
        if left > 0 || Digest(hash.finalize().into()) != digest {
            return Err(mismatch());
        }
        put(sink, Bytes::from_static(tar::padding(size))).await
    }

    /// Asks the registry; when it wants to know who asks, once more.
    async fn get(&self, address: &str) -> Result<Response<Incoming>, PullError> {
        let response = self.follow(address).await?;
        let response = match (response.status(), self.challenge(&response)) {
            (StatusCode::UNAUTHORIZED, Some(challenge)) => {
                *self.authorization.lock().await = Some(self.answer(&challenge).await?);
                self.follow(address).await?
            }
            _ => response,
        };
        match response.status() {
            StatusCode::OK => Ok(response),
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => Err(PullError::Denied(status)),
            StatusCode::NOT_FOUND => Err(PullError::NotFound),
            status => Err(PullError::Status { what: "the registry", status }),
        }
    }

    /// Goes where it is sent, without what is for the registry alone.
    async fn follow(&self, address: &str) -> Result<Response<Incoming>, PullError> {
        const WHAT: &str = "the registry";
        let own: Uri = address.parse().map_err(|_| PullError::Address { what: WHAT, why: FetchError::Malformed })?;
        let mut at = own.clone();
        for _ in 0..=REDIRECTS_MAX {
            let mut headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(KINDS))]);
            if at.authority() == own.authority() && at.scheme() == own.scheme() {
                headers.extend(self.authorization.lock().await.clone().map(|value| (AUTHORIZATION, value)));
            }
            let response = self.send(&at, &headers, WHAT).await?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let target = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            at = target.and_then(|target| resolved(&at, target)).ok_or(PullError::Redirects(WHAT))?;
        }
        Err(PullError::Redirects(WHAT))
    }

    async fn send(&self, uri: &Uri, headers: &HeaderMap, what: &'static str) -> Result<Response<Incoming>, PullError> {
        let sent = tokio::time::timeout(PATIENCE, self.outbound.send(uri, headers)).await;
        sent.map_err(|_| PullError::Silent(what))?.map_err(|why| PullError::Address { what, why })
    }

    /// What the registry wants to be shown.
    fn challenge(&self, response: &Response<Incoming>) -> Option<Challenge> {
        let all = response.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let mut found: Vec<_> = all.filter_map(Challenge::read).collect();
        // A registry that offers both means the token.
        found.sort_by_key(|challenge| matches!(challenge, Challenge::Basic));
        found.into_iter().next()
    }

    async fn answer(&self, challenge: &Challenge) -> Result<HeaderValue, PullError> {
        let basic = self.credentials.and_then(Credentials::header);
        let Challenge::Bearer { realm, service, scope } = challenge else {
            return basic.ok_or(PullError::Denied(StatusCode::UNAUTHORIZED));
        };
        const WHAT: &str = "the server that the registry names for tokens";
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let scope = scope.clone().unwrap_or_else(|| format!("repository:{}:pull", self.repository));
        let mark = if realm.contains('?') { '&' } else { '?' };
        let mut address = format!("{realm}{mark}scope={}", encoded(&scope));
        if let Some(service) = service {
            address.push_str(&format!("&service={}", encoded(service)));
        }
        let uri: Uri = address.parse().map_err(|_| PullError::Address { what: WHAT, why: FetchError::Malformed })?;
        let headers = basic.map(|value| (AUTHORIZATION, value)).into_iter().collect();
        let response = self.send(&uri, &headers, WHAT).await?;
        match response.status() {
            StatusCode::OK => {}
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => return Err(PullError::Denied(status)),
            status => return Err(PullError::Status { what: WHAT, status }),
        }
        let bytes = collect(response, WHAT).await?;
        let Token { token, access_token } = read_json(&bytes)?;
        let token = token.or(access_token).unwrap_or_default();
        let mut value = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| PullError::Malformed("the token has a character that no header may have".to_owned()))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

/// How a registry asks who is there.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

impl Challenge {
    fn read(text: &str) -> Option<Self> {
        let (scheme, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service, mut scope) = (None, None, None);
        let mut rest = rest.trim_start();
        while let Some((name, value)) = rest.split_once('=') {
            let (value, after) = match value.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => value.split_once(',').unwrap_or((value, "")),
            };
            match name.trim() {
                "realm" => realm = Some(value.to_owned()),
                "service" => service = Some(value.to_owned()),
                "scope" => scope = Some(value.to_owned()),
                _ => {}
            }
            rest = after.trim_start_matches([',', ' ']);
        }
        Some(Self::Bearer { realm: realm?, service, scope })
    }
}

/// Where a redirect leads from `base`.
fn resolved(base: &Uri, target: &str) -> Option<Uri> {
    let target = target.split('#').next().unwrap_or(target);
    if !target.starts_with('/') {
        return target.parse().ok().filter(|uri: &Uri| uri.scheme().is_some());
    }
    if target.starts_with("//") {
        return format!("{}:{target}", base.scheme_str()?).parse().ok();
    }
    format!("{}://{}{target}", base.scheme_str()?, base.authority()?).parse().ok()
}

async fn collect(response: Response<Incoming>, what: &'static str) -> Result<Bytes, PullError> {
    let body = Limited::new(response.into_body(), DOCUMENT_BYTES_MAX).collect();
    let body = tokio::time::timeout(PATIENCE, body).await.map_err(|_| PullError::Silent(what))?;
    let body = body.map_err(|_| PullError::Malformed("it is larger than 4 MiB, or incomplete".to_owned()))?;
    Ok(body.to_bytes())
}

fn read(bytes: &Bytes) -> Result<Document, PullError> {
    read_json(bytes)
}

fn read_json<T: serde::de::DeserializeOwned>(bytes: &Bytes) -> Result<T, PullError> {
    serde_json::from_slice(bytes).map_err(|error| PullError::Malformed(error.to_string()))
}

fn sha256(text: &str) -> Result<Digest, PullError> {
    let digest = text.strip_prefix("sha256:").and_then(|digits| digits.parse().ok());
    digest.ok_or_else(|| PullError::Malformed("a digest is no SHA-256".to_owned()))
}

async fn put(sink: &mut dyn Sink, chunk: Bytes) -> Result<(), PullError> {
    if chunk.is_empty() || sink.write(chunk).await { Ok(()) } else { Err(PullError::Unwanted) }
}

fn header(name: &str, size: u64) -> Bytes {
    Bytes::copy_from_slice(&tar::header(name, size))
}

async fn member(sink: &mut dyn Sink, name: &str, contents: Bytes) -> Result<(), PullError> {
    let size = contents.len() as u64;
    put(sink, header(name, size)).await?;
    put(sink, contents).await?;
    put(sink, Bytes::from_static(tar::padding(size))).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_says_where_tokens_are() {
        let bearer = Challenge::read(r#"Bearer realm="https://auth.example.com/token",service="r",scope="repository:a/b:pull""#);
        let Some(Challenge::Bearer { realm, service, scope }) = bearer else { panic!("{bearer:?}") };
        assert_eq!(realm, "https://auth.example.com/token");
        assert_eq!((service.as_deref(), scope.as_deref()), (Some("r"), Some("repository:a/b:pull")));
        assert_eq!(Challenge::read("Basic realm=\"x\""), Some(Challenge::Basic));
        for none in ["", "Bearer", "Bearer service=\"x\"", "Digest realm=\"x\"", "Bearer realm=\"x"] {
            assert_eq!(Challenge::read(none), None, "{none}");
        }
    }

    #[test]
    fn a_redirect_is_followed_from_where_it_was_said() {
        let base: Uri = "https://r.io/v2/a/blobs/x".parse().unwrap();
        let to = |target| resolved(&base, target).map(|uri| uri.to_string());
        assert_eq!(to("/blob?x=1").as_deref(), Some("https://r.io/blob?x=1"));
        assert_eq!(to("https://cdn.io/b#c").as_deref(), Some("https://cdn.io/b"));
        assert_eq!(to("//cdn.io/b").as_deref(), Some("https://cdn.io/b"));
        assert_eq!((to("blob"), to("")), (None, None));
    }

    #[test]
    fn only_this_machine_is_spoken_with_in_the_clear() {
        let base = |allow_inside: bool, image: &str| {
            let (outbound, reference) = (Outbound::new(allow_inside), image.parse().unwrap());
            outbound.registry(&reference, None, 1).base
        };
        assert_eq!(base(true, "127.0.0.1:5000/a"), "http://127.0.0.1:5000/v2/a");
        assert_eq!(base(true, "localhost/a"), "http://localhost/v2/a");
        assert_eq!(base(false, "localhost/a"), "https://localhost/v2/a");
        assert_eq!(base(true, "10.0.0.1:5000/a"), "https://10.0.0.1:5000/v2/a");
        assert_eq!(base(false, "team/app"), "https://registry-1.docker.io/v2/team/app");
        assert_eq!(base(false, "docker.io/app"), "https://registry-1.docker.io/v2/library/app");
    }

    #[tokio::test]
    async fn nothing_inside_is_asked_for_an_image() {
        let outbound = Outbound::new(false);
        for image in ["127.0.0.1:5000/a", "localhost:5000/a", "10.1.2.3/a", "169.254.169.254/a", "[::1]:5000/a"] {
            let reference = image.parse().unwrap();
            let refused = outbound.registry(&reference, None, 1).manifest().await.expect_err(image);
            assert!(matches!(refused, PullError::Address { why: FetchError::Inside, .. }), "{image}: {refused}");
        }
    }
}
