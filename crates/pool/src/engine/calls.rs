//! Calls: in, waiting, granted, over.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use dunlin_model::{AccountId, FunctionKey};
use tokio::time::Instant;

use super::recent::{Peak, Usual};
use super::sessions::Place;
use super::state::{Account, Cell, Engine, Function, FunctionNo, State, Timer, Version, VersionNo, Waiter};
use super::template::Templating;
use super::{Action, CellNo, Demand, SessionNo, WaiterId, Why};
use crate::throttle::Throttled;

/// How soon half of a version's peak is forgotten: of instances that nobody needs any more half end every minute.
const PEAK_HALF_LIFE: Duration = Duration::from_secs(60);

impl Engine {
    pub(super) fn lease(
        &mut self,
        waiter: WaiterId,
        demand: Arc<Demand>,
        session: Option<SessionNo>,
        deadline: Instant,
        now: Instant,
    ) {
        if self.draining {
            return self.out.push(Action::Refuse { waiter, why: Why::Draining });
        }
        let place = self.place_of(session);
        // What others of its session joined, also where new calls do not join that any more.
        let at = match place {
            Place::At(cell) => self.cells[&cell].state.version(),
            Place::Behind(leader) => Some(self.waiters[&leader].version),
            Place::Queue => self.index.get(&demand.key).copied(),
        };
        let version = match at {
            Some(version) => version,
            None => self.new_version(&demand, now),
        };
        let entry = &self.versions[&version];
        let cell = match place {
            Place::Queue => entry.free.back().copied(),
            Place::Behind(_) => None,
            Place::At(cell) => Some(cell).filter(|cell| self.has_slot(*cell)),
        };
        // The way of a warm call: no queue, no timer but the instance's own.
        if let Some(cell) = cell.filter(|_| !entry.disabled) {
            self.bind_session(session, cell);
            return self.grant(waiter, cell, false, now);
        }
        let refused = if entry.disabled {
            Some(Throttled::Disabled)
        } else if let Some(throttled) = entry.refusal_while_closed().filter(|_| place == Place::Queue) {
            Some(throttled)
        } else if deadline <= now {
            Some(self.too_late(version))
        } else {
            self.seat(waiter, version, session, place, deadline).err()
        };
        if let Some(throttled) = refused {
            self.turn_away(waiter, throttled);
            return self.forget_version_if_over(version, now);
        }
        if place != Place::Queue {
            return;
        }
        self.want(version, now);
        self.expect_class(self.versions[&version].class, now);
        self.pump(now);
        self.shed(waiter, now);
    }

    pub(super) fn new_version(&mut self, demand: &Arc<Demand>, now: Instant) -> VersionNo {
        let number = VersionNo(self.fresh());
        let key = &demand.key;
        let function = self.function(&key.function);
        let siblings = self.functions[&function].versions.clone();
        let mut stale = false;
        for sibling in siblings {
            let other = &self.versions[&sibling].demand.key;
            if other.version == key.version && other.revision < key.revision {
                self.make_stale(sibling, now);
            } else if other.version == key.version && other.revision > key.revision {
                stale = true;
            }
        }
        let entry = self.functions.get_mut(&function).expect("it was just made known");
        entry.versions.push(number);
        let version = Version {
            function,
            demand: Arc::clone(demand),
            class: demand.class,
            template: Templating::Not,
            disabled: entry.limit == Some(0),
            stale,
            keep: self.keeps.get(key).map(|(_, keep)| *keep).unwrap_or_default(),
            waiters: BTreeSet::new(),
            unordered: BTreeSet::new(),
            orders: 0,
            starting: 0,
            free: VecDeque::new(),
            cells: 0,
            held: 0,
            leaving: 0,
            in_use: 0,
            idle: 0,
            hungry: None,
            busy_peak: Peak::none(PEAK_HALF_LIFE, now),
            call_time: Usual::default(),
            start_time: Usual::default(),
            failures: 0,
            retry_at: now,
            forget_at: now,
            weight: demand.class.instance_bytes().min(demand.memory_bytes),
        };
        self.versions.insert(number, version);
        self.index.insert(key.clone(), number);
        self.bereft.insert(number);
        number
    }

    fn function(&mut self, key: &FunctionKey) -> FunctionNo {
        if let Some(number) = self.function_index.get(key) {
            return *number;
        }
        let number = FunctionNo(self.fresh());
        let limit = self.limits.get(key).copied();
        let key = key.clone();
        self.function_index.insert(key.clone(), number);
        let function = Function { key, versions: Vec::new(), instances: 0, waiting: 0, starting: 0, limit, bound: 0 };
        self.functions.insert(number, function);
        number
    }

    pub(super) fn cancel(&mut self, waiter: WaiterId, now: Instant) {
        if let Some(Waiter { version, session, .. }) = self.waiters.get(&waiter) {
            let (version, session) = (*version, *session);
            self.forget_waiter(waiter);
            if let Some(session) = session {
                self.release_if_over(session);
            }
            self.forget_version_if_over(version, now);
        }
    }

    pub(super) fn released(&mut self, cell: CellNo, memory_bytes: u64, took: Duration, discard: bool, now: Instant) {
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
        self.version(version).in_use -= 1;
        self.version(version).call_time.note(took);
        if discard && !ended_before {
            self.leaves(version, cell);
        }
        if ends {
            if left == 0 {
                self.stop(cell, !discard && !ended_before);
                self.want(version, now);
                self.pump(now);
            }
            return;
        }
        if left == 0 && (self.is_over_with_its_call(version) || self.gives_way(version, self.has_tenants(cell), now)) {
            self.stop(cell, true);
            self.want(version, now);
            return self.pump(now);
        }
        if was_full && self.has_room(cell) {
            self.version(version).free.push_back(cell);
        }
        if left == 0 {
            self.rest(cell, now);
        }
        if self.has_tenants(cell) {
            self.release_tenants(cell);
            self.serve_pinned(cell, now);
        }
        self.serve(version, now);
    }

    /// Whether an instance that has no call any more ends for that.
    fn is_over_with_its_call(&self, version: VersionNo) -> bool {
        self.versions[&version].serves_once() || self.is_beyond_its_keep(version)
    }

    /// Hands free instances to who waits, oldest first. What is left over and may not idle, ends.
    pub(super) fn serve(&mut self, version: VersionNo, now: Instant) {
        self.hand_out(version, now);
        let entry = &self.versions[&version];
        if !(entry.stale || self.draining) {
            // An idle instance may stand in the way of another function that waits.
            if !entry.free.is_empty() && !self.hungry.is_empty() {
                self.pump(now);
            }
            return;
        }
        for cell in self.idle_of(version) {
            self.stop(cell, true);
        }
        if !self.hungry.is_empty() {
            self.pump(now);
        }
    }

    /// Hands free instances to who waits for any, oldest first.
    pub(super) fn hand_out(&mut self, version: VersionNo, now: Instant) {
        loop {
            let entry = &self.versions[&version];
            let (Some(cell), Some(waiter)) = (entry.free.back().copied(), entry.waiters.first().copied()) else { return };
            self.give(waiter, cell, false, now);
        }
    }

    /// Grants an instance to a call out of its version's queue, and to what waits behind it.
    pub(super) fn give(&mut self, waiter: WaiterId, cell: CellNo, cold: bool, now: Instant) {
        let session = self.session_of(waiter);
        self.bind_session(session, cell);
        self.forget_waiter(waiter);
        self.grant(waiter, cell, cold, now);
        if session.is_some() {
            self.serve_pinned(cell, now);
        }
    }

    pub(super) fn grant(&mut self, waiter: WaiterId, number: CellNo, cold: bool, now: Instant) {
        self.rouse(number);
        let Some(Cell { state: State::Live { version, in_flight, .. }, uses, .. }) = self.cells.get_mut(&number) else {
            unreachable!("only live cells are free")
        };
        let version = self.versions.get_mut(version).expect("a cell's version lives as long as the cell");
        uses.note(now);
        version.busy_peak.note(version.live() - version.idle, now);
        *in_flight += 1;
        version.in_use += 1;
        if *in_flight >= version.demand.concurrency {
            // The last one, nearly always: the search ends at once.
            if let Some(at) = version.free.iter().rposition(|free| *free == number) {
                version.free.remove(at);
            }
        }
        self.out.push(Action::Grant { waiter, cell: number, cold });
    }

    pub(super) fn refuse(&mut self, waiter: WaiterId, why: Why) {
        let session = self.session_of(waiter);
        self.forget_waiter(waiter);
        self.out.push(Action::Refuse { waiter, why });
        if let Some(session) = session {
            self.release_if_over(session);
        }
    }

    /// Takes the waiter out of every queue. Its start, if there is one, goes on.
    pub(super) fn forget_waiter(&mut self, waiter: WaiterId) {
        let Some(Waiter { version, deadline, session, .. }) = self.waiters.remove(&waiter) else { return };
        self.timers.remove(&(deadline, Timer::Deadline(waiter)));
        let entry = self.version(version);
        entry.waiters.remove(&waiter);
        entry.unordered.remove(&waiter);
        let wants = entry.wants();
        let (function, account) = (entry.function, entry.demand.key.function.account().clone());
        if !wants {
            self.remove_hungry(version);
        }
        self.functions.get_mut(&function).expect("a version's function is kept").waiting -= 1;
        self.accounts.get_mut(&account).expect("an account with a waiter is kept").waiting -= 1;
        self.forget_account_if_empty(&account);
        if let Some(session) = session {
            self.leave_session(session, waiter);
        }
    }

    pub(super) fn forget_account_if_empty(&mut self, account: &AccountId) {
        if self.accounts.get(account).is_some_and(Account::is_over) {
            self.accounts.remove(account);
        }
    }

    pub(super) fn forget_version_if_over(&mut self, number: VersionNo, now: Instant) {
        let Some(version) = self.versions.get(&number) else { return };
        if !version.is_over(now) {
            return;
        }
        self.remove_hungry(number);
        let version = self.versions.remove(&number).expect("it was there a line ago");
        let key = &version.demand.key;
        self.timers.remove(&(version.forget_at, Timer::Forget(number)));
        if self.index.get(key) == Some(&number) {
            self.index.remove(key);
        }
        let function = self.functions.get_mut(&version.function).expect("a version's function is kept");
        function.versions.retain(|other| *other != number);
        if function.versions.is_empty() {
            self.functions.remove(&version.function);
            self.function_index.remove(&key.function);
        }
    }
}
