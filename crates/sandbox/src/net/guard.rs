//! Keeps the rules in place.
//!
//! Without them a link is an open way into the host, and other programs take rules away without asking: `nft flush
//! ruleset` stands at the top of most hand-written firewalls and runs at every reload. The kernel tells of each change;
//! after one the rules are looked at, and loaded again if they are not what they were.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};

use super::firewall::{self, LoadError, nft};

/// The kernel's group for changes to rules (`NFNLGRP_NFTABLES`), as a bit.
const CHANGES: u32 = 1 << (7 - 1);
/// How long to wait before rules that could not be loaded are tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The loaded rules and the thread that watches over them.
#[derive(Debug)]
pub(super) struct Guard {
    table: String,
    stop: OwnedFd,
    /// Never sent on; dropping it wakes the thread from waiting for the next try.
    going: Option<mpsc::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Guard {
    /// Loads `rules`, which make `table`, in the calling thread's net namespace and watches over them.
    pub(super) fn load(table: String, rules: String) -> Result<Self, LoadError> {
        // First the ear, then the rules: no change goes unheard.
        let changes = listen().map_err(LoadError::Run)?;
        firewall::load(&rules)?;
        let expected = describe(&table)?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC).map_err(|errno| LoadError::Run(errno.into()))?;
        let stopping = stop.try_clone().map_err(LoadError::Run)?;
        let (going, gone) = mpsc::channel();
        let watched = table.clone();
        let watch = move || {
            while wait(&changes, &stopping) {
                while describe(&watched).ok().as_deref() != Some(expected.as_str()) {
                    tracing::error!(table = watched, "somebody changed the rules around functions; loading them again");
                    match firewall::load(&rules) {
                        Ok(()) => break,
                        Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "functions are not fenced in"),
                    }
                    if gone.recv_timeout(RETRY_AFTER) == Err(RecvTimeoutError::Disconnected) {
                        return;
                    }
                }
            }
        };
        let thread = std::thread::Builder::new().name("net-guard".to_owned()).spawn(watch).map_err(LoadError::Run)?;
        Ok(Self { table, stop, going: Some(going), thread: Some(thread) })
    }

    /// Stops watching and takes the rules away.
    pub(super) fn remove(mut self) -> Result<(), LoadError> {
        self.end();
        firewall::load(&firewall::remove(&self.table))
    }

    fn end(&mut self) {
        self.going = None;
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.end();
    }
}

/// The table's chains and rules, without what its sets hold at the moment.
fn describe(table: &str) -> Result<String, LoadError> {
    nft(&["--terse", "--stateless", "list", "table", "inet", table], "")
}

fn listen() -> std::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(NETFILTER))?;
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, CHANGES))?;
    Ok(socket)
}

/// Waits for a change; false when it is time to stop.
fn wait(changes: &OwnedFd, stop: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(changes, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
    while poll(&mut fds, None) == Err(rustix::io::Errno::INTR) {}
    if !fds[1].revents().is_empty() {
        return false;
    }
    // What changed does not matter, nor whether the kernel had to drop some of the news.
    let mut news = [0; 4096];
    while !matches!(rustix::net::recv(changes.as_fd(), news.as_mut_slice(), RecvFlags::DONTWAIT), Err(rustix::io::Errno::AGAIN)) {
    }
    true
}
