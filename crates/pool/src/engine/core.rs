//! One event in, actions out; and what concerns more than one call or one cell.

use std::mem;

use dunlin_model::FunctionKey;
use tokio::time::Instant;

use super::state::{Engine, State, Timer, VersionNo};
use super::{Action, Event, Why};

impl Engine {
    /// Applies one event and says what is to be done.
    pub fn on(&mut self, event: Event, now: Instant) -> Vec<Action> {
        match event {
            Event::Lease { waiter, demand, deadline } => self.lease(waiter, demand, deadline, now),
            Event::Cancel { waiter } => self.cancel(waiter, now),
            Event::Released { cell, memory_bytes, discard } => self.released(cell, memory_bytes, discard, now),
            Event::Made { cell, result } => self.made(cell, result, now),
            Event::Started { cell, result } => self.started(cell, result, now),
            Event::Died { cell } => self.died(cell, now),
            Event::Stopped { cell } => self.stopped(cell, now),
            Event::Expect { class } => self.expect_class(class, now),
            Event::Retire { function } => self.retire(&function),
            Event::Pressure { bytes } => self.relieve(bytes),
            Event::Drain => self.drain(),
            Event::Tick => self.tick(now),
        }
        mem::take(&mut self.out)
    }

    pub(super) fn tick(&mut self, now: Instant) {
        while let Some((at, timer)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, timer));
            match timer {
                Timer::Deadline(waiter) => {
                    let version = self.waiters[&waiter].version;
                    self.refuse(waiter, Why::Deadline);
                    self.forget_version_if_over(version, now);
                }
                Timer::Expire(cell) => self.stop(cell, true),
                Timer::Retry(version) => {
                    if self.versions.contains_key(&version) {
                        self.want(version, now);
                    }
                }
                Timer::Forget(version) => self.forget_version_if_over(version, now),
                Timer::Stock(class) => self.stock(class).timer = None,
            }
        }
        self.pump(now);
    }

    pub(super) fn retire(&mut self, function: &FunctionKey) {
        for version in self.functions.get(function).cloned().unwrap_or_default() {
            self.make_stale(version);
            let key = &self.versions[&version].demand.key;
            if self.index.get(key) == Some(&version) {
                let key = key.clone();
                self.index.remove(&key);
            }
        }
    }

    pub(super) fn make_stale(&mut self, version: VersionNo) {
        let entry = self.version(version);
        entry.stale = true;
        for cell in entry.free.clone() {
            if matches!(self.cells[&cell].state, State::Live { in_flight: 0, .. }) {
                self.stop(cell, true);
            }
        }
    }

    pub(super) fn relieve(&mut self, bytes: u64) {
        let mut idle: Vec<_> = self.idle_cells().map(|(number, cell, since)| (u64::MAX - cell.weight, since, number)).collect();
        idle.sort_unstable();
        let mut given = 0;
        for (inverse_weight, _, number) in idle {
            if given >= bytes {
                break;
            }
            given += u64::MAX - inverse_weight;
            self.stop(number, true);
        }
    }

    pub(super) fn drain(&mut self) {
        self.draining = true;
        let waiting: Vec<_> = self.stocks.values().flat_map(|stock| stock.waiting.iter().copied()).collect();
        for cell in waiting {
            self.end_waiting(cell);
        }
        let idle: Vec<_> = self.idle_cells().map(|(number, ..)| number).collect();
        for cell in idle {
            self.stop(cell, true);
        }
    }
}
