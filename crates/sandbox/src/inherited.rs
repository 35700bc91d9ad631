//! What the server process is started with.
//!
//! Descriptor 0 is a pipe with one line of JSON, the [`BootFacts`]; 3 is the socket to the supervisor; the listeners
//! follow from 4 on, and after them, when cells reach the internet, the sockets that answer their name queries.

use std::io::{self, Read};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use dunlin_model::Interpreters;
use serde::{Deserialize, Serialize};

use crate::net::dns::DnsSockets;
use crate::{Credentials, sys};

/// The first descriptor after stdio.
const SUPERVISOR: i32 = 3;

/// What the supervisor tells the server at its start.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BootFacts {
    /// The directory the server keeps its state in.
    pub state_dir: PathBuf,
    /// The id of this data directory.
    pub installation: String,
    /// The root key.
    pub root: Credentials,
    /// What functions are served by.
    pub interpreters: Interpreters,
    pub(crate) listeners: usize,
    pub(crate) dns: bool,
}

/// Everything the server was given.
#[derive(Debug)]
pub struct Inherited {
    /// What it is told.
    pub facts: BootFacts,
    /// For [`crate::Client::new`].
    pub supervisor: OwnedFd,
    /// Bound and listening, in the order of [`crate::supervisor::Config::listeners`].
    pub listeners: Vec<TcpListener>,
    /// Where cells' name queries arrive; `None` when cells reach no internet.
    pub dns: Option<DnsSockets>,
}

/// Takes what this process was started with. Fails when it was not started by a supervisor, and when it is called twice.
pub fn inherited() -> io::Result<Inherited> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, "this process was not started by a supervisor");
    let supervisor = sys::inherited(SUPERVISOR).ok_or_else(missing)?;
    let mut line = String::new();
    io::stdin().lock().take(64 * 1024).read_to_string(&mut line)?;
    let facts: BootFacts = serde_json::from_str(&line)?;
    let mut numbers = SUPERVISOR + 1..;
    let mut take = || numbers.next().and_then(sys::inherited).ok_or_else(missing);
    let mut listeners = Vec::new();
    for _ in 0..facts.listeners {
        listeners.push(TcpListener::from(take()?));
    }
    let dns = if facts.dns { Some(DnsSockets { udp: take()?, tcp: take()? }) } else { None };
    Ok(Inherited { facts, supervisor, listeners, dns })
}
