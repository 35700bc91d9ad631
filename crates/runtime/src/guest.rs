//! A booted cell, and the life it leads: boot, load, initialize, invoke, pre-stop.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use dunlin_model::{
    CellId, ErrorType, Function, FunctionError, InstanceId, Language, LifecycleHook, Protocol, RequestId, VersionKey,
};
use dunlin_sandbox::{Cell, Ended, Sandboxes};
use http::HeaderMap;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::call::{Answer, Answered, Body, CallContext, Payload};
use crate::channel::{Channel, ChannelError, Greeting};
use crate::context;
use crate::custom::Server;
use crate::error::{BootError, CallError, Failed, StartError};
use crate::exec::{self, ExecFailure};
use crate::flights::{Parts, Reply};
use crate::frame::{ANSWER_BYTES_MAX, HEAD_BYTES_MAX, Request};
use crate::http_headers;
use crate::log::{LogSink, Output};
use crate::module;
use crate::peak::Peak;
use crate::runtime_api::{Purpose, RuntimeApi};
use crate::streamed::StreamedAnswer;

/// How often memory is looked at while a call runs.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long what a cell said before it ended may take to be read.
const LAST_WORDS: Duration = Duration::from_millis(50);
/// How long the end of a cell may stay unknown after its channel was closed.
pub(crate) const END_GRACE: Duration = Duration::from_secs(2);

/// What follows the making of a cell.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BootPlan {
    /// Forked from a Python zygote with everything that it boots in it: it says `Ready` by itself.
    Zygote,
    /// Forked with the host of WebAssembly programs in it, which says `Ready` by itself.
    Module,
    /// The launcher is told to start a language's bootstrap, which says `Ready`.
    Bootstrap {
        /// Which one.
        language: Language,
        /// The interpreter it runs in.
        program: Box<str>,
        /// The memory class in MB, for a heap that is fixed at boot; 0 where it does not matter.
        memory_mb: u32,
    },
    /// Nothing yet: the program comes with the code.
    Custom,
}

/// What an instance is to be.
#[derive(Clone)]
pub struct LoadSpec {
    /// Its name.
    pub instance: InstanceId,
    /// What it runs.
    pub function: Arc<Function>,
    /// What it is bound to.
    pub key: VersionKey,
    /// What the caller asked for, `LATEST` or a version's or alias's text.
    pub qualifier: String,
    /// The platform's region.
    pub region: String,
    /// The call it is started for: what loading prints belongs to it.
    pub request: RequestId,
    /// Where its output goes.
    pub logs: Arc<dyn LogSink>,
    /// Whether it is to serve nobody and be forked instead.
    pub template: bool,
}

/// A booted cell: owns its channel, the reader of its output and its usage figures.
pub struct Guest {
    cell: CellId,
    channel: Arc<Channel>,
    watched: Arc<Watched>,
    /// Its bootstrap knows the frames that are not answered.
    is_told_things: bool,
    /// It was told what it is to be.
    prepared: AtomicBool,
    /// Set by `load` for custom runtimes: from then on the guest speaks HTTP.
    server: OnceLock<Server>,
    /// Set by `load` for programs that fetch their calls.
    api: OnceLock<RuntimeApi>,
    function: OnceLock<Arc<Function>>,
    /// Of a module: the headers that every request to this instance has.
    common: OnceLock<HeaderMap>,
}

/// What is looked at from outside while a guest runs, whoever waits for it.
pub(crate) struct Watched {
    pub(crate) output: Arc<Output>,
    pub(crate) peak: Peak,
    ended: watch::Receiver<Option<Ended>>,
}

/// Why waiting for a guest ended without what was waited for.
#[derive(Debug)]
pub(crate) enum Cut {
    Deadline,
    Ended(Ended),
}

impl Guest {
    /// Waits until the bootstrap in `cell` is there.
    ///
    /// # Errors
    /// See [`BootError`]; the cell is for the caller to end.
    pub async fn boot(cell: Cell, plan: BootPlan, deadline: Instant) -> Result<Self, BootError> {
        let guest = Self {
            cell: cell.id,
            channel: Channel::new(cell.channel)?,
            watched: Arc::new(Watched { output: Output::start(cell.log)?, peak: Peak::new(cell.usage), ended: cell.ended }),
            is_told_things: matches!(plan, BootPlan::Zygote | BootPlan::Bootstrap { language: Language::Node, .. }),
            prepared: AtomicBool::new(false),
            server: OnceLock::new(),
            api: OnceLock::new(),
            function: OnceLock::new(),
            common: OnceLock::new(),
        };
        let greeted = async {
            match plan {
                BootPlan::Custom => return Ok(Greeting::Ready),
                BootPlan::Zygote | BootPlan::Module => {}
                BootPlan::Bootstrap { language, program, memory_mb } => {
                    let program = exec::bootstrap(language, &program, memory_mb);
                    guest.channel.exec(true, &program.head, &program.body).await?;
                }
            }
            guest.channel.greeting().await
        };
        let printed = || guest.watched.output.boot_tail();
        match guest.watched.until(deadline, greeted).await {
            Ok(Ok(Greeting::Ready)) => {}
            Ok(Ok(Greeting::ExecFailed(report))) => return Err(BootError::Exec(report)),
            Ok(Err(ChannelError::Closed | ChannelError::Unread)) => {
                return Err(match guest.watched.end_within(END_GRACE).await {
                    Some(ended) => BootError::Exited { ended, printed: printed() },
                    None => BootError::Protocol("it closed its channel and lives on".to_owned()),
                });
            }
            Ok(Err(error)) => return Err(BootError::Protocol(error.to_string())),
            Err(Cut::Deadline) => return Err(BootError::Silent { printed: printed() }),
            Err(Cut::Ended(ended)) => return Err(BootError::Exited { ended, printed: printed() }),
        }
        Ok(guest)
    }

    /// Has the bootstrap go through a load and a call before there is a function, so that the first real ones find their
    /// way compiled and their memory their own. For a guest that will wait: one that comes to its function at once is
    /// better off without.
    pub async fn rehearse(&self) {
        if self.is_told_things {
            // One that is gone says so when it is loaded.
            let _ = self.channel.tell(Request::Rehearse, &[]).await;
        }
    }

    /// Tells the guest what it is to be while its code is still on the way into `/code`, so that what does not depend on
    /// the code is done meanwhile. May be left out; [`Guest::load`] with the same `spec` follows. What goes wrong here is
    /// noticed there.
    pub async fn prepare(&self, spec: &LoadSpec) {
        if self.is_told_things && self.channel.tell(Request::Prepare, &context::load_head(spec)).await.is_ok() {
            self.prepared.store(true, Ordering::Relaxed);
        }
    }

    /// Makes an instance of the guest: user code is in `/code` already. Happens once. Answers the last 4 KB of what
    /// loading printed.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn load(
        &self,
        sandboxes: &Arc<dyn Sandboxes>,
        spec: &LoadSpec,
        deadline: Instant,
    ) -> Result<Vec<u8>, Failed<StartError>> {
        if self.function.set(Arc::clone(&spec.function)).is_err() {
            return Err(StartError::Protocol("loaded before".to_owned()).into());
        }
        if spec.function.config.runtime.protocol() == Protocol::Module {
            self.common.get_or_init(|| http_headers::common(spec));
        }
        let output = &self.watched.output;
        output.open(spec.instance.clone(), Arc::clone(&spec.logs));
        let in_flight = InFlight::begin(output, &spec.request, true);
        let runtime = &spec.function.config.runtime;
        let result = match runtime.protocol() {
            Protocol::Frames | Protocol::Module => self.load_builtin(spec, deadline).await,
            Protocol::Http => self.load_custom(sandboxes, spec, deadline).await,
            Protocol::RuntimeApi => self.load_fetching(sandboxes, spec, deadline).await,
        };
        let log_tail = in_flight.end();
        self.watched.peak.look();
        if runtime.language().has_its_log_marked() && result.is_err() {
            // The call that wanted the instance ends here.
            output.platform_line(&spec.request, &end_line("Invoke", &spec.request, true));
        }
        match result {
            Ok(()) => Ok(log_tail),
            Err(error) => Err(Failed { error, log_tail }),
        }
    }

    async fn load_builtin(&self, spec: &LoadSpec, deadline: Instant) -> Result<(), StartError> {
        let head = if self.prepared.load(Ordering::Relaxed) { Vec::new() } else { context::load_head(spec) };
        match self.watched.until(deadline, self.channel.request(Request::Load, &head, Bytes::new(), Parts::Refused, None)).await {
            Ok(Ok(Reply::End(_))) => {
                self.channel.agree(spec.function.config.concurrency_in_force());
                Ok(())
            }
            Ok(Ok(Reply::Collected { .. } | Reply::Begun { .. })) => Err(StartError::Protocol("loading in parts".to_owned())),
            Ok(Ok(Reply::Error { error_type, body })) => {
                self.channel.give_up("its code failed to load");
                Err(StartError::Function(FunctionError { error_type, body: body.into() }))
            }
            Ok(Err(ChannelError::Closed | ChannelError::Unread)) => Err(self.start_cut_short().await),
            Ok(Err(error)) => Err(StartError::Protocol(error.to_string())),
            Err(Cut::Deadline) => Err(StartError::TimedOut),
            Err(Cut::Ended(ended)) => Err(StartError::Exited(ended)),
        }
    }

    /// A server of the user's own, or a program that fetches its calls: whichever it shows itself to be first.
    async fn load_custom(&self, sandboxes: &Arc<dyn Sandboxes>, spec: &LoadSpec, deadline: Instant) -> Result<(), StartError> {
        let api = RuntimeApi::open(sandboxes, self.cell, spec, Arc::clone(&self.watched)).await?;
        self.execute(&exec::custom(spec, &api.address()), deadline).await?;
        let server = Server::new(Arc::clone(sandboxes), self.cell, spec, Arc::clone(&self.watched));
        let up = async {
            tokio::select! {
                up = server.up() => up.map(|()| false),
                greeted = api.greeted() => greeted.map(|()| true).map_err(StartError::Function),
            }
        };
        if self.wait_until_up(up, deadline).await? { self.keep(&self.api, api) } else { self.keep(&self.server, server) }
    }

    /// A program that fetches its calls.
    async fn load_fetching(&self, sandboxes: &Arc<dyn Sandboxes>, spec: &LoadSpec, deadline: Instant) -> Result<(), StartError> {
        let api = RuntimeApi::open(sandboxes, self.cell, spec, Arc::clone(&self.watched)).await?;
        self.execute(&exec::fetching(spec, &api.address()), deadline).await?;
        self.wait_until_up(async { api.greeted().await.map_err(StartError::Function) }, deadline).await?;
        self.keep(&self.api, api)
    }

    /// Has the launcher become the user's program.
    async fn execute(&self, program: &exec::Program, deadline: Instant) -> Result<(), StartError> {
        if program.head.len() > crate::frame::HEAD_BYTES_MAX {
            return Err(StartError::FileNotFound);
        }
        let started = async {
            self.channel.exec(false, &program.head, &program.body).await?;
            self.channel.greeting().await
        };
        match self.watched.until(deadline, started).await {
            // The program got no channel: end of file says that the launcher became it.
            Ok(Err(ChannelError::Closed)) => Ok(()),
            Ok(Err(ChannelError::Unread)) => Err(self.start_cut_short().await),
            Ok(Ok(Greeting::ExecFailed(report))) => Err(match ExecFailure::parse(&report) {
                ExecFailure::NotFound => StartError::FileNotFound,
                ExecFailure::Permission => StartError::FilePermission,
                ExecFailure::Other => self.start_cut_short().await,
            }),
            Ok(Ok(Greeting::Ready)) => Err(StartError::Protocol("the launcher said Ready".to_owned())),
            Ok(Err(error)) => Err(StartError::Protocol(error.to_string())),
            Err(Cut::Deadline) => Err(StartError::TimedOut),
            Err(Cut::Ended(ended)) => Err(StartError::Exited(ended)),
        }
    }

    /// Waits for the user's program, no longer than the deadline and the cell's life.
    async fn wait_until_up<T>(
        &self,
        up: impl Future<Output = Result<T, StartError>>,
        deadline: Instant,
    ) -> Result<T, StartError> {
        match self.watched.until(deadline, up).await {
            // A socket inside a cell that has just ended cannot be had; that it has ended is the news.
            Ok(Err(StartError::Sandbox(error))) => match self.watched.end_within(Duration::from_millis(100)).await {
                Some(ended) => Err(StartError::Exited(ended)),
                None => Err(StartError::Sandbox(error)),
            },
            Ok(up) => up,
            Err(Cut::Deadline) => Err(StartError::TimedOut),
            Err(Cut::Ended(ended)) => Err(StartError::Exited(ended)),
        }
    }

    #[expect(clippy::unused_self, reason = "it is the guest's place that is filled")]
    fn keep<T>(&self, place: &OnceLock<T>, value: T) -> Result<(), StartError> {
        place.set(value).map_err(|_| StartError::Protocol("loaded before".to_owned()))
    }

    async fn start_cut_short(&self) -> StartError {
        match self.watched.end_within(END_GRACE).await {
            Some(ended) => StartError::Exited(ended),
            None => StartError::Protocol("it closed its channel and lives on".to_owned()),
        }
    }

    /// Runs the initializer. Without one configured there is nothing to do. Answers what it printed, when captured.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn initialize(&self, call: &CallContext, deadline: Instant) -> Result<Vec<u8>, Failed<CallError>> {
        let Some(hook) = self.config_hook(|config| config.initializer()) else { return Ok(Vec::new()) };
        match (self.server.get(), self.api.get()) {
            (Some(server), _) => server.initialize(call, deadline).await,
            (None, Some(api)) => api.hook(Purpose::Initializer, call, deadline).await,
            (None, None) => self.builtin_hook(Request::Init, "Initialize", hook, call, deadline).await,
        }
    }

    /// Carries one call in and its answer out. Dropping the future spends the guest.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn invoke(&self, call: &CallContext, payload: Payload, deadline: Instant) -> Result<Answered, Failed<CallError>> {
        if let Some(api) = self.api.get() {
            return match payload {
                Payload::Event(event) => api.invoke(call, event, deadline).await,
                Payload::Streaming(..) | Payload::Http(_) => Err(CallError::BadResponse(
                    "this program fetches events and takes no requests; give it the runtime go1 or provided".to_owned(),
                )
                .into()),
            };
        }
        match (self.server.get(), payload) {
            (Some(server), Payload::Event(event)) => server.invoke(call, event, deadline).await,
            (Some(server), Payload::Http(request)) => server.pass_through(call, request, deadline).await,
            (None, Payload::Event(event)) => self.builtin(Request::Invoke, "Invoke", call, event, None, deadline).await,
            (None, Payload::Streaming(event, body)) => {
                self.builtin(Request::Invoke, "Invoke", call, event, Some(body), deadline).await
            }
            (Some(_), Payload::Streaming(..)) => {
                Err(CallError::BadResponse("this runtime takes requests as they are".to_owned()).into())
            }
            (None, Payload::Http(request)) if self.is_module() => self.pass_through(call, request, deadline).await,
            (None, Payload::Http(_)) => Err(CallError::BadResponse("this runtime takes events, not requests".to_owned()).into()),
        }
    }

    /// Runs the pre-stop hook. Without one configured there is nothing to do.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn pre_stop(&self, call: &CallContext, deadline: Instant) -> Result<(), CallError> {
        let Some(hook) = self.config_hook(|config| config.pre_stop()) else { return Ok(()) };
        let result = match (self.server.get(), self.api.get()) {
            (Some(server), _) => server.pre_stop(call, deadline).await,
            (None, Some(api)) => api.hook(Purpose::PreStop, call, deadline).await,
            (None, None) => self.builtin_hook(Request::PreStop, "PreStop", hook, call, deadline).await,
        };
        result.map(drop).map_err(|failed| failed.error)
    }

    fn is_module(&self) -> bool {
        self.function.get().is_some_and(|function| function.config.runtime.protocol() == Protocol::Module)
    }

    fn config_hook(&self, which: fn(&dunlin_model::FunctionConfig) -> Option<&LifecycleHook>) -> Option<&LifecycleHook> {
        self.function.get().and_then(|function| which(&function.config))
    }

    async fn builtin_hook(
        &self,
        kind: Request,
        label: &'static str,
        hook: &LifecycleHook,
        call: &CallContext,
        deadline: Instant,
    ) -> Result<Vec<u8>, Failed<CallError>> {
        if context::hook_handler(hook).is_none() {
            let message = format!("{label} hooks in the form of a command are not supported yet; name a handler");
            return Err(CallError::Function(FunctionError::worded(ErrorType::InitializationError, None, &message)).into());
        }
        self.builtin(kind, label, call, Bytes::new(), None, deadline).await.map(|answered| answered.log_tail)
    }

    /// One request to a bootstrap, with its lines in the log around it.
    async fn builtin(
        &self,
        kind: Request,
        label: &'static str,
        call: &CallContext,
        event: Bytes,
        body: Option<Body>,
        deadline: Instant,
    ) -> Result<Answered, Failed<CallError>> {
        let head = context::call_head(call);
        self.ask(Asking { kind, label, head: &head }, call, event, body, deadline).await
    }

    async fn ask(
        &self,
        asking: Asking<'_>,
        call: &CallContext,
        event: Bytes,
        body: Option<Body>,
        deadline: Instant,
    ) -> Result<Answered, Failed<CallError>> {
        let Asking { kind, label, head } = asking;
        let output = &self.watched.output;
        let id = &call.request_id;
        let parts = match (kind, call.takes_parts) {
            (Request::Invoke, true) => Parts::HandedOn,
            (Request::Invoke, false) => Parts::Collected,
            _ => Parts::Refused,
        };
        let began = Instant::now();
        let in_flight = InFlight::begin(output, id, call.capture_tail);
        output.platform_line(id, &format!("FC {label} Start RequestId: {id}"));
        let asked = self.channel.request(kind, head.as_bytes(), event, parts, body);
        let result = match self.watched.until(deadline, asked).await {
            Ok(Ok(Reply::End(answer))) => Ok(Answer::Event(answer)),
            Ok(Ok(Reply::Collected { head, body })) => put_together(&head, body).map(Answer::Event),
            Ok(Ok(Reply::Begun { stream, head, parts, over })) => {
                let body = StreamedAnswer::begin(&self.channel, stream, (parts, over), &self.watched, id, in_flight);
                return Ok(Answered { answer: Answer::Streamed(head, Body::new(body)), log_tail: Vec::new() });
            }
            Ok(Ok(Reply::Error { error_type, body })) => {
                let error_type = if kind == Request::Init { ErrorType::InitializationError } else { error_type };
                Err(CallError::Function(FunctionError { error_type, body: body.into() }))
            }
            Ok(Err(ChannelError::Closed)) => Err(match self.watched.end_within(END_GRACE).await {
                Some(ended) => CallError::Exited(ended),
                None => CallError::Protocol("it closed its channel and lives on".to_owned()),
            }),
            Ok(Err(ChannelError::Unread)) => Err(CallError::NotDelivered),
            Ok(Err(ChannelError::TooLarge)) => Err(CallError::TooLarge { limit: ANSWER_BYTES_MAX }),
            Ok(Err(ChannelError::Broken(what))) => Err(CallError::Protocol(what)),
            Err(Cut::Deadline) => {
                self.channel.retire();
                Err(CallError::TimedOut)
            }
            Err(Cut::Ended(ended)) => Err(CallError::Exited(ended)),
        };
        let log_tail = in_flight.end();
        self.watched.peak.look_after(began.into_std());
        let unhandled = match &result {
            Ok(_) => false,
            Err(CallError::Function(error)) => error.error_type != ErrorType::HandledInvocationError,
            Err(_) => true,
        };
        output.platform_line(id, &end_line(label, id, unhandled));
        match result {
            Ok(answer) => Ok(Answered { answer, log_tail }),
            Err(error) => Err(Failed { error, log_tail }),
        }
    }

    /// A request to a module, as it is: its head goes into the call's, its body follows; and the same way back.
    async fn pass_through(
        &self,
        call: &CallContext,
        request: http::Request<Body>,
        deadline: Instant,
    ) -> Result<Answered, Failed<CallError>> {
        let common = self.common.get().cloned().unwrap_or_default();
        let (head, body) = module::request_head(call, request, &common);
        if head.len() > HEAD_BYTES_MAX {
            return Err(CallError::BadResponse(format!("the request's headers are larger than {HEAD_BYTES_MAX} bytes")).into());
        }
        let takes_parts = CallContext { takes_parts: true, ..call.clone() };
        let request = Asking { kind: Request::Invoke, label: "Invoke", head: &head };
        let answered = self.ask(request, &takes_parts, Bytes::new(), Some(body), deadline).await?;
        let Answer::Streamed(head, body) = answered.answer else {
            return Err(CallError::Protocol("a request answered as an event".to_owned()).into());
        };
        let response = module::response(&head, body)?;
        Ok(Answered { answer: Answer::Http(response), log_tail: answered.log_tail })
    }

    /// Whether the guest must not get another call: it broke the wire, announced its end, or a call was abandoned.
    /// Ask before reusing it; a function error alone does not say so.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.watched.ended.borrow().is_some()
            || match (self.server.get(), self.api.get()) {
                (Some(server), _) => server.is_spent(),
                (None, Some(api)) => api.is_spent(),
                (None, None) => self.channel.is_spent(),
            }
    }

    /// Prepares for standing still, without a call in flight. Connections kept to the user's server are closed: on
    /// waking it may find that they have been idle for too long and close them, just as the next request is sent.
    pub fn rest(&self) {
        if let Some(server) = self.server.get() {
            server.rest();
        }
    }

    /// The cell.
    #[must_use]
    pub fn cell(&self) -> CellId {
        self.cell
    }

    /// Highest memory seen so far, in bytes, page cache left out.
    #[must_use]
    pub fn memory_peak(&self) -> u64 {
        self.watched.peak.memory_bytes()
    }

    /// CPU time used so far, in microseconds, as of the last call's end.
    #[must_use]
    pub fn cpu_us(&self) -> u64 {
        if let Some(ended) = &*self.watched.ended.borrow() {
            self.watched.peak.note_cpu(ended.cpu_us);
        }
        self.watched.peak.cpu_us()
    }

    /// How the cell ended, once it has.
    #[must_use]
    pub fn ended(&self) -> watch::Receiver<Option<Ended>> {
        self.watched.ended.clone()
    }
}

/// A request to a bootstrap: its kind, what the log calls it, and its head.
struct Asking<'a> {
    kind: Request,
    label: &'static str,
    head: &'a str,
}

impl Watched {
    /// Waits for `future`, but no longer than the deadline and the cell's life; looks at its memory meanwhile.
    pub(crate) async fn until<T>(&self, deadline: Instant, future: impl Future<Output = T>) -> Result<T, Cut> {
        let mut future = pin!(future);
        // Copied out at once: a borrowed value would hold the channel's lock across the waits below.
        let end = async |mut ended: watch::Receiver<Option<Ended>>| {
            ended.wait_for(Option::is_some).await.ok().and_then(|ended| ended.clone())
        };
        let mut end = pin!(end(self.ended.clone()));
        let mut will_be_told = true;
        let mut tick = pin!(tokio::time::sleep_until(deadline.min(Instant::now() + LOOK_EVERY)));
        loop {
            tokio::select! {
                biased;
                output = &mut future => return Ok(output),
                known = &mut end, if will_be_told => {
                    if let Some(ended) = known {
                        // What it said last may still be on its way through the event loop.
                        return tokio::time::timeout(LAST_WORDS, future).await.map_err(|_| Cut::Ended(ended));
                    }
                    // Nobody is left who could say how it ends; the channel still says that it does.
                    will_be_told = false;
                }
                () = &mut tick => {
                    if Instant::now() >= deadline {
                        return Err(Cut::Deadline);
                    }
                    self.peak.look();
                    tick.as_mut().reset(deadline.min(Instant::now() + LOOK_EVERY));
                }
            }
        }
    }

    /// How the cell ended, if that is known within `grace`.
    pub(crate) async fn end_within(&self, grace: Duration) -> Option<Ended> {
        let mut ended = self.ended.clone();
        let known = tokio::time::timeout(grace, ended.wait_for(Option::is_some)).await.ok()?.ok()?;
        known.clone()
    }
}

/// A call in the log's eyes; ends when dropped.
pub(crate) struct InFlight {
    output: Option<Arc<Output>>,
}

impl InFlight {
    pub(crate) fn begin(output: &Arc<Output>, request: &RequestId, capture_tail: bool) -> Self {
        output.call_begins(request, capture_tail);
        Self { output: Some(Arc::clone(output)) }
    }

    /// Ends the call as a failure.
    pub(crate) fn fail<E>(self, error: E) -> Failed<E> {
        Failed { error, log_tail: self.end() }
    }

    /// Everything printed is with the sink now; what was captured comes back.
    pub(crate) fn end(mut self) -> Vec<u8> {
        self.output.take().map(|output| output.call_ends()).unwrap_or_default()
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(output) = self.output.take() {
            output.call_ends();
        }
    }
}

/// What a handler would have returned that answers at once: the body itself, or the response object with the body in it.
fn put_together(head: &[u8], body: Bytes) -> Result<Bytes, CallError> {
    let mut head: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(head).map_err(|_| CallError::Protocol("a Head that is no JSON object".to_owned()))?;
    if head.is_empty() {
        return Ok(body);
    }
    let (text, encoded) = match String::from_utf8(body.into()) {
        Ok(text) => (text, false),
        Err(binary) => (base64::engine::general_purpose::STANDARD.encode(binary.as_bytes()), true),
    };
    head.insert("body".to_owned(), text.into());
    head.insert("isBase64Encoded".to_owned(), encoded.into());
    serde_json::to_vec(&head).map(Bytes::from).map_err(|error| CallError::Protocol(error.to_string()))
}

/// The platform's line at the end of a call or hook.
pub(crate) fn end_line(label: &str, request: &RequestId, failed: bool) -> String {
    let error = if failed { ", Error: Unhandled function error" } else { "" };
    format!("FC {label} End RequestId: {request}{error}")
}
