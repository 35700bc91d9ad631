//! What always holds, spelled out.

use std::collections::{HashMap, HashSet};

use tokio::time::Instant;

use super::CellNo;
use super::state::{Engine, Frost, State, Timer, Waiter};
use super::template::Templating;
use crate::class::Program;
use crate::throttle::Limit;

impl Engine {
    /// Panics unless every invariant of the module's page holds. `now` must have been ticked already.
    pub(super) fn check(&self, now: Instant) {
        let mut places: HashMap<_, usize> = HashMap::new();
        let mut waiting: HashMap<_, usize> = HashMap::new();
        let mut cells_of: HashMap<_, usize> = HashMap::new();
        let mut starting_of: HashMap<_, usize> = HashMap::new();
        let mut idle_of: HashMap<_, usize> = HashMap::new();
        let mut calls_of: HashMap<_, (usize, usize)> = HashMap::new();
        let (mut memory, mut ending, mut making, mut starting, mut idle, mut templates) = (0, 0, 0, 0, 0, 0);

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
                State::Live { version, in_flight, ends, idle: rests } => {
                    let entry = &self.versions[&version];
                    *cells_of.entry(version).or_default() += 1;
                    *places.entry(entry.demand.key.function.account()).or_default() += 1;
                    let (calls, leaving) = calls_of.entry(version).or_default();
                    (*calls, *leaving) = (*calls + in_flight as usize, *leaving + usize::from(ends));
                    assert!(in_flight <= entry.demand.concurrency, "no more calls than the function takes");
                    assert_eq!(rests.is_some(), in_flight == 0, "an instance without a call idles");
                    assert_eq!(
                        entry.free.contains(number),
                        in_flight < entry.demand.concurrency && !ends && self.has_room(*number),
                        "free is known as free"
                    );
                    if let Some(rests) = rests {
                        idle += 1;
                        *idle_of.entry(version).or_default() += 1;
                        assert!(self.idle.contains(number));
                        assert!(rests.review_at > now, "no instance idles past its time");
                        assert!(self.timers.contains(&(rests.review_at, Timer::Review(*number))));
                        let paused = self.is_paused(*number);
                        match rests.frost {
                            Frost::Never => assert!(!paused && (self.bounds.freeze.is_none() || entry.keep.runs_on)),
                            Frost::At(at) => {
                                assert!(at > now && !paused, "no instance runs on past its time");
                                assert!(self.timers.contains(&(at, Timer::Freeze(*number))));
                            }
                            Frost::Frozen => assert!(paused || self.bounds.freeze.is_some()),
                        }
                        assert!(paused || rests.frost == Frost::Never || !entry.keep.runs_on, "what is to run on does");
                        assert!(!ends && !entry.stale && !self.draining, "what may not idle, ends");
                    }
                }
                State::Template { version, ready, ends } => {
                    templates += 1;
                    let entry = &self.versions[&version];
                    *cells_of.entry(version).or_default() += 1;
                    let expected = if !ready { Templating::Coming } else { Templating::Ready(*number) };
                    assert_eq!(entry.template == expected, !ends, "a version knows its template until that is to end");
                    let forked = self.cells.values().any(|cell| cell.class.program == Program::Fork(number.0));
                    assert!(!ends || forked, "a template that nothing depends on ends");
                    assert!(!(ready && entry.stale) || ends, "a superseded version has no template");
                }
                State::Ending { version } => {
                    ending += cell.weight;
                    if let Some(version) = version {
                        *cells_of.entry(version).or_default() += 1;
                    }
                }
            }
        }
        for (number, version) in &self.versions {
            let own = matches!(version.template, Templating::Ready(cell) if version.class.program == Program::Fork(cell.0));
            assert!(own || version.class == version.demand.class, "{number:?} is made from what it has: {version:?}");
        }
        for cell in self.cells.values() {
            if let (Program::Fork(template), Some(version)) = (cell.class.program, cell.state.version()) {
                // One that died may be gone before what it took along.
                let of = self.cells.get(&CellNo(template)).map(|cell| cell.state.version());
                assert!(of.is_none_or(|of| of == Some(version)), "what is forked serves its template's version");
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
            let aside = waiter.session.is_some_and(|session| self.waits_aside(*id, session));
            assert!(version.waiters.contains(id) != aside, "a waiter is in its version's queue, or waits for its session");
            *waiting.entry(version.demand.key.function.account()).or_default() += 1;
        }
        for (number, version) in &self.versions {
            assert!(version.waiters.is_empty() || version.free.is_empty(), "nobody waits beside a free instance");
            assert!(version.unordered.is_subset(&version.waiters));
            assert!(version.waiters.iter().all(|id| self.waiters[id].version == *number));
            assert_eq!(version.cells, cells_of.get(number).copied().unwrap_or(0));
            assert_eq!(version.starting, starting_of.get(number).copied().unwrap_or(0));
            assert_eq!(version.orders, self.stocks.values().flat_map(|s| &s.orders).filter(|o| o.version == *number).count());
            assert_eq!(version.idle, idle_of.get(number).copied().unwrap_or(0));
            assert_eq!((version.in_use, version.leaving), calls_of.get(number).copied().unwrap_or_default());
            let said = self.keeps.get(&version.demand.key).map(|(_, keep)| *keep).unwrap_or_default();
            assert!(version.keep == said || version.stale || self.draining, "what is kept is what was said");
            assert!(version.surplus_while_closed().is_none() || self.draining, "nobody waits for an instance that may not come");
            let function = &self.functions[&version.function];
            assert!(function.versions.contains(number) && function.key == version.demand.key.function);
            let in_line = version
                .hungry
                .is_some_and(|turn| self.accounts[function.key.account()].hungry.contains(&(function.instances, turn, *number)));
            assert_eq!(version.hungry.is_some(), in_line, "who is hungry stands where it holds what it holds");
            assert!(
                version.hungry.is_some() || !version.wants() || version.retry_at > now,
                "who wants a start is in the ring: {version:?}"
            );
            let free: HashSet<_> = version.free.iter().collect();
            assert_eq!(free.len(), version.free.len());
        }
        for (number, function) in &self.functions {
            let versions = || function.versions.iter().map(|version| &self.versions[version]);
            assert!(versions().all(|version| version.function == *number) && self.function_index[&function.key] == *number);
            assert_eq!(function.instances, versions().map(|version| version.held).sum::<usize>());
            let waits = |waiter: &&Waiter| function.versions.contains(&waiter.version);
            assert_eq!(function.waiting, self.waiters.values().filter(waits).count());
            assert_eq!(function.starting, versions().map(|version| version.orders + version.starting).sum::<usize>());
            assert_eq!(function.limit, self.limits.get(&function.key).copied());
            assert!(function.waiting <= self.bounds.waiting_per_function);
        }
        let mut in_line = 0;
        for (account, entry) in &self.accounts {
            let functions = || self.functions.values().filter(|function| function.key.account() == account);
            let capped = functions().filter(|function| function.limit.is_some()).map(|function| function.instances);
            let reserved = self.limits.iter().filter(|(key, _)| key.account() == account).map(|(_, limit)| limit);
            assert_eq!((entry.capped, entry.reserved), (capped.sum::<usize>(), reserved.sum::<usize>()));
            assert_eq!(entry.starting, functions().map(|function| function.starting).sum::<usize>());
            in_line += usize::from(!entry.hungry.is_empty());
            let turn = (entry.instances, entry.turn, account.clone());
            assert_eq!(self.hungry.contains(&turn), !entry.hungry.is_empty(), "an account stands where it holds what it holds");
            assert_eq!(entry.instances, places.remove(account).unwrap_or(0));
            assert_eq!(entry.waiting, waiting.remove(account).unwrap_or(0));
            assert!(entry.instances <= self.bounds.instances_per_account);
            assert!(entry.waiting <= self.bounds.waiting_per_account);
        }
        self.check_sessions();
        assert_eq!(self.hungry.len(), in_line);
        assert!(self.waiters.len() <= self.bounds.waiting);
        assert!(places.is_empty() && waiting.is_empty());
        assert_eq!((self.memory, self.ending_memory), (memory, ending));
        assert_eq!((self.making, self.starting, self.orders, self.idle.len()), (making, starting, orders, idle));
        assert_eq!(self.stats().templates, templates);
        assert!(making <= self.bounds.making && starting + orders <= self.bounds.starting);
    }

    fn check_sessions(&self) {
        for (number, tenants) in &self.tenants {
            let State::Live { version, in_flight, ends, .. } = self.cells[number].state else {
                panic!("only an instance that lives has sessions")
            };
            let version = &self.versions[&version];
            let most = version.sessions_per_instance().expect("sessions are of versions that have some");
            assert!(!ends && (1..=most).contains(&tenants.sessions.len()), "no more sessions than the version allows");
            assert!(tenants.pinned.is_empty() || in_flight >= version.demand.concurrency, "nobody waits beside a free place");
            assert!(tenants.sessions.iter().all(|session| self.holds[session].cell == Some(*number)));
            let waiters = tenants.sessions.iter().flat_map(|session| self.holds[session].waiters.iter().copied());
            assert_eq!(tenants.pinned, waiters.collect());
        }
        for (session, hold) in &self.holds {
            assert!(hold.cell.is_none_or(|cell| self.tenants[&cell].sessions.contains(session)));
            assert!(hold.leader.is_none() || hold.cell.is_none(), "who has an instance queues for none");
            assert!(hold.waiters.is_empty() || hold.leader.is_some() || hold.cell.is_some(), "nobody waits behind nobody");
            for waiter in hold.waiters.iter().chain(&hold.leader) {
                assert_eq!(self.waiters[waiter].session, Some(*session));
            }
            if let Some(leader) = hold.leader {
                assert!(self.versions[&self.waiters[&leader].version].waiters.contains(&leader));
            }
            let busy = |cell: CellNo| matches!(self.cells[&cell].state, State::Live { in_flight: 1.., .. });
            let waits = hold.leader.is_some() || !hold.waiters.is_empty();
            assert!(!hold.over || waits || hold.cell.is_some_and(busy), "what is over is forgotten");
        }
    }

    /// Panics if somebody waits although nothing stands in the way: for moments in which the performer has nothing left
    /// to report and no call is in flight.
    pub(super) fn check_nobody_is_forgotten(&self, now: Instant) {
        for (number, version) in self.versions.iter().filter(|(_, version)| !version.waiters.is_empty() || version.lacks()) {
            let stock = &self.stocks[&version.class];
            let account = self.accounts.get(version.demand.key.function.account());
            let reserved = account.is_some_and(|account| account.reserved > 0);
            let kept_for_others = reserved && matches!(self.limit_of(version.function), Some(Limit::Account(_)));
            // What others keep ready does not make room, however long it idles; who has waited so long is refused.
            let kept_by_others = self.idle.iter().any(|cell| self.is_kept(*cell)) && self.any_limit_of(*number).is_some();
            let hopes = version.waiters.is_empty() || version.is_closed();
            let limited = hopes && self.any_limit_of(*number).is_some();
            assert!(
                version.retry_at > now || stock.retry_at > now || kept_for_others || kept_by_others || limited,
                "{:?} waits for nothing: {version:?} {stock:?}; {} bytes of {} are taken by {:?}",
                version.waiters,
                self.memory,
                self.bounds.memory_bytes,
                self.cells
            );
            assert!(self.next_tick().is_some() || limited);
        }
    }
}
