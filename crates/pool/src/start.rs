//! From a waiting cell to an instance, and from an instance to nothing.

use std::sync::Arc;
use std::time::Duration;

use dunlin_model::{CellId, ErrorType, FunctionConfig, FunctionError, InstanceId, Phases, Protocol, RequestId};
use dunlin_runtime::{CallContext, CallError, Failed, LoadSpec, StartError};
use dunlin_sandbox::{Bind, BindError, Cell, CellKind, MakeError};
use jiff::Timestamp;
use tokio::time::{Instant, timeout};

use crate::api::{InstanceSpec, StartOutput};
use crate::class::{Class, Program};
use crate::engine::{MakeFault, StartFault};
use crate::service::{Inner, Slot};
use crate::worker::Worker;

/// How long taking down a cell's walls may take before it is given up and logged.
const END_PATIENCE: Duration = Duration::from_secs(30);

/// `/tmp` may hold this part of an instance's memory: a function that fills it gets "no space left", not a kill.
const TMP_SHARE: u64 = 2;

/// Why no cell was made, for the engine and in words.
pub(crate) struct MakeProblem {
    pub(crate) fault: MakeFault,
    pub(crate) text: String,
}

/// Why no instance came of a cell.
pub(crate) struct StartProblem {
    pub(crate) fault: StartFault,
    pub(crate) error: StartError,
    pub(crate) phases: Phases,
    pub(crate) output: StartOutput,
}

/// Makes a cell and boots what runs in it.
pub(crate) async fn make(
    pool: &Inner,
    class: Class,
    waited_for: bool,
    template: Option<CellId>,
) -> Result<Arc<dyn Worker>, MakeProblem> {
    let made = match (class.cell_kind(waited_for), template) {
        (Some(kind), _) => pool.sandboxes.make(kind, class.net).await,
        (None, Some(template)) => pool.sandboxes.fork(template).await,
        (None, None) => return Err(MakeProblem { fault: MakeFault::Broken, text: "its template has ended".to_owned() }),
    };
    boot(pool, made, class).await
}

async fn boot(pool: &Inner, made: Result<Cell, MakeError>, class: Class) -> Result<Arc<dyn Worker>, MakeProblem> {
    let cell = made.map_err(|error| MakeProblem {
        fault: if matches!(error, MakeError::Full) { MakeFault::Full } else { MakeFault::Broken },
        text: dunlin_model::chain(&error),
    })?;
    let id = cell.id;
    let deadline = Instant::now() + pool.config.make_timeout;
    match pool.boot.boot(cell, class.boot_plan(&pool.config.interpreters), deadline).await {
        Ok(worker) => Ok(worker),
        Err(error) => {
            let text = dunlin_model::chain(&error);
            if let Err(error) = pool.sandboxes.end(id).await {
                tracing::warn!(cell = %id, error = %dunlin_model::chain(&error), "a cell that did not boot could not be ended");
            }
            Err(MakeProblem { fault: MakeFault::Broken, text })
        }
    }
}

/// Makes a cell that has loaded a function and can be forked.
pub(crate) async fn template(pool: &Inner, spec: &InstanceSpec) -> Result<Arc<dyn Worker>, String> {
    let class = spec.demand.class;
    let Program::Python(interpreter) = class.program else { return Err("only Python is forked".to_owned()) };
    let made = pool.sandboxes.make(CellKind::Template(interpreter), class.net).await;
    let worker = boot(pool, made, class).await.map_err(|problem| problem.text)?;
    let load = async {
        pool.sandboxes.bind(worker.cell(), &bind_of(pool, spec)).await.map_err(|error| dunlin_model::chain(&error))?;
        let id = InstanceId::random();
        let load = LoadSpec { template: true, ..load_spec(pool, spec, &id, &RequestId::random()) };
        let loaded = worker.load(&pool.sandboxes, &load, Instant::now() + pool.config.load_timeout).await;
        loaded.map_err(|failed| dunlin_model::chain(&failed.error))?;
        // It runs again when it is forked, and only for so long.
        pool.sandboxes.freeze(worker.cell(), true).await.map_err(|error| dunlin_model::chain(&error))
    };
    let loaded = load.await;
    if loaded.is_err() {
        stop(pool, &*worker, None, false).await;
    }
    loaded.map(|()| worker)
}

/// Binds the cell, loads the code and runs the initializer. Answers how long each part took, and what was printed.
pub(crate) async fn start(pool: &Inner, slot: &Slot, request: &RequestId) -> Result<(Phases, StartOutput), StartProblem> {
    let (mut phases, mut output) = (Phases::default(), StartOutput::default());
    match run_start(pool, slot, request, &mut phases, &mut output).await {
        Ok(()) => Ok((phases, output)),
        Err(error) => {
            let fault = if matches!(error, StartError::Sandbox(_)) { StartFault::Platform } else { StartFault::Function };
            Err(StartProblem { fault, error, phases, output })
        }
    }
}

async fn run_start(
    pool: &Inner,
    slot: &Slot,
    request: &RequestId,
    phases: &mut Phases,
    output: &mut StartOutput,
) -> Result<(), StartError> {
    let function = slot.spec.function();
    let config = &function.config;
    let cell = slot.worker.cell();
    let bind = bind_of(pool, &slot.spec);
    let mut clock = Stopwatch::start();
    let spec = load_spec(pool, &slot.spec, &slot.id, request);
    // The cell gets ready for the function while its code is mounted. None of the function's code runs before both are done.
    let (bound, ()) = tokio::join!(pool.sandboxes.bind(cell, &bind), slot.worker.prepare(&spec));
    phases.bind = clock.lap();
    bound?;

    let patience = match config.runtime.protocol() {
        Protocol::Http | Protocol::RuntimeApi => pool.config.custom_start_timeout,
        Protocol::Frames | Protocol::Module => pool.config.load_timeout,
    };
    let loaded = slot.worker.load(&pool.sandboxes, &spec, Instant::now() + patience).await;
    phases.load = clock.lap();
    let (loaded, printed) = apart(loaded);
    output.load = printed;
    loaded?;

    if let Some(hook) = config.initializer() {
        let seconds = u64::try_from(hook.timeout_in_force()).unwrap_or(3);
        let (call, deadline) = hook_call(request.clone(), seconds, true);
        let initialized = slot.worker.initialize(&call, deadline).await;
        phases.init = clock.lap();
        let (initialized, printed) = apart(initialized);
        output.init = Some(printed);
        initialized.map_err(|error| initializer_error(error, seconds))?;
    }
    Ok(())
}

fn bind_of(pool: &Inner, spec: &InstanceSpec) -> Bind {
    let (function, memory_bytes) = (spec.function(), spec.demand.memory_bytes);
    let disk_bytes = u64::try_from(function.config.disk_size.unwrap_or(512)).unwrap_or(512) << 20;
    Bind {
        code: Some(function.code.digest),
        layers: function.config.layers.iter().flatten().map(|layer| layer.digest).collect(),
        memory_bytes,
        cpu_millis: cpu_millis(&function.config),
        pids: pool.config.pids_max,
        tmp_bytes: disk_bytes.min(memory_bytes / TMP_SHARE),
    }
}

fn load_spec(pool: &Inner, spec: &InstanceSpec, instance: &InstanceId, request: &RequestId) -> LoadSpec {
    LoadSpec {
        instance: instance.clone(),
        function: Arc::clone(spec.function()),
        key: spec.key().clone(),
        qualifier: spec.qualifier().to_owned(),
        region: pool.config.region.clone(),
        request: request.clone(),
        logs: pool.logs.open(spec.key(), instance),
        template: false,
    }
}

/// Limits the CPU of an instance that has started. Not before: user code is loaded and initialised at full speed. Nor
/// does the call wait for it: the quota is one of 100 ms periods, and this takes a fraction of one.
pub(crate) async fn limit_cpu(pool: &Inner, slot: &Slot) -> Result<(), BindError> {
    pool.sandboxes.set_cpu(slot.worker.cell(), cpu_millis(&slot.spec.function().config)).await
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0.05 to 16 vCPUs")]
fn cpu_millis(config: &FunctionConfig) -> u32 {
    (config.cpu_in_force() * 1000.0).round() as u32
}

/// Runs the pre-stop hook, if there is one and it is wanted, and takes the walls down.
pub(crate) async fn stop(pool: &Inner, worker: &dyn Worker, slot: Option<&Slot>, graceful: bool) {
    if let Some(slot) = slot.filter(|_| graceful) {
        pre_stop(pool, slot).await;
    }
    let cell = worker.cell();
    match timeout(END_PATIENCE, pool.sandboxes.end(cell)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::warn!(%cell, error = %dunlin_model::chain(&error), "a cell could not be ended"),
        Err(_) => tracing::error!(%cell, "a cell's walls are still up after {END_PATIENCE:?}"),
    }
}

async fn pre_stop(pool: &Inner, slot: &Slot) {
    let Some(hook) = slot.spec.function().config.pre_stop() else { return };
    if slot.worker.ended().borrow().is_some() {
        return;
    }
    if let Err(error) = slot.frost.thaw(&pool.sandboxes, &*slot.worker).await {
        tracing::info!(instance = %slot.id, error = %dunlin_model::chain(&error), "a frozen instance ends without its pre-stop hook");
        return;
    }
    let seconds = u64::try_from(hook.timeout_in_force()).unwrap_or(3);
    let (call, deadline) = hook_call(RequestId::random(), seconds, false);
    let mut clock = Stopwatch::start();
    let result = slot.worker.pre_stop(&call, deadline).await;
    let (instance, function, took) = (&slot.id, &slot.spec.key().function, clock.lap());
    match result {
        Ok(()) => tracing::info!(%instance, %function, request = %call.request_id, ?took, "pre-stop hook ran"),
        Err(error) => tracing::info!(%instance, %function, request = %call.request_id, ?took, %error, "pre-stop hook failed"),
    }
}

/// A result, and what was printed either way.
fn apart<E>(result: Result<Vec<u8>, Failed<E>>) -> (Result<(), E>, Vec<u8>) {
    match result {
        Ok(printed) => (Ok(()), printed),
        Err(Failed { error, log_tail }) => (Err(error), log_tail),
    }
}

fn hook_call(request_id: RequestId, seconds: u64, capture_tail: bool) -> (CallContext, Instant) {
    let deadline_ms = Timestamp::now().as_millisecond().saturating_add(i64::try_from(seconds * 1000).unwrap_or(i64::MAX));
    let call = CallContext { request_id, deadline_ms, retry_count: 0, capture_tail, takes_parts: false, http_base: None };
    (call, Instant::now() + Duration::from_secs(seconds))
}

/// An initializer that fails is the function's error, whatever way it failed.
fn initializer_error(error: CallError, seconds: u64) -> StartError {
    let message = match error {
        CallError::Function(error) => {
            return StartError::Function(FunctionError { error_type: ErrorType::InitializationError, body: error.body });
        }
        CallError::TimedOut => format!("Function initializer timed out after {seconds} seconds"),
        CallError::Exited(ended) if ended.out_of_memory => "Function initializer ran out of memory".to_owned(),
        CallError::Exited(ended) => format!("Process exited unexpectedly before completing initialization ({})", ended.exit),
        CallError::NotDelivered => "Process exited unexpectedly before initialization".to_owned(),
        CallError::Protocol(problem) => return StartError::Protocol(problem),
        CallError::BadResponse(problem) => format!("Function initializer gave a bad response: {problem}"),
        CallError::TooLarge { limit } => format!("Function initializer answered more than {limit} bytes"),
    };
    StartError::Function(FunctionError::worded(ErrorType::InitializationError, None, &message))
}

struct Stopwatch(Instant);

impl Stopwatch {
    fn start() -> Self {
        Self(Instant::now())
    }

    fn lap(&mut self) -> Duration {
        let now = Instant::now();
        let took = now - self.0;
        self.0 = now;
        took
    }
}
