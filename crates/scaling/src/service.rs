//! Reads what is wished for and how it stands, lets the engine decide, and tells the pool.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dunlin_invoke::Invoker;
use dunlin_model::{
    AliasKey, FunctionKey, InstanceId, Metric, Plan, Qualifier, Revision, SettingContent, SettingKey, Target, VersionKey,
};
use dunlin_pool::{InstanceSpec, Pool};
use dunlin_store::{Store, View};
use jiff::Timestamp;

use crate::engine::{Config, Engine, Load, Wish};

/// How often everything is looked at although nothing was said.
const EVERY: Duration = Duration::from_secs(1);
/// Over how long processor time is measured.
const CPU_OVER: Duration = Duration::from_secs(2);

/// Tells the time of day.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// How a setting stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Instances it asks for at this moment.
    pub target: usize,
    /// Instances there are of them at this moment.
    pub current: usize,
    /// Why there are not as many as it asks for, if that is so and more is known than that they are on their way.
    pub problem: Option<String>,
}

/// Keeps instances ready. Cheap to clone.
#[derive(Clone)]
pub struct Scaler {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Store>,
    invoker: Invoker,
    pool: Pool,
    clock: Clock,
    instances_max: usize,
    state: Mutex<State>,
}

struct State {
    engine: Engine,
    /// What settings mean, as of one revision of them.
    plans: HashMap<SettingKey, (Revision, Result<Arc<Plan>, String>)>,
    /// What instances are made from, of every version that something is kept of.
    specs: HashMap<VersionKey, Arc<InstanceSpec>>,
    /// Why a setting can have no instances at all.
    problems: HashMap<SettingKey, String>,
    meters: HashMap<VersionKey, Meter>,
}

/// Measures the processor time of a version's instances.
#[derive(Default)]
struct Meter {
    before: HashMap<InstanceId, u64>,
    at: Option<Timestamp>,
    share: Option<f64>,
}

impl Scaler {
    /// A scaler for the settings in `store`. `instances_max` is the most instances of one account.
    #[must_use]
    pub fn new(config: Config, store: Arc<dyn Store>, invoker: Invoker, pool: Pool, clock: Clock, instances_max: usize) -> Self {
        let state = State {
            engine: Engine::new(config),
            plans: HashMap::new(),
            specs: HashMap::new(),
            problems: HashMap::new(),
            meters: HashMap::new(),
        };
        Self { inner: Arc::new(Inner { store, invoker, pool, clock, instances_max, state: Mutex::new(state) }) }
    }

    /// Looks after the instances until `stop` resolves.
    pub async fn run(&self, stop: impl Future<Output = ()>) {
        let mut rounds = tokio::time::interval(EVERY);
        rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => return,
                _ = rounds.tick() => self.refresh(),
            }
        }
    }

    /// Acts on what is stored now. Cheap when no instance is kept of anything.
    pub fn refresh(&self) {
        let inner = &*self.inner;
        let view = inner.store.view();
        let mut state = inner.state();
        let now = (inner.clock)();
        let wishes = inner.wishes(&mut state, &view);
        let loads: HashMap<_, _> = {
            let versions = state.engine.versions(&wishes);
            let metered = wishes.values().filter(|wish| wish.plan.tracked.iter().any(|policy| policy.metric == Metric::Cpu));
            let metered: Vec<_> = metered.flat_map(|wish| wish.parts.iter().map(|(version, _)| version)).collect();
            state.meters.retain(|version, _| metered.contains(&version));
            for version in metered {
                state.meters.entry(version.clone()).or_default();
            }
            versions.into_iter().map(|version| inner.load(&mut state, version, now)).collect()
        };
        for change in state.engine.step(wishes, &loads, now) {
            let Some(spec) = state.specs.get(&change.version) else { continue };
            tracing::info!(function = %change.version.function, version = %change.version.version, keep = ?change.keep, "instances kept ready");
            inner.pool.keep(spec, change.keep);
        }
        let State { engine, specs, .. } = &mut *state;
        specs.retain(|version, _| engine.told().contains_key(version));
    }

    /// How a setting stands, as of the last [`Scaler::refresh`] and what the pool has now.
    #[must_use]
    pub fn standing(&self, key: &SettingKey) -> Readiness {
        let inner = &*self.inner;
        let state = inner.state();
        let (target, parts) = state.engine.target(key);
        let mut standing = Readiness { target, problem: state.problems.get(key).cloned(), current: 0 };
        for (version, instances) in parts {
            let kept = inner.pool.kept(version);
            standing.current += kept.ready.min(*instances);
            if kept.ready < *instances {
                standing.problem = standing.problem.or(kept.problem);
            }
        }
        standing
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that is wished for, and what instances of it are made from.
    fn wishes(&self, state: &mut State, view: &View) -> BTreeMap<SettingKey, Wish> {
        let mut wishes = BTreeMap::new();
        state.problems.clear();
        let mut plans = std::mem::take(&mut state.plans);
        for (key, stored) in view.all_settings() {
            let plan = match &stored.value.content {
                SettingContent::Provision(said) => Said::Provision(said),
                SettingContent::Scaling(said) => Said::Scaling(said),
                _ => continue,
            };
            let known = plans.remove(key).filter(|(revision, _)| *revision == stored.revision);
            let (revision, plan) = known.unwrap_or_else(|| (stored.revision, plan.read(self.instances_max)));
            state.plans.insert(key.clone(), (revision, plan.clone()));
            let plan = match plan {
                Ok(plan) => plan,
                Err(problem) => {
                    state.problems.insert(key.clone(), problem);
                    continue;
                }
            };
            let parts = match self.parts(state, view, key) {
                Ok(parts) => parts,
                Err(problem) => {
                    state.problems.insert(key.clone(), problem);
                    Vec::new()
                }
            };
            wishes.insert(key.clone(), Wish { revision, plan, since: stored.value.modified, parts });
        }
        wishes
    }

    /// The versions that a setting means, and the share of its calls that each has.
    fn parts(&self, state: &mut State, view: &View, key: &SettingKey) -> Result<Vec<(VersionKey, f64)>, String> {
        let function = key.function();
        if view.is_disabled(&function) {
            return Err("calls of the function are switched off".to_owned());
        }
        let qualifier = Qualifier::from_wire(Some(key.qualifier()));
        let alias = key.qualifier().parse().ok().and_then(|name| view.alias(&AliasKey { function: function.clone(), name }));
        let additional = alias.and_then(|alias| alias.value.additional);
        let share = additional.map_or(0.0, |additional| additional.weight);
        let main = view.resolve(&function, &qualifier, 1.0).map_err(|unresolved| unresolved.to_string())?;
        let mut parts = vec![(self.part(state, &function, &main)?, 1.0 - share)];
        if let Some(additional) = additional.filter(|_| share > 0.0) {
            let other = Qualifier::from_wire(Some(&additional.version.to_string()));
            let other = view.resolve(&function, &other, 1.0).map_err(|unresolved| unresolved.to_string())?;
            parts.push((self.part(state, &function, &other)?, share));
        }
        Ok(parts)
    }

    fn part(&self, state: &mut State, function: &FunctionKey, target: &Target) -> Result<VersionKey, String> {
        let spec = self.invoker.spec(function, target).map_err(|error| error.to_string())?;
        let key = spec.key().clone();
        state.specs.insert(key.clone(), spec);
        Ok(key)
    }

    fn load(&self, state: &mut State, version: VersionKey, now: Timestamp) -> (VersionKey, Load) {
        let kept = self.pool.kept(&version);
        let config = state.specs.get(&version).map(|spec| &spec.function().config);
        let cpus = config.map_or(1.0, |config| config.cpu_in_force());
        let concurrency = config.map_or(1, |config| config.concurrency_in_force() as usize);
        let cpu = state.meters.get_mut(&version).and_then(|meter| meter.read(self.pool.cpu_us(&version), cpus, now));
        let calls = kept.in_use + kept.waiting;
        (version, Load { ready: kept.ready, calls, concurrency, cpu, short: kept.problem.is_some() })
    }
}

impl Meter {
    /// What the instances used since the last time, in shares of `cpus` each.
    #[expect(clippy::cast_precision_loss, reason = "microseconds")]
    fn read(&mut self, used: Vec<(InstanceId, u64)>, cpus: f64, now: Timestamp) -> Option<f64> {
        let over = self.at.map(|at| now.duration_since(at).as_secs_f64());
        if over.is_some_and(|over| (0.0..CPU_OVER.as_secs_f64()).contains(&over)) {
            return self.share;
        }
        let known = used.iter().filter_map(|(instance, us)| Some(us.saturating_sub(*self.before.get(instance)?)));
        let (sum, count) = known.fold((0, 0_u32), |(sum, count), us| (sum + us, count + 1));
        self.share = over.filter(|over| count > 0 && *over > 0.0).map(|over| sum as f64 / 1e6 / over / cpus / f64::from(count));
        (self.before, self.at) = (used.into_iter().collect(), Some(now));
        self.share
    }
}

/// Either form of a plan.
enum Said<'a> {
    Provision(&'a dunlin_model::Provision),
    Scaling(&'a dunlin_model::Scaling),
}

impl Said<'_> {
    fn read(&self, instances_max: usize) -> Result<Arc<Plan>, String> {
        let plan = match self {
            Self::Provision(said) => said.plan(instances_max),
            Self::Scaling(said) => said.plan(instances_max),
        };
        plan.map(Arc::new).map_err(|wrong| wrong.to_string())
    }
}
