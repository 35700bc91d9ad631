//! What runs in a wasm cell: says that it is up, waits for its function, and serves calls until the host goes away.

use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec};
use tokio::runtime::{Builder, Runtime};
use wasmtime::Engine;

use crate::engine;
use crate::failure::Failure;
use crate::instance::{Call, Instance, Load, Stdin};
use crate::program::{Code, Program, Provided};
use crate::proxy::{EventAnswer, bad_request};
use crate::request::response_head;
use crate::stdio::Input;
use crate::wire::{self, Calls, Frame, Reply};

/// How long a guest runs before others get their turn.
const TURN: Duration = Duration::from_millis(5);
/// Threads that run the calls of a function that takes several at a time; its CPU quota is what limits them.
const THREADS_MAX: usize = 4;
/// Said once, on stream 0.
const READY: &[u8] = br#"{"runtime":"wasmtime 48"}"#;

/// Serves one function on `channel`, by `docs/design/wire.md`. Returns when the host has closed it.
#[must_use]
pub fn run(channel: OwnedFd) -> ExitCode {
    match serve(UnixStream::from(channel)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "the wasm host ends: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(mut socket: UnixStream) -> io::Result<()> {
    // Everything that takes time is done before anybody waits for it.
    let engine = engine::make().map_err(io::Error::other)?;
    let provided = Provided::new(&engine).map_err(io::Error::other)?;
    let alone = Builder::new_current_thread().enable_all().build()?;
    socket.write_all(&wire::ready(READY))?;
    if is_quiet(&socket)? {
        rehearse(&engine, &provided, &alone);
    }

    let Some(frame) = wire::read(&socket)? else { return Ok(()) };
    if frame.kind != wire::LOAD {
        return Err(io::Error::other("the first frame is no Load"));
    }
    let load: Load = serde_json::from_slice(&frame.head)?;
    let concurrency = load.concurrency;
    // What opens sockets and files wants to know its runtime.
    let runtime = if concurrency > 1 { several(concurrency)? } else { alone };
    let instance = match Instance::load(&engine, &provided, load) {
        Ok(instance) => Arc::new(instance),
        Err(failure) => {
            socket.write_all(&wire::failed(frame.address, &failure.body()))?;
            // The host ends the cell.
            while wire::read(&socket)?.is_some() {}
            return Ok(());
        }
    };
    socket.write_all(&wire::done(frame.address))?;
    socket.set_nonblocking(true)?;
    let turns = (concurrency > 1).then(|| Turns::start(&engine));
    let served = runtime.block_on(calls(instance, socket, turns));
    // A guest may still wait somewhere; the end of the process is its end.
    runtime.shutdown_background();
    served
}

/// Whether nothing has come yet.
fn is_quiet(socket: &UnixStream) -> io::Result<bool> {
    let mut polled = [PollFd::new(socket, PollFlags::IN)];
    Ok(rustix::event::poll(&mut polled, Some(&Timespec::default()))? == 0)
}

/// Loads and runs a program of ours, as long as nobody waits: the first time costs what page faults and first
/// allocations cost, and nobody has to see it.
fn rehearse(engine: &Engine, provided: &Provided, runtime: &Runtime) {
    let place = std::env::temp_dir().join(format!(".rehearsal-{:?}", thread::current().id()));
    let answer = rehearsal(engine, provided, runtime, &place);
    // A host that cannot rehearse may still play; what is wrong shows then.
    debug_assert_eq!(answer.as_deref(), Some(&b"hello you"[..]));
    let _ = std::fs::remove_file(place);
}

fn rehearsal(engine: &Engine, provided: &Provided, runtime: &Runtime, place: &Path) -> Option<Bytes> {
    const PROGRAM: &[u8] = include_bytes!("../../../examples/wasm-hello/main.wasm");
    let compiled = Code::compile(engine, PROGRAM).ok()?.bytes().ok()?;
    std::fs::write(place, compiled).ok()?;
    let code = Code::load(engine, place)?;
    let instance = Instance::of(engine, Program::link(provided, &code).ok()?);
    runtime.block_on(instance.command(Stdin::Event(Bytes::from_static(b"you")), &[])).ok()
}

fn several(concurrency: usize) -> io::Result<Runtime> {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX).min(concurrency);
    Builder::new_multi_thread().worker_threads(threads).enable_all().build()
}

async fn calls(instance: Arc<Instance>, socket: UnixStream, turns: Option<Arc<Turns>>) -> io::Result<()> {
    let (mut reader, writer) = tokio::net::UnixStream::from_std(socket)?.into_split();
    let calls = Calls::new(writer);
    while let Some(frame) = wire::next(&mut reader).await? {
        match frame.kind {
            wire::INVOKE => {
                let (reply, body) = calls.begin(&frame);
                let address = reply.address();
                let body = body.map(|parts| Input::new(parts, reply.granting()));
                let (instance, turns) = (Arc::clone(&instance), turns.clone());
                let task = tokio::spawn(async move {
                    let _turn = turns.map(Turn::begin);
                    invoke(&instance, frame, body, reply).await;
                });
                calls.runs(address, task.abort_handle());
            }
            wire::CHUNK => calls.part(frame),
            wire::CREDIT => calls.grant(&frame),
            wire::CANCEL => calls.cancel(frame.address),
            // Nothing is kept from call to call, so there is nothing to prepare and nothing to put away.
            wire::INIT | wire::PRE_STOP => calls.done(frame.address),
            _ => return Err(io::Error::other(format!("a frame of kind {}", frame.kind))),
        }
    }
    Ok(())
}

async fn invoke(instance: &Instance, frame: Frame, body: Option<Input>, reply: Reply) {
    let call: Call = match serde_json::from_slice(&frame.head) {
        Ok(call) => call,
        Err(error) => return reply.fail(&Failure::worded("PlatformError", &format!("a call's head: {error}"))),
    };
    let event = frame.body;
    let result = match (&instance.program, &call.http) {
        (Program::Proxy(proxy), None) => match instance.event(proxy, &call, event).await {
            Ok(EventAnswer::Good(answer)) => return reply.end(answer),
            Ok(EventAnswer::Bad(answer)) => return reply.fail_with(&answer),
            Err(failure) => Err(failure),
        },
        (Program::Proxy(proxy), Some(http)) => {
            let request = http.with_body(body.unwrap_or_else(Input::empty)).map_err(|error| bad_request(&error));
            match request {
                Ok(request) => instance.respond(proxy, request, &mut &reply).await.map(|()| Bytes::new()),
                Err(failure) => Err(failure),
            }
        }
        (Program::Module(_) | Program::Command(_), None) => instance.command(Stdin::Event(event), &[]).await,
        (Program::Module(_) | Program::Command(_), Some(http)) => {
            let body = body.unwrap_or_else(Input::empty);
            let answered = instance.command(Stdin::Body(body), &http.variables()).await;
            if let Ok(answer) = &answered {
                reply.head(&response_head(200, &content_type(answer)));
                reply.chunk(answer.clone()).await;
            }
            answered.map(|_| Bytes::new())
        }
    };
    match result {
        Ok(answer) => reply.end(answer),
        Err(failure) => reply.fail(&failure),
    }
}

/// What a command's output is taken for.
fn content_type(answer: &Bytes) -> http::HeaderMap {
    let kind = if std::str::from_utf8(answer).is_ok() { "text/plain; charset=utf-8" } else { "application/octet-stream" };
    http::HeaderMap::from_iter([(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind))])
}

/// Moves the engine's time while there are calls, so that none of them keeps a thread for itself.
struct Turns {
    running: AtomicUsize,
    clock: Thread,
}

impl Turns {
    fn start(engine: &Engine) -> Arc<Self> {
        let engine = engine.clone();
        let (sender, receiver) = std::sync::mpsc::channel::<Arc<Self>>();
        let clock = thread::spawn(move || {
            let Ok(turns) = receiver.recv() else { return };
            loop {
                if turns.running.load(Ordering::Acquire) == 0 {
                    thread::park();
                } else {
                    thread::sleep(TURN);
                    engine.increment_epoch();
                }
            }
        });
        let turns = Arc::new(Self { running: AtomicUsize::new(0), clock: clock.thread().clone() });
        // The clock waits for exactly this.
        let _ = sender.send(Arc::clone(&turns));
        turns
    }
}

/// A call in the clock's eyes.
struct Turn(Arc<Turns>);

impl Turn {
    fn begin(turns: Arc<Turns>) -> Self {
        if turns.running.fetch_add(1, Ordering::AcqRel) == 0 {
            turns.clock.unpark();
        }
        Self(turns)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::AcqRel);
    }
}
