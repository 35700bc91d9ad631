//! Unpacks a package: a disposable cell does it, and what it leaves is made root's and read-only before it is named.
//!
//! ```text
//! trees/.tmp-<n> (the cell's) ──▶ mounted at /w/out of an unpacker ──▶ it ends with 0 ──▶ owner, modes, sync
//!                                                                                    ──▶ renamed to trees/<digest>
//! ```
//!
//! What the unpacker reports is passed on unread; whether the tree is kept depends on its exit status alone.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use dunlin_model::Digest;
use dunlin_walls as walls;
use rustix::event::{PollFd, PollFlags, Timespec};

use super::Shared;
use super::bind::{Doorway, attach, detach, wait_for_walls};
use super::make::{Made, MakeFor, MakeJob};
use super::session::Session;
use super::trees::Owners;
use crate::protocol::{Message, REPORT_MAX, Refusal};
use crate::unpacker::Order;
use crate::{Ended, Exit, Net, Prepare, Step, UnpackLimits};

const DEADLINE: Duration = Duration::from_secs(120);
/// For an image, of up to ten gigabytes.
const IMAGE_DEADLINE: Duration = Duration::from_secs(600);
const MEMORY_BYTES: u64 = 256 << 20;
/// A compiler holds what it reads, what it writes, and several times as much in between.
const COMPILER_MEMORY_BYTES: u64 = 1 << 30;
/// What a preparation may add to the entries of a package.
const PREPARED_ENTRIES_MAX: u64 = 32;
const PIDS: u32 = 16;

/// The most a package may unpack to, whatever the server asks for.
const BYTES_MAX: u64 = 16 << 30;
const ENTRIES_MAX: u64 = 200_000;
const IMAGE_ENTRIES_MAX: u64 = 1_000_000;

/// Work on the trees.
pub(super) enum TreeJob {
    Unpack {
        session: Arc<Session>,
        id: u64,
        package: Digest,
        zip: OwnedFd,
        order: Order,
    },
    Discard {
        session: Arc<Session>,
        id: u64,
        package: Digest,
    },
    /// Removes a tree that was discarded while cells had it mounted.
    Remove {
        name: String,
    },
}

/// A thread `trees`: works until the queue is closed.
pub(super) fn run(shared: &Shared) -> io::Result<()> {
    let doorway = Doorway::open()?;
    while let Some(job) = shared.trees_queue.wait() {
        match job {
            TreeJob::Unpack { session, id, package, zip, order } => {
                if session.over() {
                    continue;
                }
                match unpack(shared, &doorway, package, zip, order) {
                    Ok(Unpacked::Present) => session.say(&Message::Present { id }, &[]),
                    Ok(Unpacked::Ended { ended, report }) => {
                        session.say(&Message::Unpacked { id, ended, report }, &[]);
                    }
                    Err(why) => session.refuse(id, why),
                }
            }
            TreeJob::Discard { session, id, package } => match shared.trees.discard(package) {
                Ok(()) => session.say(&Message::Done { id }, &[]),
                Err(error) => session.refuse(id, Refusal::failed(Step::Tree, &error)),
            },
            TreeJob::Remove { name } => {
                if let Err(error) = shared.trees.remove_temporary(&name) {
                    tracing::error!(%error, "cannot remove a discarded tree");
                }
            }
        }
    }
    Ok(())
}

enum Unpacked {
    Present,
    Ended { ended: Ended, report: Vec<u8> },
}

fn unpack(shared: &Shared, doorway: &Doorway, package: Digest, zip: OwnedFd, order: Order) -> Result<Unpacked, Refusal> {
    let Order { limits, prepare } = order;
    // What an image says about its programs is in the report only.
    if prepare != Prepare::Image && shared.trees.contains(package).map_err(tree_failed)? {
        return Ok(Unpacked::Present);
    }
    let (kind, entries_max) = match prepare {
        Prepare::Nothing | Prepare::Wasm => (walls::CellKind::Unpacker, ENTRIES_MAX),
        Prepare::Image => (walls::CellKind::ImageUnpacker, IMAGE_ENTRIES_MAX),
    };
    let limits = UnpackLimits { bytes: limits.bytes.min(BYTES_MAX), entries: limits.entries.min(entries_max) };
    let entries_max = limits.entries + if prepare == Prepare::Nothing { 0 } else { PREPARED_ENTRIES_MAX };
    let (ended_sender, ended) = mpsc::sync_channel(1);
    let (made_sender, made) = mpsc::sync_channel(1);
    let wanted = MakeFor::Unpack { package: zip, ended: ended_sender, made: made_sender };
    let job = MakeJob { kind, net: Net::Loopback, wanted };
    shared.launchers.push(job).map_err(|_| Refusal::Full)?;
    // The queue was closed before the job's turn came: the supervisor stops.
    let stopping = Refusal::Failed { step: Step::Spawner, errno: libc::ESHUTDOWN };
    let made = made.recv().map_err(|_| stopping)??;
    let uid = made.uid;
    let owners = if prepare == Prepare::Image { Owners::Range(uid) } else { Owners::One(uid) };
    let cell = Arc::clone(&made.cell);
    let worked = supervise(shared, doorway, made, &ended, Order { limits, prepare });
    cell.kill();
    let (temporary, outcome) = match worked {
        Ok((temporary, outcome)) => (Some(temporary), Ok(outcome)),
        Err((temporary, why)) => (temporary, Err(why)),
    };
    // Whatever happened, nothing is touched before the unpacker is gone.
    if outcome.is_err() && !matches!(ended.recv(), Ok(Some(_))) {
        // Something of it may still run: its uid and its files are left to the sweep of the next start.
        return outcome.map(|_| Unpacked::Present);
    }
    let result = outcome.and_then(|(ended, report)| {
        let temporary = temporary.as_deref().expect("an unpacker ran in it");
        if ended.exit == Exit::Code(0) {
            let published = shared.trees.publish(temporary, owners, entries_max, package);
            published.map_err(|error| Refusal::failed(Step::Publish, &error))?;
        }
        Ok(Unpacked::Ended { ended, report })
    });
    let cleaned = temporary.map_or(Ok(()), |temporary| shared.trees.remove_temporary(&temporary));
    match cleaned {
        Ok(()) => shared.uids().give_back(uid),
        // The uid is kept while files of it may be left.
        Err(error) => tracing::error!(%error, "cannot remove what an unpacker left"),
    }
    result
}

/// The name of the temporary tree, if there is one yet, and why it is useless.
type Failed = (Option<String>, Refusal);

/// Gives the unpacker its place and its order, and reads what it says until it has ended.
fn supervise(
    shared: &Shared,
    doorway: &Doorway,
    made: Made,
    ended: &mpsc::Receiver<Option<Ended>>,
    order: Order,
) -> Result<(String, (Ended, Vec<u8>)), Failed> {
    let deadline = Instant::now() + if order.prepare == Prepare::Image { IMAGE_DEADLINE } else { DEADLINE };
    let temporary = shared.trees.make_temporary(made.uid).map_err(|error| (None, tree_failed(error)))?;
    let name = temporary.name.clone();
    let failed = |step: Step| {
        let name = name.clone();
        move |error: io::Error| (Some(name), Refusal::failed(step, &error))
    };
    wait_for_walls(&made.cell).map_err(failed(Step::Spawner))?;
    {
        let mut body = made.cell.body();
        let body = body.as_mut().ok_or((Some(name.clone()), Refusal::Failed { step: Step::Kill, errno: libc::ESRCH }))?;
        body.bound = true;
        let memory_bytes = if order.prepare == Prepare::Wasm { COMPILER_MEMORY_BYTES } else { MEMORY_BYTES };
        body.cgroup.set_limits(memory_bytes, PIDS).map_err(failed(Step::Cgroup))?;
        let out = detach(&temporary.directory, true).map_err(failed(Step::Tree))?;
        doorway.inside(&made.cell.pidfd, || attach(&out, c"/w/out")).map_err(failed(Step::Mount))?;
    }
    drop(temporary);
    let order = order.encode();
    // It may be dead already; then its end says why.
    let _ = rustix::net::send(&made.channel, &order, rustix::net::SendFlags::NOSIGNAL);
    let report = listen(&made, deadline).map_err(failed(Step::Descriptors))?;
    let Some(report) = report else {
        return Err((Some(name), Refusal::TimedOut));
    };
    let left = deadline.saturating_duration_since(Instant::now());
    match ended.recv_timeout(left) {
        Ok(Some(ended)) => Ok((name, (ended, report))),
        Ok(None) | Err(RecvTimeoutError::Disconnected) => {
            Err((Some(name), Refusal::Failed { step: Step::Cgroup, errno: libc::EBUSY }))
        }
        Err(RecvTimeoutError::Timeout) => Err((Some(name), Refusal::TimedOut)),
    }
}

/// Reads the report until the unpacker closes it. What it prints is read, so that it never blocks, and thrown away.
/// `None` when the deadline passed.
fn listen(made: &Made, deadline: Instant) -> io::Result<Option<Vec<u8>>> {
    let mut report = Vec::new();
    let mut log_open = true;
    let mut buffer = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let patience = Timespec::try_from(left).expect("a few minutes fit");
        let mut polled = [PollFd::new(&made.channel, PollFlags::IN), PollFd::new(&made.log, PollFlags::IN)];
        let watched = if log_open { &mut polled[..] } else { &mut polled[..1] };
        if rustix::io::retry_on_intr(|| rustix::event::poll(watched, Some(&patience)))? == 0 {
            return Ok(None);
        }
        if log_open && !polled[1].revents().is_empty() {
            log_open = rustix::io::read(&made.log, &mut buffer)? > 0;
        }
        if !polled[0].revents().is_empty() {
            match rustix::io::read(made.channel.as_fd(), &mut buffer) {
                Ok(0) | Err(rustix::io::Errno::CONNRESET) => return Ok(Some(report)),
                Ok(length) => {
                    report.extend_from_slice(&buffer[..length]);
                    if report.len() > REPORT_MAX {
                        return Err(io::ErrorKind::InvalidData.into());
                    }
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "made for map_err")]
fn tree_failed(error: io::Error) -> Refusal {
    Refusal::failed(Step::Tree, &error)
}
