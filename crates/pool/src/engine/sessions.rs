//! Sessions: calls that meet one instance, and what that instance is spared for them.
//!
//! A session has one [`SessionNo`] and, from its first call on, one instance. Its further calls wait for that instance
//! and no other; until it has one, all but its first call wait behind that. An instance with as many sessions as its
//! version allows is not among the free ones, so that a new session makes another instance.
//!
//! What a session is called, and when it ends, is said from outside ([`Event::SessionOver`]). When its instance ends first,
//! it has none, and its next call finds it another one.
//!
//! [`Event::SessionOver`]: super::Event::SessionOver

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::state::{Cell, Engine, Frost, Idle, State, Timer, Version, VersionNo, Waiter};
use super::{Action, CellNo, SessionNo, Sharing, WaiterId, Why};
use crate::throttle::Throttled;

/// What is known of a session that a call came for.
#[derive(Debug, Default)]
pub(super) struct Hold {
    /// Its instance.
    pub(super) cell: Option<CellNo>,
    /// The call of it that stands in its version's queue, while it has no instance.
    pub(super) leader: Option<WaiterId>,
    /// Its other calls that wait: behind the leader, or for a place in its instance.
    pub(super) waiters: BTreeSet<WaiterId>,
    /// It is to stand still.
    pub(super) paused: bool,
    /// It has ended but for the calls that wait.
    pub(super) over: bool,
}

/// The sessions of one instance, at least one.
#[derive(Debug, Default)]
pub(super) struct Tenants {
    pub(super) sessions: BTreeSet<SessionNo>,
    /// Calls of theirs that wait for a place in it.
    pub(super) pinned: BTreeSet<WaiterId>,
}

/// Where a call waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In its version's queue.
    Queue,
    /// Behind this call of its session, which is in there.
    Behind(WaiterId),
    /// For this instance.
    At(CellNo),
}

impl Version {
    /// Sessions of one instance; none where calls have no session.
    pub(super) fn sessions_per_instance(&self) -> Option<usize> {
        match self.demand.sharing {
            Sharing::Sessions { per_instance, .. } => Some(per_instance.max(1) as usize),
            Sharing::All | Sharing::Nobody => None,
        }
    }

    /// Whether an instance ends with its session.
    fn is_exclusive(&self) -> bool {
        matches!(self.demand.sharing, Sharing::Sessions { exclusive: true, .. })
    }

    /// Whether an instance ends with its call.
    pub(super) fn serves_once(&self) -> bool {
        self.demand.sharing == Sharing::Nobody
    }
}

impl Engine {
    /// Where a call of the session waits.
    pub(super) fn place_of(&mut self, session: Option<SessionNo>) -> Place {
        let Some(session) = session else { return Place::Queue };
        let hold = self.holds.entry(session).or_default();
        match (hold.cell, hold.leader) {
            (Some(cell), _) => Place::At(cell),
            (None, Some(leader)) => Place::Behind(leader),
            (None, None) => Place::Queue,
        }
    }

    /// Whether the instance takes one more call.
    pub(super) fn has_slot(&self, cell: CellNo) -> bool {
        match self.cells.get(&cell).map(|cell| cell.state) {
            Some(State::Live { version, in_flight, ends, .. }) => !ends && in_flight < self.versions[&version].demand.concurrency,
            _ => false,
        }
    }

    /// Whether the instance takes one more session.
    pub(super) fn has_room(&self, cell: CellNo) -> bool {
        let Some(tenants) = self.tenants.get(&cell) else { return true };
        let version = self.cells[&cell].state.version();
        let most = version.and_then(|version| self.versions[&version].sessions_per_instance());
        most.is_none_or(|most| tenants.sessions.len() < most)
    }

    /// Whether the instance has sessions.
    pub(super) fn has_tenants(&self, cell: CellNo) -> bool {
        self.tenants.contains_key(&cell)
    }

    /// Whether the instance stands still for its sessions, as soon as it has no call.
    pub(super) fn is_paused(&self, cell: CellNo) -> bool {
        self.tenants.get(&cell).is_some_and(|tenants| tenants.sessions.iter().all(|session| self.holds[session].paused))
    }

    /// Lets a call that waits outside of its version's queue wait there.
    pub(super) fn seat_aside(&mut self, waiter: WaiterId, session: SessionNo) {
        let hold = self.holds.get_mut(&session).expect("a call's place was just looked up");
        hold.waiters.insert(waiter);
        if let Some(tenants) = hold.cell.and_then(|cell| self.tenants.get_mut(&cell)) {
            tenants.pinned.insert(waiter);
        }
    }

    /// The session has its instance now, and what waited behind its first call waits for that.
    pub(super) fn bind_session(&mut self, session: Option<SessionNo>, cell: CellNo) {
        let Some(session) = session else { return };
        let hold = self.holds.entry(session).or_default();
        if hold.cell.is_some() {
            return;
        }
        (hold.cell, hold.leader) = (Some(cell), None);
        let waiters = hold.waiters.clone();
        let tenants = self.tenants.entry(cell).or_default();
        tenants.sessions.insert(session);
        tenants.pinned.extend(waiters);
        if !self.has_room(cell)
            && let Some(version) = self.cells[&cell].state.version()
        {
            self.version(version).free.retain(|free| *free != cell);
        }
    }

    /// Hands the instance's places to the calls that wait for it alone.
    pub(super) fn serve_pinned(&mut self, cell: CellNo, now: Instant) {
        while self.has_slot(cell) {
            let Some(waiter) = self.tenants.get(&cell).and_then(|tenants| tenants.pinned.first().copied()) else { return };
            self.forget_waiter(waiter);
            self.grant(waiter, cell, false, now);
        }
    }

    /// A call does not wait any more. If it stood in the queue for its session, the next one does.
    pub(super) fn leave_session(&mut self, session: SessionNo, waiter: WaiterId) {
        let Some(hold) = self.holds.get_mut(&session) else { return };
        hold.waiters.remove(&waiter);
        if let Some(tenants) = hold.cell.and_then(|cell| self.tenants.get_mut(&cell)) {
            tenants.pinned.remove(&waiter);
        }
        if hold.leader == Some(waiter) {
            hold.leader = None;
            self.promote(session);
        }
    }

    /// The session has no instance: its oldest call that waits stands in the queue for it.
    fn promote(&mut self, session: SessionNo) {
        let hold = self.holds.get_mut(&session).expect("a session is promoted while it is held");
        if hold.over {
            for waiter in std::mem::take(&mut hold.waiters) {
                self.refuse(waiter, Why::SessionEnded);
            }
            return;
        }
        let Some(waiter) = hold.waiters.first().copied() else { return };
        let number = self.waiters[&waiter].version;
        if self.versions[&number].disabled {
            for waiter in std::mem::take(&mut hold.waiters) {
                self.throttle(waiter, Throttled::Disabled);
            }
            return;
        }
        hold.waiters.remove(&waiter);
        hold.leader = Some(waiter);
        let version = self.version(number);
        version.waiters.insert(waiter);
        version.unordered.insert(waiter);
        self.bereft.insert(number);
    }

    /// The instance gets no further call: its sessions have none.
    pub(super) fn vacate(&mut self, cell: CellNo) {
        let Some(tenants) = self.tenants.remove(&cell) else { return };
        for session in tenants.sessions {
            let hold = self.holds.get_mut(&session).expect("a tenant is held");
            hold.cell = None;
            self.promote(session);
            self.release_if_over(session);
        }
    }

    /// The session has ended. Calls of it that wait are still served, unless it takes its instance along.
    pub(super) fn session_over(&mut self, session: SessionNo, at_once: bool, now: Instant) {
        let Some(hold) = self.holds.get_mut(&session) else { return };
        hold.over = true;
        let cell = hold.cell;
        match cell {
            Some(cell) if at_once && self.is_exclusive(cell) => self.stop(cell, false),
            _ => self.release_if_over(session),
        }
        self.pump(now);
    }

    fn is_exclusive(&self, cell: CellNo) -> bool {
        self.cells[&cell].state.version().is_some_and(|version| self.versions[&version].is_exclusive())
    }

    /// Forgets a session that has ended and of which nobody waits. Its instance ends with it, or has room for another.
    pub(super) fn release_if_over(&mut self, session: SessionNo) {
        let Some(hold) = self.holds.get(&session) else { return };
        if !hold.over || hold.leader.is_some() || !hold.waiters.is_empty() {
            return;
        }
        let Some(cell) = hold.cell else {
            self.holds.remove(&session);
            return;
        };
        let State::Live { version, in_flight, ends, .. } = self.cells[&cell].state else {
            unreachable!("an instance that ends has no sessions")
        };
        let exclusive = self.versions[&version].is_exclusive();
        if exclusive && in_flight > 0 {
            // Its calls are let finish.
            return;
        }
        self.holds.remove(&session);
        let tenants = self.tenants.get_mut(&cell).expect("a session's instance has it");
        tenants.sessions.remove(&session);
        if tenants.sessions.is_empty() {
            self.tenants.remove(&cell);
        }
        if exclusive {
            return self.stop(cell, true);
        }
        let entry = self.version(version);
        if !ends && in_flight < entry.demand.concurrency && !entry.free.contains(&cell) {
            entry.free.push_back(cell);
            self.bereft.insert(version);
        }
        self.still(cell);
        self.run_on(cell);
    }

    /// A call of the instance has ended: the sessions of it that had ended before may go.
    pub(super) fn release_tenants(&mut self, cell: CellNo) {
        let Some(tenants) = self.tenants.get(&cell) else { return };
        let over: Vec<_> = tenants.sessions.iter().copied().filter(|session| self.holds[session].over).collect();
        for session in over {
            self.release_if_over(session);
        }
    }

    /// The session stands still from now on, or goes on.
    pub(super) fn session_paused(&mut self, session: SessionNo, paused: bool, now: Instant) {
        let hold = self.holds.entry(session).or_default();
        hold.paused = paused;
        let Some(cell) = hold.cell else { return };
        if paused {
            return self.still(cell);
        }
        let freeze = self.bounds.freeze;
        let Some(Cell { state: State::Live { version, idle: Some(idle), .. }, .. }) = self.cells.get_mut(&cell) else { return };
        if idle.frost == Frost::Frozen {
            let after = freeze.filter(|_| !self.versions[version].keep.runs_on);
            idle.frost = after.map_or(Frost::Never, |after| Frost::At(now + after));
            if let Frost::At(at) = idle.frost {
                self.timers.insert((at, Timer::Freeze(cell)));
            }
            self.out.push(Action::Thaw { cell });
        }
    }

    /// Freezes an idle instance all of whose sessions are paused.
    fn still(&mut self, cell: CellNo) {
        if !self.is_paused(cell) {
            return;
        }
        let Some(Cell { state: State::Live { idle: Some(Idle { frost, .. }), .. }, .. }) = self.cells.get_mut(&cell) else {
            return;
        };
        match std::mem::replace(frost, Frost::Frozen) {
            Frost::Frozen => return,
            Frost::At(at) => drop(self.timers.remove(&(at, Timer::Freeze(cell)))),
            Frost::Never => {}
        }
        self.out.push(Action::Freeze { cell });
    }

    /// Lets an idle instance go on that stood still for a session that it has no more, where instances run on.
    fn run_on(&mut self, cell: CellNo) {
        let (paused, freezes) = (self.is_paused(cell), self.bounds.freeze.is_some());
        let Some(Cell { state: State::Live { version, idle: Some(idle), .. }, .. }) = self.cells.get_mut(&cell) else { return };
        let runs_on = !freezes || self.versions[version].keep.runs_on;
        if runs_on && !paused && idle.frost == Frost::Frozen {
            idle.frost = Frost::Never;
            self.out.push(Action::Thaw { cell });
        }
    }

    /// The version's idle instances, those included that have no room for another session.
    pub(super) fn idle_of(&self, number: VersionNo) -> Vec<CellNo> {
        let own = |cell: &&CellNo| self.cells[*cell].state.version() == Some(number);
        self.idle.iter().filter(own).copied().collect()
    }

    /// Where the session's calls go.
    pub(crate) fn cell_of(&self, session: SessionNo) -> Option<CellNo> {
        self.holds.get(&session)?.cell
    }

    /// Calls that wait outside of their versions' queues.
    #[cfg(test)]
    pub(super) fn waits_aside(&self, waiter: WaiterId, session: SessionNo) -> bool {
        self.holds.get(&session).is_some_and(|hold| hold.waiters.contains(&waiter))
    }

    /// A call's session.
    pub(super) fn session_of(&self, waiter: WaiterId) -> Option<SessionNo> {
        self.waiters.get(&waiter).and_then(|Waiter { session, .. }| *session)
    }
}
