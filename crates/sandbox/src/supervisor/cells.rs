//! The table of live cells, and how they end.
//!
//! ```text
//!  made ──▶ in the table ──(killed or died: pidfd readable)──▶ reaped ──▶ walls down ──▶ out of the table, told
//! ```
//!
//! # Invariants
//! - A cell leaves the table only when its cgroup is removed and its net namespace and uid are given up.
//! - Whoever asked for a cell's end is answered after that, once.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use dunlin_model::{CellId, Digest};
use rustix::event::{Timespec, epoll};
use rustix::process::{Signal, WaitId, WaitIdOptions};

use super::Shared;
use super::queue::Queue;
use super::session::Session;
use super::unpack::TreeJob;
use crate::cgroup::CellCgroup;
use crate::net::NetNs;
use crate::protocol::{Message, Refusal};
use crate::{Ended, Exit, Net, Step};

/// Cells are made without an exit signal, so that waiting for them has to be asked for by this flag.
const WALL: u32 = 0x4000_0000;

/// Marks what the watch is told about memory, beside the cell's number.
const OOM: u64 = 1 << 63;

const OOM_EVENTS: epoll::EventFlags = epoll::EventFlags::IN.union(epoll::EventFlags::ONESHOT);

/// The kernel tells of a shortage just before it kills somebody for it: how often, and how long, the watch looks
/// whether that was in this cell.
const OOM_GLANCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
const OOM_PATIENCE: Duration = Duration::from_millis(500);

/// How many requests may wait for the end of one cell.
const ENDERS_MAX: usize = 64;

/// One cell.
pub(super) struct LiveCell {
    pub(super) id: CellId,
    pub(super) pidfd: OwnedFd,
    /// Told when it has ended.
    pub(super) owner: Owner,
    /// `None` once the walls are being taken down.
    pub(super) body: Mutex<Option<Body>>,
    /// What it takes to fork it.
    pub(super) template: Option<Template>,
    /// The template it was forked from.
    pub(super) parent: Option<CellId>,
}

/// A cell that can be forked once it is bound.
pub(super) struct Template {
    /// Where it is told to.
    pub(super) control: OwnedFd,
    /// As the host sees it. Good as long as its pidfd leads somewhere.
    pub(super) pid: i32,
    /// Its own, and that of all that are forked from it.
    pub(super) uid: u32,
    /// What those can reach.
    pub(super) net: Net,
}

/// Who is told that a cell has ended.
pub(super) enum Owner {
    Server(Arc<Session>),
    /// The thread that waits for an unpacker; `None` when its walls could not be taken down. It gives the uid back
    /// itself, when nothing of that uid is left on disk.
    Unpack(SyncSender<Option<Ended>>),
}

/// What is taken down at the end.
pub(super) struct Body {
    pub(super) cgroup: CellCgroup,
    pub(super) net: NetNs,
    /// `None` when it is the template's, which outlives all that are forked from it.
    pub(super) uid: Option<u32>,
    /// Closed from inside once every mount of the walls stands; `None` once that was seen.
    pub(super) walls: Option<Arc<OwnedFd>>,
    pub(super) bound: bool,
    /// The tree that is mounted at `/code`.
    pub(super) code: Option<Digest>,
    /// The trees that are mounted at `/opt`.
    pub(super) layers: Vec<Digest>,
    /// What it takes to make an image its root.
    pub(super) container: Option<Container>,
    pub(super) frozen: bool,
    /// It was killed. What of it has not died yet must not be frozen any more: it would never die.
    pub(super) dying: bool,
    /// Becomes readable when the cell may have run out of memory, where the kernel does not end it whole.
    pub(super) oom: Option<OwnedFd>,
}

/// A cell whose root is to be an image.
#[derive(Clone, Copy)]
pub(super) struct Container {
    /// As the host sees it. Good as long as its pidfd leads somewhere.
    pub(super) pid: i32,
    /// What 0 is inside.
    pub(super) first_uid: u32,
}

impl LiveCell {
    pub(super) fn body(&self) -> MutexGuard<'_, Option<Body>> {
        self.body.lock().expect("nothing panics while it holds a cell")
    }

    /// Kills its first process, and the kernel the others.
    pub(super) fn kill(&self) {
        // It may be dead already.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
        if let Some(body) = self.body().as_mut() {
            body.let_die(self.id);
        }
    }

    fn reap(&self) -> Exit {
        let options = WaitIdOptions::EXITED | WaitIdOptions::from_bits_retain(WALL);
        let status = rustix::io::retry_on_intr(|| rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), options));
        match status {
            Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Exit::Code(code),
                (None, Some(signal)) => Exit::Signal(signal),
                (None, None) => Exit::Unknown,
            },
            Ok(None) => Exit::Unknown,
            // A forked cell is its template's child.
            Err(rustix::io::Errno::CHILD) => super::fork::exit_of(&self.pidfd),
            Err(error) => {
                tracing::error!(cell = self.id.0, %error, "cannot wait for a cell");
                Exit::Unknown
            }
        }
    }
}

impl Body {
    /// Stops the cell's processes, or lets them go on. One that is to die is not stopped.
    pub(super) fn freeze(&mut self, frozen: bool) -> io::Result<()> {
        if frozen && self.dying {
            return Ok(());
        }
        self.cgroup.freeze(frozen)?;
        self.frozen = frozen;
        Ok(())
    }

    /// Takes away what keeps killed processes from dying soon: a frozen one does not even die, and with little CPU time
    /// a thousand take long.
    fn let_die(&mut self, cell: CellId) {
        self.dying = true;
        if std::mem::take(&mut self.frozen)
            && let Err(error) = self.cgroup.freeze(false)
        {
            tracing::error!(cell = cell.0, %error, "cannot thaw a cell to end it");
        }
        if let Err(error) = self.cgroup.set_cpu(None) {
            tracing::warn!(cell = cell.0, %error, "cannot lift a dying cell's CPU limit");
        }
    }
}

/// All live cells.
pub(super) struct Cells {
    table: Mutex<HashMap<CellId, Entry>>,
    emptied: Condvar,
    epoll: OwnedFd,
    last: AtomicU64,
    /// Cells that are alive or being made.
    places: AtomicUsize,
    places_max: usize,
    /// Cells whose first process has been waited for.
    pub(super) reaped: Queue<(Arc<LiveCell>, Exit)>,
}

struct Entry {
    cell: Arc<LiveCell>,
    /// The requests that are answered when it is gone.
    enders: Vec<(Arc<Session>, u64)>,
}

/// A place in the table, promised to a cell that is being made.
pub(super) struct Place {
    cells: Arc<Cells>,
    filled: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.filled {
            self.cells.places.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Cells {
    pub(super) fn new(places_max: usize) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            table: Mutex::default(),
            emptied: Condvar::new(),
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            last: AtomicU64::new(0),
            places: AtomicUsize::new(0),
            places_max,
            reaped: Queue::new(usize::MAX),
        }))
    }

    /// A number no cell of this run has had.
    pub(super) fn number(&self) -> CellId {
        CellId(self.last.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// A place for one more cell, unless all are taken.
    pub(super) fn place(self: &Arc<Self>) -> Option<Place> {
        let taken = self.places.fetch_add(1, Ordering::Relaxed);
        let place = Place { cells: Arc::clone(self), filled: false };
        (taken < self.places_max).then_some(place)
    }

    /// Takes a new cell in. From here on its death is noticed.
    pub(super) fn add(&self, cell: Arc<LiveCell>, mut place: Place) -> io::Result<()> {
        let mut table = self.table();
        let data = epoll::EventData::new_u64(cell.id.0);
        epoll::add(&self.epoll, &cell.pidfd, data, epoll::EventFlags::IN | epoll::EventFlags::ONESHOT)?;
        if let Some(oom) = cell.body().as_ref().and_then(|body| body.oom.as_ref()) {
            epoll::add(&self.epoll, oom, epoll::EventData::new_u64(cell.id.0 | OOM), OOM_EVENTS)?;
        }
        place.filled = true;
        table.insert(cell.id, Entry { cell, enders: Vec::new() });
        Ok(())
    }

    pub(super) fn get(&self, cell: CellId) -> Option<Arc<LiveCell>> {
        self.table().get(&cell).map(|entry| Arc::clone(&entry.cell))
    }

    /// Kills a cell; the request is answered when it is gone.
    pub(super) fn end(&self, cell: CellId, session: &Arc<Session>, id: u64) {
        let found = {
            let mut table = self.table();
            match table.get_mut(&cell) {
                None => Err(Refusal::NoSuchCell),
                Some(entry) if entry.enders.len() >= ENDERS_MAX => Err(Refusal::Full),
                Some(entry) => {
                    entry.enders.push((Arc::clone(session), id));
                    Ok(Arc::clone(&entry.cell))
                }
            }
        };
        match found {
            Ok(cell) if cell.template.is_some() => self.kill_family(cell.id),
            Ok(cell) => cell.kill(),
            Err(why) => session.refuse(id, why),
        }
    }

    /// Kills a template and what was forked from it, which would not outlive it; but a frozen cell has to be thawed to die.
    pub(super) fn kill_family(&self, template: CellId) {
        let family: Vec<_> = {
            let table = self.table();
            let own = |cell: &LiveCell| cell.id == template || cell.parent == Some(template);
            table.values().filter(|entry| own(&entry.cell)).map(|entry| Arc::clone(&entry.cell)).collect()
        };
        for cell in family {
            cell.kill();
        }
    }

    /// Kills every cell; they leave the table as they go.
    pub(super) fn kill_all(&self) {
        let all: Vec<_> = self.table().values().map(|entry| Arc::clone(&entry.cell)).collect();
        for cell in all {
            cell.kill();
        }
    }

    /// Waits until no cell is left. False when it took longer than `patience`.
    pub(super) fn wait_until_empty(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut table = self.table();
        while !table.is_empty() {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return false };
            table = self.emptied.wait_timeout(table, left).expect("nothing panics while it holds the table").0;
        }
        true
    }

    /// The thread `reap`: waits for deaths until `stop` becomes readable.
    pub(super) fn watch(&self, stop: BorrowedFd<'_>) -> io::Result<()> {
        epoll::add(&self.epoll, stop, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
        let mut events = Vec::with_capacity(64);
        let mut suspects: Vec<(CellId, Instant)> = Vec::new();
        loop {
            events.clear();
            suspects.retain(|(cell, until)| self.suspect(*cell) && Instant::now() < *until);
            let patience = (!suspects.is_empty()).then_some(&OOM_GLANCE);
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), patience) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                let number = event.data.u64();
                if number == 0 {
                    return Ok(());
                }
                if number & OOM != 0 {
                    let cell = CellId(number & !OOM);
                    suspects.retain(|(known, _)| *known != cell);
                    suspects.push((cell, Instant::now() + OOM_PATIENCE));
                    continue;
                }
                let Some(cell) = self.get(CellId(number)) else { continue };
                let exit = cell.reap();
                // The queue has no bound of its own: it never holds more than the table.
                if self.reaped.push((cell, exit)).is_err() {
                    return Ok(());
                }
            }
        }
    }

    /// Ends a cell whole in which somebody was killed for want of memory. True while it is not known.
    fn suspect(&self, number: CellId) -> bool {
        let Some(cell) = self.get(number) else { return false };
        {
            let body = cell.body();
            let Some((body, oom)) = body.as_ref().and_then(|body| Some((body, body.oom.as_ref()?))) else { return false };
            if !body.cgroup.oom_count().is_ok_and(|count| count > 0) {
                // Taken note of, and told again when it happens again.
                let _ = rustix::io::read(oom, &mut [0; 8]);
                let again = epoll::modify(&self.epoll, oom, epoll::EventData::new_u64(number.0 | OOM), OOM_EVENTS);
                if let Err(error) = again {
                    tracing::error!(cell = number.0, %error, "cannot watch a cell's memory");
                }
                return true;
            }
        }
        cell.kill();
        false
    }

    /// The threads `teardown`: take walls down until the queue is closed.
    pub(super) fn tear_down(&self, shared: &Shared) {
        while let Some((cell, exit)) = self.reaped.wait() {
            let Some(body) = cell.body().take() else { continue };
            self.take_down(shared, &cell, body, exit);
        }
    }

    fn take_down(&self, shared: &Shared, cell: &LiveCell, mut body: Body, exit: Exit) {
        let id = cell.id;
        // Its first process may have ended by itself.
        body.let_die(id);
        let ended = Ended {
            exit,
            out_of_memory: body.cgroup.oom_count().is_ok_and(|count| count > 0),
            cpu_us: body.cgroup.cpu_us().unwrap_or(0),
        };
        let removed = body.cgroup.remove();
        drop(body.net);
        for package in body.code.into_iter().chain(body.layers) {
            for name in shared.trees.release(package) {
                // The next start removes it when the queue is full.
                drop(shared.trees_queue.push(TreeJob::Remove { name }));
            }
        }
        let failure = match removed {
            Ok(()) => {
                if let (Owner::Server(_), Some(uid)) = (&cell.owner, body.uid) {
                    shared.uids().give_back(uid);
                }
                None
            }
            Err(error) => {
                // The uid is not given back: something may still run under it. The next start sweeps.
                tracing::error!(cell = id.0, error = &error as &dyn std::error::Error, "cannot remove a cgroup");
                Some(Refusal::Failed { step: Step::Cgroup, errno: libc::EBUSY })
            }
        };
        let entry = {
            let mut table = self.table();
            let entry = table.remove(&id);
            self.places.fetch_sub(1, Ordering::Relaxed);
            if table.is_empty() {
                self.emptied.notify_all();
            }
            entry
        };
        match &cell.owner {
            Owner::Server(session) => session.say(&Message::Ended { cell: id, ended }, &[]),
            // Nobody waits any more when the unpacking thread gave up.
            Owner::Unpack(waiting) => drop(waiting.try_send(failure.is_none().then_some(ended))),
        }
        for (session, request) in entry.into_iter().flat_map(|entry| entry.enders) {
            match failure {
                None => session.say(&Message::Done { id: request }, &[]),
                Some(why) => session.refuse(request, why),
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, HashMap<CellId, Entry>> {
        self.table.lock().expect("nothing panics while it holds the table")
    }
}
