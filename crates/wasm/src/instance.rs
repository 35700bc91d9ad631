//! One function in its cell: the program, and what every call of it is given.
//!
//! Each call gets a fresh instance of the program, with memory of its own, and nothing of it is left when the call is
//! over. What the calls of one instance share is `/tmp` and the memory they may have together.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use serde::Deserialize;
use wasmtime::{Engine, Store};
use wasmtime_wasi::cli::{AsyncStdinStream, StdinStream, StdoutStream};
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::{FsPerms, WasiCtx};

use crate::failure::Failure;
use crate::prepare::{COMPILED, EXTENSION, FOLDER};
use crate::program::{Code, Program, Provided, Refused};
use crate::request::Request;
use crate::state::{Memory, Share, State};
use crate::stdio::{Answer, Input, Log, Output};
use crate::wire::ANSWER_BYTES_MAX;

/// What the platform itself needs of the instance's memory.
const OWN_BYTES: usize = 16 << 20;
/// The files a handler that names none stands for, in this order.
const DEFAULTS: [&str; 2] = ["main.wasm", "index.wasm"];

/// `Load`'s head, as far as it matters here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Load {
    code_path: String,
    handler: String,
    env: BTreeMap<String, String>,
    #[serde(default = "one")]
    pub(crate) concurrency: usize,
    function: About,
    /// What goes into every request the platform makes itself.
    #[serde(default)]
    http_headers: Vec<(String, String)>,
}

fn one() -> usize {
    1
}

#[derive(Debug, Deserialize)]
struct About {
    memory: u64,
}

/// A call's head, as far as it matters here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Call {
    pub(crate) request_id: String,
    #[serde(default)]
    pub(crate) retry_count: u32,
    /// The request that passes through; absent when the body is an event.
    pub(crate) http: Option<Request>,
}

/// A loaded function.
pub(crate) struct Instance {
    pub(crate) engine: Engine,
    pub(crate) program: Program,
    pub(crate) http_headers: Vec<(String, String)>,
    file: String,
    code_path: String,
    environment: BTreeMap<String, String>,
    memory: Arc<Memory>,
    memory_mb: u64,
    yields: bool,
}

/// How a guest without a file of its own ends.
pub(crate) struct Ending<'i> {
    instance: &'i Instance,
    starved: Arc<AtomicBool>,
}

impl Ending<'_> {
    /// The words for it.
    pub(crate) fn failure(&self, error: &wasmtime::Error) -> Failure {
        Failure::ended(error, self.starved.load(Ordering::Relaxed), self.instance.memory_mb)
    }
}

impl Instance {
    /// Loads the program the handler names.
    ///
    /// # Errors
    /// Why there is none, as the caller reads it.
    pub(crate) fn load(engine: &Engine, provided: &Provided, load: Load) -> Result<Self, Failure> {
        let folder = Path::new(&load.code_path);
        let file = choose(folder, &load.handler)?;
        let refused = |why: Refused| Failure::worded("InvalidProgram", &format!("'{file}' {why}"));
        let code = match Code::load(engine, &folder.join(FOLDER).join(format!("{file}{COMPILED}"))) {
            Some(code) => code,
            // It came in for another runtime, or for another version of the platform.
            None => {
                let unread = |error| Failure::worded("InvalidProgram", &format!("'{file}' cannot be read: {error}"));
                let wasm = std::fs::read(folder.join(&file)).map_err(unread)?;
                Code::compile(engine, &wasm).map_err(refused)?
            }
        };
        let program = Program::link(provided, &code).map_err(refused)?;
        let bytes = usize::try_from(load.function.memory << 20).unwrap_or(usize::MAX);
        Ok(Self {
            engine: engine.clone(),
            program,
            http_headers: load.http_headers,
            file,
            code_path: load.code_path,
            environment: load.env,
            memory: Memory::new(bytes.saturating_sub(OWN_BYTES)),
            memory_mb: load.function.memory,
            yields: load.concurrency > 1,
        })
    }

    /// A program of ours, alone in the world.
    pub(crate) fn of(engine: &Engine, program: Program) -> Self {
        Self {
            engine: engine.clone(),
            program,
            http_headers: Vec::new(),
            file: String::new(),
            code_path: "/".to_owned(),
            environment: BTreeMap::new(),
            memory: Memory::new(OWN_BYTES),
            memory_mb: 0,
            yields: false,
        }
    }

    /// A store for one call.
    pub(crate) fn store(
        &self,
        stdin: Option<Box<dyn StdinStream + Sync>>,
        stdout: impl StdoutStream + 'static,
        log: &Output<Log>,
        environment: &[(String, String)],
    ) -> wasmtime::Result<(Store<State>, Ending<'_>)> {
        let mut wasi = WasiCtx::builder();
        wasi.stdout(stdout).stderr(log.clone()).arg(&self.file);
        if let Some(stdin) = stdin {
            wasi.stdin(stdin);
        }
        for (name, value) in &self.environment {
            wasi.env(name, value);
        }
        for (name, value) in environment {
            wasi.env(name, value);
        }
        // The cell's own network, whatever it is: its walls decide what can be reached.
        wasi.inherit_network().allow_ip_name_lookup(true).allow_tcp(true).allow_udp(true);
        // A call that is alone in its cell may as well wait on the spot.
        wasi.allow_blocking_current_thread(!self.yields);
        wasi.preopened_dir(&self.code_path, &self.code_path, FsPerms::ReadOnly)?;
        wasi.preopened_dir(&self.code_path, ".", FsPerms::ReadOnly)?;
        wasi.preopened_dir("/tmp", "/tmp", FsPerms::ReadWrite)?;
        wasi.preopened_dir("/opt", "/opt", FsPerms::ReadOnly)?;
        let starved = Arc::new(AtomicBool::new(false));
        let mut store = Store::new(&self.engine, State::new(wasi.build_p1(), Share::new(&self.memory, &starved)));
        store.limiter(|state| &mut state.share);
        // Time does not move for a call that is alone.
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        Ok((store, Ending { instance: self, starved }))
    }

    /// Runs a command: what it is given is its standard input, what it prints its answer.
    pub(crate) async fn command(&self, stdin: Stdin, environment: &[(String, String)]) -> Result<Bytes, Failure> {
        let answer = Output::new(Answer::new(ANSWER_BYTES_MAX));
        let log = Output::new(Log::default());
        let stdin: Box<dyn StdinStream + Sync> = match stdin {
            Stdin::Event(event) => Box::new(MemoryInputPipe::new(event)),
            Stdin::Body(body) => Box::new(AsyncStdinStream::new(body)),
        };
        let platform = |error: wasmtime::Error| Failure::worded("PlatformError", &format!("{error:#}"));
        let (mut store, ending) = self.store(Some(stdin), answer.clone(), &log, environment).map_err(platform)?;
        let ended = match &self.program {
            Program::Module(module) => run_module(module, &mut store).await,
            Program::Command(command) => run_command(command, &mut store).await,
            Program::Proxy(_) => Ok(1),
        };
        drop(store);
        match ended {
            Ok(0) => Ok(answer.sink().finish()),
            Ok(status) => Err(Failure::exit(status)),
            Err(error) => match error.downcast_ref::<wasmtime_wasi::I32Exit>() {
                Some(status) if status.0 == 0 => Ok(answer.sink().finish()),
                _ => Err(ending.failure(&error)),
            },
        }
    }
}

/// What a command reads.
pub(crate) enum Stdin {
    Event(Bytes),
    Body(Input),
}

async fn run_module(module: &wasmtime::InstancePre<State>, store: &mut Store<State>) -> wasmtime::Result<i32> {
    let instance = module.instantiate_async(&mut *store).await?;
    let start = instance.get_typed_func::<(), ()>(&mut *store, "_start")?;
    start.call_async(&mut *store, ()).await?;
    Ok(0)
}

async fn run_command(
    command: &wasmtime_wasi::p2::bindings::CommandPre<State>,
    store: &mut Store<State>,
) -> wasmtime::Result<i32> {
    let command = command.instantiate_async(&mut *store).await?;
    // It says only whether it went well.
    Ok(i32::from(command.wasi_cli_run().call_run(&mut *store).await?.is_err()))
}

/// The program's file: the one the handler names, or the default.
fn choose(folder: &Path, handler: &str) -> Result<String, Failure> {
    if handler.ends_with(EXTENSION) {
        if folder.join(handler).is_file() {
            return Ok(handler.to_owned());
        }
        return Err(Failure::worded("ProgramNotFound", &format!("the handler names '{handler}', which is not in the package")));
    }
    let found = DEFAULTS.into_iter().find(|name| folder.join(name).is_file());
    found.map(str::to_owned).ok_or_else(|| {
        let message =
            format!("the handler '{handler}' names no .wasm file, and there is neither main.wasm nor index.wasm in the package");
        Failure::worded("ProgramNotFound", &message)
    })
}
