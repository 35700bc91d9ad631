//! Cells: made, started, idle, ended.

use std::mem;

use tokio::time::Instant;

use super::state::{Cell, Engine, State, Timer, VersionNo};
use super::template::Templating;
use super::{Action, CellNo, FAILURES_TOLD_TO_ALL, MakeFault, PLATFORM_ATTEMPTS, StartFault, WaiterId, Why, start_pause};
use crate::class::Program;

/// How long the failures of a version are remembered after the last one.
const FAILURE_MEMORY: std::time::Duration = std::time::Duration::from_secs(60);

impl Engine {
    pub(super) fn made(&mut self, number: CellNo, result: Result<(), MakeFault>, now: Instant) {
        let Some(cell) = self.cells.get_mut(&number) else { return };
        if !matches!(cell.state, State::Making) {
            return;
        }
        let class = cell.class;
        self.making -= 1;
        if matches!(class.program, Program::Fork(_)) && (result.is_err() || !self.stocks.contains_key(&class)) {
            return self.forked_in_vain(number, result.is_ok(), now);
        }
        match result {
            Ok(()) => {
                cell.state = State::Waiting;
                let stock = self.stock(class);
                stock.making -= 1;
                stock.failures = 0;
                stock.waiting.push_back(number);
                if self.draining && self.stock(class).orders.is_empty() {
                    self.end_waiting(number);
                }
            }
            Err(fault) => {
                let weight = cell.weight;
                self.cells.remove(&number);
                self.memory -= weight;
                self.make_failed(class, fault, now);
            }
        }
        self.pump(now);
    }

    pub(super) fn started(&mut self, number: CellNo, result: Result<(), StartFault>, now: Instant) {
        let Some(cell) = self.cells.get_mut(&number) else { return };
        let (class, State::Starting { version, nominal, since }) = (cell.class, cell.state) else { return };
        // What ends with its template has not failed by itself, and serves nobody if it has not failed.
        let lost = matches!(class.program, Program::Fork(template) if !self.is_template(CellNo(template)));
        let result = if lost { Err(StartFault::Platform) } else { result };
        self.starting -= 1;
        self.start_over(version);
        let cell = self.cells.get_mut(&number).expect("it was there a line ago");
        let entry = self.versions.get_mut(&version).expect("a cell's version lives as long as the cell");
        entry.starting -= 1;
        entry.start_time.note(now.saturating_duration_since(since));
        let Err(fault) = result else {
            cell.state = State::Live { version, in_flight: 0, ends: false, idle: None };
            entry.failures = 0;
            entry.free.push_back(number);
            let first = nominal.filter(|nominal| entry.waiters.contains(nominal)).or(entry.waiters.first().copied());
            self.want_template(version, now);
            self.rest(number, now);
            if let Some(waiter) = first {
                // An instance that was started to be kept is as warm as any other: nobody caused its start.
                self.give(waiter, number, nominal.is_some(), now);
            }
            self.serve(version, now);
            // Further calls of its first session may have taken what others waited for.
            self.bereft.insert(version);
            return self.pump(now);
        };
        self.stop(number, false);
        match fault {
            StartFault::Function => self.start_failed(version, nominal, now),
            StartFault::Platform => match nominal {
                None => self.pause_starts(version, now),
                Some(nominal) => {
                    if let Some(waiter) = self.waiters.get_mut(&nominal) {
                        waiter.attempts += 1;
                        if waiter.attempts >= PLATFORM_ATTEMPTS {
                            self.refuse(nominal, Why::Platform);
                        } else {
                            self.version(version).unordered.insert(nominal);
                        }
                    }
                }
            },
        }
        self.want(version, now);
        self.pump(now);
    }

    /// Nobody waits for a start that failed for the platform's reasons: it is tried again after a pause.
    fn pause_starts(&mut self, version: VersionNo, now: Instant) {
        let entry = self.version(version);
        entry.failures = entry.failures.max(FAILURES_TOLD_TO_ALL - 1);
        self.note_failure(version, now);
    }

    /// One more start of the version failed. Answers how many did in a row.
    fn note_failure(&mut self, version: VersionNo, now: Instant) -> u32 {
        let entry = self.version(version);
        entry.failures = entry.failures.saturating_add(1);
        let pause = start_pause(entry.failures);
        entry.retry_at = now + pause;
        let failures = entry.failures;
        let (forgotten, forget_at) = (entry.forget_at, now + pause + FAILURE_MEMORY);
        entry.forget_at = forget_at;
        self.timers.remove(&(forgotten, Timer::Forget(version)));
        self.timers.insert((forget_at, Timer::Forget(version)));
        if !pause.is_zero() {
            self.timers.insert((now + pause, Timer::Retry(version)));
        }
        failures
    }

    pub(super) fn start_failed(&mut self, version: VersionNo, nominal: Option<WaiterId>, now: Instant) {
        let failures = self.note_failure(version, now);
        if let Some(nominal) = nominal.filter(|nominal| self.waiters.contains_key(nominal)) {
            self.refuse(nominal, Why::StartFailed);
        }
        if failures >= FAILURES_TOLD_TO_ALL {
            self.drop_orders(version);
            for waiter in mem::take(&mut self.version(version).unordered) {
                self.refuse(waiter, Why::OthersFailed);
            }
        }
    }

    pub(super) fn died(&mut self, number: CellNo, now: Instant) {
        let Some(cell) = self.cells.get_mut(&number) else { return };
        match &mut cell.state {
            // Whoever makes, starts or ends it reports.
            State::Making | State::Starting { .. } | State::Ending { .. } => return,
            State::Waiting => self.end_waiting(number),
            State::Template { .. } => self.lose_template(number, now),
            State::Live { .. } => self.end_live(number),
        }
        self.pump(now);
    }

    /// An instance is dead: it gets no further call, and ends when those it has are over.
    pub(super) fn end_live(&mut self, number: CellNo) {
        let Some(Cell { state: State::Live { version, in_flight, ends, .. }, .. }) = self.cells.get_mut(&number) else { return };
        let (version, busy, ended_before) = (*version, *in_flight > 0, *ends);
        *ends = true;
        if !ended_before {
            self.leaves(version, number);
        }
        if !busy {
            self.stop(number, false);
        }
    }

    /// A fork failed, or its template is to end.
    fn forked_in_vain(&mut self, number: CellNo, made: bool, now: Instant) {
        let Some(cell) = self.cells.get_mut(&number) else { return };
        let (class, weight) = (cell.class, cell.weight);
        if made {
            cell.state = State::Ending { version: None };
            self.ending_memory += weight;
            self.out.push(Action::Stop { cell: number, graceful: false });
        } else {
            self.cells.remove(&number);
            self.memory -= weight;
            if let Some(stock) = self.stocks.get_mut(&class) {
                stock.making -= 1;
            }
            if let Program::Fork(template) = class.program {
                self.lose_template(CellNo(template), now);
            }
            self.fork_is_gone(class);
        }
        self.pump(now);
    }

    pub(super) fn stopped(&mut self, number: CellNo, now: Instant) {
        if !matches!(self.cells.get(&number), Some(Cell { state: State::Ending { .. }, .. })) {
            return;
        }
        let cell = self.cells.remove(&number).expect("it was there a line ago");
        self.memory -= cell.weight;
        self.ending_memory -= cell.weight;
        self.fork_is_gone(cell.class);
        if let State::Ending { version: Some(version) } = cell.state {
            let entry = self.version(version);
            entry.cells -= 1;
            if entry.held == 0 && entry.waiters.is_empty() {
                self.retire_template(version, Templating::Not, now);
            }
            self.forget_version_if_over(version, now);
        }
        self.pump(now);
    }

    /// Ends a bound cell.
    pub(super) fn stop(&mut self, number: CellNo, graceful: bool) {
        let Some(cell) = self.cells.get(&number) else { return };
        let (version, left, leaving) = match cell.state {
            State::Starting { version, .. } => (version, 0, false),
            State::Live { version, in_flight, ends, .. } => (version, in_flight as usize, ends),
            State::Making | State::Waiting | State::Template { .. } | State::Ending { .. } => return,
        };
        self.rouse(number);
        let entry = self.version(version);
        entry.in_use -= left;
        entry.leaving -= usize::from(leaving);
        self.bereft.insert(version);
        let cell = self.cells.get_mut(&number).expect("it was there a line ago");
        cell.state = State::Ending { version: Some(version) };
        self.ending_memory += cell.weight;
        self.version(version).free.retain(|free| *free != number);
        self.free_place(version);
        self.out.push(Action::Stop { cell: number, graceful });
        self.vacate(number);
    }
}
