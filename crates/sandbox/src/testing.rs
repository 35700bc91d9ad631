//! [`Sandboxes`] without a kernel behind it: a test holds the other end of every cell.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use dunlin_model::{CellId, Digest};
use tokio::sync::{mpsc, watch};

use crate::{
    Bind, BindError, Cell, CellKind, EndError, Ended, Exit, MakeError, Net, Prepare, Sandboxes, Step, UnpackError, UnpackLimits,
    UnpackReport, Usage,
};

/// The inside of a cell that a [`Fake`] made.
#[derive(Debug)]
pub struct Inside {
    /// Which cell it is.
    pub id: CellId,
    /// What was asked for.
    pub kind: CellKind,
    /// What was asked for.
    pub net: Net,
    /// The guest's end of the channel.
    pub channel: UnixStream,
    /// The guest's stdout and stderr.
    pub log: io::PipeWriter,
}

/// Something that was done to a cell, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the method of its name")]
pub enum Deed {
    Make(CellId, CellKind, Net),
    Fork(CellId, CellId),
    Bind(CellId, Bind),
    SetCpu(CellId, u32),
    Socket(CellId),
    Freeze(CellId, bool),
    End(CellId),
    Unpack(Digest),
    Discard(Digest),
}

/// Cells that are socket pairs. Clones share everything.
#[derive(Clone)]
pub struct Fake {
    state: Arc<Mutex<State>>,
    made: mpsc::UnboundedSender<Inside>,
}

#[derive(Default)]
struct State {
    last: u64,
    alive: HashMap<CellId, watch::Sender<Option<Ended>>>,
    bound: HashSet<CellId>,
    over: HashMap<CellId, Ended>,
    deeds: Vec<Deed>,
    failures: VecDeque<i32>,
}

impl Fake {
    /// A fake, and the stream of the insides of what it makes.
    #[must_use]
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Inside>) {
        let (made, insides) = mpsc::unbounded_channel();
        (Self { state: Arc::default(), made }, insides)
    }

    /// Lets the next `make` fail with this errno; called again, the one after that too.
    pub fn fail_next_make(&self, errno: i32) {
        self.state().failures.push_back(errno);
    }

    /// Everything that was done so far.
    #[must_use]
    pub fn deeds(&self) -> Vec<Deed> {
        self.state().deeds.clone()
    }

    /// Cells that have not ended.
    #[must_use]
    pub fn alive(&self) -> Vec<CellId> {
        let mut alive: Vec<_> = self.state().alive.keys().copied().collect();
        alive.sort();
        alive
    }

    /// The cell dies by itself. Nothing happens when it is dead.
    pub fn die(&self, cell: CellId, ended: Ended) {
        self.state().finish(cell, ended);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds the fake's state")
    }

    fn on_alive(&self, cell: CellId, deed: Deed) -> Result<(), BindError> {
        let mut state = self.state();
        if !state.alive.contains_key(&cell) {
            return Err(BindError::NoSuchCell(cell));
        }
        state.deeds.push(deed);
        Ok(())
    }
}

impl State {
    fn finish(&mut self, cell: CellId, ended: Ended) {
        if let Some(sender) = self.alive.remove(&cell) {
            self.over.insert(cell, ended.clone());
            sender.send_replace(Some(ended));
        }
    }
}

#[async_trait]
impl Sandboxes for Fake {
    async fn make(&self, kind: CellKind, net: Net) -> Result<Cell, MakeError> {
        let mut state = self.state();
        if let Some(errno) = state.failures.pop_front() {
            return Err(MakeError::Failed { step: Step::Clone, source: io::Error::from_raw_os_error(errno) });
        }
        let failed = |source| MakeError::Failed { step: Step::Descriptors, source };
        let (channel, guest) = UnixStream::pair().map_err(failed)?;
        let (log, writer) = io::pipe().map_err(failed)?;
        state.last += 1;
        let id = CellId(state.last);
        let (sender, ended) = watch::channel(None);
        state.alive.insert(id, sender);
        state.deeds.push(Deed::Make(id, kind, net));
        // A test that looks at no insides has dropped the receiver.
        let _ = self.made.send(Inside { id, kind, net, channel: guest, log: writer });
        Ok(Cell { id, channel: channel.into(), log: log.into(), usage: Usage::none(), ended })
    }

    async fn fork(&self, template: CellId) -> Result<Cell, MakeError> {
        if !self.state().alive.contains_key(&template) {
            return Err(MakeError::NoTemplate(template));
        }
        let cell = self.make(CellKind::Launcher, Net::Loopback).await?;
        let mut state = self.state();
        state.deeds.pop();
        state.deeds.push(Deed::Fork(template, cell.id));
        Ok(cell)
    }

    async fn bind(&self, cell: CellId, bind: &Bind) -> Result<(), BindError> {
        self.on_alive(cell, Deed::Bind(cell, bind.clone()))?;
        if self.state().bound.insert(cell) { Ok(()) } else { Err(BindError::AlreadyBound(cell)) }
    }

    async fn set_cpu(&self, cell: CellId, cpu_millis: u32) -> Result<(), BindError> {
        self.on_alive(cell, Deed::SetCpu(cell, cpu_millis))
    }

    async fn socket(&self, cell: CellId) -> Result<OwnedFd, BindError> {
        self.on_alive(cell, Deed::Socket(cell))?;
        use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)
            .map_err(|source| BindError::Failed { step: Step::Net, source: source.into() })
    }

    async fn freeze(&self, cell: CellId, frozen: bool) -> Result<(), BindError> {
        self.on_alive(cell, Deed::Freeze(cell, frozen))
    }

    async fn end(&self, cell: CellId) -> Result<Ended, EndError> {
        let mut state = self.state();
        if state.alive.contains_key(&cell) {
            state.deeds.push(Deed::End(cell));
            state.finish(cell, Ended { exit: Exit::Signal(9), out_of_memory: false, cpu_us: 0 });
        }
        state.over.get(&cell).cloned().ok_or(EndError::NoSuchCell(cell))
    }

    async fn unpack(
        &self,
        package: Digest,
        _zip: OwnedFd,
        _limits: UnpackLimits,
        _prepare: Prepare,
    ) -> Result<UnpackReport, UnpackError> {
        self.state().deeds.push(Deed::Unpack(package));
        Ok(UnpackReport { bytes: 0, entries: 0, manifest: None, prepared: None })
    }

    async fn discard_tree(&self, package: Digest) -> Result<(), BindError> {
        self.state().deeds.push(Deed::Discard(package));
        Ok(())
    }
}
