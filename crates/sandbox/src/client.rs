//! The server's end of the socket to the supervisor.
//!
//! Requests are written by whoever asks; one task reads the answers and hands each to its asker. When the socket
//! closes, every request in flight fails with `Gone`, every cell is told to have ended, and so does all that follows.
//!
//! # Invariants
//! - A cell whose asker went away before the answer came is ended at once.
//! - An answer that no request waits for is dropped; a packet that is no message closes the client.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use dunlin_model::{CellId, Digest};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{oneshot, watch};

use crate::protocol::{Ask, MESSAGE_MAX, Message, Refusal, Request};
use crate::{
    Bind, BindError, Cell, CellKind, EndError, Ended, Exit, MakeError, Net, Prepare, Sandboxes, UnpackError, UnpackLimits,
    UnpackReport, Usage, report, seqpacket, sys,
};

/// How many ends are remembered after they were told, so that ending a cell twice answers the same twice.
const ENDS_REMEMBERED: usize = 4096;

/// [`Sandboxes`] over the socket to the supervisor. Clones share it.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    socket: AsyncFd<OwnedFd>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    gone: bool,
    last: u64,
    waiting: HashMap<u64, oneshot::Sender<Answer>>,
    alive: HashMap<CellId, watch::Sender<Option<Ended>>>,
    over: HashMap<CellId, Ended>,
    over_order: VecDeque<CellId>,
}

/// What one request got.
enum Answer {
    Made(Cell),
    Done,
    Socket(OwnedFd),
    Unpacked { ended: Ended, report: Vec<u8> },
    Present,
    Refused(Refusal),
}

/// The socket is closed.
struct Gone;

impl Client {
    /// Speaks on `socket`, which the supervisor holds the other end of. Must be called inside a tokio runtime, on
    /// which the reading task runs until the socket closes.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        let socket = sys::watch(socket)?;
        let shared = Arc::new(Shared { socket, state: Mutex::default() });
        tokio::spawn(read(Arc::clone(&shared)));
        Ok(Self { shared })
    }

    async fn ask(&self, ask: Ask, descriptor: Option<OwnedFd>) -> Result<Answer, Gone> {
        let (sender, receiver) = oneshot::channel();
        let id = {
            let mut state = self.shared.state();
            if state.gone {
                return Err(Gone);
            }
            state.last += 1;
            let id = state.last;
            state.waiting.insert(id, sender);
            id
        };
        let request = Request { id, ask };
        if let Err(error) = self.shared.send(&request, descriptor.as_ref().map(AsFd::as_fd)).await {
            tracing::error!(%error, "cannot write to the supervisor");
            self.shared.state().waiting.remove(&id);
            return Err(Gone);
        }
        receiver.await.map_err(|_| Gone)
    }

    async fn change(&self, cell: CellId, ask: Ask) -> Result<Answer, BindError> {
        match self.ask(ask, None).await {
            Err(Gone) => Err(BindError::Gone),
            Ok(Answer::Refused(Refusal::NoSuchCell)) => Err(BindError::NoSuchCell(cell)),
            Ok(Answer::Refused(Refusal::AlreadyBound)) => Err(BindError::AlreadyBound(cell)),
            Ok(Answer::Refused(Refusal::Failed { step, errno })) => {
                Err(BindError::Failed { step, source: io::Error::from_raw_os_error(errno) })
            }
            Ok(answer) => Ok(answer),
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the client's state")
    }

    async fn send(&self, request: &Request, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let bytes = request.encode();
        let write = |socket: &OwnedFd| seqpacket::send(socket, &bytes, descriptor.as_slice());
        self.socket.async_io(Interest::WRITABLE, write).await
    }

    /// Hands one message on. `Err` when the supervisor said something it never says. `Ok(Some)` is a cell that nobody
    /// waits for any more.
    fn dispatch(&self, message: Message, mut descriptors: Vec<OwnedFd>) -> io::Result<Option<CellId>> {
        if descriptors.len() != message.descriptors() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut take = || descriptors.remove(0);
        let mut state = self.state();
        let (id, answer) = match message {
            Message::Made { id, cell } => {
                let (sender, ended) = watch::channel(None);
                state.alive.insert(cell, sender);
                let (channel, log) = (take(), take());
                let usage = Usage::new(take(), take());
                (id, Answer::Made(Cell { id: cell, channel, log, usage, ended }))
            }
            Message::Done { id } => (id, Answer::Done),
            Message::Socket { id } => (id, Answer::Socket(take())),
            Message::Unpacked { id, ended, report } => (id, Answer::Unpacked { ended, report }),
            Message::Present { id } => (id, Answer::Present),
            Message::Refused { id, why } => (id, Answer::Refused(why)),
            Message::Ended { cell, ended } => {
                state.finish(cell, ended);
                return Ok(None);
            }
        };
        let unwanted = match state.waiting.remove(&id) {
            Some(waiting) => waiting.send(answer).err(),
            None => Some(answer),
        };
        Ok(match unwanted {
            Some(Answer::Made(cell)) => Some(cell.id),
            _ => None,
        })
    }

    fn close(&self) {
        let mut state = self.state();
        state.gone = true;
        state.waiting.clear();
        for (_, sender) in state.alive.drain() {
            sender.send_replace(Some(Ended { exit: Exit::Unknown, out_of_memory: false, cpu_us: 0 }));
        }
    }
}

impl State {
    fn finish(&mut self, cell: CellId, ended: Ended) {
        let Some(sender) = self.alive.remove(&cell) else { return };
        self.over.insert(cell, ended.clone());
        self.over_order.push_back(cell);
        if self.over_order.len() > ENDS_REMEMBERED
            && let Some(oldest) = self.over_order.pop_front()
        {
            self.over.remove(&oldest);
        }
        sender.send_replace(Some(ended));
    }
}

/// Reads answers until the socket closes.
async fn read(shared: Arc<Shared>) {
    let mut buffer = vec![0; MESSAGE_MAX];
    loop {
        let received = shared.socket.async_io(Interest::READABLE, |socket| seqpacket::receive(socket, &mut buffer)).await;
        let dispatched = match received {
            Ok((0, _)) => break,
            Ok((length, descriptors)) => Message::decode(&buffer[..length])
                .map_err(|garbage| io::Error::new(io::ErrorKind::InvalidData, garbage))
                .and_then(|message| shared.dispatch(message, descriptors)),
            Err(error) => Err(error),
        };
        match dispatched {
            Ok(None) => {}
            Ok(Some(unwanted)) => {
                // No request has the id 0: nobody waits for this one either.
                let end = Request { id: 0, ask: Ask::End { cell: unwanted } };
                if shared.send(&end, None).await.is_err() {
                    break;
                }
            }
            Err(error) => {
                tracing::error!(%error, "the supervisor's socket has broken");
                break;
            }
        }
    }
    shared.close();
}

/// An answer that does not belong to its request: the two ends are of different builds.
fn mismatch() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the supervisor's answer is of the wrong kind")
}

#[async_trait]
impl Sandboxes for Client {
    async fn make(&self, kind: CellKind, net: Net) -> Result<Cell, MakeError> {
        match self.ask(Ask::Make { kind, net }, None).await {
            Err(Gone) => Err(MakeError::Gone),
            Ok(Answer::Made(cell)) => Ok(cell),
            Ok(Answer::Refused(Refusal::Full)) => Err(MakeError::Full),
            Ok(Answer::Refused(Refusal::Failed { step, errno })) => {
                Err(MakeError::Failed { step, source: io::Error::from_raw_os_error(errno) })
            }
            Ok(_) => Err(MakeError::Failed { step: crate::Step::Spawner, source: mismatch() }),
        }
    }

    async fn fork(&self, template: CellId) -> Result<Cell, MakeError> {
        match self.ask(Ask::Fork { template }, None).await {
            Err(Gone) => Err(MakeError::Gone),
            Ok(Answer::Made(cell)) => Ok(cell),
            Ok(Answer::Refused(Refusal::Full)) => Err(MakeError::Full),
            Ok(Answer::Refused(Refusal::NoSuchCell | Refusal::NoSuchTree { .. })) => Err(MakeError::NoTemplate(template)),
            Ok(Answer::Refused(Refusal::Failed { step, errno })) => {
                Err(MakeError::Failed { step, source: io::Error::from_raw_os_error(errno) })
            }
            Ok(_) => Err(MakeError::Failed { step: crate::Step::Fork, source: mismatch() }),
        }
    }

    async fn bind(&self, cell: CellId, bind: &Bind) -> Result<(), BindError> {
        match self.change(cell, Ask::Bind { cell, bind: bind.clone() }).await? {
            Answer::Done => Ok(()),
            Answer::Refused(Refusal::NoSuchTree { place }) => {
                Err(bind.package(place).map_or(BindError::NoSuchCell(cell), BindError::NoSuchTree))
            }
            _ => Err(BindError::Failed { step: crate::Step::Mount, source: mismatch() }),
        }
    }

    async fn set_cpu(&self, cell: CellId, cpu_millis: u32) -> Result<(), BindError> {
        match self.change(cell, Ask::SetCpu { cell, cpu_millis }).await? {
            Answer::Done => Ok(()),
            _ => Err(BindError::Failed { step: crate::Step::Cgroup, source: mismatch() }),
        }
    }

    async fn socket(&self, cell: CellId) -> Result<OwnedFd, BindError> {
        match self.change(cell, Ask::Socket { cell }).await? {
            Answer::Socket(socket) => Ok(socket),
            _ => Err(BindError::Failed { step: crate::Step::Net, source: mismatch() }),
        }
    }

    async fn freeze(&self, cell: CellId, frozen: bool) -> Result<(), BindError> {
        match self.change(cell, Ask::Freeze { cell, frozen }).await? {
            Answer::Done => Ok(()),
            _ => Err(BindError::Failed { step: crate::Step::Cgroup, source: mismatch() }),
        }
    }

    async fn end(&self, cell: CellId) -> Result<Ended, EndError> {
        let mut ended = {
            let state = self.shared.state();
            if let Some(ended) = state.over.get(&cell) {
                return Ok(ended.clone());
            }
            if state.gone {
                return Err(EndError::Gone);
            }
            state.alive.get(&cell).ok_or(EndError::NoSuchCell(cell))?.subscribe()
        };
        match self.ask(Ask::End { cell }, None).await {
            Ok(Answer::Refused(Refusal::Failed { step, errno })) => {
                return Err(EndError::Failed { step, source: io::Error::from_raw_os_error(errno) });
            }
            // It may have died by itself while the request was on its way; its end has been told before the refusal.
            Ok(_) => {}
            Err(Gone) => return Err(EndError::Gone),
        }
        let told = ended.wait_for(Option::is_some).await.map_err(|_| EndError::Gone)?;
        told.clone().ok_or(EndError::Gone)
    }

    async fn unpack(
        &self,
        package: Digest,
        zip: OwnedFd,
        limits: UnpackLimits,
        prepare: Prepare,
    ) -> Result<UnpackReport, UnpackError> {
        match self.ask(Ask::Unpack { package, limits, prepare }, Some(zip)).await {
            Err(Gone) => Err(UnpackError::Gone),
            Ok(Answer::Present) => Ok(UnpackReport { bytes: 0, entries: 0, manifest: None, prepared: None }),
            Ok(Answer::Unpacked { ended, report }) => report::read(ended, &report),
            Ok(Answer::Refused(Refusal::Full)) => Err(UnpackError::Full),
            Ok(Answer::Refused(Refusal::TimedOut)) => Err(UnpackError::TimedOut),
            Ok(Answer::Refused(Refusal::Failed { step, errno })) => {
                Err(UnpackError::Failed { step, source: io::Error::from_raw_os_error(errno) })
            }
            Ok(_) => Err(UnpackError::BadReport),
        }
    }

    async fn discard_tree(&self, package: Digest) -> Result<(), BindError> {
        match self.ask(Ask::Discard { package }, None).await {
            Err(Gone) => Err(BindError::Gone),
            Ok(Answer::Done) => Ok(()),
            Ok(Answer::Refused(Refusal::Failed { step, errno })) => {
                Err(BindError::Failed { step, source: io::Error::from_raw_os_error(errno) })
            }
            Ok(_) => Err(BindError::Failed { step: crate::Step::Tree, source: mismatch() }),
        }
    }
}

#[cfg(test)]
mod tests;
