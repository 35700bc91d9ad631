//! The privileged process, as the command line starts it.

use std::ffi::OsString;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use dunlin_sandbox::interpreters::{NotAnInterpreter, Search};
use dunlin_sandbox::supervisor::{Config, RunError, run};

use crate::Capacity;

/// What `dunlin up` was told.
#[derive(Clone, Debug)]
pub struct UpConfig {
    /// Where everything is kept.
    pub data: PathBuf,
    /// Where to listen; port 0 lets the kernel pick.
    pub listen: SocketAddr,
    /// Where to speak TLS for custom domains; port 0 lets the kernel pick. Nothing: nowhere.
    pub https: Option<SocketAddr>,
    /// Function URLs are `{prefix}.fn.{domain}`.
    pub domain: String,
    /// What the platform calls its region.
    pub region: String,
    /// Whether functions may reach the internet at all.
    pub egress: bool,
    /// Whether key sets of tokens may be fetched from addresses inside.
    pub fetch_inside: bool,
    /// Interpreters to use besides those in the usual places, and rather than them: programs, or the directories they are
    /// installed in.
    pub interpreters: Vec<PathBuf>,
    /// Whether functions see all of `/proc` that concerns no process.
    pub full_proc: bool,
    /// How much it takes on.
    pub capacity: Capacity,
}

/// Why there is no platform.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// Building sandboxes needs root.
    #[error("building sandboxes needs root: run 'sudo dunlin up', and 'dunlin doctor' to see what this machine offers")]
    NotRoot,
    /// The address is taken, or not ours.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// What the operator named cannot serve functions.
    #[error(transparent)]
    Interpreter(#[from] NotAnInterpreter),
    /// The supervisor could not start, or could not go on.
    #[error("the platform cannot run")]
    Run(#[from] RunError),
}

/// How long the server may take to end its calls; a little more than its own grace.
const GRACE: Duration = Duration::from_secs(40);

/// Runs a platform in the foreground until SIGTERM or SIGINT.
///
/// # Errors
/// Everything that can be refused is refused before anything is served.
pub fn up(config: &UpConfig) -> Result<ExitCode, UpError> {
    if !rustix::process::geteuid().is_root() {
        return Err(UpError::NotRoot);
    }
    crate::start_log();
    let interpreters = Search::of_host(config.interpreters.clone()).run()?;
    let (listener, bound) = listen(config.listen)?;
    let https = config.https.map(listen).transpose()?;
    let port = bound.port().to_string();
    let mut server = ["server", "--domain", &config.domain, "--port", &port].map(OsString::from).to_vec();
    if https.is_some() {
        server.push("--https".into());
    }
    if config.fetch_inside {
        server.push("--fetch-inside".into());
    }
    server.extend(config.capacity.arguments());
    let secured = https.as_ref().map(|(_, address)| *address);
    let supervisor = Config {
        listeners: std::iter::once(listener).chain(https.map(|(listener, _)| listener)).map(OwnedFd::from).collect(),
        endpoint: format!("http://{bound}"),
        region: config.region.clone(),
        server_arguments: Some(server),
        egress: config.egress,
        interpreters,
        full_proc: config.full_proc,
        grace: GRACE,
        ..Config::new(config.data.clone())
    };
    let credentials = config.data.join("credentials.json");
    tracing::info!("listening on http://{bound}, key in {}", credentials.display());
    if let Some(address) = secured {
        tracing::info!("custom domains over TLS on https://{address}");
    }
    Ok(run(supervisor)?)
}

fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), UpError> {
    let refused = |source| UpError::Listen { address, source };
    let listener = TcpListener::bind(address).map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    Ok((listener, bound))
}
