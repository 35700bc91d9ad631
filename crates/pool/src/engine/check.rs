//! What always holds, spelled out.

use std::collections::{HashMap, HashSet};

use tokio::time::Instant;

use super::state::{Engine, State, Timer};

impl Engine {
    /// Panics unless every invariant of the module's page holds. `now` must have been ticked already.
    pub(super) fn check(&self, now: Instant) {
        let mut places: HashMap<_, usize> = HashMap::new();
        let mut waiting: HashMap<_, usize> = HashMap::new();
        let mut cells_of: HashMap<_, usize> = HashMap::new();
        let mut starting_of: HashMap<_, usize> = HashMap::new();
        let (mut memory, mut ending, mut making, mut starting, mut idle) = (0, 0, 0, 0, 0);

        for (number, cell) in &self.cells {
            memory += cell.weight;
            match cell.state {
                State::Making => making += 1,
                State::Waiting => assert!(self.stocks[&cell.class].waiting.contains(number), "a waiting cell is in its stock"),
                State::Starting { version, .. } => {
                    starting += 1;
                    *starting_of.entry(version).or_default() += 1;
                    *cells_of.entry(version).or_default() += 1;
                    *places.entry(self.versions[&version].demand.key.function.account()).or_default() += 1;
                }
                State::Live { version, in_flight, ends, expires } => {
                    let entry = &self.versions[&version];
                    *cells_of.entry(version).or_default() += 1;
                    *places.entry(entry.demand.key.function.account()).or_default() += 1;
                    assert!(in_flight <= entry.demand.concurrency, "no more calls than the function takes");
                    assert_eq!(expires.is_some(), in_flight == 0, "an instance without a call idles");
                    assert_eq!(
                        entry.free.contains(number),
                        in_flight < entry.demand.concurrency && !ends,
                        "free is known as free"
                    );
                    if let Some(at) = expires {
                        idle += 1;
                        assert!(at > now, "no instance idles past its time");
                        assert!(self.timers.contains(&(at, Timer::Expire(*number))));
                        assert!(!ends && !entry.stale && !self.draining, "what may not idle, ends");
                    }
                }
                State::Ending { version } => {
                    ending += cell.weight;
                    if let Some(version) = version {
                        *cells_of.entry(version).or_default() += 1;
                    }
                }
            }
        }
        let mut orders = 0;
        for (class, stock) in &self.stocks {
            orders += stock.orders.len();
            assert_eq!(
                stock.making,
                self.cells.values().filter(|c| c.class == *class && matches!(c.state, State::Making)).count()
            );
            for order in &stock.orders {
                memory += order.weight;
                *places.entry(self.versions[&order.version].demand.key.function.account()).or_default() += 1;
            }
        }
        for (id, waiter) in &self.waiters {
            let version = &self.versions[&waiter.version];
            assert!(waiter.deadline > now, "nobody waits past the deadline");
            assert!(self.timers.contains(&(waiter.deadline, Timer::Deadline(*id))), "a waiter has a timer");
            assert!(version.waiters.contains(id), "a waiter is in its version's queue");
            *waiting.entry(version.demand.key.function.account()).or_default() += 1;
        }
        for (number, version) in &self.versions {
            assert!(version.waiters.is_empty() || version.free.is_empty(), "nobody waits beside a free instance");
            assert!(version.unordered.is_subset(&version.waiters));
            assert!(version.waiters.iter().all(|id| self.waiters[id].version == *number));
            assert_eq!(version.cells, cells_of.get(number).copied().unwrap_or(0));
            assert_eq!(version.starting, starting_of.get(number).copied().unwrap_or(0));
            assert_eq!(version.orders, self.stocks.values().flat_map(|s| &s.orders).filter(|o| o.version == *number).count());
            assert_eq!(version.hungry, self.hungry.contains(number));
            assert!(version.hungry || !version.wants() || version.retry_at > now, "who wants a start is in the ring");
            let free: HashSet<_> = version.free.iter().collect();
            assert_eq!(free.len(), version.free.len());
        }
        for (account, entry) in &self.accounts {
            assert_eq!(entry.instances, places.remove(account).unwrap_or(0));
            assert_eq!(entry.waiting, waiting.remove(account).unwrap_or(0));
            assert!(entry.instances <= self.bounds.instances_per_account);
            assert!(entry.waiting <= self.bounds.waiting_per_account);
        }
        assert!(places.is_empty() && waiting.is_empty());
        assert_eq!((self.memory, self.ending_memory), (memory, ending));
        assert_eq!((self.making, self.starting, self.orders, self.idle), (making, starting, orders, idle));
        assert!(making <= self.bounds.making && starting + orders <= self.bounds.starting);
    }

    /// Panics if somebody waits although nothing stands in the way: for moments in which the performer has nothing left
    /// to report and no call is in flight.
    pub(super) fn check_nobody_is_forgotten(&self, now: Instant) {
        for version in self.versions.values().filter(|version| !version.waiters.is_empty()) {
            let stock = &self.stocks[&version.demand.class];
            assert!(
                version.retry_at > now || stock.retry_at > now,
                "{:?} waits for nothing: {version:?} {stock:?}",
                version.waiters
            );
            assert!(self.next_tick().is_some());
        }
    }
}
