//! What the platform itself fetches because a tenant named an address: one client, and one rule about where it goes.
//!
//! # Invariants
//! - Unless the operator allows it, nothing inside is reached: no loopback, no private network, no clouds' metadata, by whatever
//!   name. A name is resolved once, every address it has is judged, and the connection is made to one of these.
//! - No redirect is followed, but a registry's ([`registry`]), which is judged like the address itself; nothing of a tenant's is sent but the address, and neither size nor time is without a limit.

pub mod registry;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use dunlin_sandbox::net::ranges::is_refused;
use http::header::{ACCEPT, HOST, HeaderValue, USER_AGENT};
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long one fetch may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Largest answer, in bytes.
const BYTES_MAX: usize = 64 << 10;

/// Why something was not fetched. Fit to be said to whoever named the address: it tells nothing about what lies inside.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It is no address.
    #[error("is no address like https://host/path")]
    Malformed,
    /// It would go out in the clear.
    #[error("must begin with https://")]
    Plain,
    /// It is inside.
    #[error("leads to an address inside this network, which the operator does not allow")]
    Inside,
    /// The host has no address.
    #[error("names a host that cannot be resolved")]
    Unresolved,
    /// Nobody answers there, or not as a server would.
    #[error("cannot be fetched: there is no answer")]
    Unreachable,
    /// It answers something else.
    #[error("cannot be fetched: the answer has status {0}")]
    Status(StatusCode),
    /// It answers too much, or breaks off.
    #[error("cannot be fetched: the answer is larger than 64 KiB or incomplete")]
    Body,
    /// It takes too long.
    #[error("cannot be fetched: there is no answer within 5 seconds")]
    TimedOut,
}

/// The client. Cheap to clone.
#[derive(Clone)]
pub struct Outbound {
    pub(crate) allow_inside: bool,
    tls: Arc<OnceLock<TlsConnector>>,
}

impl Outbound {
    /// A client. With `allow_inside` it goes anywhere, also in the clear: for operators whose issuers are in their own network.
    #[must_use]
    pub fn new(allow_inside: bool) -> Self {
        Self { allow_inside, tls: Arc::default() }
    }

    /// Fetches what is at `address`.
    ///
    /// # Errors
    /// Why not.
    pub async fn get(&self, address: &str) -> Result<Bytes, FetchError> {
        tokio::time::timeout(PATIENCE, self.fetch(address)).await.unwrap_or(Err(FetchError::TimedOut))
    }

    async fn fetch(&self, address: &str) -> Result<Bytes, FetchError> {
        let uri: Uri = address.parse().map_err(|_| FetchError::Malformed)?;
        let extra = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json"))]);
        let response = self.send(&uri, &extra).await?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), BYTES_MAX).collect().await.map_err(|_| FetchError::Body)?;
        Ok(body.to_bytes())
    }

    /// Sends one request on a connection of its own, which lasts as long as the answer's body is held. `extra` are further
    /// headers.
    pub(crate) async fn send(&self, uri: &Uri, extra: &HeaderMap) -> Result<Response<Incoming>, FetchError> {
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or(FetchError::Malformed)?;
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") if self.allow_inside => false,
            Some("http") => return Err(FetchError::Plain),
            _ => return Err(FetchError::Malformed),
        };
        let host = authority.host();
        let socket = self.connect(host, authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 })).await?;
        let mut request = Request::get(uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str))
            .header(HOST, authority.as_str())
            .header(USER_AGENT, "dunlin")
            .body(Empty::<Bytes>::new())
            .map_err(|_| FetchError::Malformed)?;
        request.headers_mut().extend(extra.clone());
        if is_tls {
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            let name = ServerName::try_from(bare.to_owned()).map_err(|_| FetchError::Malformed)?;
            let stream = self.connector().connect(name, socket).await.map_err(|_| FetchError::Unreachable)?;
            begin(stream, request).await
        } else {
            begin(socket, request).await
        }
    }

    /// Connects to one of the host's addresses, if all of them may be reached: a name that leads inside as well as outside is
    /// not given the choice.
    async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, FetchError> {
        let addresses = resolve(host, port).await?;
        if !self.allow_inside && addresses.iter().any(|address| is_refused(address.ip())) {
            return Err(FetchError::Inside);
        }
        for address in addresses {
            if let Ok(socket) = TcpStream::connect(address).await {
                return Ok(socket);
            }
        }
        Err(FetchError::Unreachable)
    }

    fn connector(&self) -> &TlsConnector {
        self.tls.get_or_init(|| {
            let mut roots = RootCertStore::empty();
            let found = rustls_native_certs::load_native_certs();
            let (added, ignored) = roots.add_parsable_certificates(found.certs);
            tracing::debug!(added, ignored, "this machine's trusted authorities");
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
            let builder = builder.expect("the provider's own suites fit its own versions");
            TlsConnector::from(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
        })
    }
}

async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, FetchError> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let found: Vec<SocketAddr> = tokio::net::lookup_host((bare, port)).await.map_err(|_| FetchError::Unresolved)?.collect();
    if found.is_empty() { Err(FetchError::Unresolved) } else { Ok(found) }
}

/// One request on one connection, which a task of its own carries until the body was read or dropped.
async fn begin<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<Response<Incoming>, FetchError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let unreachable = |_| FetchError::Unreachable;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(unreachable)?;
    // How it ends shows in the answer.
    tokio::spawn(async move { drop(connection.await) });
    sender.send_request(request).await.map_err(unreachable)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn nothing_inside_is_reached_by_whatever_name() {
        let outbound = Outbound::new(false);
        for address in [
            "https://127.0.0.1/",
            "https://127.1.2.3:8443/",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://0.0.0.0/",
            "https://10.0.0.1/",
            "https://172.16.0.1/",
            "https://192.168.1.1/",
            "https://100.100.100.200/latest/meta-data",
            "https://169.254.169.254/latest/meta-data",
            "https://[fd00::1]/",
            "https://[fe80::1]/",
            // A name is judged by what it leads to.
            "https://localhost/",
        ] {
            let refused = outbound.get(address).await;
            assert!(matches!(refused, Err(FetchError::Inside)), "{address}: {refused:?}");
        }
        for (address, plain) in
            [("http://example.com/", true), ("ftp://example.com/", false), ("https://a@example.com/", false), ("x", false)]
        {
            let refused = outbound.get(address).await;
            assert!(
                matches!((&refused, plain), (Err(FetchError::Plain), true) | (Err(FetchError::Malformed), false)),
                "{address}: {refused:?}"
            );
        }
    }

    /// A server that answers everything with `answer`.
    async fn server(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/keys", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let _ = socket.read(&mut [0; 4096]).await;
                let _ = socket.write_all(answer.as_bytes()).await;
            }
        });
        address
    }

    #[tokio::test]
    async fn an_answer_is_taken_whole_or_not_at_all() {
        let outbound = Outbound::new(true);
        let fine = server("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
        assert_eq!(outbound.get(&fine).await.unwrap(), "{}");
        let open = server("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{}").await;
        assert_eq!(outbound.get(&open).await.unwrap(), "{}");
        let elsewhere = server("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1/\r\ncontent-length: 0\r\n\r\n").await;
        assert!(matches!(outbound.get(&elsewhere).await, Err(FetchError::Status(StatusCode::FOUND))));
        let cut = server("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}").await;
        assert!(matches!(outbound.get(&cut).await, Err(FetchError::Body)));
        let large = server("HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n{}").await;
        assert!(matches!(outbound.get(&large).await, Err(FetchError::Body)));
        let garbage = server("garbage").await;
        assert!(matches!(outbound.get(&garbage).await, Err(FetchError::Unreachable)));
    }
}
