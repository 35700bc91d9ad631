//! The real binary as a child process.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::api::{Api, Credentials};
use crate::http::Connection;

/// How to start it.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Keep and reuse this data directory instead of a temporary one.
    pub data: Option<PathBuf>,
    /// Further arguments of `dunlin up`.
    pub args: Vec<String>,
    /// A program and its arguments in front of the binary (for example `ip netns exec NAME`).
    pub wrapper: Vec<String>,
}

/// A running platform. Dropping it sends SIGTERM and waits; what it printed is in `log`.
#[derive(Debug)]
pub struct Platform {
    child: Child,
    stopped: bool,
    /// Where its data is.
    pub data: PathBuf,
    /// What it printed.
    pub log: PathBuf,
    /// Signs requests with the root key.
    pub api: Api,
    _temporary: Option<tempfile::TempDir>,
}

/// Long enough for any machine; reached only when something hangs.
const HANG: Duration = Duration::from_secs(90);

impl Platform {
    /// Starts a platform with a data directory of its own.
    ///
    /// # Errors
    /// When it does not get ready; the error holds what it printed.
    pub fn fresh() -> Result<Self> {
        Self::start(&Options::default())
    }

    /// Starts a platform and waits until it serves calls.
    ///
    /// # Errors
    /// When it does not get ready; the error holds what it printed.
    pub fn start(options: &Options) -> Result<Self> {
        let temporary = if options.data.is_some() { None } else { Some(tempfile::tempdir()?) };
        let data = match (&options.data, &temporary) {
            (Some(data), _) => data.clone(),
            (None, Some(temporary)) => temporary.path().join("data"),
            (None, None) => bail!("a data directory is either given or temporary"),
        };
        fs::create_dir_all(&data)?;
        let log = data.with_extension("log");
        let mut child = spawn(options, &data, &log)?;
        let started = Instant::now();
        let credentials = loop {
            if let Some(status) = child.try_wait()? {
                bail!("the platform ended with {status}:\n{}", fs::read_to_string(&log).unwrap_or_default());
            }
            if let Some(credentials) = ready(&data) {
                break credentials;
            }
            if started.elapsed() > HANG {
                let _ = child.kill();
                bail!("the platform did not get ready:\n{}", fs::read_to_string(&log).unwrap_or_default());
            }
            std::thread::park_timeout(Duration::from_millis(10));
        };
        Ok(Self { child, stopped: false, data, log, api: Api::new(credentials), _temporary: temporary })
    }

    /// Starts a platform that is expected to refuse, and returns what it printed once it has ended.
    ///
    /// # Errors
    /// When it does not end by itself, or ends well.
    pub fn refused(data: &Path) -> Result<String> {
        let log = data.with_extension("refused.log");
        let mut child = spawn(&Options::default(), data, &log)?;
        let started = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                ensure!(!status.success(), "it ended well");
                return Ok(fs::read_to_string(&log)?);
            }
            if started.elapsed() > HANG {
                child.kill()?;
                child.wait()?;
                bail!("it was not refused:\n{}", fs::read_to_string(&log).unwrap_or_default());
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// The supervisor's pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `host:port` of the listener.
    #[must_use]
    pub fn address(&self) -> &str {
        self.api.address()
    }

    /// A new connection to the listener.
    ///
    /// # Errors
    /// When nobody listens any more.
    pub fn connect(&self) -> Result<Connection> {
        Connection::open(self.address())
    }

    /// What it has printed so far.
    #[must_use]
    pub fn printed(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Runs this platform's command line with its credentials.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn cli(&self, args: &[&str]) -> Result<std::process::Output> {
        let credentials = self.api.credentials();
        let output = Command::new(binary()?)
            .args(args)
            .env("DUNLIN_ENDPOINT", &credentials.endpoint)
            .env("DUNLIN_ACCESS_KEY_ID", &credentials.access_key_id)
            .env("DUNLIN_ACCESS_KEY_SECRET", &credentials.access_key_secret)
            .output()?;
        Ok(output)
    }

    /// Asks it to stop, without waiting.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn terminate(&self) -> Result<()> {
        Ok(kill_process(self.raw_pid()?, Signal::TERM)?)
    }

    /// Kills the supervisor outright.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn kill(mut self) -> Result<PathBuf> {
        self.child.kill()?;
        self.child.wait()?;
        self.stopped = true;
        Ok(self.data.clone())
    }

    /// Asks it to stop and waits for its end.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(mut self) -> Result<ExitStatus> {
        self.stop_and_wait()
    }

    fn stop_and_wait(&mut self) -> Result<ExitStatus> {
        self.stopped = true;
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        self.terminate()?;
        let asked = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if asked.elapsed() > HANG {
                self.child.kill()?;
                self.child.wait()?;
                bail!("the platform did not stop:\n{}", self.printed());
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    fn raw_pid(&self) -> Result<Pid> {
        let pid = i32::try_from(self.child.id())?;
        Pid::from_raw(pid).context("a child has a pid")
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        if !self.stopped
            && let Err(error) = self.stop_and_wait()
        {
            eprintln!("{error:#}");
        }
        if std::thread::panicking() {
            eprintln!("--- the platform printed:\n{}", self.printed());
        }
    }
}

/// Starts `dunlin up` on a port the kernel picks.
fn spawn(options: &Options, data: &Path, log: &Path) -> Result<Child> {
    let output = File::options().create(true).append(true).open(log)?;
    let mut words = options.wrapper.clone();
    words.push(binary()?.display().to_string());
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).arg("up").arg("--data").arg(data).args(["--listen", "127.0.0.1:0"]).args(&options.args);
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    command.spawn().with_context(|| format!("cannot start {}", words.join(" ")))
}

/// The credentials, once `/-/ready` says 200 on the port they name.
fn ready(data: &Path) -> Option<Credentials> {
    let credentials: Credentials = serde_json::from_slice(&fs::read(data.join("credentials.json")).ok()?).ok()?;
    let address = credentials.endpoint.strip_prefix("http://")?;
    let mut connection = Connection::open(address).ok()?;
    let reply = connection.request("GET", "/-/ready", &[("host".into(), address.into())], b"").ok()?;
    (reply.status == 200).then_some(credentials)
}

/// Where `scripts/setup` puts what it installs and builds: `DUNLIN_CACHE`, or a folder of the user's.
///
/// # Panics
/// When neither it nor `HOME` is set.
#[must_use]
pub fn cache() -> PathBuf {
    std::env::var_os("DUNLIN_CACHE")
        .map_or_else(|| PathBuf::from(std::env::var_os("HOME").expect("there is a home")).join(".cache/dunlin"), PathBuf::from)
}

/// The binary under test: `DUNLIN_BIN`, or the one beside this test's own target directory.
fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("DUNLIN_BIN") {
        return Ok(path.into());
    }
    let mut folder = std::env::current_exe()?;
    while folder.pop() {
        let candidate = folder.join("dunlin");
        if candidate.is_file() {
            return Ok(candidate);
        }
        ensure!(folder.parent().is_some(), "build the binary first: cargo build -p dunlin-cli");
    }
    bail!("build the binary first: cargo build -p dunlin-cli")
}
