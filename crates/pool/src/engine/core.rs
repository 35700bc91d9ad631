//! One event in, actions out; and what concerns more than one call or one cell.

use std::mem;

use dunlin_model::FunctionKey;
use tokio::time::Instant;

use super::state::{Engine, State, Timer, VersionNo};
use super::template::Templating;
use super::{Action, Event};

impl Engine {
    /// Applies one event and says what is to be done.
    pub fn on(&mut self, event: Event, now: Instant) -> Vec<Action> {
        match event {
            Event::Lease { waiter, demand, session, deadline } => self.lease(waiter, demand, session, deadline, now),
            Event::Cancel { waiter } => self.cancel(waiter, now),
            Event::Released { cell, memory_bytes, took, discard } => self.released(cell, memory_bytes, took, discard, now),
            Event::Made { cell, result } => self.made(cell, result, now),
            Event::Started { cell, result } => self.started(cell, result, now),
            Event::Templated { cell, made } => self.templated(cell, made, now),
            Event::Died { cell } => self.died(cell, now),
            Event::Stopped { cell } => self.stopped(cell, now),
            Event::Expect { class } => self.expect_class(class, now),
            Event::Retire { function, version } => self.retire(&function, version.as_deref(), now),
            Event::Abort { function } => self.abort(&function, now),
            Event::Limit { function, instances } => self.set_limit(&function, instances, now),
            Event::Keep { demand, keep } => self.set_keep(&demand, keep, now),
            Event::SessionOver { session, at_once } => self.session_over(session, at_once, now),
            Event::SessionPaused { session, paused } => self.session_paused(session, paused, now),
            Event::Pressure { bytes } => self.relieve(bytes, now),
            Event::Drain => self.drain(now),
            Event::Tick => self.tick(now),
        }
        // What makes room for a start may itself be missed; each round ends at least one idle instance.
        while !self.bereft.is_empty() {
            self.pump(now);
        }
        mem::take(&mut self.out)
    }

    pub(super) fn tick(&mut self, now: Instant) {
        while let Some((at, timer)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, timer));
            match timer {
                Timer::Deadline(waiter) => {
                    let version = self.waiters[&waiter].version;
                    self.give_up(waiter);
                    self.forget_version_if_over(version, now);
                }
                Timer::Review(cell) => self.review_idle(cell, now),
                Timer::Freeze(cell) => self.freeze(cell),
                Timer::Retry(version) => {
                    if self.versions.contains_key(&version) {
                        self.want(version, now);
                    }
                }
                Timer::Forget(version) => self.forget_version_if_over(version, now),
                Timer::Stock(class) => {
                    let stock = self.stock(class);
                    stock.timer = None;
                    // It was set before a make failed, or failed again: whoever waits for the pause to end waits for this.
                    let retry_at = stock.retry_at;
                    if retry_at > now {
                        self.set_stock_timer(class, retry_at);
                    }
                }
            }
        }
        self.pump(now);
    }

    pub(super) fn retire(&mut self, function: &FunctionKey, only: Option<&str>, now: Instant) {
        for version in self.function_index.get(function).map(|number| self.functions[number].versions.clone()).unwrap_or_default()
        {
            if only.is_some_and(|only| *self.versions[&version].demand.key.version != *only) {
                continue;
            }
            let entry = &self.versions[&version];
            if entry.keep.instances > 0 && !entry.stale {
                // Whoever keeps it has taken the change in already, and means this very version.
                continue;
            }
            self.make_stale(version, now);
            let key = &self.versions[&version].demand.key;
            if self.index.get(key) == Some(&version) {
                let key = key.clone();
                self.index.remove(&key);
            }
        }
        self.pump(now);
    }

    pub(super) fn abort(&mut self, function: &FunctionKey, now: Instant) {
        let Some(number) = self.function_index.get(function).copied() else { return };
        self.retire(function, None, now);
        let is_of = |state: State| matches!(state, State::Live { version, .. } if self.versions[&version].function == number);
        let live: Vec<_> = self.cells.iter().filter(|(_, cell)| is_of(cell.state)).map(|(cell, _)| *cell).collect();
        for cell in live {
            self.stop(cell, false);
        }
        self.pump(now);
    }

    pub(super) fn make_stale(&mut self, version: VersionNo, now: Instant) {
        self.version(version).stale = true;
        self.bereft.insert(version);
        for cell in self.idle_of(version) {
            self.stop(cell, true);
        }
        self.retire_template(version, Templating::Never, now);
    }

    pub(super) fn drain(&mut self, now: Instant) {
        self.draining = true;
        self.keep_nothing();
        let waiting: Vec<_> = self.stocks.values().flat_map(|stock| stock.waiting.iter().copied()).collect();
        for cell in waiting {
            self.end_waiting(cell);
        }
        for cell in self.idle.clone() {
            self.stop(cell, true);
        }
        for version in self.versions.keys().copied().collect::<Vec<_>>() {
            self.retire_template(version, Templating::Never, now);
        }
        self.pump(now);
    }
}
