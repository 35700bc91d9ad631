//! What the main thread does while a platform runs: it waits for its children, for orders and for the word to stop.
//!
//! # Invariants
//! - A server that dies is started again on the same listeners, after a pause that grows; its cells die with it.
//! - A server that ends on purpose ends the platform, with its own exit status.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::Signal;

use super::children::{Nursery, Process};
use super::run::{RunError, ServerPlan, io_failed, join, start};
use super::session::Session;
use super::{Order, Shared};
use crate::{Exit, seqpacket};

/// The pause before a dead server is started again: doubled each time, up to the second, forgotten after the third.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
const HEALTHY: Duration = Duration::from_secs(30);
/// A server that dies as often without once being healthy is not started again.
const DEATHS_MAX: u32 = 10;

/// How long a server may live on without its socket: closing a store and leaving takes a moment.
const LINGER_MAX: Duration = Duration::from_secs(5);

/// How many threads read what the server asks for.
const READERS: usize = 2;

/// The supervisor's own exit status when it gives its server up.
const EXIT_GAVE_UP: u8 = 70;

/// The main thread's state.
pub(super) struct Main {
    pub(super) shared: Arc<Shared>,
    pub(super) orders: Receiver<Order>,
    pub(super) nursery: Nursery,
    pub(super) plan: Option<ServerPlan>,
    pub(super) grace: Duration,
    pub(super) spawners: Vec<Process>,
    pub(super) server: Option<Server>,
    /// How many sessions there have been: the number of the newest.
    pub(super) sessions: u64,
    /// When the server is to be started.
    pub(super) start_at: Option<Instant>,
    /// When a server that has closed its socket is killed.
    pub(super) kill_at: Option<Instant>,
    pub(super) pause: Duration,
    pub(super) deaths: u32,
    /// Set once the platform is to stop: the server is killed then.
    pub(super) stop_by: Option<Instant>,
    pub(super) verdict: Option<Result<ExitCode, RunError>>,
}

/// One life of the server.
pub(super) struct Server {
    /// `None` when a test is the server.
    pub(super) process: Option<Process>,
    pub(super) session: Arc<Session>,
    pub(super) readers: Vec<JoinHandle<()>>,
    pub(super) since: Instant,
}

impl Main {
    pub(super) fn new(shared: Arc<Shared>, orders: Receiver<Order>, nursery: Nursery, grace: Duration) -> Self {
        Self {
            shared,
            orders,
            nursery,
            plan: None,
            grace,
            spawners: Vec::new(),
            server: None,
            sessions: 0,
            start_at: None,
            kill_at: None,
            pause: PAUSE_FIRST,
            deaths: 0,
            stop_by: None,
            verdict: None,
        }
    }

    pub(super) fn serve(&mut self, stop: &OwnedFd) -> Result<ExitCode, RunError> {
        loop {
            if let Some(verdict) = self.verdict.take() {
                return verdict;
            }
            let now = Instant::now();
            if self.start_at.is_some_and(|at| at <= now) {
                self.start_at = None;
                self.start_server()?;
            }
            if self.stop_by.is_some_and(|by| by <= now) {
                tracing::warn!("the server did not stop in time");
                return Ok(ExitCode::SUCCESS);
            }
            if self.kill_at.is_some_and(|at| at <= now) {
                self.kill_at = None;
                if let Some(process) = self.server.as_ref().and_then(|server| server.process.as_ref()) {
                    process.signal(Signal::KILL);
                }
            }
            let wake_at = [self.start_at, self.kill_at, self.stop_by].into_iter().flatten().min();
            match self.wait(stop.as_fd(), wake_at).map_err(io_failed("wait"))? {
                Woken::Nothing => {}
                Woken::Stop => self.stop(),
                Woken::Orders => self.take_orders()?,
                Woken::Server => self.server_died(),
                Woken::Spawner(index) => {
                    let exit = self.spawners.swap_remove(index).reap();
                    tracing::info!(%exit, "a spawner ended");
                }
            }
        }
    }

    fn wait(&self, stop: BorrowedFd<'_>, wake_at: Option<Instant>) -> io::Result<Woken> {
        let mut polled = vec![PollFd::new(&stop, PollFlags::IN), PollFd::new(&self.shared.wake, PollFlags::IN)];
        polled.extend(self.spawners.iter().map(|spawner| PollFd::new(&spawner.pidfd, PollFlags::IN)));
        let server = self.server.as_ref().and_then(|server| server.process.as_ref());
        polled.extend(server.map(|process| PollFd::new(&process.pidfd, PollFlags::IN)));
        let patience = wake_at.map(|at| {
            let left = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            Timespec::try_from(left).expect("the grace and the pauses fit")
        });
        match rustix::event::poll(&mut polled, patience.as_ref()) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(Woken::Nothing),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let ready = |index: usize| !polled[index].revents().is_empty();
        if ready(0) {
            // A signal is taken out, so that the next one is seen; what a test wrote says the same each time.
            let mut ignored = [0; 128];
            rustix::io::retry_on_intr(|| rustix::io::read(stop, &mut ignored))?;
            return Ok(Woken::Stop);
        }
        if ready(1) {
            return Ok(Woken::Orders);
        }
        let spawners = self.spawners.len();
        if let Some(index) = (0..spawners).find(|index| ready(2 + index)) {
            return Ok(Woken::Spawner(index));
        }
        Ok(Woken::Server)
    }

    fn stop(&mut self) {
        let now = Instant::now();
        match self.server.as_ref().and_then(|server| server.process.as_ref()) {
            None => self.verdict = Some(Ok(ExitCode::SUCCESS)),
            Some(_) if self.stop_by.is_some() => {
                // Asked twice: at once.
                self.stop_by = Some(now);
            }
            Some(process) => {
                process.signal(Signal::TERM);
                self.stop_by = Some(now + self.grace);
            }
        }
    }

    fn take_orders(&mut self) -> Result<(), RunError> {
        let mut count = [0; 8];
        // Nobody else reads it, and it was readable.
        let _ = rustix::io::read(&self.shared.wake, &mut count);
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::StartSpawner { kind, started } => {
                    let made = self.nursery.spawner(kind).map(|(socket, process)| {
                        self.spawners.push(process);
                        socket
                    });
                    // The asker waits; if it has panicked, its socket is closed here and the spawner ends.
                    drop(started.send(made));
                }
                Order::SessionOver(number) if number == self.sessions => self.session_over(),
                Order::SessionOver(_) => {}
                Order::Broken { thread, error } => return Err(RunError::Thread { thread, source: error }),
            }
        }
        Ok(())
    }

    fn session_over(&mut self) {
        let Some(server) = &self.server else { return };
        match &server.process {
            // It was asked to stop, and closed its socket on its way out. The grace is its limit.
            Some(_) if self.stop_by.is_some() => {}
            // It is ending, and its exit status says why: seen next, unless it lingers.
            Some(_) => self.kill_at = Some(Instant::now() + LINGER_MAX),
            None => self.verdict = Some(Ok(ExitCode::SUCCESS)),
        }
    }

    pub(super) fn open_session(&mut self, socket: OwnedFd) -> io::Result<()> {
        let session = Session::new(socket)?;
        self.sessions += 1;
        let number = self.sessions;
        let read = |session: Arc<Session>| {
            start(&self.shared, "session", move |shared| {
                let served = session.serve(shared);
                // Said by the last as by the first: hearing it again changes nothing.
                shared.order(Order::SessionOver(number));
                served
            })
        };
        let readers = (0..READERS).map(|_| read(Arc::clone(&session))).collect::<io::Result<Vec<_>>>();
        if readers.is_err() {
            session.finish();
        }
        self.server = Some(Server { process: None, session, readers: readers?, since: Instant::now() });
        Ok(())
    }

    fn start_server(&mut self) -> Result<(), RunError> {
        let Some(plan) = &self.plan else { return Ok(()) };
        let failed = io_failed("start the server");
        let (ours, theirs) = seqpacket::pair().map_err(io_failed("make the server's socket"))?;
        let mut descriptors = vec![theirs.as_fd()];
        descriptors.extend(plan.listeners.iter().map(AsFd::as_fd));
        descriptors.extend(plan.dns.iter().flat_map(|dns| [dns.udp.as_fd(), dns.tcp.as_fd()]));
        let process = self.nursery.server(&plan.facts, &descriptors, plan.uid, &plan.state).map_err(failed)?;
        let opened = self.open_session(ours);
        if let Some(server) = self.server.as_mut().filter(|_| opened.is_ok()) {
            server.process = Some(process);
        } else {
            process.signal(Signal::KILL);
            process.reap();
        }
        opened.map_err(io_failed("open the session"))
    }

    fn server_died(&mut self) {
        let Some(server) = self.server.take() else { return };
        self.kill_at = None;
        let lived = server.since.elapsed();
        let exit = server.process.map_or(Exit::Unknown, Process::reap);
        server.session.finish();
        self.shared.cells.kill_all();
        server.readers.into_iter().for_each(join);
        if self.stop_by.is_some() {
            let code = if exit == Exit::Code(0) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
            self.verdict = Some(Ok(code));
            return;
        }
        match exit {
            // It meant to: a wrong configuration, or the end of its work.
            Exit::Code(code @ (0..=2 | 64..=78)) => {
                self.verdict = Some(Ok(ExitCode::from(u8::try_from(code).expect("at most 78"))));
            }
            _ => {
                if lived >= HEALTHY {
                    self.deaths = 0;
                    self.pause = PAUSE_FIRST;
                }
                self.deaths += 1;
                if self.deaths >= DEATHS_MAX {
                    tracing::error!(%exit, deaths = self.deaths, "the server keeps dying");
                    self.verdict = Some(Ok(ExitCode::from(EXIT_GAVE_UP)));
                    return;
                }
                tracing::error!(%exit, pause = ?self.pause, "the server died; it is started again");
                self.start_at = Some(Instant::now() + self.pause);
                self.pause = (self.pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

enum Woken {
    Nothing,
    Stop,
    Orders,
    Server,
    Spawner(usize),
}
