//! Calls: in, waiting, granted, over.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use dunlin_model::AccountId;
use tokio::time::Instant;

use super::state::{Cell, Engine, State, Timer, Version, VersionNo, Waiter};
use super::{Action, CellNo, Demand, WaiterId, Why};

impl Engine {
    pub(super) fn lease(&mut self, waiter: WaiterId, demand: Arc<Demand>, deadline: Instant, now: Instant) {
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

    pub(super) fn new_version(&mut self, demand: &Arc<Demand>, now: Instant) -> VersionNo {
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

    pub(super) fn cancel(&mut self, waiter: WaiterId, now: Instant) {
        if let Some(Waiter { version, .. }) = self.waiters.get(&waiter) {
            let version = *version;
            self.forget_waiter(waiter);
            self.forget_version_if_over(version, now);
        }
    }

    pub(super) fn released(&mut self, cell: CellNo, memory_bytes: u64, discard: bool, now: Instant) {
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

    /// Hands free instances to who waits, oldest first. What is left over and may not idle, ends.
    pub(super) fn serve(&mut self, version: VersionNo, now: Instant) {
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

    pub(super) fn grant(&mut self, waiter: WaiterId, number: CellNo, cold: bool) {
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

    pub(super) fn refuse(&mut self, waiter: WaiterId, why: Why) {
        self.forget_waiter(waiter);
        self.out.push(Action::Refuse { waiter, why });
    }

    /// Takes the waiter out of every queue. Its start, if there is one, goes on.
    pub(super) fn forget_waiter(&mut self, waiter: WaiterId) {
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

    pub(super) fn forget_account_if_empty(&mut self, account: &AccountId) {
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

    /// Gives back an instance's place in its account.
    pub(super) fn free_place(&mut self, account: &AccountId) {
        self.accounts.get_mut(account).expect("an account with an instance is kept").instances -= 1;
        self.forget_account_if_empty(account);
    }
}
