//! The service and what it stands on.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use dunlin_blobs::Blobs;
use dunlin_model::{AccountScope, Function, FunctionKey, FunctionName, Interpreters, Limits, Revision};
use dunlin_outbound::Outbound;
use dunlin_sandbox::Sandboxes;
use dunlin_store::{Store, Stored};
use jiff::Timestamp;

use crate::concurrency::Reservations;
use crate::error::Error;
use crate::instances::{Instances, KeepsReady};
use crate::packages::Packages;
use crate::seal::Seal;
use crate::sessions::Sessions;

/// Tells the time of day. Injected, so that a test can stand anywhere.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What the operator may change.
#[derive(Clone, Debug)]
pub struct Config {
    /// The one region this platform is.
    pub region: String,
    /// What is accepted.
    pub limits: Limits,
    /// What functions are served by. Default: what a plain Debian has.
    pub interpreters: Interpreters,
    /// Names within which no custom domain may lie: the platform's own. `localhost` is one in any case. Default: none.
    pub reserved_domains: Vec<String>,
    /// How long a code link works. Default 10 minutes.
    pub link_lifetime: Duration,
    /// How long a package that no function uses any more is kept for calls that still run it. Default 10 minutes.
    pub package_grace: Duration,
    /// How often [`Control::run`] looks for packages to remove. Default 1 minute.
    pub reconcile_interval: Duration,
    /// Seals page tokens and code links. The same on every node, and across restarts, for links to stay good.
    pub seal_key: [u8; 32],
}

impl Config {
    /// The defaults.
    #[must_use]
    pub fn new(region: impl Into<String>, seal_key: [u8; 32]) -> Self {
        Self {
            region: region.into(),
            limits: Limits::default(),
            interpreters: Interpreters::usual(),
            reserved_domains: Vec::new(),
            link_lifetime: Duration::from_secs(600),
            package_grace: Duration::from_secs(600),
            reconcile_interval: Duration::from_secs(60),
            seal_key,
        }
    }
}

/// Images that come in at a time.
const IMAGES_AT_ONCE: usize = 4;

/// What [`Control`] stands on.
pub struct Parts {
    /// What is remembered.
    pub store: Arc<dyn Store>,
    /// Where packages are kept.
    pub blobs: Arc<dyn Blobs>,
    /// Who unpacks them.
    pub sandboxes: Arc<dyn Sandboxes>,
    /// Who runs them.
    pub instances: Arc<dyn Instances>,
    /// Who keeps some of them ready.
    pub scaling: Arc<dyn KeepsReady>,
    /// Who has their sessions.
    pub sessions: Arc<dyn Sessions>,
    /// What fetches key sets.
    pub outbound: Outbound,
    /// The time of day.
    pub clock: Clock,
}

/// A region, for the list of regions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// As clients spell it.
    pub id: String,
    /// For people.
    pub name: String,
}

/// The control plane. Cheap to clone.
#[derive(Clone)]
pub struct Control {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) instances: Arc<dyn Instances>,
    pub(crate) scaling: Arc<dyn KeepsReady>,
    pub(crate) sessions: Arc<dyn Sessions>,
    pub(crate) outbound: Outbound,
    pub(crate) clock: Clock,
    pub(crate) packages: Packages,
    /// Images that may come in at a time.
    pub(crate) image_turns: Arc<tokio::sync::Semaphore>,
    pub(crate) seal: Seal,
    pub(crate) reservations: Reservations,
    /// Held while it is decided whether a version may have one more HTTP trigger.
    pub(crate) adding_trigger: tokio::sync::Mutex<()>,
}

impl Control {
    /// A control plane over `parts`.
    #[must_use]
    pub fn new(config: Config, parts: Parts) -> Self {
        let Parts { store, blobs, sandboxes, instances, scaling, sessions, outbound, clock } = parts;
        let packages = Packages::new(Arc::clone(&store), blobs, sandboxes, Arc::clone(&clock), &config);
        let seal = Seal::new(config.seal_key);
        let adding_trigger = tokio::sync::Mutex::new(());
        let reservations = Reservations::default();
        let image_turns = Arc::new(tokio::sync::Semaphore::new(IMAGES_AT_ONCE));
        let inner = Inner {
            config,
            store,
            instances,
            scaling,
            sessions,
            outbound,
            clock,
            packages,
            image_turns,
            seal,
            reservations,
            adding_trigger,
        };
        let control = Self { inner: Arc::new(inner) };
        control.apply_limits();
        control
    }

    /// What is accepted.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.inner.config.limits
    }

    /// What functions are served by.
    #[must_use]
    pub fn interpreters(&self) -> &Interpreters {
        &self.inner.config.interpreters
    }

    /// The name of the region.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.inner.config.region
    }

    /// The regions there are: one.
    #[must_use]
    pub fn describe_regions(&self) -> Vec<Region> {
        let id = self.inner.config.region.clone();
        vec![Region { name: id.clone(), id }]
    }

    /// Looks after packages and reservations until `stop` resolves.
    pub async fn run(&self, stop: impl Future<Output = ()>) {
        let mut rounds = tokio::time::interval(self.inner.config.reconcile_interval.max(Duration::from_millis(10)));
        rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => return,
                _ = rounds.tick() => {}
            }
            // Somebody else may have written, and a function that is gone has taken its reservation with it.
            self.apply_limits();
            if let Err(error) = self.reconcile().await {
                tracing::warn!(error = %dunlin_model::chain(&error), "unused packages could not be looked for; tried again in the next round");
            }
        }
    }

    /// Removes packages that no function has used for the grace period. Answers how many.
    ///
    /// # Errors
    /// When the blobs cannot be listed.
    pub async fn reconcile(&self) -> Result<usize, Error> {
        self.inner.packages.reconcile().await
    }

    /// What the account's function `name` is right now.
    pub(crate) fn function(&self, scope: &AccountScope, name: &str) -> Result<(FunctionKey, Arc<Stored<Function>>), Error> {
        let name: FunctionName = name.parse()?;
        let key = scope.function(name);
        match self.inner.store.view().function(&key) {
            Some(stored) => Ok((key, Arc::clone(stored))),
            None => Err(Error::FunctionNotFound { name: key.name().clone() }),
        }
    }

    /// The older code's instances end; calls in flight finish on them.
    pub(crate) fn retire(&self, key: &FunctionKey, version: Option<&str>, revision: Revision) {
        tracing::debug!(function = %key, revision = revision.0, "instances of older revisions retire");
        // First what is kept: an instance that is to be gone is not to be replaced.
        self.inner.scaling.refresh();
        self.inner.instances.retire(key, version);
    }

    pub(crate) fn now(&self) -> Timestamp {
        // Stored and shown to the second.
        let now = (self.inner.clock)();
        Timestamp::from_second(now.as_second()).unwrap_or(now)
    }
}

/// A random id in the form of a UUID.
pub(crate) fn random_id() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the kernel has randomness once it has booted");
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = format!("{:032x}", u128::from_be_bytes(bytes));
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
