//! Templates: a cell that has loaded a version and from which instances of it are forked.
//!
//! A function that asks for it gets one when its first instance has started, which shows that the version loads. From then
//! on cells for the version come from a class of their own, [`Program::Fork`], whose stock is filled by forking. A
//! template is no instance: it serves no call and holds no place, but its memory counts.
//!
//! # Invariants
//! - Whatever was forked from a template serves its version and no other.
//! - A template ends after all that was forked from it, unless it dies; then it takes them along.
//! - A version whose template could not be made, died or could not be forked gets no other one: it starts as ever.

use tokio::time::Instant;

use super::recent::Rate;
use super::state::{Cell, Engine, State, Version, VersionNo};
use super::{Action, CellNo};
use crate::class::{Class, Program};

/// What a version has of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Templating {
    /// None yet.
    Not,
    /// It is being made.
    Coming,
    /// Its cells are forked from this one.
    Ready(CellNo),
    /// None, ever.
    Never,
}

impl Engine {
    /// An instance of the version has started.
    pub(super) fn want_template(&mut self, number: VersionNo, now: Instant) {
        let version = &self.versions[&number];
        let wanted = version.demand.template && version.template == Templating::Not && !version.stale && !self.draining;
        let (class, weight) = (version.demand.class, version.weight);
        if !wanted || self.memory + weight > self.bounds.memory_bytes {
            return;
        }
        let cell = CellNo(self.fresh());
        let version = self.version(number);
        version.template = Templating::Coming;
        version.cells += 1;
        let demand = std::sync::Arc::clone(&version.demand);
        let state = State::Template { version: number, ready: false, ends: false };
        self.cells.insert(cell, Cell { class, state, weight, uses: Rate::none(now) });
        self.memory += weight;
        self.out.push(Action::Template { cell, demand });
    }

    /// A template was made, or could not be.
    pub(super) fn templated(&mut self, number: CellNo, made: bool, now: Instant) {
        let Some(Cell { class, state: State::Template { version, ready, .. }, weight, .. }) = self.cells.get_mut(&number) else {
            return;
        };
        let (version, class, weight) = (*version, Class { program: Program::Fork(number.0), net: class.net }, *weight);
        if !made {
            self.cells.remove(&number);
            self.memory -= weight;
            self.templates_refused += 1;
            self.version(version).template = Templating::Never;
            self.version(version).cells -= 1;
            self.forget_version_if_over(version, now);
            return self.pump(now);
        }
        *ready = true;
        let draining = self.draining;
        let entry = self.version(version);
        entry.template = Templating::Ready(number);
        if entry.stale || entry.held == 0 || draining {
            self.retire_template(version, Templating::Not, now);
        } else {
            entry.class = class;
            self.expect_class(class, now);
        }
    }

    /// Whether the cell is a template that is not being ended.
    #[must_use]
    pub fn is_template(&self, cell: CellNo) -> bool {
        matches!(self.cells.get(&cell), Some(Cell { state: State::Template { .. }, .. }))
    }

    /// The version's cells are not forked any more. The template ends when the last of them has.
    pub(super) fn retire_template(&mut self, number: VersionNo, next: Templating, now: Instant) {
        let Templating::Ready(template) = self.versions[&number].template else { return };
        let base = self.versions[&number].demand.class;
        let version = self.version(number);
        version.template = next;
        version.class = base;
        if let Some(cell) = self.cells.get_mut(&template)
            && let State::Template { ends, .. } = &mut cell.state
        {
            *ends = true;
        }
        let class = Class { program: Program::Fork(template.0), net: base.net };
        for cell in self.stocks.get(&class).map(|stock| stock.waiting.clone()).unwrap_or_default() {
            self.end_waiting(cell);
        }
        if let Some(stock) = self.stocks.remove(&class) {
            if let Some(at) = stock.timer {
                self.timers.remove(&(at, super::state::Timer::Stock(class)));
            }
            self.expect_class(base, now);
            self.stock(base).orders.extend(stock.orders);
        }
        self.end_template_if_alone(template);
    }

    /// A version with a template and nothing that was made from it.
    pub(super) fn unused_template(&self) -> Option<VersionNo> {
        let unused = |version: &Version| version.held == 0 && matches!(version.template, Templating::Ready(_));
        self.versions.iter().filter(|(_, version)| unused(version)).map(|(number, _)| *number).min()
    }

    /// A template that is to end has nothing left that was forked from it?
    pub(super) fn end_template_if_alone(&mut self, template: CellNo) {
        let Some(Cell { state: State::Template { ends: true, .. }, .. }) = self.cells.get(&template) else { return };
        if !self.cells.values().any(|cell| cell.class.program == Program::Fork(template.0)) {
            self.end_template(template);
        }
    }

    fn end_template(&mut self, template: CellNo) {
        let Some(Cell { state, weight, .. }) = self.cells.get_mut(&template) else { return };
        let State::Template { version, .. } = *state else { return };
        *state = State::Ending { version: Some(version) };
        self.ending_memory += *weight;
        self.out.push(Action::Stop { cell: template, graceful: false });
    }

    /// A template has died, or was ended because it could not be forked; and with it all that was forked from it.
    pub(super) fn lose_template(&mut self, template: CellNo, now: Instant) {
        let Some(Cell { state: State::Template { version, ready, .. }, .. }) = self.cells.get(&template) else { return };
        let (version, ready) = (*version, *ready);
        if !ready {
            // Whoever makes it reports.
            return;
        }
        self.templates_lost += 1;
        let family = self.cells.iter().filter(|(_, cell)| cell.class.program == Program::Fork(template.0));
        let mut live: Vec<_> =
            family.filter(|(_, cell)| matches!(cell.state, State::Live { .. })).map(|(number, _)| *number).collect();
        live.sort();
        for cell in live {
            self.end_live(cell);
        }
        // It may have been retired before, and the version have another.
        if self.versions[&version].template == Templating::Ready(template) {
            self.retire_template(version, Templating::Never, now);
        }
        self.end_template(template);
    }

    /// A cell that was being forked, or was forked, is gone.
    pub(super) fn fork_is_gone(&mut self, class: Class) {
        if let Program::Fork(template) = class.program {
            self.end_template_if_alone(CellNo(template));
        }
    }
}
