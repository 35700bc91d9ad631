//! One life of the server, as the supervisor sees it: reads its requests and hands them to the threads that do them.
//!
//! Two threads read. A bind is carried out by the thread that read it, because a first call waits for it and each hand-over
//! to another thread costs as much as half the bind; the other goes on reading meanwhile.
//!
//! # Invariants
//! - A packet that is no request ends the session, and with it every cell the session made.
//! - A server that does not read its answers ends its session too: nothing is kept for it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::net::sockopt::Timeout;

use super::Shared;
use super::bind::{self, BindJob, Binder, Change};
use super::fork::ForkJob;
use super::make::{MakeFor, MakeJob};
use super::unpack::TreeJob;
use crate::protocol::{Ask, Message, REQUEST_MAX, Refusal, Request};
use crate::seqpacket;
use crate::unpacker::Order;
use crate::zygote::Imports;
use crate::{CellKind, Step};

/// How long an answer waits for the server to read those before it.
const PATIENCE: Duration = Duration::from_secs(10);

/// The supervisor's end of the socket to one server process.
pub(super) struct Session {
    socket: OwnedFd,
    sending: Mutex<()>,
    over: AtomicBool,
}

impl Session {
    pub(super) fn new(socket: OwnedFd) -> io::Result<Arc<Self>> {
        rustix::net::sockopt::set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
        Ok(Arc::new(Self { socket, sending: Mutex::new(()), over: AtomicBool::new(false) }))
    }

    /// Says something to the server. If it does not read, the session is over.
    pub(super) fn say(&self, message: &Message, descriptors: &[BorrowedFd<'_>]) {
        if self.over() {
            return;
        }
        let bytes = message.encode();
        let _one_at_a_time = self.sending.lock().expect("sending does not panic");
        if let Err(error) = seqpacket::send(&self.socket, &bytes, descriptors) {
            if !self.over() {
                tracing::warn!(%error, "the server does not read its answers");
            }
            self.finish();
        }
    }

    pub(super) fn refuse(&self, id: u64, why: Refusal) {
        self.say(&Message::Refused { id, why }, &[]);
    }

    /// Nothing is read or said any more. The reading thread notices.
    pub(super) fn finish(&self) {
        self.over.store(true, Ordering::Release);
        // It may be closed by the other end already.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
    }

    pub(super) fn over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// A reading thread: reads requests until the server goes away or breaks the protocol.
    pub(super) fn serve(self: &Arc<Self>, shared: &Arc<Shared>) -> io::Result<()> {
        let mut binder = Binder::open(shared)?;
        let mut buffer = [0; REQUEST_MAX];
        loop {
            let (length, descriptors) = match seqpacket::receive(self.socket.as_fd(), &mut buffer) {
                Ok((0, _)) => break,
                Ok(received) => received,
                Err(error) => {
                    tracing::warn!(%error, "cannot read from the server");
                    break;
                }
            };
            let Ok(request) = Request::decode(&buffer[..length]) else {
                tracing::error!("the server broke the protocol");
                break;
            };
            if request.descriptors() != descriptors.len() {
                tracing::error!("the server sent the wrong descriptors");
                break;
            }
            self.dispatch(shared, &mut binder, request, descriptors.into_iter().next());
        }
        self.finish();
        Ok(())
    }

    fn dispatch(self: &Arc<Self>, shared: &Arc<Shared>, binder: &mut Binder, request: Request, descriptor: Option<OwnedFd>) {
        let id = request.id;
        let session = Arc::clone(self);
        let pushed = match request.ask {
            Ask::Make { kind, net } => {
                let queue = match kind {
                    CellKind::Launcher | CellKind::Wasm | CellKind::Container => Some(&shared.launchers),
                    CellKind::Python(interpreter) | CellKind::Template(interpreter) => {
                        shared.pythons.get(&(interpreter, Imports::Many))
                    }
                    CellKind::LeanPython(interpreter) => shared.pythons.get(&(interpreter, Imports::Few)),
                };
                let Some(queue) = queue else {
                    return self.refuse(id, Refusal::Failed { step: Step::Interpreter, errno: libc::ENOENT });
                };
                queue.push(MakeJob { kind: kind.into(), net, wanted: MakeFor::Server { session, id } }).is_ok()
            }
            Ask::Bind { cell, bind } => {
                let job = BindJob { session, id, cell, change: Change::Bind(bind) };
                if bind::would_wait(shared, cell) {
                    shared.binds.push(job).is_ok()
                } else {
                    binder.perform(shared, &job);
                    true
                }
            }
            Ask::SetCpu { cell, cpu_millis } => {
                shared.binds.push(BindJob { session, id, cell, change: Change::Cpu(cpu_millis) }).is_ok()
            }
            Ask::Socket { cell } => shared.binds.push(BindJob { session, id, cell, change: Change::Socket }).is_ok(),
            Ask::Freeze { cell, frozen } => {
                shared.binds.push(BindJob { session, id, cell, change: Change::Freeze(frozen) }).is_ok()
            }
            Ask::End { cell } => {
                shared.cells.end(cell, self, id);
                true
            }
            Ask::Unpack { package, limits, prepare } => match descriptor {
                Some(zip) => shared
                    .trees_queue
                    .push(TreeJob::Unpack { session, id, package, zip, order: Order { limits, prepare } })
                    .is_ok(),
                None => false,
            },
            Ask::Fork { template } => shared.forks.push(ForkJob { session, id, template }).is_ok(),
            Ask::Discard { package } => shared.trees_queue.push(TreeJob::Discard { session, id, package }).is_ok(),
        };
        if !pushed {
            self.refuse(id, Refusal::Full);
        }
    }
}
