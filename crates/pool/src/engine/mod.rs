//! Who gets an instance, who waits, what is made and what ends: a pure state machine.
//!
//! [`Engine::on`] takes one [`Event`] and the time and answers with the [`Action`]s to perform. It does no I/O and reads
//! no clock, so that a million events can be driven through it in a second. The performer reports the outcome of every
//! action as a later event; nothing is assumed to have worked.
//!
//! # Words
//! A *cell* has one [`CellNo`] from the moment it is ordered to be made until its walls are down; once bound it is an
//! instance. A *version* is everything with one [`VersionKey`]. An *order* is a start that was admitted (its place in
//! the account's and the node's limits is taken) and lacks a cell. Each order and each start has a *nominal* waiter: the
//! call it was made for, which gets the instance if it still waits, and the error if there is none; one that was made to
//! *keep* an instance of a version ready has none. A *session* is a number that some calls have in common; see `sessions.rs`.
//!
//! # Invariants
//! Checked after every event by `check.rs` in tests:
//! - A cell is granted only to waiters of the version it was started for.
//! - Every waiter is in its version's queue and has a timer, until it is granted, refused or cancelled.
//! - No waiter waits beside a free instance of its version; an idle instance has a timer.
//! - A call of a session that has an instance is granted no other; no instance has more sessions than its version allows.
//! - An instance with sessions is not ended to make room or for want of use.
//! - Only an idle instance is frozen, once each time it idles.
//! - No idle instance of a version ends for want of use, or to make room, while the version has no more than it keeps.
//! - The counts of accounts, classes, memory, starts and makes equal what the cells and orders add up to, and are within
//!   the [`Bounds`].

mod calls;
mod cells;
#[cfg(test)]
mod check;
mod core;
mod idle;
mod keep;
mod places;
mod pump;
mod recent;
mod room;
mod sessions;
mod state;
mod stock;
mod template;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use dunlin_model::{FunctionKey, VersionKey};
use tokio::time::Instant;

use crate::class::Class;
use crate::throttle::{Limit, Throttled};

pub use self::state::Engine;

/// One cell, from its making to the end of its walls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CellNo(pub u64);

/// One call that wants an instance. Numbers rise in order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WaiterId(pub u64);

/// Calls that have the number of one session in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionNo(pub u64);

/// Which calls share an instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// All calls of the version. They have no sessions.
    #[default]
    All,
    /// Those of a number of sessions. Every call has one.
    Sessions {
        /// How many, at least 1.
        per_instance: u32,
        /// Whether the instance ends with its session.
        exclusive: bool,
    },
    /// None: an instance serves one call and ends.
    Nobody,
}

/// What a call needs.
#[derive(Clone, Debug)]
pub struct Demand {
    /// What the instance is bound to.
    pub key: VersionKey,
    /// What it is made from.
    pub class: Class,
    /// Calls at a time in one instance, at least 1.
    pub concurrency: u32,
    /// How long an idle instance is kept, when the function says.
    pub idle: Option<Duration>,
    /// The instance's memory limit.
    pub memory_bytes: u64,
    /// Whether instances are to be forked from one that has loaded the code, once there was one.
    pub template: bool,
    /// Whether there may be more instances than are kept.
    pub on_demand: bool,
    /// Which calls share an instance.
    pub sharing: Sharing,
}

/// What is kept ready of a version. The default keeps nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Keep {
    /// How many instances there are at least, as far as the [`Bounds`] have room for them.
    pub instances: usize,
    /// Whether they run on while they have no call.
    pub runs_on: bool,
    /// Whether there may be more of them.
    pub on_demand: bool,
}

impl Default for Keep {
    fn default() -> Self {
        Self { instances: 0, runs_on: false, on_demand: true }
    }
}

/// How a version does, for who decides how much of it is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Instances that serve or could.
    pub ready: usize,
    /// Calls in them.
    pub in_use: usize,
    /// Calls that wait for one.
    pub waiting: usize,
    /// What keeps it from having as many as are kept.
    pub limit: Option<Limit>,
    /// Its last start failed.
    pub failing: bool,
    /// No cell can be made for it at the moment.
    pub stuck: bool,
}

/// What the engine must stay within.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Instances of one account: ordered, starting and live.
    pub instances_per_account: usize,
    /// Instances of one function of which nothing else was said.
    pub instances_per_function: Option<usize>,
    /// Memory of all cells as reckoned.
    pub memory_bytes: u64,
    /// Starts under way.
    pub starting: usize,
    /// Cells being made.
    pub making: usize,
    /// Waiting calls.
    pub waiting: usize,
    /// Waiting calls of one account.
    pub waiting_per_account: usize,
    /// Waiting calls of one function.
    pub waiting_per_function: usize,
    /// Memory of waiting cells together.
    pub stock_bytes: u64,
    /// Waiting cells of one class, where it is not the class's own number.
    pub stock_max: Option<usize>,
    /// How long an idle instance is kept when its function does not say.
    pub idle: Duration,
    /// How long one is kept of which there are more than were busy at a time lately.
    pub surplus: Duration,
    /// How long an instance idles before it is frozen; none lets it run on.
    pub freeze: Option<Duration>,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A call wants an instance. `waiter` is fresh and larger than all before.
    Lease {
        /// The call.
        waiter: WaiterId,
        /// What it needs.
        demand: Arc<Demand>,
        /// The session it belongs to. All calls of one need the same version.
        session: Option<SessionNo>,
        /// How long it waits.
        deadline: Instant,
    },
    /// A waiting call went away. Unknown waiters are ignored.
    Cancel {
        /// The call.
        waiter: WaiterId,
    },
    /// A call that was granted is over.
    Released {
        /// Where it ran.
        cell: CellNo,
        /// What the instance was seen to use, 0 for unknown.
        memory_bytes: u64,
        /// How long the call had it.
        took: Duration,
        /// Whether the instance must not be used again.
        discard: bool,
    },
    /// An [`Action::Make`] is done.
    Made {
        /// Which.
        cell: CellNo,
        /// How.
        result: Result<(), MakeFault>,
    },
    /// An [`Action::Start`] is done.
    Started {
        /// Which.
        cell: CellNo,
        /// How.
        result: Result<(), StartFault>,
    },
    /// An [`Action::Template`] is done.
    Templated {
        /// Which.
        cell: CellNo,
        /// Whether there is one.
        made: bool,
    },
    /// The cell's processes ended by themselves. Its walls still have to be taken down.
    Died {
        /// Which.
        cell: CellNo,
    },
    /// An [`Action::Stop`] is done: nothing of the cell is left.
    Stopped {
        /// Which.
        cell: CellNo,
    },
    /// A function of this class exists: a cell should wait for its first call.
    Expect {
        /// The class.
        class: Class,
    },
    /// Nothing that exists of the function serves new calls, but for versions that are kept; what is queued for it is still
    /// served.
    Retire {
        /// The function.
        function: FunctionKey,
        /// Only this version of it: `LATEST` or a number.
        version: Option<Box<str>>,
    },
    /// What exists of the function ends at once, whatever it serves; what is queued for it is still served.
    Abort {
        /// The function.
        function: FunctionKey,
    },
    /// The function may have so many instances, and they are set aside for it; or as many as its account has left.
    Limit {
        /// The function.
        function: FunctionKey,
        /// How many.
        instances: Option<usize>,
    },
    /// So much of a version is kept ready from now on. Holds for its key until something else is said.
    Keep {
        /// The version, as a call would ask for it.
        demand: Arc<Demand>,
        /// How much.
        keep: Keep,
    },
    /// No further call comes for the session.
    SessionOver {
        /// Which.
        session: SessionNo,
        /// Whether an instance that is its alone ends at once, whatever it serves.
        at_once: bool,
    },
    /// The session is paused or goes on. No call comes for it while it is paused.
    SessionPaused {
        /// Which.
        session: SessionNo,
        /// Which of the two.
        paused: bool,
    },
    /// The machine is short of so many bytes.
    Pressure {
        /// How many should be given back.
        bytes: u64,
    },
    /// Serve who waits, let nobody else in, end everything.
    Drain,
    /// Time passed; see [`Engine::next_tick`].
    Tick,
}

/// What is to be done. Each is performed once; those about one cell are emitted one after the other's report.
#[derive(Clone, Debug)]
pub enum Action {
    /// Make a cell, boot it, report [`Event::Made`].
    Make {
        /// Its number from now on.
        cell: CellNo,
        /// What kind.
        class: Class,
        /// A call waits for it; it is not for the stock.
        waited_for: bool,
    },
    /// Bind a waiting cell, load the code, run the initializer, report [`Event::Started`].
    Start {
        /// The cell.
        cell: CellNo,
        /// For what.
        demand: Arc<Demand>,
        /// The call it is started for, unless it is started to be kept.
        waiter: Option<WaiterId>,
    },
    /// Make a cell that has loaded the code and can be forked, report [`Event::Templated`]. Cells of the class
    /// [`Program::Fork`](crate::class::Program::Fork) of its number are made by forking it.
    Template {
        /// Its number from now on.
        cell: CellNo,
        /// For what.
        demand: Arc<Demand>,
    },
    /// The waiter may use the instance until it reports [`Event::Released`].
    Grant {
        /// The call.
        waiter: WaiterId,
        /// The instance.
        cell: CellNo,
        /// Whether it is the instance's first call, right after its start.
        cold: bool,
    },
    /// The waiter gets nothing.
    Refuse {
        /// The call.
        waiter: WaiterId,
        /// For which reason.
        why: Why,
    },
    /// Stop the processes of an idle instance until it is granted again or ends. Nothing is reported: whoever is granted
    /// it, or ends it gracefully, lets it go on first.
    Freeze {
        /// The instance.
        cell: CellNo,
    },
    /// Let the processes of an idle instance go on, which is to run on from now on. Nothing is reported.
    Thaw {
        /// The instance.
        cell: CellNo,
    },
    /// End the cell, report [`Event::Stopped`].
    Stop {
        /// The cell.
        cell: CellNo,
        /// Whether its pre-stop hook is run first.
        graceful: bool,
    },
}

/// Why a waiter gets nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// There is too much to do.
    Throttled(Throttled),
    /// The start that this very event reports failed, and it was this call's own.
    StartFailed,
    /// The start that this very event reports failed, once too often for the others that wait.
    OthersFailed,
    /// The platform failed as this very event reports, repeatedly.
    Platform,
    /// The pool drains.
    Draining,
    /// The session that the call belongs to has ended while it waited.
    SessionEnded,
}

/// Why no cell was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MakeFault {
    /// No room for now; trying again later is right.
    Full,
    /// Something is wrong with the platform.
    Broken,
}

/// Why no instance came of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartFault {
    /// The function's own doing.
    Function,
    /// The platform's.
    Platform,
}

/// Failing starts of one version in a row after which every waiting call is told.
const FAILURES_TOLD_TO_ALL: u32 = 3;
/// Starts that failed for the platform's reasons after which a call is refused.
const PLATFORM_ATTEMPTS: u32 = 3;

/// How long a version that failed to start `failures` times in a row is left alone.
fn start_pause(failures: u32) -> Duration {
    match failures.checked_sub(FAILURES_TOLD_TO_ALL) {
        None => Duration::ZERO,
        Some(n) => Duration::from_millis(100 << n.min(7)).min(Duration::from_secs(10)),
    }
}

/// How long a class whose cells could not be made `failures` times in a row is left alone.
fn make_pause(failures: u32) -> Duration {
    Duration::from_millis(25 << failures.min(8)).min(Duration::from_secs(5))
}
