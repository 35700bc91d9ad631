//! Connections a test reads and writes by itself, and what they do to the platform's memory.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::Platform;

/// A connection that has sent the head of a request.
///
/// # Errors
/// There is no connection to be had.
pub fn asked(platform: &Platform, head: &str) -> Result<TcpStream> {
    let mut socket = TcpStream::connect(platform.address())?;
    socket.set_read_timeout(Some(Duration::from_secs(120)))?;
    socket.write_all(head.as_bytes())?;
    Ok(socket)
}

/// Reads until `end` has come and returns everything.
///
/// # Errors
/// The connection ends first.
pub fn read_until(socket: &mut TcpStream, end: &str) -> Result<String> {
    let mut text = String::new();
    let mut piece = [0; 512];
    while !text.contains(end) {
        let bytes = socket.read(&mut piece)?;
        ensure!(bytes > 0, "the connection ended after {text:?}");
        text.push_str(&String::from_utf8_lossy(&piece[..bytes]));
    }
    Ok(text)
}

/// Waits until `condition` holds.
///
/// # Errors
/// It fails, or does not come true within a minute.
pub fn eventually(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let started = Instant::now();
    while !condition()? {
        ensure!(started.elapsed() < Duration::from_secs(60), "{what} did not come true");
        thread::park_timeout(Duration::from_millis(10));
    }
    Ok(())
}

/// The unprivileged process of the platform.
fn server_pid(platform: &Platform) -> Result<String> {
    let children = format!("/proc/{0}/task/{0}/children", platform.pid());
    let children = fs::read_to_string(children)?;
    let is_server = |pid: &&str| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.split(|byte| *byte == 0).nth(1) == Some(b"server"))
    };
    Ok(children.split_whitespace().find(is_server).context("the platform has a server process")?.to_owned())
}

fn resident(pid: &str, member: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(member)).context("the kernel counts memory")?;
    Ok(line.split_whitespace().next().context("a number")?.parse::<u64>()? << 10)
}

/// How far above what is resident now the server's memory rises while `doing`.
///
/// # Errors
/// `doing` fails, or the kernel does not say.
pub fn growth(platform: &Platform, doing: impl FnOnce() -> Result<()>) -> Result<u64> {
    let pid = server_pid(platform)?;
    // 5 forgets the peak.
    fs::write(Path::new("/proc").join(&pid).join("clear_refs"), "5")?;
    let before = resident(&pid, "VmRSS:")?;
    doing()?;
    Ok(resident(&pid, "VmHWM:")?.saturating_sub(before))
}
