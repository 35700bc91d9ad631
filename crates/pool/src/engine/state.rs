//! What the engine knows.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use dunlin_model::{AccountId, FunctionKey, VersionKey};
use tokio::time::Instant;

use super::stock::Stock;
use super::{Action, Bounds, CellNo, Demand, WaiterId};
use crate::api::{InstanceState, Stats};
use crate::class::Class;

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

    pub(super) fn is_over(&self, now: Instant) -> bool {
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
