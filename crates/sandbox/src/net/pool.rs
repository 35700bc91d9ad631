//! The two threads behind [`NetPool`](super::NetPool).
//!
//! `net` makes namespaces ahead of need and takes down the links of those that are done with; `net-calls` opens sockets
//! inside them, so that a cell on its way to a call never waits behind a namespace that is being made. What they
//! share is one lock around two short queues.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::NetError;
use super::guard::Guard;
use super::links::{Link, Made, Workshop, at, inside, this_namespace};

/// How long [`Pool::take`] waits for a namespace: far longer than a host under load needs for one.
const TAKE_MAX: Duration = Duration::from_secs(10);
/// How long the thread pauses after the kernel refused it a namespace.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// Calls waiting for `net-calls`. Callers are the supervisor's few threads, so this is never full.
const CALLS_MAX: usize = 64;

/// What a ready namespace has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Loopback,
    Linked,
}

#[derive(Debug, Default)]
struct Shelf {
    ready: VecDeque<Made>,
    target: usize,
    waiting: usize,
}

#[derive(Debug, Default)]
struct State {
    loopback: Shelf,
    linked: Shelf,
    done_with: Vec<Link>,
    adopting: VecDeque<Adoption>,
    /// Counts failures to make a namespace, so that those who wait hear of one.
    failures: u64,
    last_failure: Option<(&'static str, Option<i32>)>,
    stopping: bool,
    ended: bool,
}

impl State {
    fn shelf(&mut self, kind: Kind) -> &mut Shelf {
        match kind {
            Kind::Loopback => &mut self.loopback,
            Kind::Linked => &mut self.linked,
        }
    }

    /// What to make next: for those who wait first, then for the emptier shelf.
    fn wanted(&self) -> Option<Kind> {
        let shelves = [(Kind::Loopback, &self.loopback), (Kind::Linked, &self.linked)];
        let short = |shelf: &Shelf| (shelf.target + shelf.waiting).saturating_sub(shelf.ready.len());
        let urgent = |shelf: &Shelf| shelf.waiting.saturating_sub(shelf.ready.len());
        shelves
            .into_iter()
            .filter(|(_, shelf)| short(shelf) > 0)
            .max_by_key(|(_, shelf)| (urgent(shelf), short(shelf)))
            .map(|(kind, _)| kind)
    }
}

/// A namespace that is there already, of a process that waits for what it lacks.
#[derive(Debug)]
struct Adoption {
    ns: OwnedFd,
    kind: Kind,
    reply: SyncSender<Result<Made, NetError>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// The thread waits here for work, takers for namespaces.
    work: Condvar,
    news: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The running threads.
#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<Shared>,
    calls: SyncSender<Call>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// How a namespace reaches the threads, for as long as they run.
#[derive(Clone, Debug)]
pub(super) struct Reach {
    shared: Arc<Shared>,
    calls: SyncSender<Call>,
}

/// A socket is wanted inside a namespace.
#[derive(Debug)]
struct Call {
    ns: Arc<OwnedFd>,
    reply: SyncSender<Result<OwnedFd, NetError>>,
}

impl Pool {
    /// Starts both threads in the calling thread's net namespace. The rules `guard` keeps go at the end.
    pub(super) fn start(workshop: Workshop, loopback: usize, linked: usize, guard: Option<Guard>) -> Result<Self, NetError> {
        let shared = Arc::new(Shared::default());
        {
            let mut state = shared.lock();
            state.loopback.target = loopback;
            state.linked.target = linked;
        }
        let (calls, incoming) = mpsc::sync_channel(CALLS_MAX);
        let home = this_namespace().map_err(at("find this thread's net namespace"))?;
        let name = |name: &str| std::thread::Builder::new().name(name.to_owned());
        name("net-calls").spawn(move || answer(&incoming, &home)).map_err(at("start a thread"))?;
        let inner = Arc::clone(&shared);
        let thread = name("net").spawn(move || fill(&inner, workshop, guard)).map_err(at("start a thread"))?;
        Ok(Self { shared, calls, thread: Some(thread) })
    }

    pub(super) fn reach(&self) -> Reach {
        Reach { shared: Arc::clone(&self.shared), calls: self.calls.clone() }
    }

    /// A ready namespace, or the next one made.
    pub(super) fn take(&self, kind: Kind) -> Result<Made, NetError> {
        let deadline = Instant::now() + TAKE_MAX;
        let mut state = self.shared.lock();
        state.shelf(kind).waiting += 1;
        let failures = state.failures;
        let taken = loop {
            self.shared.work.notify_one();
            if state.ended {
                break Err(NetError::Gone);
            }
            if let Some(made) = state.shelf(kind).ready.pop_front() {
                break Ok(made);
            }
            if let (true, Some((what, errno))) = (state.failures != failures, state.last_failure) {
                let source = errno.map_or_else(|| io::ErrorKind::Other.into(), io::Error::from_raw_os_error);
                break Err(NetError::Io { what, source });
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break Err(NetError::Io { what: "make a net namespace in time", source: io::ErrorKind::TimedOut.into() });
            }
            state = self.shared.news.wait_timeout(state, left).unwrap_or_else(std::sync::PoisonError::into_inner).0;
        };
        state.shelf(kind).waiting -= 1;
        taken
    }
}

impl Pool {
    /// Furnishes a namespace that is there already.
    pub(super) fn adopt(&self, ns: OwnedFd, kind: Kind) -> Result<Made, NetError> {
        let (reply, answer) = mpsc::sync_channel(1);
        self.shared.lock().adopting.push_back(Adoption { ns, kind, reply });
        self.shared.work.notify_one();
        answer.recv().map_err(|_| NetError::Gone)?
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.work.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Reach {
    pub(super) fn socket(&self, ns: &Arc<OwnedFd>) -> Result<OwnedFd, NetError> {
        let (reply, answer) = mpsc::sync_channel(1);
        self.calls.send(Call { ns: Arc::clone(ns), reply }).map_err(|_| NetError::Gone)?;
        answer.recv().map_err(|_| NetError::Gone)?
    }

    /// Has the link deleted and its address freed, soon.
    pub(super) fn done_with(&self, link: Link) {
        self.shared.lock().done_with.push(link);
        self.shared.work.notify_one();
    }
}

/// The thread `net`.
fn fill(shared: &Shared, mut workshop: Workshop, guard: Option<Guard>) {
    let mut state = shared.lock();
    while !state.stopping {
        if let Some(Adoption { ns, kind, reply }) = state.adopting.pop_front() {
            drop(state);
            let made = match kind {
                Kind::Loopback => workshop.furnish(ns),
                Kind::Linked => workshop.link_into(ns),
            };
            let lost = matches!(made, Err(NetError::Lost(_)));
            // Whoever asked waits.
            let _ = reply.send(made);
            state = shared.lock();
            if lost {
                state.ended = true;
                state.adopting.clear();
                return;
            }
            continue;
        }
        if let Some(kind) = state.wanted() {
            drop(state);
            let made = match kind {
                Kind::Loopback => workshop.loopback(),
                Kind::Linked => workshop.linked(),
            };
            state = shared.lock();
            match made {
                Ok(made) => state.shelf(kind).ready.push_back(made),
                Err(error) => {
                    let lost = matches!(error, NetError::Lost(_));
                    tracing::error!(error = &error as &dyn std::error::Error, "no net namespace could be made");
                    state.failures += 1;
                    state.last_failure = Some(match &error {
                        NetError::Io { what, source } => (what, source.raw_os_error()),
                        NetError::Lost(source) => ("return from a net namespace", source.raw_os_error()),
                        NetError::Gone => ("make a net namespace", None),
                    });
                    shared.news.notify_all();
                    if lost {
                        // In a cell's namespace nothing this thread does is right any more.
                        state.ended = true;
                        return;
                    }
                    state = shared.work.wait_timeout(state, RETRY_AFTER).unwrap_or_else(std::sync::PoisonError::into_inner).0;
                }
            }
            shared.news.notify_all();
            if state.loopback.waiting + state.linked.waiting > 0 {
                continue;
            }
        } else if state.done_with.is_empty() {
            state = shared.work.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
            continue;
        }
        let done_with = std::mem::take(&mut state.done_with);
        drop(state);
        for link in done_with {
            if let Err(error) = workshop.dispose(link) {
                // Its address stays taken; the next start's sweep tries again.
                tracing::error!(error = &error as &dyn std::error::Error, "a cell's link stays behind");
            }
        }
        state = shared.lock();
    }
    state.ended = true;
    state.loopback.ready.clear();
    state.linked.ready.clear();
    state.adopting.clear();
    drop(state);
    shared.news.notify_all();
    let swept = workshop.sweep().map_err(|error| error.to_string());
    let removed = guard.map_or(Ok(()), |guard| guard.remove().map_err(|error| error.to_string()));
    for error in [swept, removed].into_iter().filter_map(Result::err) {
        tracing::warn!(error, "the network is not all taken down; the next start sweeps it");
    }
}

/// The thread `net-calls`. Ends when nobody is left to call it.
fn answer(calls: &Receiver<Call>, home: &OwnedFd) {
    while let Ok(Call { ns, reply }) = calls.recv() {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let open = || Ok(rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?);
        let opened = inside(home, &ns, open);
        let lost = matches!(opened, Err(NetError::Lost(_)));
        // Whoever asked may have gone meanwhile.
        let _ = reply.send(opened);
        if lost {
            return;
        }
    }
}
