//! What the engine knows.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use dunlin_model::{AccountId, FunctionKey, VersionKey};
use tokio::time::Instant;

use super::places::{AccountTurn, VersionTurn};
use super::recent::{Peak, Rate, Usual};
use super::sessions::{Hold, Tenants};
use super::stock::Stock;
use super::template::Templating;
use super::{Action, Bounds, CellNo, Demand, Keep, Load, SessionNo, WaiterId};
use crate::api::{InstanceState, Refusals, Stats};
use crate::class::Class;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct VersionNo(pub(super) u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct FunctionNo(pub(super) u64);

/// Where a cell is in its life. Each variant carries exactly what is true then.
#[derive(Clone, Copy, Debug)]
pub(super) enum State {
    Making,
    Waiting,
    Starting {
        version: VersionNo,
        nominal: Option<WaiterId>,
        since: Instant,
    },
    /// `ends` is set once no further call may be granted; `idle` exactly while it has no call.
    Live {
        version: VersionNo,
        in_flight: u32,
        ends: bool,
        idle: Option<Idle>,
    },
    /// From which instances of the version are forked once it is `ready`, and until it `ends`.
    Template {
        version: VersionNo,
        ready: bool,
        ends: bool,
    },
    Ending {
        version: Option<VersionNo>,
    },
}

/// An instance without a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Idle {
    pub(super) since: Instant,
    /// When it is asked whether it is still wanted; there is a timer for it.
    pub(super) review_at: Instant,
    pub(super) frost: Frost,
}

/// Whether an idle instance stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frost {
    /// Instances run on while they idle.
    Never,
    /// It will from then on; there is a timer for it.
    At(Instant),
    /// It does, or is about to.
    Frozen,
}

impl State {
    /// What the cell is bound to.
    pub(super) fn version(&self) -> Option<VersionNo> {
        match self {
            Self::Making | Self::Waiting => None,
            Self::Starting { version, .. } | Self::Live { version, .. } | Self::Template { version, .. } => Some(*version),
            Self::Ending { version } => *version,
        }
    }
}

#[derive(Debug)]
pub(super) struct Cell {
    pub(super) class: Class,
    pub(super) state: State,
    /// What it counts for in the node's memory.
    pub(super) weight: u64,
    /// How often it was called lately.
    pub(super) uses: Rate,
}

/// One call that waits.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) version: VersionNo,
    pub(super) deadline: Instant,
    /// Starts for it that failed for the platform's reasons.
    pub(super) attempts: u32,
    pub(super) session: Option<SessionNo>,
}

/// Everything with one version key.
#[derive(Debug)]
pub(super) struct Version {
    pub(super) function: FunctionNo,
    pub(super) demand: Arc<Demand>,
    /// What its next cells are made from: its demand's class, or its template.
    pub(super) class: Class,
    pub(super) template: Templating,
    /// Its function may have no instance.
    pub(super) disabled: bool,
    /// A newer revision is known, or the function was retired: instances end instead of idling.
    pub(super) stale: bool,
    /// What is kept ready of it.
    pub(super) keep: Keep,
    /// Those that any free instance serves, oldest first, since ids rise.
    pub(super) waiters: BTreeSet<WaiterId>,
    /// Those of them that are nobody's nominal.
    pub(super) unordered: BTreeSet<WaiterId>,
    pub(super) orders: usize,
    pub(super) starting: usize,
    /// Live cells that can take a call, and a session where calls have one, most recently used last.
    pub(super) free: VecDeque<CellNo>,
    /// Cells of any state.
    pub(super) cells: usize,
    /// Places held: orders, starting and live cells.
    pub(super) held: usize,
    /// Live cells that end after the calls they have.
    pub(super) leaving: usize,
    /// Calls in live cells.
    pub(super) in_use: usize,
    /// Live cells without a call.
    pub(super) idle: usize,
    /// Its turn, while it is among those that want a start.
    pub(super) hungry: Option<u64>,
    /// Live cells with a call, the most there were lately.
    pub(super) busy_peak: Peak,
    /// How long a call keeps its instance.
    pub(super) call_time: Usual,
    /// How long a start takes.
    pub(super) start_time: Usual,
    pub(super) failures: u32,
    pub(super) retry_at: Instant,
    pub(super) forget_at: Instant,
    /// What an instance is reckoned to use.
    pub(super) weight: u64,
}

impl Version {
    /// Whether another start is wanted.
    pub(super) fn wants(&self) -> bool {
        self.is_waited_for() || self.lacks()
    }

    /// Whether calls wait that nothing under way will serve.
    pub(super) fn is_waited_for(&self) -> bool {
        !self.is_closed() && self.waiters.len() > self.slots(self.orders + self.starting)
    }

    /// Whether there are fewer instances than are kept.
    pub(super) fn lacks(&self) -> bool {
        self.lacks_beside(0)
    }

    /// The same, without so many of the orders.
    pub(super) fn lacks_beside(&self, orders: usize) -> bool {
        !self.stale && !self.disabled && self.held - self.leaving - orders < self.keep.instances
    }

    /// Whether there may be no more instances than are kept. What waits for a version that is superseded is still served.
    pub(super) fn is_closed(&self) -> bool {
        !(self.stale || self.demand.on_demand && self.keep.on_demand)
    }

    /// Live cells that can have further calls.
    pub(super) fn usable(&self) -> usize {
        self.live() - self.leaving
    }

    /// Whether none of its idle instances may go: there are no more than are kept.
    pub(super) fn spares_none(&self) -> bool {
        !self.stale && self.keep.instances > 0 && self.usable() <= self.keep.instances
    }

    /// Calls that so many instances take; of sessions that have none yet, where calls have one.
    pub(super) fn slots(&self, instances: usize) -> usize {
        let calls = self.demand.concurrency.max(1) as usize;
        instances.saturating_mul(self.sessions_per_instance().map_or(calls, |sessions| sessions.min(calls)))
    }

    /// The waiter has no start of its own any more.
    pub(super) fn back_in_line(&mut self, nominal: Option<WaiterId>) {
        self.unordered.extend(nominal.filter(|nominal| self.waiters.contains(nominal)));
    }

    /// Cells that serve, or could.
    pub(super) fn live(&self) -> usize {
        self.held - self.orders - self.starting
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        let kept = self.keep != Keep::default() && !self.stale;
        self.cells == 0 && self.orders == 0 && self.waiters.is_empty() && self.forget_at <= now && !kept
    }
}

/// Everything of one function, whatever its version.
#[derive(Debug)]
pub(super) struct Function {
    pub(super) key: FunctionKey,
    pub(super) versions: Vec<VersionNo>,
    /// Places held.
    pub(super) instances: usize,
    pub(super) waiting: usize,
    /// Orders and starting cells.
    pub(super) starting: usize,
    /// How many instances it may have, when that was said. They are set aside for it.
    pub(super) limit: Option<usize>,
    /// When a cell was last bound for it, as a turn.
    pub(super) bound: u64,
}

#[derive(Debug, Default)]
pub(super) struct Account {
    /// Places held.
    pub(super) instances: usize,
    /// Those of functions with a limit of their own, and what these limits add up to.
    pub(super) capped: usize,
    pub(super) reserved: usize,
    pub(super) waiting: usize,
    pub(super) idle: usize,
    /// Orders and starting cells.
    pub(super) starting: usize,
    /// Versions that want a start, whose function holds least first; and the account's own turn while there are any.
    pub(super) hungry: BTreeSet<VersionTurn>,
    pub(super) turn: u64,
    /// When a cell was last bound for it, as a turn.
    pub(super) bound: u64,
}

impl Account {
    pub(super) fn is_over(&self) -> bool {
        self.instances == 0 && self.waiting == 0 && self.reserved == 0 && self.hungry.is_empty()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Timer {
    Deadline(WaiterId),
    Review(CellNo),
    Freeze(CellNo),
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
    pub(super) holds: HashMap<SessionNo, Hold>,
    pub(super) tenants: HashMap<CellNo, Tenants>,
    pub(super) versions: HashMap<VersionNo, Version>,
    /// Versions that new calls may join.
    pub(super) index: HashMap<VersionKey, VersionNo>,
    pub(super) functions: HashMap<FunctionNo, Function>,
    pub(super) function_index: HashMap<FunctionKey, FunctionNo>,
    /// Limits of functions, whether there is anything of them or not.
    pub(super) limits: HashMap<FunctionKey, usize>,
    /// What is kept of versions, whether there is anything of them or not.
    pub(super) keeps: HashMap<VersionKey, (Arc<Demand>, Keep)>,
    /// Versions that may have lost one of the instances they keep.
    pub(super) bereft: BTreeSet<VersionNo>,
    pub(super) accounts: HashMap<AccountId, Account>,
    pub(super) stocks: HashMap<Class, Stock>,
    /// Accounts with versions that want a start, who holds least first.
    pub(super) hungry: BTreeSet<AccountTurn>,
    pub(super) timers: BTreeSet<(Instant, Timer)>,
    pub(super) memory: u64,
    pub(super) ending_memory: u64,
    /// Somebody waits for so much memory: nothing is made ahead.
    pub(super) memory_short: Option<u64>,
    pub(super) making: usize,
    pub(super) starting: usize,
    pub(super) orders: usize,
    /// Live cells without a call.
    pub(super) idle: BTreeSet<CellNo>,
    pub(super) refusals: Refusals,
    /// Templates that could not be made, and those that were lost.
    pub(super) templates_refused: u64,
    pub(super) templates_lost: u64,
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
            holds: HashMap::new(),
            tenants: HashMap::new(),
            versions: HashMap::new(),
            index: HashMap::new(),
            functions: HashMap::new(),
            function_index: HashMap::new(),
            limits: HashMap::new(),
            keeps: HashMap::new(),
            bereft: BTreeSet::new(),
            accounts: HashMap::new(),
            stocks: HashMap::new(),
            hungry: BTreeSet::new(),
            timers: BTreeSet::new(),
            memory: 0,
            ending_memory: 0,
            memory_short: None,
            making: 0,
            starting: 0,
            orders: 0,
            idle: BTreeSet::new(),
            refusals: Refusals::default(),
            templates_refused: 0,
            templates_lost: 0,
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
            State::Making | State::Waiting | State::Template { .. } | State::Ending { .. } => None,
            State::Starting { .. } => Some(InstanceState::Starting),
            State::Live { ends: true, .. } => Some(InstanceState::Draining),
            State::Live { in_flight: 0, .. } => Some(InstanceState::Idle),
            State::Live { version, .. } if self.versions[&version].stale => Some(InstanceState::Draining),
            State::Live { .. } => Some(InstanceState::Busy),
        }
    }

    /// Whether the cell is made and nobody has come for it.
    pub(crate) fn waits(&self, cell: CellNo) -> bool {
        matches!(self.cells.get(&cell), Some(Cell { state: State::Waiting, .. }))
    }

    /// How full it is.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut stats = Stats {
            making: self.making,
            starting: self.starting,
            idle: self.idle.len(),
            waiting_calls: self.waiters.len(),
            memory_bytes: self.memory,
            refusals: self.refusals,
            templates_refused: self.templates_refused,
            templates_lost: self.templates_lost,
            waiting_cells: self.stocks.values().map(|stock| stock.waiting.len()).sum(),
            ..Stats::default()
        };
        stats.ending = self.cells.values().filter(|cell| matches!(cell.state, State::Ending { .. })).count();
        stats.templates = self.cells.values().filter(|cell| matches!(cell.state, State::Template { .. })).count();
        stats.busy =
            self.cells.len() - stats.templates - stats.making - stats.waiting_cells - stats.starting - stats.idle - stats.ending;
        stats
    }

    /// How the version does.
    #[must_use]
    pub fn load_of(&self, key: &VersionKey) -> Load {
        let Some(number) = self.index.get(key) else { return Load::default() };
        let version = &self.versions[number];
        Load {
            ready: version.usable(),
            in_use: version.in_use,
            waiting: version.waiters.len(),
            limit: if version.lacks() { self.any_limit_of(*number) } else { None },
            failing: version.failures > 0,
            stuck: self.stocks.get(&version.class).is_some_and(|stock| stock.failures > 0),
        }
    }

    pub(super) fn version(&mut self, number: VersionNo) -> &mut Version {
        self.versions.get_mut(&number).expect("whoever holds a version's number keeps it from being forgotten")
    }

    pub(super) fn fresh(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}
