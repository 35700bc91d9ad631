//! The room where calls wait: who is let in, how long it will take, and who goes when it is full.
//!
//! A full room turns away the newest call of its longest queue, which is not always the call that comes: who floods a
//! room is the first to be refused in it.

use std::time::Duration;

use tokio::time::Instant;

use super::sessions::Place;
use super::state::{Engine, Function, FunctionNo, Timer, VersionNo, Waiter};
use super::{Action, SessionNo, WaiterId, Why};
use crate::throttle::{Room, Throttled};

impl Engine {
    /// Lets a call wait, if there is room.
    pub(super) fn seat(
        &mut self,
        waiter: WaiterId,
        version: VersionNo,
        session: Option<SessionNo>,
        place: Place,
        deadline: Instant,
    ) -> Result<(), Throttled> {
        let number = self.versions[&version].function;
        self.make_seat(number).map_err(|room| Throttled::Crowded { room, expected: self.expected_wait(version) })?;
        let function = self.functions.get_mut(&number).expect("a version's function is kept");
        function.waiting += 1;
        self.accounts.entry(function.key.account().clone()).or_default().waiting += 1;
        self.timers.insert((deadline, Timer::Deadline(waiter)));
        self.waiters.insert(waiter, Waiter { version, deadline, attempts: 0, session });
        if let (Some(session), Place::Behind(_) | Place::At(_)) = (session, place) {
            self.seat_aside(waiter, session);
            return Ok(());
        }
        let entry = self.version(version);
        entry.waiters.insert(waiter);
        entry.unordered.insert(waiter);
        if let Some(hold) = session.and_then(|session| self.holds.get_mut(&session)) {
            hold.leader = Some(waiter);
        }
        Ok(())
    }

    /// Makes sure that one more call of the function may wait; answers the room that is full for it otherwise.
    fn make_seat(&mut self, number: FunctionNo) -> Result<(), Room> {
        let bounds = &self.bounds;
        let function = &self.functions[&number];
        if function.waiting >= bounds.waiting_per_function {
            return Err(Room::Function(bounds.waiting_per_function));
        }
        let (own, account) = (function.waiting, function.key.account());
        let of_account = self.accounts.get(account).map_or(0, |account| account.waiting);
        let (room, longest) = if of_account >= bounds.waiting_per_account {
            let siblings = self.functions.iter().filter(|(_, other)| other.key.account() == account);
            (Room::Account(bounds.waiting_per_account), siblings.max_by_key(|(number, other)| (other.waiting, **number)))
        } else if self.waiters.len() >= bounds.waiting {
            // An account's own queues compete among themselves before they push out another account's.
            let rank = |other: &Function| {
                let others = self.accounts.get(other.key.account()).map_or(0, |account| account.waiting);
                if other.key.account() == account || others > of_account + 1 { (others, other.waiting) } else { (0, 0) }
            };
            (Room::Node(bounds.waiting), self.functions.iter().max_by_key(|(number, other)| (rank(other), **number)))
        } else {
            return Ok(());
        };
        let Some((_, other)) = longest else { return Err(room) };
        if other.waiting == 0 || (other.key.account() == account && other.waiting <= own + 1) {
            return Err(room);
        }
        let newest = other.versions.iter().filter_map(|version| self.versions.get(version)?.waiters.last().copied()).max();
        let Some(newest) = newest else { return Err(room) };
        let expected = self.expected_wait(self.waiters[&newest].version);
        self.throttle(newest, Throttled::Crowded { room, expected });
        Ok(())
    }

    /// How long the last call in the version's queue will wait if nothing changes, once that can be told.
    pub(super) fn expected_wait(&self, version: VersionNo) -> Option<Duration> {
        let version = &self.versions[&version];
        let slots = version.held.saturating_mul(version.demand.concurrency.max(1) as usize);
        #[expect(clippy::cast_precision_loss, reason = "a length of a queue")]
        let rounds = version.waiters.len() as f64 / slots as f64;
        // Without a slot there is no telling.
        Duration::try_from_secs_f64(version.call_time.seconds()? * rounds).ok()
    }

    /// Turns a call away at once that would wait in vain: its function cannot grow, and what waits before it takes
    /// longer than it may wait.
    pub(super) fn shed(&mut self, waiter: WaiterId, now: Instant) {
        let Some(Waiter { version, deadline, .. }) = self.waiters.get(&waiter) else { return };
        let (version, patience) = (*version, deadline.saturating_duration_since(now));
        let Some(expected) = self.expected_wait(version).filter(|expected| *expected > patience) else { return };
        if let Some(limit) = self.any_limit_of(version) {
            self.throttle(waiter, Throttled::Hopeless { limit, expected });
        }
    }

    /// A call waited as long as it may.
    pub(super) fn give_up(&mut self, waiter: WaiterId) {
        let version = self.waiters[&waiter].version;
        // Whoever is being started now is not kept by a limit.
        let growing = self.versions[&version].orders + self.versions[&version].starting > 0;
        let limit = self.any_limit_of(version).filter(|_| !growing);
        let expected = self.expected_wait(version);
        self.throttle(waiter, Throttled::Waited { limit, expected });
    }

    /// Nobody may call the function any more.
    pub(super) fn refuse_disabled(&mut self, version: VersionNo, now: Instant) {
        self.drop_orders(version);
        // Where one goes another of its session may come forward.
        while let Some(waiter) = self.versions[&version].waiters.first().copied() {
            self.throttle(waiter, Throttled::Disabled);
        }
        self.forget_version_if_over(version, now);
    }

    /// Turns a waiting call away.
    pub(super) fn throttle(&mut self, waiter: WaiterId, throttled: Throttled) {
        self.refusals.count(&throttled);
        self.refuse(waiter, Why::Throttled(throttled));
    }

    /// Turns a call away that has not waited.
    pub(super) fn turn_away(&mut self, waiter: WaiterId, throttled: Throttled) {
        self.refusals.count(&throttled);
        self.out.push(Action::Refuse { waiter, why: Why::Throttled(throttled) });
    }

    /// What a call is told that comes with its time over.
    pub(super) fn too_late(&self, version: VersionNo) -> Throttled {
        Throttled::Waited { limit: self.any_limit_of(version), expected: None }
    }
}
