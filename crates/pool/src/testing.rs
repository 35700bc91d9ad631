//! Guests that follow a script, for tests of the pool and of the rooms above it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dunlin_model::{CellId, CodePackage, Crc64, Digest, Function, FunctionPatch, InstanceId, Limits, VersionKey};
use dunlin_runtime::{
    Answer, Answered, BootError, BootPlan, CallContext, CallError, Failed, LoadSpec, LogLine, LogSink, Payload, StartError,
};
use dunlin_sandbox::{Cell, Ended, Sandboxes};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::worker::{Boot, Worker};

/// What a scripted guest does with a call.
pub enum Act {
    /// Answers after a while.
    Answer(Duration, Answer),
    /// Fails after a while.
    Fail(Duration, CallError),
    /// Says nothing; the deadline ends it, as it would a real guest.
    Hang,
}

/// Decides about a load, given how many there were before.
pub type OnLoad = dyn Fn(usize, &LoadSpec) -> Result<(), StartError> + Send + Sync;
/// Decides about a call.
pub type OnCall = dyn Fn(&CallContext, Payload) -> Act + Send + Sync;
/// Decides about an initializer or a pre-stop hook.
pub type OnHook = dyn Fn(&CallContext) -> Result<(), CallError> + Send + Sync;

/// What every guest of a test does. The default loads at once and answers every event with itself at once.
#[derive(Clone)]
pub struct Script {
    /// How long a load takes.
    pub load_time: Duration,
    /// How a load goes.
    pub on_load: Arc<OnLoad>,
    /// How a call goes.
    pub on_call: Arc<OnCall>,
    /// How long an initializer takes.
    pub init_time: Duration,
    /// How an initializer goes.
    pub on_init: Arc<OnHook>,
    /// How a pre-stop hook goes.
    pub on_pre_stop: Arc<OnHook>,
    /// Whether guests say of themselves that they must not get another call.
    pub spent: Arc<AtomicBool>,
    loads: Arc<AtomicUsize>,
    calls: Arc<AtomicUsize>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            load_time: Duration::ZERO,
            on_load: Arc::new(|_, _| Ok(())),
            on_call: Arc::new(|_, payload| {
                let answer = match payload {
                    Payload::Event(event) | Payload::Streaming(event, _) => Answer::Event(event),
                    Payload::Http(_) => Answer::Event(Bytes::new()),
                };
                Act::Answer(Duration::ZERO, answer)
            }),
            init_time: Duration::ZERO,
            on_init: Arc::new(|_| Ok(())),
            on_pre_stop: Arc::new(|_| Ok(())),
            spent: Arc::default(),
            loads: Arc::default(),
            calls: Arc::default(),
        }
    }
}

impl Script {
    /// The default, with loads that take a while.
    #[must_use]
    pub fn loading_for(load_time: Duration) -> Self {
        Self { load_time, ..Self::default() }
    }

    /// The default, with initializers that take a while.
    #[must_use]
    pub fn initializing_for(init_time: Duration) -> Self {
        Self { init_time, ..Self::default() }
    }

    /// How many guests were loaded.
    #[must_use]
    pub fn loads(&self) -> usize {
        self.loads.load(Ordering::SeqCst)
    }

    /// How many calls reached a guest.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Boot for Script {
    async fn boot(&self, cell: Cell, _plan: BootPlan, _deadline: Instant) -> Result<Arc<dyn Worker>, BootError> {
        Ok(Arc::new(Scripted { script: self.clone(), cell, cpu_us: AtomicU64::new(0) }))
    }
}

struct Scripted {
    script: Script,
    cell: Cell,
    cpu_us: AtomicU64,
}

#[async_trait]
impl Worker for Scripted {
    async fn rehearse(&self) {}
    async fn prepare(&self, _: &LoadSpec) {}
    async fn load(
        &self,
        _sandboxes: &Arc<dyn Sandboxes>,
        spec: &LoadSpec,
        _deadline: Instant,
    ) -> Result<Vec<u8>, Failed<StartError>> {
        sleep(self.script.load_time).await;
        let before = self.script.loads.fetch_add(1, Ordering::SeqCst);
        printed((self.script.on_load)(before, spec), b"loading\n")
    }

    async fn initialize(&self, call: &CallContext, deadline: Instant) -> Result<Vec<u8>, Failed<CallError>> {
        sleep_until(deadline.min(Instant::now() + self.script.init_time)).await;
        let result = if Instant::now() >= deadline { Err(CallError::TimedOut) } else { (self.script.on_init)(call) };
        printed(result, b"initializing\n")
    }

    async fn invoke(&self, call: &CallContext, payload: Payload, deadline: Instant) -> Result<Answered, Failed<CallError>> {
        self.script.calls.fetch_add(1, Ordering::SeqCst);
        self.cpu_us.fetch_add(1000, Ordering::SeqCst);
        match (self.script.on_call)(call, payload) {
            Act::Answer(time, answer) => {
                sleep(time).await;
                Ok(Answered { answer, log_tail: b"printed\n".to_vec() })
            }
            Act::Fail(time, error) => {
                sleep(time).await;
                Err(Failed { error, log_tail: b"printed\n".to_vec() })
            }
            Act::Hang => {
                sleep_until(deadline).await;
                Err(CallError::TimedOut.into())
            }
        }
    }

    async fn pre_stop(&self, call: &CallContext, _deadline: Instant) -> Result<(), CallError> {
        (self.script.on_pre_stop)(call)
    }

    fn rest(&self) {}

    fn cell(&self) -> CellId {
        self.cell.id
    }

    fn memory_peak(&self) -> u64 {
        9 << 20
    }

    fn cpu_us(&self) -> u64 {
        self.cpu_us.load(Ordering::SeqCst)
    }

    fn ended(&self) -> watch::Receiver<Option<Ended>> {
        self.cell.ended.clone()
    }

    fn is_spent(&self) -> bool {
        self.cell.ended.borrow().is_some() || self.script.spent.load(Ordering::SeqCst)
    }
}

fn printed<E>(result: Result<(), E>, lines: &[u8]) -> Result<Vec<u8>, Failed<E>> {
    let log_tail = lines.to_vec();
    match result {
        Ok(()) => Ok(log_tail),
        Err(error) => Err(Failed { error, log_tail }),
    }
}

/// A function as the control plane would have stored it.
///
/// # Panics
/// When `json` is no acceptable configuration.
#[must_use]
pub fn function(json: &str) -> Function {
    let patch: FunctionPatch = serde_json::from_str(json).expect("the test wrote JSON of the right types");
    Function {
        config: patch.create(&Limits::default()).expect("the test wrote an acceptable configuration"),
        code: CodePackage { digest: Digest::of(b"code"), checksum: Crc64::of(b"code"), size: 4 },
        function_id: "test".to_owned(),
        created: Timestamp::UNIX_EPOCH,
        modified: Timestamp::UNIX_EPOCH,
    }
}

/// Throws every line away.
#[must_use]
pub fn no_logs() -> Arc<dyn crate::LogSinks> {
    struct Nowhere;
    impl LogSink for Nowhere {
        fn line(&self, _line: LogLine<'_>) {}
    }
    Arc::new(|_: &VersionKey, _: &InstanceId| -> Arc<dyn LogSink> { Arc::new(Nowhere) })
}
