//! Instances that are kept ready: started before a call wants them, replaced when they die, spared while they idle.
//!
//! Which of a version's instances are kept is nobody's property: there are at least so many, and who has more than that
//! loses instances as any version does.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use dunlin_model::VersionKey;
use tokio::time::Instant;

use super::state::{Cell, Engine, Frost, State, Timer, Version, VersionNo};
use super::{Action, CellNo, Demand, Keep};
use crate::throttle::Throttled;

impl Engine {
    /// So much of a version is kept ready from now on.
    pub(super) fn set_keep(&mut self, demand: &Arc<Demand>, keep: Keep, now: Instant) {
        if self.draining {
            return;
        }
        let key = &demand.key;
        if keep == Keep::default() {
            self.keeps.remove(key);
        } else {
            self.keeps.insert(key.clone(), (Arc::clone(demand), keep));
        }
        match self.index.get(key).copied() {
            Some(version) => self.change_keep(version, keep, now),
            None => self.keep_anew(key, now),
        }
        self.pump(now);
    }

    /// Makes a version known of which there is nothing but that it is kept.
    fn keep_anew(&mut self, key: &VersionKey, now: Instant) {
        let Some((demand, _)) = self.keeps.get(key) else { return };
        let demand = Arc::clone(demand);
        let version = self.new_version(&demand, now);
        self.expect_class(demand.class, now);
        self.bereft.insert(version);
        self.forget_version_if_over(version, now);
    }

    /// Nothing is kept any more.
    pub(super) fn keep_nothing(&mut self) {
        self.keeps.clear();
        for (number, version) in &mut self.versions {
            version.keep = Keep::default();
            // What waited for one of few may have one of its own now.
            self.bereft.insert(*number);
        }
    }

    fn change_keep(&mut self, number: VersionNo, keep: Keep, now: Instant) {
        let class = self.versions[&number].class;
        self.expect_class(class, now);
        let version = self.version(number);
        let before = mem::replace(&mut version.keep, keep);
        let over = version.usable().saturating_sub(keep.instances);
        let given_up = if version.is_closed() { over } else { over.min(before.instances.saturating_sub(keep.instances)) };
        let free: Vec<CellNo> = version.free.iter().copied().collect();
        // The least recently used first. Those with sessions stay.
        let idle = free.into_iter().filter(|cell| self.is_idle(*cell) && !self.has_tenants(*cell));
        for cell in idle.take(given_up).collect::<Vec<_>>() {
            self.stop(cell, true);
        }
        if before.runs_on != keep.runs_on {
            for cell in self.idle_of(number) {
                self.change_frost(cell, keep.runs_on, now);
            }
        }
        self.turn_surplus_away(number);
        if !self.versions[&number].wants() {
            self.remove_hungry(number);
        }
        self.bereft.insert(number);
        self.forget_version_if_over(number, now);
    }

    /// Refuses the newest of those that wait for instances that may not come.
    fn turn_surplus_away(&mut self, number: VersionNo) {
        if self.draining {
            return;
        }
        while let Some(throttled) = self.versions[&number].surplus_while_closed() {
            let Some(newest) = self.versions[&number].waiters.last().copied() else { break };
            self.throttle(newest, throttled);
        }
    }

    fn is_idle(&self, cell: CellNo) -> bool {
        matches!(self.cells.get(&cell), Some(Cell { state: State::Live { in_flight: 0, .. }, .. }))
    }

    /// An idle instance runs on from now on, or is frozen like any other.
    fn change_frost(&mut self, number: CellNo, runs_on: bool, now: Instant) {
        let Some(after) = self.bounds.freeze else { return };
        if self.is_paused(number) {
            return;
        }
        let Some(Cell { state: State::Live { idle: Some(idle), .. }, .. }) = self.cells.get_mut(&number) else { return };
        match mem::replace(&mut idle.frost, if runs_on { Frost::Never } else { Frost::At(now + after) }) {
            Frost::Never => {}
            Frost::At(at) => drop(self.timers.remove(&(at, Timer::Freeze(number)))),
            Frost::Frozen => self.out.push(Action::Thaw { cell: number }),
        }
        if !runs_on {
            self.timers.insert((now + after.max(Duration::from_nanos(1)), Timer::Freeze(number)));
        }
    }

    /// An instance gets no further call.
    pub(super) fn leaves(&mut self, number: VersionNo, cell: CellNo) {
        let version = self.version(number);
        version.free.retain(|free| *free != cell);
        version.leaving += 1;
        self.bereft.insert(number);
        self.vacate(cell);
    }

    /// Whether an instance that has no call any more is one too many, where there may be none but those that are kept.
    pub(super) fn is_beyond_its_keep(&self, number: VersionNo) -> bool {
        let version = &self.versions[&number];
        version.is_closed() && version.usable() > version.keep.instances
    }

    /// Lets the versions that lost an instance ask for another one.
    pub(super) fn keep_up(&mut self, now: Instant) {
        while let Some(version) = self.bereft.pop_first() {
            if self.versions.contains_key(&version) {
                // Calls whose session has lost its instance may be served by another one.
                self.hand_out(version, now);
                self.turn_surplus_away(version);
                self.want(version, now);
            }
        }
    }
}

impl Version {
    /// Why one more call may not wait, where there may be no instances but those that are kept: those that live are
    /// full, and as many calls wait as those that come will take.
    pub(super) fn refusal_while_closed(&self) -> Option<Throttled> {
        let coming = self.keep.instances.saturating_sub(self.usable());
        let full = self.is_closed() && self.waiters.len() >= self.slots(coming);
        full.then_some(Throttled::Provisioned { instances: self.keep.instances })
    }

    /// Why the newest of those that wait may not, for the same reason.
    pub(super) fn surplus_while_closed(&self) -> Option<Throttled> {
        let coming = self.keep.instances.saturating_sub(self.usable());
        let over = self.is_closed() && self.waiters.len() > self.slots(coming);
        over.then_some(Throttled::Provisioned { instances: self.keep.instances })
    }
}
