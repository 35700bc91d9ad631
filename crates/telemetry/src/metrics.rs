//! Counters and histograms, as OpenMetrics text.
//!
//! Most of it is derived from the one [`Record`] that every call leaves, so that the metrics and the bill cannot
//! disagree. Per-function series are capped at [`FUNCTIONS_MAX`]; calls of further functions count under `_other`.

use std::collections::HashSet;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dunlin_model::{FunctionKey, Origin, Outcome, Record};
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// The content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Most functions with series of their own.
pub const FUNCTIONS_MAX: usize = 10_000;

/// Why a call was turned away that met no instance: its function may have none, where it would have waited was full, it
/// would have waited too long, it did, it may have only the instances that are kept ready.
pub const REFUSALS: [&str; 5] = ["disabled", "crowded", "hopeless", "waited", "provisioned"];

/// Why a version does without the template it asked for: its code could not be forked, or the template died or did not fork.
pub const TEMPLATES_GONE: [&str; 2] = ["refused", "lost"];

/// What an instance is doing, for the gauge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InstanceState {
    /// Not serving yet.
    Starting,
    /// Waiting for a call.
    Idle,
    /// Serving.
    Busy,
    /// Finishing its last calls.
    Draining,
    /// A cell that has no function yet.
    Unbound,
    /// Serves nobody: instances are forked from it.
    Template,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: Label,
    origin: Label,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FunctionLabels {
    account: String,
    function: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabels {
    phase: Label,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: Label,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: Label,
}

/// A label value that is a word of this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Label(&'static str);

impl EncodeLabelValue for Label {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.0.encode(encoder)
    }
}

/// The platform's metrics. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Registry,
    calls: Family<OutcomeLabels, Counter>,
    function_calls: Family<FunctionLabels, Counter>,
    function_errors: Family<FunctionLabels, Counter>,
    functions: Mutex<HashSet<FunctionLabels>>,
    cold_starts: Counter,
    phases: Family<PhaseLabels, Histogram>,
    billed: Counter<f64, AtomicU64>,
    instances: Family<StateLabels, Gauge>,
    queue_length: Gauge,
    refusals: [Totals; REFUSALS.len()],
    templates_gone: [Totals; TEMPLATES_GONE.len()],
    store_commits: Totals,
    store_writes: Totals,
    ledger_backlog: Gauge,
    log_lines_dropped: Totals,
}

/// A counter that another room counts; here it is only caught up with.
#[derive(Default)]
struct Totals {
    counter: Counter,
    seen: Mutex<u64>,
}

impl Totals {
    fn catch_up(&self, total: u64) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        self.counter.inc_by(total.saturating_sub(*seen));
        *seen = total.max(*seen);
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// A registry with every metric at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut inner = Inner {
            registry: Registry::with_prefix("dunlin"),
            calls: Family::default(),
            function_calls: Family::default(),
            function_errors: Family::default(),
            functions: Mutex::default(),
            cold_starts: Counter::default(),
            // 50 µs to about 100 s.
            phases: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.000_05, 2.0, 22))),
            billed: Counter::default(),
            instances: Family::default(),
            queue_length: Gauge::default(),
            refusals: std::array::from_fn(|_| Totals::default()),
            templates_gone: std::array::from_fn(|_| Totals::default()),
            store_commits: Totals::default(),
            store_writes: Totals::default(),
            ledger_backlog: Gauge::default(),
            log_lines_dropped: Totals::default(),
        };
        let refusals = Family::<ReasonLabels, Counter>::default();
        for (reason, totals) in REFUSALS.into_iter().zip(&mut inner.refusals) {
            totals.counter = refusals.get_or_create(&ReasonLabels { reason: Label(reason) }).clone();
        }
        let templates = Family::<ReasonLabels, Counter>::default();
        for (reason, totals) in TEMPLATES_GONE.into_iter().zip(&mut inner.templates_gone) {
            totals.counter = templates.get_or_create(&ReasonLabels { reason: Label(reason) }).clone();
        }
        let registry = &mut inner.registry;
        registry.register(
            "templates_gone",
            "Versions whose instances are not forked though they asked for it, by reason",
            templates,
        );
        registry.register("refusals", "Calls turned away for want of an instance, by reason", refusals);
        registry.register("calls", "Calls that ended, by outcome and origin", inner.calls.clone());
        registry.register("function_calls", "Calls that ended, by function", inner.function_calls.clone());
        registry.register("function_errors", "Calls that did not succeed, by function", inner.function_errors.clone());
        registry.register("cold_starts", "Calls that started their instance", inner.cold_starts.clone());
        registry.register_with_unit("call_phase", "Time calls spent in each phase", Unit::Seconds, inner.phases.clone());
        registry.register_with_unit("billed", "Time charged", Unit::Seconds, inner.billed.clone());
        registry.register("instances", "Instances and waiting cells, by state", inner.instances.clone());
        registry.register("queue_length", "Calls that wait for an instance", inner.queue_length.clone());
        registry.register("store_commits", "Transactions the store committed", inner.store_commits.counter.clone());
        registry.register("store_writes", "Writes the store acknowledged", inner.store_writes.counter.clone());
        registry.register("ledger_backlog", "Records of calls that are not durable yet", inner.ledger_backlog.clone());
        registry.register("log_lines_dropped", "Lines of functions that were not kept", inner.log_lines_dropped.counter.clone());
        Self { inner: Arc::new(inner) }
    }

    /// Counts a call that has ended.
    pub fn call(&self, record: &Record) {
        let inner = &self.inner;
        let labels = OutcomeLabels { outcome: Label(outcome_name(record.outcome)), origin: Label(origin_name(record.origin)) };
        inner.calls.get_or_create(&labels).inc();
        let function = self.function_labels(record);
        inner.function_calls.get_or_create(&function).inc();
        if record.outcome != Outcome::Succeeded {
            inner.function_errors.get_or_create(&function).inc();
        }
        if record.cold {
            inner.cold_starts.inc();
        }
        let every = [("queue", record.queue_us), ("handler", record.handler_us)];
        let cold = [("bind", record.bind_us), ("load", record.load_us), ("init", record.init_us)];
        for (phase, microseconds) in every.into_iter().chain(cold.into_iter().filter(|_| record.cold)) {
            let seconds = Duration::from_micros(microseconds).as_secs_f64();
            inner.phases.get_or_create(&PhaseLabels { phase: Label(phase) }).observe(seconds);
        }
        inner.billed.inc_by(Duration::from_millis(record.billed_ms).as_secs_f64());
    }

    /// Forgets the series of a function that is gone.
    pub fn forget_function(&self, key: &FunctionKey) {
        let labels = FunctionLabels { account: key.account().to_string(), function: key.name().to_string() };
        self.functions().remove(&labels);
        self.inner.function_calls.remove(&labels);
        self.inner.function_errors.remove(&labels);
    }

    /// Says how many instances are in `state`.
    pub fn set_instances(&self, state: InstanceState, count: usize) {
        let name = match state {
            InstanceState::Starting => "starting",
            InstanceState::Idle => "idle",
            InstanceState::Busy => "busy",
            InstanceState::Draining => "draining",
            InstanceState::Unbound => "unbound",
            InstanceState::Template => "template",
        };
        self.inner.instances.get_or_create(&StateLabels { state: Label(name) }).set(gauge(count));
    }

    /// Says how many calls wait for an instance.
    pub fn set_queue_length(&self, count: usize) {
        self.inner.queue_length.set(gauge(count));
    }

    /// Says how many calls were turned away since the start, in the order of [`REFUSALS`].
    pub fn set_refusals(&self, counts: [u64; REFUSALS.len()]) {
        for (totals, count) in self.inner.refusals.iter().zip(counts) {
            totals.catch_up(count);
        }
    }

    /// Says how many versions do without the template they asked for, in the order of [`TEMPLATES_GONE`].
    pub fn set_templates_gone(&self, counts: [u64; TEMPLATES_GONE.len()]) {
        for (totals, count) in self.inner.templates_gone.iter().zip(counts) {
            totals.catch_up(count);
        }
    }

    /// Says how much the store has written since the start.
    pub fn set_store(&self, commits: u64, writes: u64) {
        self.inner.store_commits.catch_up(commits);
        self.inner.store_writes.catch_up(writes);
    }

    /// Says how many records wait for the store.
    pub fn set_ledger_backlog(&self, count: usize) {
        self.inner.ledger_backlog.set(gauge(count));
    }

    /// Says how many lines of functions were dropped since the start.
    pub fn set_log_lines_dropped(&self, total: u64) {
        self.inner.log_lines_dropped.catch_up(total);
    }

    /// Everything, as OpenMetrics text of the type [`CONTENT_TYPE`].
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.inner.registry).expect("writing to a string does not fail");
        text
    }

    fn functions(&self) -> std::sync::MutexGuard<'_, HashSet<FunctionLabels>> {
        self.inner.functions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn function_labels(&self, record: &Record) -> FunctionLabels {
        let labels = FunctionLabels { account: record.account.to_string(), function: record.function.to_string() };
        let mut functions = self.functions();
        if functions.contains(&labels) {
            return labels;
        }
        if functions.len() >= FUNCTIONS_MAX {
            return FunctionLabels { account: "_other".into(), function: "_other".into() };
        }
        functions.insert(labels.clone());
        labels
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded => "succeeded",
        Outcome::FunctionError => "function_error",
        Outcome::TimedOut => "timed_out",
        Outcome::OutOfMemory => "out_of_memory",
        Outcome::Exited => "exited",
        Outcome::InitFailed => "init_failed",
        Outcome::Throttled => "throttled",
        Outcome::Cancelled => "cancelled",
        Outcome::PlatformError => "platform_error",
    }
}

fn origin_name(origin: Origin) -> &'static str {
    match origin {
        Origin::Api => "api",
        Origin::Http => "http",
    }
}
