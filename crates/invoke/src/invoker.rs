//! The room's one entry.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use dunlin_model::{
    FunctionError, FunctionKey, Invocation, LogType, Origin, Outcome, Phases, Protocol, Qualifier, SessionAsk, Target,
};
use dunlin_pool::{InstanceSpec, Lease, LeaseError, NoInterpreter, Pool, SessionCall, StartFailure, StartOutput};
use dunlin_runtime::{Answer, Answered, Body, CallContext, CallError, Failed, HttpBase, Payload, StartError};
use dunlin_store::Store;
use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::answer::{Counted, Streamed};
use crate::run::{Account, timeout_of};
use crate::session;
use crate::specs::Specs;
use crate::text::{self, Tail};
use crate::{OutcomeSink, Refusal, Reply};

/// How many dead instances a call may meet, before or while it is handed over. The next one is its last chance.
const DEAD_INSTANCES_MAX: usize = 3;

/// What the operator may change.
#[derive(Clone, Debug)]
pub struct Config {
    /// Largest event, in bytes. Default 32 MiB, the contract's. A request that passes through is bounded by its door.
    pub payload_bytes_max: usize,
    /// Largest event that a request was wrapped in. Its door has applied the limit to the request's body; base64 and
    /// the headers come on top. Default 64 MiB, the most the wire carries.
    pub wrapped_bytes_max: usize,
    /// How long a call may wait for an instance. Default 60 s.
    pub queue_wait_max: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { payload_bytes_max: 32 << 20, wrapped_bytes_max: 64 << 20, queue_wait_max: Duration::from_secs(60) }
    }
}

/// Runs calls. Cheap to clone.
#[derive(Clone)]
pub struct Invoker {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    store: Arc<dyn Store>,
    pool: Pool,
    sink: Arc<dyn OutcomeSink>,
    specs: Specs,
    door: Arc<Door>,
}

/// Counts who is inside and lets nobody in once it is closed.
#[derive(Default)]
struct Door {
    inside: AtomicUsize,
    closed: AtomicBool,
    left: Notify,
}

/// One call inside the door.
pub(crate) struct Presence(Arc<Door>);

impl Door {
    fn enter(self: &Arc<Self>) -> Option<Presence> {
        // Counted first: a drain that saw the door closed and nobody inside is right.
        self.inside.fetch_add(1, Ordering::SeqCst);
        let presence = Presence(Arc::clone(self));
        if self.closed.load(Ordering::SeqCst) { None } else { Some(presence) }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        if self.0.inside.fetch_sub(1, Ordering::SeqCst) == 1 && self.0.closed.load(Ordering::SeqCst) {
            self.0.left.notify_waiters();
        }
    }
}

impl Invoker {
    /// An invoker that finds functions in `store`, instances in `pool` and leaves records in `sink`.
    #[must_use]
    pub fn new(config: Config, store: Arc<dyn Store>, pool: Pool, sink: Arc<dyn OutcomeSink>) -> Self {
        let inner = Inner { config, store, pool, sink, specs: Specs::default(), door: Arc::default() };
        Self { inner: Arc::new(inner) }
    }

    /// Runs one call. A request that passes through may carry an [`HttpBase`] among its extensions.
    ///
    /// # Errors
    /// Why the function could not be asked, or gave no answer that could be passed on.
    pub async fn call(&self, invocation: Invocation, payload: Payload) -> Result<Reply, Refusal> {
        let presence = self.inner.door.enter().ok_or(Refusal::ShuttingDown)?;
        let spec = self.inner.resolve(&invocation)?;
        let bytes_in = match &payload {
            Payload::Event(event) => event.len(),
            // What streams is counted while it does.
            Payload::Streaming(event, _) => event.len(),
            Payload::Http(_) => 0,
        };
        let config = &self.inner.config;
        let limit = if invocation.origin == Origin::Http { config.wrapped_bytes_max } else { config.payload_bytes_max };
        if bytes_in > limit {
            return Err(Refusal::PayloadTooLarge { limit });
        }
        let session =
            self.inner.pool.enter(&spec, &invocation.qualifier, invocation.session.as_ref()).map_err(Refusal::Session)?;
        let spec = session.as_ref().map_or(spec, |session| Arc::clone(session.spec()));
        let sink = Arc::clone(&self.inner.sink);
        let version = spec.key().version.clone();
        let mut account = Account::open(sink, &invocation, spec.function(), &version, bytes_in as u64, presence);
        let payload = match payload {
            Payload::Http(request) => Payload::Http(request.map(|body| Counted::wrap(body, account.counts_bytes_in()))),
            Payload::Streaming(event, body) => Payload::Streaming(event, Counted::wrap(body, account.counts_bytes_in())),
            event @ Payload::Event(_) => event,
        };
        Run { inner: &self.inner, invocation, spec, session, account, dead: 0, output: StartOutput::default() }.run(payload).await
    }

    /// What instances are made from for calls that mean `target`, one of `function`'s.
    ///
    /// # Errors
    /// No interpreter here serves its runtime.
    pub fn spec(&self, function: &FunctionKey, target: &Target) -> Result<Arc<InstanceSpec>, NoInterpreter> {
        self.inner.specs.of(function, target, self.inner.pool.interpreters())
    }

    /// What a call of this session means where its qualifier is an alias: the version that the session began with, as long
    /// as there is one.
    #[must_use]
    pub fn session_target(&self, function: &FunctionKey, qualifier: &Qualifier, ask: &SessionAsk) -> Option<Target> {
        let (SessionAsk::In(id) | SessionAsk::End(id)) = ask else { return None };
        let version = self.inner.pool.session_version(function, qualifier, id)?;
        self.inner.store.view().resolve(function, &Qualifier::Named(version.version), 0.0).ok()
    }

    /// Calls that have not ended yet, streamed answers included.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.inner.door.inside.load(Ordering::SeqCst)
    }

    /// Refuses new calls from now on and returns when the last one has ended.
    pub async fn drain(&self) {
        let door = &self.inner.door;
        door.closed.store(true, Ordering::SeqCst);
        loop {
            let left = door.left.notified();
            tokio::pin!(left);
            left.as_mut().enable();
            if door.inside.load(Ordering::SeqCst) == 0 {
                return;
            }
            left.await;
        }
    }
}

impl Inner {
    fn resolve(&self, invocation: &Invocation) -> Result<Arc<InstanceSpec>, Refusal> {
        let key = &invocation.function;
        let view = self.store.view();
        if view.is_disabled(key) {
            return Err(Refusal::Disabled);
        }
        let spec = match &invocation.target {
            Some(target) => self.specs.of(key, target, self.pool.interpreters()),
            None => {
                let target = view.resolve(key, &invocation.qualifier, invocation.request_id.chance())?;
                self.specs.of(key, &target, self.pool.interpreters())
            }
        };
        let spec = spec.map_err(Refusal::NoInterpreter)?;
        match view.withdrawn_layer(key, spec.function()) {
            Some(layer) => Err(Refusal::LayerWithdrawn { arn: layer.arn.clone() }),
            None => Ok(spec),
        }
    }
}

/// One call that was let in.
struct Run<'a> {
    inner: &'a Inner,
    invocation: Invocation,
    spec: Arc<InstanceSpec>,
    session: Option<Arc<SessionCall>>,
    account: Account,
    /// Dead instances met so far.
    dead: usize,
    /// What the start made for this call printed.
    output: StartOutput,
}

impl Run<'_> {
    async fn run(mut self, payload: Payload) -> Result<Reply, Refusal> {
        let began = Instant::now();
        let mut payload = Some(payload);
        loop {
            match self.lease(began).await {
                Ok(lease) => {
                    self.output = lease.start_output().clone();
                    self.account.leased(lease, began.elapsed());
                }
                Err(error) => return self.no_instance(error, began.elapsed()),
            }
            let timeout = timeout_of(self.spec.function());
            let Some((attempt, again)) = payload.take().map(|payload| self.attempt(payload)) else {
                return Err(Refusal::Platform("a payload was lost".to_owned()));
            };
            let context = self.context(&attempt, timeout);
            let Some(lease) = self.account.call_begins() else {
                return Err(Refusal::Platform("a lease was lost".to_owned()));
            };
            let deadline = Instant::now() + timeout;
            let answer = lease.guest().invoke(&context, attempt, deadline).await;
            self.account.call_ended();
            match answer {
                Ok(answered) => return Ok(self.answered(answered, deadline)),
                // No handler has seen it, so it is not repeated by being tried on another instance.
                Err(Failed { error: CallError::NotDelivered, .. }) if again.is_some() => {
                    tracing::debug!(request = %self.invocation.request_id, "an instance died before it had read its call");
                    self.dead += 1;
                    self.account.undelivered();
                    payload = again;
                }
                Err(Failed { error, log_tail }) => return self.failed(error, &log_tail, timeout),
            }
        }
    }

    /// The payload to send now, and the one to send when that was not delivered. An event is shared; the body of a
    /// request that passes through is there once.
    fn attempt(&self, payload: Payload) -> (Payload, Option<Payload>) {
        let again = match &payload {
            Payload::Event(event) if self.dead < DEAD_INSTANCES_MAX => Some(Payload::Event(event.clone())),
            _ => None,
        };
        (payload, again)
    }

    /// An instance that is not known to be dead.
    async fn lease(&mut self, began: Instant) -> Result<Lease, LeaseError> {
        let deadline = began + self.inner.config.queue_wait_max;
        loop {
            let lease = self.lease_once(deadline).await?;
            if self.dead < DEAD_INSTANCES_MAX && lease.is_dead() {
                self.dead += 1;
                lease.discard();
                continue;
            }
            return Ok(lease);
        }
    }

    async fn lease_once(&self, deadline: Instant) -> Result<Lease, LeaseError> {
        self.inner.pool.lease_in(&self.spec, self.session.as_ref(), &self.invocation.request_id, deadline).await
    }

    fn context(&self, payload: &Payload, timeout: Duration) -> CallContext {
        let http_base = match payload {
            Payload::Http(request) => Some(request.extensions().get::<HttpBase>().cloned().unwrap_or_default()),
            Payload::Event(_) | Payload::Streaming(..) => None,
        };
        let timeout_ms = i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX);
        CallContext {
            request_id: self.invocation.request_id.clone(),
            deadline_ms: Timestamp::now().as_millisecond().saturating_add(timeout_ms),
            retry_count: 0,
            capture_tail: self.wants_tail(),
            // The log's tail goes into the answer's head, so such an answer waits for its end.
            takes_parts: self.invocation.origin == Origin::Http && !self.wants_tail(),
            http_base,
        }
    }

    fn wants_tail(&self) -> bool {
        self.invocation.log_type == LogType::Tail
    }

    fn answered(mut self, answered: Answered, deadline: Instant) -> Reply {
        let mut reply = self.reply(Outcome::Succeeded, Some(&answered.log_tail));
        reply.result = Ok(match answered.answer {
            Answer::Event(result) => {
                self.account.add_bytes_out(result.len());
                self.account.close(Outcome::Succeeded, None);
                Answer::Event(result)
            }
            Answer::Streamed(head, body) => Answer::Streamed(head, Streamed::wrap(body, self.account, deadline)),
            Answer::Http(response) => {
                let response = self.learn(response);
                let account = self.account;
                Answer::Http(response.map(|body| Streamed::wrap(body, account, deadline)))
            }
            Answer::Upgraded(head, tunnel) => {
                let mut account = self.account;
                Answer::Upgraded(head, tunnel.on_end(move |carried| account.close_tunnel(carried)))
            }
        });
        reply
    }

    /// Takes from a server's answer what it says of the session.
    fn learn(&self, response: http::Response<Body>) -> http::Response<Body> {
        let (Some(call), Some(rules)) = (&self.session, self.spec.sessions()) else { return response };
        let ask = self.invocation.session.as_ref();
        let (response, ended) = session::learn(rules, call, ask, response);
        if let Some(key) = session::key_of(call, &self.invocation.qualifier, ask).filter(|_| ended)
            && let Err(gone) = self.inner.pool.end_session(&key, false)
        {
            tracing::debug!(%gone, "a session was ended twice");
        }
        response
    }

    fn failed(mut self, error: CallError, log_tail: &[u8], timeout: Duration) -> Result<Reply, Refusal> {
        let ends_instance = error.ends_instance();
        let took = self.account.phases().handler;
        let peak = self.account.record().memory_peak_bytes;
        let (outcome, error_type, error) = match error {
            CallError::Function(error) => (Outcome::FunctionError, error.error_type.as_str(), error),
            CallError::TimedOut => {
                self.account.timed_out();
                (Outcome::TimedOut, "FunctionTimeoutError", text::timed_out(timeout.as_secs()))
            }
            CallError::Exited(ended) if ended.out_of_memory => {
                (Outcome::OutOfMemory, "FunctionOOMError", text::exited(&ended, took, peak))
            }
            CallError::Exited(ended) => (Outcome::Exited, "FunctionUnhandledError", text::exited(&ended, took, peak)),
            CallError::NotDelivered => (
                Outcome::Exited,
                "FunctionUnhandledError",
                text::unhandled("Process exited unexpectedly before it had read the request"),
            ),
            CallError::Protocol(problem) => {
                tracing::info!(request = %self.invocation.request_id, problem, "an instance broke the protocol");
                (Outcome::Exited, "FunctionUnhandledError", text::unhandled("Process broke the runtime's protocol and was ended"))
            }
            CallError::TooLarge { limit } => {
                let error = text::unhandled(&format!("Response payload is larger than {limit} bytes"));
                (Outcome::FunctionError, "FunctionUnhandledError", error)
            }
            CallError::BadResponse(problem) => {
                self.account.close(Outcome::FunctionError, Some("BadResponse"));
                return Err(Refusal::BadResponse(problem));
            }
        };
        let mut reply = self.reply(outcome, Some(log_tail));
        if ends_instance {
            self.account.discard();
        }
        self.account.add_bytes_out(error.body.len());
        self.account.close(outcome, Some(error_type));
        reply.result = Err(error);
        Ok(reply)
    }

    fn no_instance(mut self, error: LeaseError, waited: Duration) -> Result<Reply, Refusal> {
        let (outcome, error_type, refusal) = match error {
            LeaseError::Start(failure) => return self.not_started(failure, waited),
            LeaseError::Throttled(throttled) => {
                let error_type = if throttled.is_callers() { "ResourceExhausted" } else { "ResourceThrottled" };
                (Outcome::Throttled, error_type, Refusal::Throttled(throttled))
            }
            LeaseError::SessionEnded => (Outcome::Throttled, "SessionEnded", Refusal::SessionEnded),
            LeaseError::ShuttingDown => (Outcome::PlatformError, "InternalServerError", Refusal::ShuttingDown),
            LeaseError::Platform(problem) => (Outcome::PlatformError, "InternalServerError", Refusal::Platform(problem)),
        };
        self.account.waited(waited);
        self.account.close(outcome, Some(error_type));
        Err(refusal)
    }

    fn not_started(mut self, failure: StartFailure, waited: Duration) -> Result<Reply, Refusal> {
        let StartFailure { instance, phases, source, memory_peak_bytes, output } = failure;
        self.output = output;
        self.account.not_started(instance, phases, waited, memory_peak_bytes);
        let custom = self.spec.function().config.runtime.protocol() == Protocol::Http;
        match &*source {
            StartError::Function(error) => self.init_failed(Outcome::InitFailed, error.clone()),
            StartError::TimedOut => {
                self.init_failed(Outcome::InitFailed, text::not_initialized("Function instance did not become ready in time"))
            }
            StartError::Protocol(_) => self.init_failed(
                Outcome::InitFailed,
                text::not_initialized("Process broke the runtime's protocol while it was started"),
            ),
            StartError::FileNotFound => self.refused("CAFileNotFound", Refusal::RuntimeFileNotFound),
            StartError::FilePermission => self.refused("CAFilePermission", Refusal::RuntimeFilePermission),
            StartError::Exited(ended) if custom => {
                let memory = if ended.out_of_memory { ", out of memory" } else { "" };
                self.refused("CAExited", Refusal::RuntimeExited(format!("{}{memory}", ended.exit)))
            }
            StartError::Exited(ended) => {
                let outcome = if ended.out_of_memory { Outcome::OutOfMemory } else { Outcome::InitFailed };
                let error = text::exited(ended, phases.load, memory_peak_bytes);
                self.init_failed(outcome, error)
            }
            StartError::Sandbox(_) => {
                self.account.close(Outcome::PlatformError, Some("InternalServerError"));
                Err(Refusal::Platform(source.to_string()))
            }
        }
    }

    fn init_failed(mut self, outcome: Outcome, error: FunctionError) -> Result<Reply, Refusal> {
        let mut reply = self.reply(outcome, None);
        self.account.add_bytes_out(error.body.len());
        self.account.close(outcome, Some(error.error_type.as_str()));
        reply.result = Err(error);
        Ok(reply)
    }

    fn refused(mut self, error_type: &str, refusal: Refusal) -> Result<Reply, Refusal> {
        self.account.close(Outcome::InitFailed, Some(error_type));
        Err(refusal)
    }

    /// The reply so far; its result is for the caller to fill in. `lines` are what the handler printed, if it was called.
    fn reply(&self, outcome: Outcome, lines: Option<&[u8]>) -> Reply {
        let (record, phases): (_, Phases) = (self.account.record(), self.account.phases());
        let function = self.spec.function();
        let log_tail = self.wants_tail().then(|| {
            Tail {
                request: &self.invocation.request_id,
                function,
                start: &self.output,
                phases,
                memory_peak_bytes: record.memory_peak_bytes,
                outcome,
                lines,
            }
            .text()
        });
        Reply {
            result: Ok(Answer::Event(bytes::Bytes::new())),
            outcome,
            instance: record.instance.clone(),
            version: record.version.clone(),
            checksum: function.code.checksum,
            phases,
            memory_peak_bytes: record.memory_peak_bytes,
            log_tail,
            session: self.session.as_ref().and_then(|call| session::mark(self.spec.sessions()?, call)),
        }
    }
}
