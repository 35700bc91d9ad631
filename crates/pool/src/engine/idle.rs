//! Instances without a call: how long they are kept, and which one goes when its room is needed.

use std::time::Duration;

use dunlin_model::AccountId;
use tokio::time::Instant;

use super::state::{Cell, Engine, Frost, Idle, State, Timer, VersionNo};
use super::{Action, CellNo};

/// How often it is asked whether an instance that outlived its shortest time is still wanted.
const REVIEW_EVERY: Duration = Duration::from_secs(15);
/// A function's instance is not taken by one that holds more for so long after its last call: a flood would take every
/// instance of a neighbour the moment it has no call, and the neighbour's every call would be a cold start.
const SPARED: Duration = Duration::from_secs(1);

/// Where an instance is looked for that may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Among {
    /// Those of the function.
    Function,
    /// Those of the account.
    Account,
    /// Those of the account's functions without a limit of their own.
    Unreserved,
    /// All.
    Node,
}

impl Engine {
    /// An instance has no call any more.
    pub(super) fn rest(&mut self, number: CellNo, now: Instant) {
        let bounds = (self.bounds.surplus, self.bounds.idle);
        let (freeze, paused) = (self.bounds.freeze, self.is_paused(number));
        let Some(Cell { state: State::Live { version, idle, .. }, .. }) = self.cells.get_mut(&number) else { return };
        let version = self.versions.get_mut(version).expect("a cell's version lives as long as the cell");
        let runs_until = freeze.filter(|_| !version.keep.runs_on).map_or(Frost::Never, |after| Frost::At(now + after));
        let frost = if paused { Frost::Frozen } else { runs_until };
        let review_at = now + version.demand.idle.unwrap_or(bounds.0.min(bounds.1));
        *idle = Some(Idle { since: now, review_at, frost });
        version.idle += 1;
        self.timers.insert((review_at, Timer::Review(number)));
        match frost {
            Frost::At(at) => {
                self.timers.insert((at, Timer::Freeze(number)));
            }
            Frost::Frozen => self.out.push(Action::Freeze { cell: number }),
            Frost::Never => {}
        }
        self.idle.insert(number);
        self.account_of(number).idle += 1;
    }

    /// An idle instance gets a call, or ends.
    pub(super) fn rouse(&mut self, number: CellNo) {
        let Some(Cell { state: State::Live { version, idle, .. }, .. }) = self.cells.get_mut(&number) else { return };
        let Some(Idle { review_at, frost, .. }) = idle.take() else { return };
        self.versions.get_mut(version).expect("a cell's version lives as long as the cell").idle -= 1;
        self.timers.remove(&(review_at, Timer::Review(number)));
        if let Frost::At(at) = frost {
            self.timers.remove(&(at, Timer::Freeze(number)));
        }
        self.idle.remove(&number);
        self.account_of(number).idle -= 1;
    }

    /// An instance has idled long enough to be frozen. Not at once: calls often follow each other closely, and those
    /// that do must not pay for it.
    pub(super) fn freeze(&mut self, number: CellNo) {
        let Some(Cell { state: State::Live { idle: Some(idle), .. }, .. }) = self.cells.get_mut(&number) else { return };
        idle.frost = Frost::Frozen;
        self.out.push(Action::Freeze { cell: number });
    }

    fn account_of(&mut self, cell: CellNo) -> &mut super::state::Account {
        let Some(version) = self.cells[&cell].state.version() else { unreachable!("only bound cells idle") };
        let account = self.versions[&version].demand.key.function.account();
        self.accounts.get_mut(account).expect("an account with a place is kept")
    }

    /// Ends an idle instance that is not wanted any more; else it is asked again later. What a function said of its
    /// instances holds. Of the others those go early that are more than were busy at a time lately.
    pub(super) fn review_idle(&mut self, number: CellNo, now: Instant) {
        let (latest, has_tenants) = (self.bounds.idle, self.has_tenants(number));
        let Some(Cell { state: State::Live { version, idle: Some(idle), .. }, .. }) = self.cells.get_mut(&number) else { return };
        let version = &self.versions[version];
        if has_tenants || version.spares_none() {
            idle.review_at = now + REVIEW_EVERY;
            self.timers.insert((idle.review_at, Timer::Review(number)));
            return;
        }
        let live = version.live();
        let wanted = version.busy_peak.at(now).max(live - version.idle).max(1);
        if version.demand.idle.is_some() || now >= idle.since + latest || live > wanted {
            return self.stop(number, true);
        }
        idle.review_at = (now + REVIEW_EVERY).min(idle.since + latest);
        self.timers.insert((idle.review_at, Timer::Review(number)));
    }

    /// What keeping an idle instance is worth: the starts it spares, in seconds per second, for each byte it holds.
    #[expect(clippy::cast_precision_loss, reason = "a size in bytes")]
    fn worth(&self, number: CellNo, now: Instant) -> f64 {
        let cell = &self.cells[&number];
        let own = cell.state.version().and_then(|version| self.versions[&version].start_time.seconds());
        let start = own.unwrap_or_default() + cell.class.make_seconds();
        start * cell.uses.at(now) / cell.weight.max(1) as f64
    }

    /// The idle instance that is worth least, of those that `wanted` may have the room of.
    fn least_worth(&self, wanted: VersionNo, among: Among, now: Instant) -> Option<CellNo> {
        let wanting = &self.versions[&wanted];
        let account = wanting.demand.key.function.account();
        let candidates = self.idle.iter().filter(|number| {
            let State::Live { version, idle: Some(idle), .. } = self.cells[number].state else { return false };
            let owner = &self.versions[&version];
            if owner.spares_none() || self.has_tenants(**number) {
                return false;
            }
            let owner_account = owner.demand.key.function.account();
            let within = match among {
                Among::Function => owner.function == wanting.function,
                Among::Account => owner_account == account,
                Among::Unreserved => owner_account == account && self.functions[&owner.function].limit.is_none(),
                Among::Node => true,
            };
            within && (now >= idle.since + SPARED || !self.holds_more(wanted, version, account, owner_account))
        });
        candidates.copied().min_by(|one, other| self.compare_worth(*one, *other, now))
    }

    /// Whether the instance is one that its version must not lose, or has sessions.
    pub(super) fn is_kept(&self, number: CellNo) -> bool {
        self.has_tenants(number) || self.spares_none_of(number)
    }

    fn spares_none_of(&self, number: CellNo) -> bool {
        self.cells[&number].state.version().is_some_and(|version| self.versions[&version].spares_none())
    }

    /// The less it is worth, and the longer it idles, the sooner it goes.
    fn compare_worth(&self, one: CellNo, other: CellNo, now: Instant) -> std::cmp::Ordering {
        let since = |number: CellNo| match self.cells[&number].state {
            State::Live { idle: Some(idle), .. } => Some(idle.since),
            _ => None,
        };
        self.worth(one, now).total_cmp(&self.worth(other, now)).then(since(one).cmp(&since(other))).then(one.cmp(&other))
    }

    /// Whether what wants a place holds at least two more than who would lose one: functions are compared within an
    /// account, else accounts.
    fn holds_more(&self, wanting: VersionNo, owner: VersionNo, account: &AccountId, owner_account: &AccountId) -> bool {
        let held = |version: VersionNo| self.functions[&self.versions[&version].function].instances;
        if account == owner_account {
            self.versions[&wanting].function != self.versions[&owner].function && held(wanting) > held(owner) + 1
        } else {
            self.accounts[account].instances > self.accounts[owner_account].instances + 1
        }
    }

    /// Ends the idle instance that is worth least. Its place is free at once.
    pub(super) fn evict(&mut self, wanted: VersionNo, among: Among, now: Instant) -> bool {
        if self.idle.is_empty() {
            return false;
        }
        let found = self.least_worth(wanted, among, now);
        found.inspect(|cell| self.stop(*cell, true)).is_some()
    }

    /// Ends the idle instance that is worth least, whoever it belongs to.
    pub(super) fn evict_any(&mut self, now: Instant) {
        let candidates = self.idle.iter().copied().filter(|number| !self.is_kept(*number));
        let least = candidates.min_by(|one, other| self.compare_worth(*one, *other, now));
        if let Some(cell) = least {
            self.stop(cell, true);
        }
    }

    /// Ends idle instances until so much memory is given back.
    pub(super) fn relieve(&mut self, bytes: u64, now: Instant) {
        let mut idle: Vec<_> = self.idle.iter().copied().collect();
        // Those with sessions go when all others have gone.
        let rank = |number: &CellNo| self.has_tenants(*number);
        idle.sort_by(|one, other| rank(one).cmp(&rank(other)).then_with(|| self.compare_worth(*one, *other, now)));
        let mut given = 0;
        for number in idle {
            if given >= bytes {
                break;
            }
            if self.spares_none_of(number) {
                continue;
            }
            given += self.cells[&number].weight;
            self.stop(number, true);
        }
    }
}
