//! The words the pool is spoken to in.

use std::sync::Arc;
use std::time::Duration;

use dunlin_model::{Function, InstanceId, Interpreters, Isolation, Phases, SessionRules, VersionKey};
use dunlin_runtime::StartError;
use jiff::Timestamp;

use crate::class::{Class, NoInterpreter};
use crate::engine::{Demand, Sharing};
use crate::throttle::Throttled;

/// What the operator may change. Every bound of the pool is here.
#[derive(Clone, Debug)]
pub struct Config {
    /// The region that functions are told.
    pub region: String,
    /// What functions are served by. Default: what a plain Debian has.
    pub interpreters: Interpreters,
    /// Most instances of one account at a time. Default 300, the contract's.
    pub instances_per_account_max: usize,
    /// Most instances of one function at a time, where nothing else was said of it. Default: its account's.
    pub instances_per_function_max: Option<usize>,
    /// Memory that cells and instances may use together, in bytes. Default three quarters of the machine's.
    pub memory_bytes_max: u64,
    /// Most starts under way at a time (bind, load, initializer), of which one account may have three quarters and one
    /// function a half. Default 128: a start waits more than it computes.
    pub starting_max: usize,
    /// Most cells being made at a time. Default one more than there are processors: booting computes, and side by side all
    /// would be late.
    pub making_max: usize,
    /// Most calls that may wait, of which one account may have a half and one function a quarter. Default 20,000.
    pub waiting_max: usize,
    /// How long an idle instance is kept when its function does not say. Default 5 minutes.
    pub idle_timeout: Duration,
    /// How long one is kept of which there are more than were busy at a time lately. Default 1 minute.
    pub surplus_timeout: Duration,
    /// How long an instance idles before its processes are stopped until the next call; none lets them run on. Default
    /// 100 ms, so that calls that follow each other closely do not pay for it.
    pub freeze_after: Option<Duration>,
    /// Share of `memory_bytes_max` that waiting cells may use. Default 0.1.
    pub stock_share: f64,
    /// Most waiting cells of one class, 0 for none. Default: each class's own.
    pub stock_max: Option<usize>,
    /// How long making a cell may take. Default 30 s.
    pub make_timeout: Duration,
    /// How long loading code may take in a built-in runtime. Default 60 s.
    pub load_timeout: Duration,
    /// How long a custom runtime may take to listen and become healthy. Default 120 s, the contract's.
    pub custom_start_timeout: Duration,
    /// Most processes and threads of one instance. Default 1024, the contract's.
    pub pids_max: u32,
    /// Below this much available memory on the machine, idle instances are ended. Default 256 MiB; 0 never looks.
    pub available_bytes_min: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            region: "cn-hangzhou".to_owned(),
            interpreters: Interpreters::usual(),
            instances_per_account_max: 300,
            instances_per_function_max: None,
            memory_bytes_max: crate::service::machine_memory_bytes() / 4 * 3,
            starting_max: 128,
            making_max: std::thread::available_parallelism().map_or(2, usize::from) + 1,
            waiting_max: 20_000,
            idle_timeout: Duration::from_secs(300),
            surplus_timeout: Duration::from_secs(60),
            freeze_after: Some(Duration::from_millis(100)),
            stock_share: 0.1,
            stock_max: None,
            make_timeout: Duration::from_secs(30),
            load_timeout: Duration::from_secs(60),
            custom_start_timeout: Duration::from_secs(120),
            pids_max: 1024,
            available_bytes_min: 256 << 20,
        }
    }
}

/// One version of a function, as instances of it are made.
#[derive(Clone, Debug)]
pub struct InstanceSpec {
    pub(crate) demand: Arc<Demand>,
    function: Arc<Function>,
    qualifier: String,
    sessions: Option<SessionRules>,
}

impl InstanceSpec {
    /// Instances of `function`, interchangeable exactly when their `key` is equal.
    ///
    /// # Errors
    /// When none of `interpreters` serves it.
    pub fn new(key: VersionKey, function: Arc<Function>, interpreters: &Interpreters) -> Result<Self, NoInterpreter> {
        let qualifier = key.version.to_string();
        let config = &function.config;
        let sessions = config.sessions();
        let demand = Demand {
            class: Class::of(config, interpreters)?,
            concurrency: config.concurrency_in_force(),
            idle: config.idle_timeout.and_then(|s| u64::try_from(s).ok()).map(Duration::from_secs),
            memory_bytes: u64::try_from(config.memory_size).unwrap_or(0) << 20,
            template: config.makes_templates(),
            on_demand: config.scales_on_demand(),
            sharing: match (config.isolation(), &sessions) {
                (Isolation::Request, _) => Sharing::Nobody,
                (isolation, Some(rules)) => {
                    Sharing::Sessions { per_instance: rules.per_instance, exclusive: isolation == Isolation::Session }
                }
                (_, None) => Sharing::All,
            },
            key,
        };
        Ok(Self { demand: Arc::new(demand), function, qualifier, sessions })
    }

    /// What instances are bound to.
    #[must_use]
    pub fn key(&self) -> &VersionKey {
        &self.demand.key
    }

    /// Code and configuration.
    #[must_use]
    pub fn function(&self) -> &Arc<Function> {
        &self.function
    }

    /// What the function says about sessions, if its calls have any.
    #[must_use]
    pub fn sessions(&self) -> Option<&SessionRules> {
        self.sessions.as_ref()
    }

    /// What instances are told they are called as.
    #[must_use]
    pub fn qualifier(&self) -> &str {
        &self.qualifier
    }
}

/// Why there is no lease.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// There is none for it within the time it may wait, or it may not wait.
    #[error(transparent)]
    Throttled(Throttled),
    /// The instance that was started for this call did not come up.
    #[error("the instance did not start")]
    Start(#[source] StartFailure),
    /// The pool drains.
    #[error("the pool is shutting down")]
    ShuttingDown,
    /// The session that the call belongs to was ended while it waited.
    #[error("the session was ended while the call waited for its instance")]
    SessionEnded,
    /// The platform could not make or bind a cell, repeatedly.
    #[error("no instance could be made: {0}")]
    Platform(String),
}

/// How a start went wrong.
#[derive(Clone, Debug, thiserror::Error)]
#[error("instance {instance} did not start")]
pub struct StartFailure {
    /// The instance that was to be.
    pub instance: InstanceId,
    /// How far it got. All zero for a call that only learned of another call's failed start.
    pub phases: Phases,
    /// What happened. Shared: one failed start can answer several calls.
    pub source: Arc<StartError>,
    /// Highest memory seen.
    pub memory_peak_bytes: u64,
    /// What it printed.
    pub output: StartOutput,
}

/// What an instance printed while it was started, last 4 KB of each part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StartOutput {
    /// While its code was loaded.
    pub load: Vec<u8>,
    /// While its initializer ran; absent when it was not started.
    pub init: Option<Vec<u8>>,
}

/// One instance, for lists.
#[derive(Clone, Debug, PartialEq)]
pub struct InstanceInfo {
    /// Its name.
    pub id: InstanceId,
    /// `LATEST` or a number.
    pub version: String,
    /// What it was started as.
    pub qualifier: String,
    /// When its start began.
    pub created: Timestamp,
    /// What it does.
    pub state: InstanceState,
}

/// Where an instance is in its life, for lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InstanceState {
    /// Being bound, loaded or initialised.
    Starting,
    /// Alive without a call.
    Idle,
    /// Serving.
    Busy,
    /// Serving its last calls.
    Draining,
}

/// How what is kept of a version does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Instances that serve or could, at this moment.
    pub ready: usize,
    /// Calls in them.
    pub in_use: usize,
    /// Calls that wait for one.
    pub waiting: usize,
    /// Why there are not as many as are kept, if that is so and more is known than that they are on their way.
    pub problem: Option<String>,
}

/// How full the pool is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Cells being made.
    pub making: usize,
    /// Cells that wait for a function.
    pub waiting_cells: usize,
    /// Instances being started.
    pub starting: usize,
    /// Instances without a call.
    pub idle: usize,
    /// Instances with a call, draining ones included.
    pub busy: usize,
    /// Cells from which instances are forked.
    pub templates: usize,
    /// Versions that asked for a template and whose code could not be forked, since the start.
    pub templates_refused: u64,
    /// Templates that died, or were ended because they did not fork, since the start.
    pub templates_lost: u64,
    /// Cells and instances whose walls are being taken down.
    pub ending: usize,
    /// Calls that wait for an instance.
    pub waiting_calls: usize,
    /// Memory reckoned as used, in bytes.
    pub memory_bytes: u64,
    /// Calls that were turned away since the start.
    pub refusals: Refusals,
}

/// How many calls were turned away, by the reason; see [`Throttled`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    /// Of functions that may have no instance.
    pub disabled: u64,
    /// Where they would have waited was full.
    pub crowded: u64,
    /// Of functions that have only the instances that are kept ready.
    pub provisioned: u64,
    /// They would have waited too long.
    pub hopeless: u64,
    /// They did wait too long.
    pub waited: u64,
}

impl Refusals {
    pub(crate) fn count(&mut self, throttled: &Throttled) {
        *match throttled {
            Throttled::Disabled => &mut self.disabled,
            Throttled::Provisioned { .. } => &mut self.provisioned,
            Throttled::Crowded { .. } => &mut self.crowded,
            Throttled::Hopeless { .. } => &mut self.hopeless,
            Throttled::Waited { .. } => &mut self.waited,
        } += 1;
    }
}

/// Something worth counting.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Seen {
    /// A cell was made.
    CellMade {
        /// Of which class.
        class: Class,
        /// In how long.
        took: Duration,
    },
    /// A cell could not be made.
    MakeFailed {
        /// Of which class.
        class: Class,
    },
    /// An instance serves.
    Started {
        /// Of which version.
        key: VersionKey,
        /// Under which name.
        instance: InstanceId,
        /// Bind, load, init.
        phases: Phases,
    },
    /// An instance did not come up.
    StartFailed {
        /// Of which version.
        key: VersionKey,
    },
    /// An instance is gone, walls and all.
    Ended {
        /// Of which version.
        key: VersionKey,
        /// Under which name.
        instance: InstanceId,
    },
}

/// Counts what happens in the pool; the server adapts metrics to it. Must not block.
pub trait Observer: Send + Sync + 'static {
    /// Something happened.
    fn seen(&self, seen: &Seen);
}

impl Observer for () {
    fn seen(&self, _seen: &Seen) {}
}
