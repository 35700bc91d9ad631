//! The engine's state and what each event does to it.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::mem;
use std::sync::Arc;

use dunlin_model::{AccountId, FunctionKey, VersionKey};
use tokio::time::Instant;

use super::stock::Stock;
use super::{
    Action, Bounds, CellNo, Demand, Event, FAILURES_TOLD_TO_ALL, MakeFault, PLATFORM_ATTEMPTS, StartFault, WaiterId, Why,
    start_pause,
};
use crate::api::{InstanceState, Stats};
use crate::class::Class;

/// How long the failures of a version are remembered after the last one.
const FAILURE_MEMORY: std::time::Duration = std::time::Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct VersionNo(pub(super) u64);

/// Where a cell is in its life. Each variant carries exactly what is true then.
#[derive(Clone, Copy, Debug)]
pub(super) enum State {
    Making,
    Waiting,
    Starting {
        version: VersionNo,
        nominal: WaiterId,
    },
    /// `ends` is set once no further call may be granted; `expires` exactly while it idles, and then it has a timer.
    Live {
        version: VersionNo,
        in_flight: u32,
        ends: bool,
        expires: Option<Instant>,
    },
    Ending {
        version: Option<VersionNo>,
    },
}

#[derive(Debug)]
pub(super) struct Cell {
    pub(super) class: Class,
    pub(super) state: State,
    /// What it counts for in the node's memory.
    pub(super) weight: u64,
}

/// One call that waits.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) version: VersionNo,
    pub(super) deadline: Instant,
    /// Starts for it that failed for the platform's reasons.
    pub(super) attempts: u32,
}

/// Everything with one version key.
#[derive(Debug)]
pub(super) struct Version {
    pub(super) demand: Arc<Demand>,
    /// A newer revision is known, or the function was retired: instances end instead of idling.
    pub(super) stale: bool,
    /// Oldest first, since ids rise.
    pub(super) waiters: BTreeSet<WaiterId>,
    /// Those of them that are nobody's nominal.
    pub(super) unordered: BTreeSet<WaiterId>,
    pub(super) orders: usize,
    pub(super) starting: usize,
    /// Live cells that can take a call, most recently used last.
    pub(super) free: VecDeque<CellNo>,
    /// Cells of any state.
    pub(super) cells: usize,
    /// Whether it is in the ring of those that want orders.
    pub(super) hungry: bool,
    pub(super) failures: u32,
    pub(super) retry_at: Instant,
    pub(super) forget_at: Instant,
    /// What an instance is reckoned to use.
    pub(super) weight: u64,
}

impl Version {
    /// Whether another start is wanted.
    pub(super) fn wants(&self) -> bool {
        let slots = (self.orders + self.starting).saturating_mul(self.demand.concurrency.max(1) as usize);
        self.waiters.len() > slots
    }

    fn is_over(&self, now: Instant) -> bool {
        self.cells == 0 && self.orders == 0 && self.waiters.is_empty() && self.forget_at <= now
    }
}

#[derive(Debug, Default)]
pub(super) struct Account {
    pub(super) instances: usize,
    pub(super) waiting: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Timer {
    Deadline(WaiterId),
    Expire(CellNo),
    Retry(VersionNo),
    Forget(VersionNo),
    Stock(Class),
}

/// The state machine. See the module's page.
#[derive(Debug)]
pub struct Engine {
    pub(super) bounds: Bounds,
    pub(super) draining: bool,
    pub(super) last: u64,
    pub(super) cells: HashMap<CellNo, Cell>,
    pub(super) waiters: HashMap<WaiterId, Waiter>,
    pub(super) versions: HashMap<VersionNo, Version>,
    /// Versions that new calls may join.
    pub(super) index: HashMap<VersionKey, VersionNo>,
    pub(super) functions: HashMap<FunctionKey, Vec<VersionNo>>,
    pub(super) accounts: HashMap<AccountId, Account>,
    pub(super) stocks: HashMap<Class, Stock>,
    /// Versions that may want orders, each at most once, served in turn.
    pub(super) hungry: VecDeque<VersionNo>,
    pub(super) timers: BTreeSet<(Instant, Timer)>,
    pub(super) memory: u64,
    pub(super) ending_memory: u64,
    /// Somebody waits for memory: nothing is made ahead.
    pub(super) memory_short: bool,
    pub(super) making: usize,
    pub(super) starting: usize,
    pub(super) orders: usize,
    pub(super) idle: usize,
    pub(super) out: Vec<Action>,
}

impl Engine {
    /// An empty engine.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            draining: false,
            last: 0,
            cells: HashMap::new(),
            waiters: HashMap::new(),
            versions: HashMap::new(),
            index: HashMap::new(),
            functions: HashMap::new(),
            accounts: HashMap::new(),
            stocks: HashMap::new(),
            hungry: VecDeque::new(),
            timers: BTreeSet::new(),
            memory: 0,
            ending_memory: 0,
            memory_short: false,
            making: 0,
            starting: 0,
            orders: 0,
            idle: 0,
            out: Vec::new(),
        }
    }

    /// Applies one event and says what is to be done.
    pub fn on(&mut self, event: Event, now: Instant) -> Vec<Action> {
        match event {
            Event::Lease { waiter, demand, deadline } => self.lease(waiter, demand, deadline, now),
            Event::Cancel { waiter } => self.cancel(waiter, now),
            Event::Released { cell, memory_bytes, discard } => self.released(cell, memory_bytes, discard, now),
            Event::Made { cell, result } => self.made(cell, result, now),
            Event::Started { cell, result } => self.started(cell, result, now),
            Event::Died { cell } => self.died(cell, now),
            Event::Stopped { cell } => self.stopped(cell, now),
            Event::Expect { class } => self.expect_class(class, now),
            Event::Retire { function } => self.retire(&function),
            Event::Pressure { bytes } => self.relieve(bytes),
            Event::Drain => self.drain(),
            Event::Tick => self.tick(now),
        }
        mem::take(&mut self.out)
    }

    /// When the next [`Event::Tick`] is due.
    #[must_use]
    pub fn next_tick(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Whether nothing is left: no cell and nobody waiting.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty() && self.waiters.is_empty()
    }

    /// What the instance is doing; `None` for cells that are no instance (any more).
    #[must_use]
    pub fn state_of(&self, cell: CellNo) -> Option<InstanceState> {
        match self.cells.get(&cell)?.state {
            State::Making | State::Waiting | State::Ending { .. } => None,
            State::Starting { .. } => Some(InstanceState::Starting),
            State::Live { ends: true, .. } => Some(InstanceState::Draining),
            State::Live { in_flight: 0, .. } => Some(InstanceState::Idle),
            State::Live { version, .. } if self.versions[&version].stale => Some(InstanceState::Draining),
            State::Live { .. } => Some(InstanceState::Busy),
        }
    }

    /// How full it is.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut stats = Stats {
            making: self.making,
            starting: self.starting,
            idle: self.idle,
            waiting_calls: self.waiters.len(),
            memory_bytes: self.memory,
            waiting_cells: self.stocks.values().map(|stock| stock.waiting.len()).sum(),
            ..Stats::default()
        };
        stats.ending = self.cells.values().filter(|cell| matches!(cell.state, State::Ending { .. })).count();
        stats.busy = self.cells.len() - stats.making - stats.waiting_cells - stats.starting - stats.idle - stats.ending;
        stats
    }

    fn lease(&mut self, waiter: WaiterId, demand: Arc<Demand>, deadline: Instant, now: Instant) {
        if self.draining {
            return self.out.push(Action::Refuse { waiter, why: Why::Draining });
        }
        let version = match self.index.get(&demand.key) {
            Some(version) => *version,
            None => self.new_version(&demand, now),
        };
        // The way of a warm call: no queue, no timer but the instance's own.
        if let Some(cell) = self.versions[&version].free.back().copied() {
            return self.grant(waiter, cell, false);
        }
        let account = self.accounts.entry(demand.key.function.account().clone()).or_default();
        let full = account.waiting >= self.bounds.waiting_per_account;
        if full || deadline <= now {
            let why = if full { Why::TooManyWaiting } else { Why::Deadline };
            self.out.push(Action::Refuse { waiter, why });
            return self.forget_version_if_over(version, now);
        }
        account.waiting += 1;
        self.timers.insert((deadline, Timer::Deadline(waiter)));
        self.waiters.insert(waiter, Waiter { version, deadline, attempts: 0 });
        let entry = self.version(version);
        entry.waiters.insert(waiter);
        entry.unordered.insert(waiter);
        self.want(version, now);
        self.expect_class(demand.class, now);
        self.pump(now);
    }

    fn new_version(&mut self, demand: &Arc<Demand>, now: Instant) -> VersionNo {
        let number = VersionNo(self.fresh());
        let key = &demand.key;
        let siblings: Vec<_> = self.functions.get(&key.function).into_iter().flatten().copied().collect();
        let mut stale = false;
        for sibling in siblings {
            let other = &self.versions[&sibling].demand.key;
            if other.version == key.version && other.revision < key.revision {
                self.make_stale(sibling);
            } else if other.version == key.version && other.revision > key.revision {
                stale = true;
            }
        }
        let version = Version {
            demand: Arc::clone(demand),
            stale,
            waiters: BTreeSet::new(),
            unordered: BTreeSet::new(),
            orders: 0,
            starting: 0,
            free: VecDeque::new(),
            cells: 0,
            hungry: false,
            failures: 0,
            retry_at: now,
            forget_at: now,
            weight: demand.class.instance_bytes().min(demand.memory_bytes),
        };
        self.versions.insert(number, version);
        self.index.insert(key.clone(), number);
        self.functions.entry(key.function.clone()).or_default().push(number);
        number
    }

    fn cancel(&mut self, waiter: WaiterId, now: Instant) {
        if let Some(Waiter { version, .. }) = self.waiters.get(&waiter) {
            let version = *version;
            self.forget_waiter(waiter);
            self.forget_version_if_over(version, now);
        }
    }

    fn released(&mut self, cell: CellNo, memory_bytes: u64, discard: bool, now: Instant) {
        let Some(Cell { state: State::Live { version, in_flight, ends, .. }, weight, .. }) = self.cells.get_mut(&cell) else {
            return;
        };
        debug_assert!(*in_flight > 0, "a release without a grant");
        let was_full = *in_flight >= self.versions[version].demand.concurrency;
        *in_flight = in_flight.saturating_sub(1);
        let (version, left, ended_before) = (*version, *in_flight, *ends);
        *ends |= discard;
        let ends = *ends;
        let grown = memory_bytes.min(self.versions[&version].demand.memory_bytes);
        if grown > *weight {
            self.memory += grown - *weight;
            *weight = grown;
            self.version(version).weight = grown;
        }
        if discard && !ended_before {
            self.version(version).free.retain(|free| *free != cell);
        }
        if ends {
            if left == 0 {
                self.stop(cell, !discard && !ended_before);
                self.want(version, now);
                self.pump(now);
            }
            return;
        }
        if was_full {
            self.version(version).free.push_back(cell);
        }
        if left == 0 {
            self.rest(cell, now);
        }
        self.serve(version, now);
    }

    fn made(&mut self, number: CellNo, result: Result<(), MakeFault>, now: Instant) {
        let Some(cell) = self.cells.get_mut(&number) else { return };
        if !matches!(cell.state, State::Making) {
            return;
        }
        let class = cell.class;
        self.making -= 1;
        match result {
            Ok(()) => {
                cell.state = State::Waiting;
                let stock = self.stock(class);
                stock.making -= 1;
                stock.failures = 0;
                stock.waiting.push_back(number);
                if self.draining && self.stock(class).orders.is_empty() {
                    self.end_waiting(number);
                }
            }
            Err(fault) => {
                let weight = cell.weight;
                self.cells.remove(&number);
                self.memory -= weight;
                self.make_failed(class, fault, now);
            }
        }
        self.pump(now);
    }

    fn started(&mut self, number: CellNo, result: Result<(), StartFault>, now: Instant) {
        let Some(cell) = self.cells.get_mut(&number) else { return };
        let State::Starting { version, nominal } = cell.state else { return };
        self.starting -= 1;
        let entry = self.versions.get_mut(&version).expect("a cell's version lives as long as the cell");
        entry.starting -= 1;
        let Err(fault) = result else {
            cell.state = State::Live { version, in_flight: 0, ends: false, expires: None };
            entry.failures = 0;
            entry.free.push_back(number);
            let first = if entry.waiters.contains(&nominal) { Some(nominal) } else { entry.waiters.first().copied() };
            self.rest(number, now);
            if let Some(waiter) = first {
                self.forget_waiter(waiter);
                self.grant(waiter, number, true);
            }
            self.serve(version, now);
            return self.pump(now);
        };
        self.stop(number, false);
        match fault {
            StartFault::Function => self.start_failed(version, nominal, now),
            StartFault::Platform => {
                if let Some(waiter) = self.waiters.get_mut(&nominal) {
                    waiter.attempts += 1;
                    if waiter.attempts >= PLATFORM_ATTEMPTS {
                        self.refuse(nominal, Why::Platform);
                    } else {
                        self.version(version).unordered.insert(nominal);
                    }
                }
            }
        }
        self.want(version, now);
        self.pump(now);
    }

    fn start_failed(&mut self, version: VersionNo, nominal: WaiterId, now: Instant) {
        let entry = self.version(version);
        entry.failures += 1;
        let pause = start_pause(entry.failures);
        entry.retry_at = now + pause;
        let failures = entry.failures;
        let (forgotten, forget_at) = (entry.forget_at, now + pause + FAILURE_MEMORY);
        entry.forget_at = forget_at;
        self.timers.remove(&(forgotten, Timer::Forget(version)));
        self.timers.insert((forget_at, Timer::Forget(version)));
        if !pause.is_zero() {
            self.timers.insert((now + pause, Timer::Retry(version)));
        }
        if self.waiters.contains_key(&nominal) {
            self.refuse(nominal, Why::StartFailed);
        }
        if failures >= FAILURES_TOLD_TO_ALL {
            self.drop_orders(version);
            for waiter in mem::take(&mut self.version(version).unordered) {
                self.refuse(waiter, Why::OthersFailed);
            }
        }
    }

    fn died(&mut self, number: CellNo, now: Instant) {
        let Some(cell) = self.cells.get_mut(&number) else { return };
        match &mut cell.state {
            // Whoever makes, starts or ends it reports.
            State::Making | State::Starting { .. } | State::Ending { .. } => return,
            State::Waiting => self.end_waiting(number),
            State::Live { version, in_flight, ends, .. } => {
                let (version, busy) = (*version, *in_flight > 0);
                *ends = true;
                self.version(version).free.retain(|free| *free != number);
                if !busy {
                    self.stop(number, false);
                }
            }
        }
        self.pump(now);
    }

    fn stopped(&mut self, number: CellNo, now: Instant) {
        if !matches!(self.cells.get(&number), Some(Cell { state: State::Ending { .. }, .. })) {
            return;
        }
        let cell = self.cells.remove(&number).expect("it was there a line ago");
        self.memory -= cell.weight;
        self.ending_memory -= cell.weight;
        if let State::Ending { version: Some(version) } = cell.state {
            self.version(version).cells -= 1;
            self.forget_version_if_over(version, now);
        }
        self.pump(now);
    }

    fn retire(&mut self, function: &FunctionKey) {
        for version in self.functions.get(function).cloned().unwrap_or_default() {
            self.make_stale(version);
            let key = &self.versions[&version].demand.key;
            if self.index.get(key) == Some(&version) {
                let key = key.clone();
                self.index.remove(&key);
            }
        }
    }

    fn make_stale(&mut self, version: VersionNo) {
        let entry = self.version(version);
        entry.stale = true;
        for cell in entry.free.clone() {
            if matches!(self.cells[&cell].state, State::Live { in_flight: 0, .. }) {
                self.stop(cell, true);
            }
        }
    }

    fn relieve(&mut self, bytes: u64) {
        let mut idle: Vec<_> = self.idle_cells().map(|(number, cell, since)| (u64::MAX - cell.weight, since, number)).collect();
        idle.sort_unstable();
        let mut given = 0;
        for (inverse_weight, _, number) in idle {
            if given >= bytes {
                break;
            }
            given += u64::MAX - inverse_weight;
            self.stop(number, true);
        }
    }

    fn drain(&mut self) {
        self.draining = true;
        let waiting: Vec<_> = self.stocks.values().flat_map(|stock| stock.waiting.iter().copied()).collect();
        for cell in waiting {
            self.end_waiting(cell);
        }
        let idle: Vec<_> = self.idle_cells().map(|(number, ..)| number).collect();
        for cell in idle {
            self.stop(cell, true);
        }
    }

    fn tick(&mut self, now: Instant) {
        while let Some((at, timer)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, timer));
            match timer {
                Timer::Deadline(waiter) => {
                    let version = self.waiters[&waiter].version;
                    self.refuse(waiter, Why::Deadline);
                    self.forget_version_if_over(version, now);
                }
                Timer::Expire(cell) => self.stop(cell, true),
                Timer::Retry(version) => {
                    if self.versions.contains_key(&version) {
                        self.want(version, now);
                    }
                }
                Timer::Forget(version) => self.forget_version_if_over(version, now),
                Timer::Stock(class) => self.stock(class).timer = None,
            }
        }
        self.pump(now);
    }

    /// An instance has no call any more.
    fn rest(&mut self, number: CellNo, now: Instant) {
        let kept = self.bounds.idle;
        let Some(Cell { state: State::Live { version, expires, .. }, .. }) = self.cells.get_mut(&number) else { return };
        let at = now + self.versions[version].demand.idle.unwrap_or(kept);
        *expires = Some(at);
        self.timers.insert((at, Timer::Expire(number)));
        self.idle += 1;
    }

    /// Hands free instances to who waits, oldest first. What is left over and may not idle, ends.
    fn serve(&mut self, version: VersionNo, now: Instant) {
        loop {
            let entry = &self.versions[&version];
            let (Some(cell), Some(waiter)) = (entry.free.back().copied(), entry.waiters.first().copied()) else { break };
            self.forget_waiter(waiter);
            self.grant(waiter, cell, false);
        }
        let entry = &self.versions[&version];
        if !(entry.stale || self.draining) {
            // An idle instance may stand in the way of another function that waits.
            if !entry.free.is_empty() && !self.hungry.is_empty() {
                self.pump(now);
            }
            return;
        }
        for cell in entry.free.clone() {
            if matches!(self.cells[&cell].state, State::Live { in_flight: 0, .. }) {
                self.stop(cell, true);
            }
        }
        if !self.hungry.is_empty() {
            self.pump(now);
        }
    }

    fn grant(&mut self, waiter: WaiterId, number: CellNo, cold: bool) {
        let Some(Cell { state: State::Live { version, in_flight, expires, .. }, .. }) = self.cells.get_mut(&number) else {
            unreachable!("only live cells are free")
        };
        let version = self.versions.get_mut(version).expect("a cell's version lives as long as the cell");
        if let Some(at) = expires.take() {
            self.timers.remove(&(at, Timer::Expire(number)));
            self.idle -= 1;
        }
        *in_flight += 1;
        if *in_flight >= version.demand.concurrency {
            // The last one, nearly always: the search ends at once.
            if let Some(at) = version.free.iter().rposition(|free| *free == number) {
                version.free.remove(at);
            }
        }
        self.out.push(Action::Grant { waiter, cell: number, cold });
    }

    /// Ends a bound cell.
    pub(super) fn stop(&mut self, number: CellNo, graceful: bool) {
        let Some(cell) = self.cells.get_mut(&number) else { return };
        let version = match cell.state {
            State::Starting { version, .. } => version,
            State::Live { version, expires, .. } => {
                if let Some(at) = expires {
                    self.timers.remove(&(at, Timer::Expire(number)));
                    self.idle -= 1;
                }
                version
            }
            State::Making | State::Waiting | State::Ending { .. } => return,
        };
        cell.state = State::Ending { version: Some(version) };
        self.ending_memory += cell.weight;
        let entry = self.versions.get_mut(&version).expect("a cell's version lives as long as the cell");
        entry.free.retain(|free| *free != number);
        let account = entry.demand.key.function.account().clone();
        self.free_place(&account);
        self.out.push(Action::Stop { cell: number, graceful });
    }

    pub(super) fn refuse(&mut self, waiter: WaiterId, why: Why) {
        self.forget_waiter(waiter);
        self.out.push(Action::Refuse { waiter, why });
    }

    /// Takes the waiter out of every queue. Its start, if there is one, goes on.
    fn forget_waiter(&mut self, waiter: WaiterId) {
        let Some(Waiter { version, deadline, .. }) = self.waiters.remove(&waiter) else { return };
        self.timers.remove(&(deadline, Timer::Deadline(waiter)));
        let entry = self.version(version);
        entry.waiters.remove(&waiter);
        entry.unordered.remove(&waiter);
        let account = entry.demand.key.function.account().clone();
        let entry = self.accounts.get_mut(&account).expect("an account with a waiter is kept");
        entry.waiting -= 1;
        self.forget_account_if_empty(&account);
    }

    /// Gives back an instance's place in its account.
    pub(super) fn free_place(&mut self, account: &AccountId) {
        self.accounts.get_mut(account).expect("an account with an instance is kept").instances -= 1;
        self.forget_account_if_empty(account);
    }

    fn forget_account_if_empty(&mut self, account: &AccountId) {
        if self.accounts.get(account).is_some_and(|account| account.instances == 0 && account.waiting == 0) {
            self.accounts.remove(account);
        }
    }

    pub(super) fn forget_version_if_over(&mut self, number: VersionNo, now: Instant) {
        let Some(version) = self.versions.get(&number) else { return };
        if !version.is_over(now) {
            return;
        }
        let version = self.versions.remove(&number).expect("it was there a line ago");
        let key = &version.demand.key;
        self.timers.remove(&(version.forget_at, Timer::Forget(number)));
        if self.index.get(key) == Some(&number) {
            self.index.remove(key);
        }
        if let Some(versions) = self.functions.get_mut(&key.function) {
            versions.retain(|other| *other != number);
            if versions.is_empty() {
                self.functions.remove(&key.function);
            }
        }
    }

    pub(super) fn version(&mut self, number: VersionNo) -> &mut Version {
        self.versions.get_mut(&number).expect("whoever holds a version's number keeps it from being forgotten")
    }

    pub(super) fn idle_cells(&self) -> impl Iterator<Item = (CellNo, &Cell, Instant)> {
        self.cells.iter().filter_map(|(number, cell)| match cell.state {
            State::Live { expires: Some(at), .. } => Some((*number, cell, at)),
            _ => None,
        })
    }

    pub(super) fn fresh(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}
