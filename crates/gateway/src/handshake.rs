//! TLS in front of a connection. The name that a client asks for chooses the domain, whose certificate and versions are those of
//! this very moment: a change concerns the next handshake, and no connection that is open.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dunlin_tls::{ServerConfig, nobody};
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::dispatch::Dispatch;

/// Shakes hands, and says for which name. Nothing when there is none that is served here, or the client takes too long: then
/// it has been sent an alert.
pub(crate) async fn shake(
    socket: TcpStream,
    dispatch: &Dispatch,
    patience: Duration,
) -> Option<(TlsStream<TcpStream>, Arc<str>)> {
    let shaken = tokio::time::timeout(patience, async {
        let hello = LazyConfigAcceptor::new(tokio_rustls::rustls::server::Acceptor::default(), socket).await?;
        let name = hello.client_hello().server_name().map(str::to_ascii_lowercase);
        let name = name.as_deref().map(|name| name.strip_suffix('.').unwrap_or(name));
        let config = name.and_then(|name| dispatch.tls(name));
        let stream = hello.into_stream(config.unwrap_or_else(refusing)).await?;
        Ok::<_, std::io::Error>((stream, name.map(Arc::from)))
    });
    match shaken.await {
        Ok(Ok((stream, Some(name)))) => Some((stream, name)),
        Ok(Ok((_, None))) => None,
        Ok(Err(error)) => {
            tracing::debug!(%error, "no handshake");
            None
        }
        Err(_) => {
            tracing::debug!("a handshake took too long");
            None
        }
    }
}

fn refusing() -> Arc<ServerConfig> {
    static REFUSING: OnceLock<Arc<ServerConfig>> = OnceLock::new();
    Arc::clone(REFUSING.get_or_init(nobody))
}
