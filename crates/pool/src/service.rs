//! Performs what the engine decides.
//!
//! The engine and the tables beside it share one mutex. It is held for one event: the actions are turned into replies
//! and jobs under it, and sent or spawned after it was let go. Jobs run in tasks of their own, so that the caller who
//! caused them may go away.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::time::Duration;

use dunlin_model::{CellId, FunctionConfig, FunctionKey, InstanceId, Interpreters, Phases, RequestId, VersionKey};
use dunlin_sandbox::{Ended, Sandboxes};
use jiff::Timestamp;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};

use crate::api::{Config, InstanceInfo, InstanceSpec, Kept, LeaseError, Observer, Seen, StartFailure, StartOutput, Stats};
use crate::class::{Class, Program};
use crate::engine::{Action, Bounds, CellNo, Engine, Event, Keep, WaiterId, Why};
use crate::frost::Frost;
use crate::lease::Lease;
use crate::sessions::{Book, SessionCall};
use crate::start;
use crate::worker::{Boot, GuestBoot, LogSinks, Worker};

/// How often it is looked whether a template is still there.
const TEMPLATE_LOOK_EVERY: Duration = Duration::from_millis(500);

/// How many instances that do not thaw a call may meet.
const STUCK_MAX: usize = 3;

/// The pool. Cheap to clone.
#[derive(Clone)]
pub struct Pool {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) sandboxes: Arc<dyn Sandboxes>,
    pub(crate) boot: Arc<dyn Boot>,
    pub(crate) logs: Arc<dyn LogSinks>,
    observer: Arc<dyn Observer>,
    runtime: Handle,
    table: Mutex<Table>,
    /// The ticker should look at the time again.
    wake: Arc<Notify>,
    /// There is something to freeze.
    cold: Arc<Notify>,
    /// Nothing is left.
    emptied: Notify,
}

pub(crate) struct Table {
    pub(crate) engine: Engine,
    /// Who the engine's sessions are.
    pub(crate) book: Book,
    last_waiter: u64,
    pending: HashMap<WaiterId, Pending>,
    workers: HashMap<CellNo, Arc<dyn Worker>>,
    pub(crate) slots: HashMap<CellNo, Arc<Slot>>,
    /// What instances that are kept are started from.
    kept: HashMap<VersionKey, Spare>,
    /// Instances that are to be frozen.
    freezing: BTreeSet<CellNo>,
    /// When the ticker wakes up by itself.
    ticks_at: Option<Instant>,
}

impl Table {
    /// When the engine or the book wants to know the time.
    fn next_tick(&self) -> Option<Instant> {
        [self.engine.next_tick(), self.book.next_tick()].into_iter().flatten().min()
    }
}

/// A version of which instances are kept.
struct Spare {
    spec: Arc<InstanceSpec>,
    /// Why its last start failed.
    problem: Option<String>,
}

/// A call that waits.
struct Pending {
    reply: oneshot::Sender<Result<Lease, LeaseError>>,
    spec: Arc<InstanceSpec>,
    session: Option<Arc<SessionCall>>,
    request: RequestId,
}

/// An instance, from the beginning of its start.
pub(crate) struct Slot {
    pub(crate) id: InstanceId,
    pub(crate) worker: Arc<dyn Worker>,
    pub(crate) spec: Arc<InstanceSpec>,
    pub(crate) frost: Frost,
    created: Timestamp,
    started: OnceLock<Phases>,
    /// What the start printed, until the call it was made for takes it.
    output: Mutex<StartOutput>,
}

impl Slot {
    /// For the first call: how long its start took, and what it printed.
    pub(crate) fn how_started(&self) -> (Phases, StartOutput) {
        (self.started.get().copied().unwrap_or_default(), std::mem::take(&mut self.output()))
    }

    fn output(&self) -> MutexGuard<'_, StartOutput> {
        self.output.lock().expect("nothing panics while it holds a start's output")
    }
}

/// What a refusal that an event causes is explained with.
#[derive(Default)]
struct Cause {
    failure: Option<StartFailure>,
    platform: Option<String>,
}

/// What is left to do when the mutex is free again.
enum Effect {
    Reply(oneshot::Sender<Result<Lease, LeaseError>>, Result<Lease, LeaseError>),
    Make { cell: CellNo, class: Class, waited_for: bool, template: Option<CellId> },
    Template { cell: CellNo, spec: Arc<InstanceSpec> },
    Start { cell: CellNo, slot: Arc<Slot>, request: RequestId },
    Thaw { slot: Arc<Slot> },
    Stop { cell: CellNo, worker: Arc<dyn Worker>, slot: Option<Arc<Slot>>, graceful: bool },
}

impl Pool {
    /// A pool over `sandboxes`. Must be called inside a tokio runtime.
    #[must_use]
    pub fn new(config: Config, sandboxes: Arc<dyn Sandboxes>, logs: Arc<dyn LogSinks>, observer: Arc<dyn Observer>) -> Self {
        Self::with_boot(config, sandboxes, Arc::new(GuestBoot), logs, observer)
    }

    /// The same, with another way to bring a cell up.
    #[must_use]
    pub fn with_boot(
        config: Config,
        sandboxes: Arc<dyn Sandboxes>,
        boot: Arc<dyn Boot>,
        logs: Arc<dyn LogSinks>,
        observer: Arc<dyn Observer>,
    ) -> Self {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of memory"
        )]
        let stock_bytes = (config.memory_bytes_max as f64 * config.stock_share.clamp(0.0, 1.0)) as u64;
        let engine = Engine::new(Bounds {
            instances_per_account: config.instances_per_account_max,
            instances_per_function: config.instances_per_function_max,
            memory_bytes: config.memory_bytes_max,
            starting: config.starting_max.max(1),
            making: config.making_max.max(1),
            waiting: config.waiting_max.max(1),
            waiting_per_account: (config.waiting_max / 2).max(1),
            waiting_per_function: (config.waiting_max / 4).max(1),
            stock_bytes,
            stock_max: config.stock_max,
            idle: config.idle_timeout,
            surplus: config.surplus_timeout,
            freeze: config.freeze_after,
        });
        let table = Table {
            engine,
            book: Book::default(),
            last_waiter: 0,
            pending: HashMap::new(),
            workers: HashMap::new(),
            slots: HashMap::new(),
            kept: HashMap::new(),
            freezing: BTreeSet::new(),
            ticks_at: None,
        };
        let inner = Arc::new(Inner {
            config,
            sandboxes,
            boot,
            logs,
            observer,
            runtime: Handle::current(),
            table: Mutex::new(table),
            wake: Arc::default(),
            cold: Arc::default(),
            emptied: Notify::new(),
        });
        inner.runtime.spawn(tick(Arc::downgrade(&inner), Arc::clone(&inner.wake)));
        inner.runtime.spawn(freeze(Arc::downgrade(&inner), Arc::clone(&inner.cold)));
        if inner.config.available_bytes_min > 0 {
            inner.runtime.spawn(watch_memory(Arc::downgrade(&inner), inner.config.available_bytes_min));
        }
        Self { inner }
    }

    /// An instance for one call. Dropping the future takes the call out of the queue; a start made for it goes on.
    ///
    /// # Errors
    /// See [`LeaseError`].
    pub async fn lease(&self, spec: &Arc<InstanceSpec>, request: &RequestId, deadline: Instant) -> Result<Lease, LeaseError> {
        self.lease_in(spec, None, request, deadline).await
    }

    /// The same, for a call of a session, whose [`SessionCall::spec`] is `spec`: its instance.
    ///
    /// # Errors
    /// See [`LeaseError`].
    pub async fn lease_in(
        &self,
        spec: &Arc<InstanceSpec>,
        session: Option<&Arc<SessionCall>>,
        request: &RequestId,
        deadline: Instant,
    ) -> Result<Lease, LeaseError> {
        let began = Instant::now();
        let mut stuck = 0;
        loop {
            let now = if stuck == 0 { began } else { Instant::now() };
            let mut lease = match self.inner.ask(spec, session, request, deadline, now) {
                Asked::Granted(lease) if !lease.is_frozen() => return Ok(lease),
                Asked::Granted(lease) => lease,
                Asked::Waits(waiter, answer) => {
                    let mut place = Place { pool: &self.inner, waiter: Some(waiter) };
                    let answer = answer.await;
                    place.waiter = None;
                    answer.map_err(|_| LeaseError::ShuttingDown)??
                }
            };
            match lease.thaw().await {
                Ok(()) => {
                    lease.waited(began.elapsed());
                    return Ok(lease);
                }
                Err(error) => {
                    // Most often it has just died.
                    tracing::info!(instance = %lease.instance(), error = %dunlin_model::chain(&error), "an instance did not thaw");
                    lease.discard();
                    stuck += 1;
                    if stuck >= STUCK_MAX {
                        return Err(LeaseError::Platform("idle instances do not thaw".to_owned()));
                    }
                }
            }
        }
    }

    /// Says that a function of this configuration exists, so that a cell waits for its first call. Nothing waits for one
    /// that has no interpreter.
    pub fn expect(&self, config: &FunctionConfig) {
        if let Ok(class) = Class::of(config, self.interpreters()) {
            self.inner.feed(Event::Expect { class });
        }
    }

    /// What functions are served by.
    #[must_use]
    pub fn interpreters(&self) -> &Interpreters {
        &self.inner.config.interpreters
    }

    /// The function's instances, oldest first.
    #[must_use]
    pub fn instances(&self, function: &FunctionKey) -> Vec<InstanceInfo> {
        let table = self.inner.table();
        let mut cells: Vec<_> = table.slots.iter().filter(|(_, slot)| slot.spec.key().function == *function).collect();
        cells.sort_by_key(|(cell, slot)| (slot.created, **cell));
        let info = |(cell, slot): (&CellNo, &Arc<Slot>)| {
            Some(InstanceInfo {
                id: slot.id.clone(),
                version: slot.spec.key().version.to_string(),
                qualifier: slot.spec.qualifier().to_owned(),
                created: slot.created,
                state: table.engine.state_of(*cell)?,
            })
        };
        cells.into_iter().filter_map(info).collect()
    }

    /// The function, or only the `version` of it, changed or is gone: idle instances end at once, busy ones after their
    /// calls, but for those of versions that are kept ready. Calls that wait are still served. A new revision does this by itself when it is first called.
    pub fn retire(&self, function: &FunctionKey, version: Option<&str>) {
        self.inner.feed(Event::Retire { function: function.clone(), version: version.map(Into::into) });
    }

    /// Every instance of the function ends at once, with the calls it serves. Calls that wait are still served.
    pub fn abort(&self, function: &FunctionKey) {
        self.inner.feed(Event::Abort { function: function.clone() });
    }

    /// The function may have so many instances, which are set aside for it; none lets it have what its account has left.
    /// With 0 nobody can call it.
    pub fn limit(&self, function: &FunctionKey, instances: Option<usize>) {
        self.inner.feed(Event::Limit { function: function.clone(), instances });
    }

    /// So much of a version is kept ready from now on, until something else is said of its key.
    pub fn keep(&self, spec: &Arc<InstanceSpec>, keep: Keep) {
        let event = Event::Keep { demand: Arc::clone(&spec.demand), keep };
        self.inner.feed_because(event, &Cause::default(), |table| {
            if keep.instances == 0 {
                table.kept.remove(spec.key());
            } else {
                let problem = table.kept.remove(spec.key()).and_then(|spare| spare.problem);
                table.kept.insert(spec.key().clone(), Spare { spec: Arc::clone(spec), problem });
            }
        });
    }

    /// How a version does.
    #[must_use]
    pub fn kept(&self, key: &VersionKey) -> Kept {
        let table = self.inner.table();
        let load = table.engine.load_of(key);
        let failed = table.kept.get(key).and_then(|spare| spare.problem.clone()).filter(|_| load.failing);
        let stuck = || load.stuck.then(|| "the platform cannot make an instance at the moment".to_owned());
        let problem = failed.or_else(|| load.limit.map(|limit| limit.to_string())).or_else(stuck);
        Kept { ready: load.ready, in_use: load.in_use, waiting: load.waiting, problem }
    }

    /// The processor time that each instance of the version has used so far, in microseconds.
    #[must_use]
    pub fn cpu_us(&self, key: &VersionKey) -> Vec<(InstanceId, u64)> {
        let table = self.inner.table();
        let own = table.slots.values().filter(|slot| slot.spec.key() == key);
        own.map(|slot| (slot.id.clone(), slot.worker.cpu_us())).collect()
    }

    /// How full the pool is.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.inner.table().engine.stats()
    }

    /// Serves who waits, refuses everybody else, ends everything, and returns when nothing is left. Dropping the future
    /// stops the waiting, not the draining.
    pub async fn drain(&self) {
        self.inner.feed(Event::Drain);
        loop {
            let emptied = self.inner.emptied.notified();
            tokio::pin!(emptied);
            emptied.as_mut().enable();
            if self.inner.table().engine.is_empty() {
                return;
            }
            emptied.await;
        }
    }
}

enum Asked {
    Granted(Lease),
    Waits(WaiterId, oneshot::Receiver<Result<Lease, LeaseError>>),
}

/// A place in the queue; given up when dropped.
struct Place<'a> {
    pool: &'a Arc<Inner>,
    waiter: Option<WaiterId>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(waiter) = self.waiter {
            let mut gone = None;
            self.pool.feed_because(Event::Cancel { waiter }, &Cause::default(), |table| gone = table.pending.remove(&waiter));
            // Its part in a session ends by itself, and takes the lock for that.
            drop(gone);
        }
    }
}

impl Inner {
    pub(crate) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("nothing panics while it holds the table")
    }

    fn ask(
        self: &Arc<Self>,
        spec: &Arc<InstanceSpec>,
        session: Option<&Arc<SessionCall>>,
        request: &RequestId,
        deadline: Instant,
        now: Instant,
    ) -> Asked {
        let mut table = self.table();
        table.last_waiter += 1;
        let waiter = WaiterId(table.last_waiter);
        let number = session.map(|session| session.session());
        let event = Event::Lease { waiter, demand: Arc::clone(&spec.demand), session: number, deadline };
        let actions = table.engine.on(event, now);
        if let [Action::Grant { waiter: granted, cell, cold }] = actions[..]
            && granted == waiter
        {
            if let Some(session) = number {
                table.book.bound(session);
            }
            return Asked::Granted(Lease::new(self, &table.slots[&cell], session.cloned(), cell, cold));
        }
        let (reply, answer) = oneshot::channel();
        table
            .pending
            .insert(waiter, Pending { reply, spec: Arc::clone(spec), session: session.cloned(), request: request.clone() });
        let effects = self.prepare(&mut table, actions, &Cause::default());
        self.reschedule(&mut table);
        drop(table);
        self.perform(effects);
        Asked::Waits(waiter, answer)
    }

    pub(crate) fn feed(self: &Arc<Self>, event: Event) {
        self.feed_because(event, &Cause::default(), |_| {});
    }

    /// Lets `change` work on the tables, applies `event`, and performs what follows.
    fn feed_because(self: &Arc<Self>, event: Event, cause: &Cause, change: impl FnOnce(&mut Table)) {
        let mut table = self.table();
        change(&mut table);
        let actions = table.engine.on(event, Instant::now());
        let effects = self.prepare(&mut table, actions, cause);
        self.reschedule(&mut table);
        let empty = table.engine.is_empty();
        drop(table);
        self.perform(effects);
        if empty {
            self.emptied.notify_waiters();
        }
    }

    /// Tells the engine what the book has left for it, and performs what follows.
    pub(crate) fn follow(self: &Arc<Self>, mut table: MutexGuard<'_, Table>, now: Instant) {
        let mut effects = Vec::new();
        for event in std::mem::take(&mut table.book.out) {
            let actions = table.engine.on(event, now);
            effects.extend(self.prepare(&mut table, actions, &Cause::default()));
        }
        self.reschedule(&mut table);
        drop(table);
        self.perform(effects);
    }

    /// Ends the sessions whose time is up.
    fn end_sessions(self: &Arc<Self>) {
        let (mut table, now) = (self.table(), Instant::now());
        table.book.tick(now);
        self.follow(table, now);
    }

    /// Wakes the ticker if it would sleep too long.
    fn reschedule(&self, table: &mut Table) {
        if let Some(next) = table.next_tick()
            && table.ticks_at.is_none_or(|at| next < at)
        {
            table.ticks_at = Some(next);
            self.wake.notify_one();
        }
    }

    fn prepare(self: &Arc<Self>, table: &mut Table, actions: Vec<Action>, cause: &Cause) -> Vec<Effect> {
        let mut effects = Vec::with_capacity(actions.len());
        for action in actions {
            match action {
                Action::Make { cell, class, waited_for } => {
                    let template = match class.program {
                        Program::Fork(template) => table.workers.get(&CellNo(template)).map(|worker| worker.cell()),
                        _ => None,
                    };
                    effects.push(Effect::Make { cell, class, waited_for, template });
                }
                Action::Template { cell, demand } => {
                    let of_version = |slot: &&Arc<Slot>| slot.spec.key() == &demand.key;
                    match table.slots.values().find(of_version) {
                        Some(slot) => effects.push(Effect::Template { cell, spec: Arc::clone(&slot.spec) }),
                        None => unreachable!("an instance of the version has just started"),
                    }
                }
                Action::Start { cell, demand, waiter } => {
                    let (spec, request) = match waiter.map(|waiter| &table.pending[&waiter]) {
                        Some(pending) => (Arc::clone(&pending.spec), pending.request.clone()),
                        None => (Arc::clone(&table.kept[&demand.key].spec), RequestId::random()),
                    };
                    let slot = Arc::new(Slot {
                        id: InstanceId::random(),
                        worker: Arc::clone(&table.workers[&cell]),
                        spec,
                        frost: Frost::default(),
                        created: Timestamp::now(),
                        started: OnceLock::new(),
                        output: Mutex::default(),
                    });
                    table.slots.insert(cell, Arc::clone(&slot));
                    effects.push(Effect::Start { cell, slot, request });
                }
                Action::Grant { waiter, cell, cold } => {
                    let pending = table.pending.remove(&waiter).expect("who waits in the engine is pending here");
                    if let Some(session) = &pending.session {
                        table.book.bound(session.session());
                    }
                    let lease = Lease::new(self, &table.slots[&cell], pending.session, cell, cold);
                    effects.push(Effect::Reply(pending.reply, Ok(lease)));
                }
                Action::Refuse { waiter, why } => {
                    if let Some(pending) = table.pending.remove(&waiter) {
                        effects.push(Effect::Reply(pending.reply, Err(Self::refusal(why, cause))));
                    }
                }
                Action::Freeze { cell } => {
                    table.slots[&cell].frost.want();
                    table.freezing.insert(cell);
                    self.cold.notify_one();
                }
                Action::Thaw { cell } => {
                    table.freezing.remove(&cell);
                    effects.push(Effect::Thaw { slot: Arc::clone(&table.slots[&cell]) });
                }
                Action::Stop { cell, graceful } => {
                    let worker = Arc::clone(&table.workers[&cell]);
                    let slot = table.slots.get(&cell).cloned();
                    effects.push(Effect::Stop { cell, worker, slot, graceful });
                }
            }
        }
        effects
    }

    fn refusal(why: Why, cause: &Cause) -> LeaseError {
        let platform = || LeaseError::Platform(cause.platform.clone().unwrap_or_else(|| "no cell could be made".to_owned()));
        match why {
            Why::Throttled(throttled) => LeaseError::Throttled(throttled),
            Why::StartFailed => cause.failure.clone().map_or_else(platform, LeaseError::Start),
            Why::OthersFailed => cause
                .failure
                .clone()
                .map_or_else(platform, |failure| LeaseError::Start(StartFailure { phases: Phases::default(), ..failure })),
            Why::Platform => platform(),
            Why::Draining => LeaseError::ShuttingDown,
            Why::SessionEnded => LeaseError::SessionEnded,
        }
    }

    fn perform(self: &Arc<Self>, effects: Vec<Effect>) {
        for effect in effects {
            let pool = Arc::clone(self);
            match effect {
                // A lease whose caller is gone comes back and is dropped here, which releases it.
                Effect::Reply(reply, answer) => drop(reply.send(answer)),
                Effect::Make { cell, class, waited_for, template } => {
                    drop(self.runtime.spawn(pool.make(cell, class, waited_for, template)));
                }
                Effect::Template { cell, spec } => drop(self.runtime.spawn(pool.template(cell, spec))),
                Effect::Start { cell, slot, request } => drop(self.runtime.spawn(pool.start(cell, slot, request))),
                Effect::Thaw { slot } => drop(self.runtime.spawn(async move {
                    if let Err(error) = slot.frost.thaw(&pool.sandboxes, &*slot.worker).await
                        && slot.worker.ended().borrow().is_none()
                    {
                        tracing::warn!(instance = %slot.id, error = %dunlin_model::chain(&error), "an instance that is to run on did not thaw");
                    }
                })),
                Effect::Stop { cell, worker, slot, graceful } => {
                    drop(self.runtime.spawn(pool.stop(cell, worker, slot, graceful)));
                }
            }
        }
    }

    async fn make(self: Arc<Self>, cell: CellNo, class: Class, waited_for: bool, template: Option<CellId>) {
        let began = Instant::now();
        match start::make(&self, class, waited_for, template).await {
            Ok(worker) => {
                self.observer.seen(&Seen::CellMade { class, took: began.elapsed() });
                let ended = worker.ended();
                self.feed_because(Event::Made { cell, result: Ok(()) }, &Cause::default(), |table| {
                    table.workers.insert(cell, Arc::clone(&worker));
                });
                if self.table().engine.waits(cell) {
                    worker.rehearse().await;
                }
                drop(worker);
                self.report_end(cell, ended).await;
            }
            Err(problem) => {
                tracing::warn!(?class, error = problem.text, "no cell could be made");
                self.observer.seen(&Seen::MakeFailed { class });
                let cause = Cause { platform: Some(problem.text), ..Cause::default() };
                self.feed_because(Event::Made { cell, result: Err(problem.fault) }, &cause, |_| {});
            }
        }
    }

    async fn template(self: Arc<Self>, cell: CellNo, spec: Arc<InstanceSpec>) {
        let began = Instant::now();
        match start::template(&self, &spec).await {
            Ok(worker) => {
                tracing::info!(function = %spec.key().function, took = ?began.elapsed(), "instances are forked from a template");
                self.feed_because(Event::Templated { cell, made: true }, &Cause::default(), |table| {
                    table.workers.insert(cell, Arc::clone(&worker));
                });
                self.report_loss(cell, &*worker).await;
            }
            Err(error) => {
                tracing::info!(function = %spec.key().function, error, "a function makes no template");
                self.feed(Event::Templated { cell, made: false });
            }
        }
    }

    /// A template is lost when it has ended, or has closed its channel: while something that was forked from it is frozen,
    /// the kernel waits with its end.
    async fn report_loss(self: Arc<Self>, cell: CellNo, worker: &dyn Worker) {
        let pool = Arc::downgrade(&self);
        drop(self);
        let mut ended = worker.ended();
        let mut looks = tokio::time::interval(TEMPLATE_LOOK_EVERY);
        loop {
            tokio::select! {
                _ = ended.wait_for(Option::is_some) => break,
                _ = looks.tick() => if worker.is_spent() { break },
            }
        }
        if let Some(pool) = pool.upgrade() {
            if pool.table().engine.is_template(cell) {
                tracing::warn!("a template has ended, and with it the instances that were forked from it");
            }
            pool.feed(Event::Died { cell });
        }
    }

    /// One task per cell waits for its end, expected or not.
    async fn report_end(self: Arc<Self>, cell: CellNo, mut ended: watch::Receiver<Option<Ended>>) {
        let pool = Arc::downgrade(&self);
        drop(self);
        if ended.wait_for(Option::is_some).await.is_ok()
            && let Some(pool) = pool.upgrade()
        {
            pool.feed(Event::Died { cell });
        }
    }

    async fn start(self: Arc<Self>, cell: CellNo, slot: Arc<Slot>, request: RequestId) {
        let key = slot.spec.key().clone();
        match start::start(&self, &slot, &request).await {
            Ok((phases, output)) => {
                *slot.output() = output;
                let started = slot.started.set(phases);
                debug_assert!(started.is_ok(), "an instance starts once");
                self.feed_because(Event::Started { cell, result: Ok(()) }, &Cause::default(), |table| {
                    if let Some(spare) = table.kept.get_mut(&key) {
                        spare.problem = None;
                    }
                });
                if let Err(error) = start::limit_cpu(&self, &slot).await
                    && slot.worker.ended().borrow().is_none()
                {
                    // Better no instance than one without a limit.
                    tracing::warn!(instance = %slot.id, error = %dunlin_model::chain(&error), "an instance's CPU could not be limited");
                    self.feed(Event::Died { cell });
                }
                self.observer.seen(&Seen::Started { key, instance: slot.id.clone(), phases });
            }
            Err(problem) => {
                let platform = dunlin_model::chain(&problem.error);
                tracing::info!(instance = %slot.id, function = %key.function, error = platform, "an instance did not start");
                let failure = StartFailure {
                    instance: slot.id.clone(),
                    phases: problem.phases,
                    source: Arc::new(problem.error),
                    memory_peak_bytes: slot.worker.memory_peak(),
                    output: problem.output,
                };
                let said = platform.clone();
                let cause = Cause { failure: Some(failure), platform: Some(platform) };
                self.feed_because(Event::Started { cell, result: Err(problem.fault) }, &cause, |table| {
                    if let Some(spare) = table.kept.get_mut(&key) {
                        spare.problem = Some(said);
                    }
                });
                self.observer.seen(&Seen::StartFailed { key });
            }
        }
    }

    async fn stop(self: Arc<Self>, cell: CellNo, worker: Arc<dyn Worker>, slot: Option<Arc<Slot>>, graceful: bool) {
        start::stop(&self, &*worker, slot.as_deref(), graceful).await;
        self.feed_because(Event::Stopped { cell }, &Cause::default(), |table| {
            table.workers.remove(&cell);
            table.slots.remove(&cell);
        });
        if let Some(slot) = slot {
            self.observer.seen(&Seen::Ended { key: slot.spec.key().clone(), instance: slot.id.clone() });
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.wake.notify_one();
        self.cold.notify_one();
    }
}

/// Feeds the engine its ticks, for as long as the pool lives.
async fn tick(pool: Weak<Inner>, wake: Arc<Notify>) {
    loop {
        let Some(inner) = pool.upgrade() else { return };
        let next = {
            let mut table = inner.table();
            table.ticks_at = table.next_tick();
            table.ticks_at
        };
        drop(inner);
        let due = async {
            match next {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {
                let Some(inner) = pool.upgrade() else { return };
                inner.feed(Event::Tick);
                inner.end_sessions();
            }
            () = wake.notified() => {}
        }
    }
}

/// Freezes what is to be frozen, one instance at a time, for as long as the pool lives.
async fn freeze(pool: Weak<Inner>, cold: Arc<Notify>) {
    loop {
        let Some(inner) = pool.upgrade() else { return };
        let next = {
            let mut table = inner.table();
            table.freezing.pop_first().map(|cell| table.slots.get(&cell).cloned())
        };
        match next {
            Some(Some(slot)) => slot.frost.freeze(&*inner.sandboxes, &*slot.worker).await,
            // It has ended meanwhile.
            Some(None) => {}
            None => {
                drop(inner);
                cold.notified().await;
            }
        }
    }
}

/// How often the machine's memory is looked at.
const MEMORY_EVERY: Duration = Duration::from_secs(1);

async fn watch_memory(pool: Weak<Inner>, least: u64) {
    loop {
        sleep(MEMORY_EVERY).await;
        let Some(inner) = pool.upgrade() else { return };
        let Some(available) = meminfo("MemAvailable:") else { continue };
        if available < least {
            tracing::warn!(available, least, "the machine is short of memory; idle instances end");
            inner.feed(Event::Pressure { bytes: least - available });
        }
    }
}

pub(crate) fn machine_memory_bytes() -> u64 {
    // A machine that does not say is taken for a small one.
    meminfo("MemTotal:").unwrap_or(4 << 30)
}

/// A line of `/proc/meminfo`, in bytes. The file is made by the kernel on the spot: reading it does not block.
fn meminfo(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib << 10)
}
