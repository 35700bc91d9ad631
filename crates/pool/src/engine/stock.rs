//! Cells that wait for a function, per class: how many, and when they are made.
//!
//! A class keeps its minimum as soon as one of its functions is known, and as many as the largest burst of the last
//! minutes took: the next one finds them. What is missing is made in the background a little after a bind, so that making a cell does not take the CPU from the
//! call that caused it; calls that wait for a cell come first.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::recent::Peak;
use super::state::{Engine, VersionNo};
use super::{CellNo, WaiterId};
use crate::class::Class;

/// A start that was admitted and lacks a cell.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    pub(super) version: VersionNo,
    pub(super) nominal: Option<WaiterId>,
    /// What it counts for in the node's memory.
    pub(super) weight: u64,
}

/// How long after a bind its replacement is made.
const REFILL_AFTER: Duration = Duration::from_millis(25);
/// For so long what is missing waits for starts under way: making a cell would take the CPU from them.
const REFILL_WAITS_MAX: Duration = Duration::from_millis(250);
/// Binds that follow each other within this time are one burst: a cell made meanwhile would have come too late.
const BURST: Duration = Duration::from_secs(1);
/// How soon half of the largest burst is forgotten.
const BURST_HALF_LIFE: Duration = Duration::from_secs(120);
/// A surplus is looked at again after this long.
const TRIM_EVERY: Duration = Duration::from_secs(10);
/// Cells made ahead at a time; making for calls that wait is bounded separately.
const AHEAD_MAKING_MAX: usize = 2;

#[derive(Debug)]
pub(super) struct Stock {
    class: Class,
    /// Oldest first.
    pub(super) waiting: VecDeque<CellNo>,
    pub(super) making: usize,
    pub(super) orders: VecDeque<Order>,
    /// Makes that failed in a row, and when the next is due.
    pub(super) failures: u32,
    pub(super) retry_at: Instant,
    /// Not before this are cells made ahead.
    refill_at: Instant,
    pub(super) timer: Option<Instant>,
    /// When the present burst began, and how many cells it took so far.
    burst_at: Instant,
    burst: usize,
    bound_at: Instant,
    /// The largest burst lately.
    peak: Peak,
}

impl Stock {
    pub(super) fn can_bind(&self) -> bool {
        !self.orders.is_empty() && !self.waiting.is_empty()
    }

    /// Whether an order has no cell coming.
    pub(super) fn lacks(&self) -> bool {
        self.orders.len() > self.waiting.len() + self.making
    }

    pub(super) fn note_bind(&mut self, now: Instant) {
        if now >= self.burst_at + BURST {
            (self.burst_at, self.burst) = (now, 0);
        }
        self.burst += 1;
        self.peak.note(self.burst.min(self.class.stock_max()), now);
        self.bound_at = now;
        // Binds that never pause do not put it off for ever.
        if self.refill_at <= now {
            self.refill_at = now + REFILL_AFTER;
        }
    }

    /// How many cells should wait now.
    fn target(&self, most: Option<usize>, now: Instant) -> usize {
        self.class.stock_min().max(self.peak.at(now)).min(most.unwrap_or_else(|| self.class.stock_max()))
    }
}

impl Engine {
    /// The stock of a class that is known.
    pub(super) fn stock(&mut self, class: Class) -> &mut Stock {
        self.stocks.get_mut(&class).expect("a class is made known before it has cells or orders")
    }

    pub(super) fn expect_class(&mut self, class: Class, now: Instant) {
        if self.stocks.contains_key(&class) {
            return;
        }
        let stock = Stock {
            class,
            waiting: VecDeque::new(),
            making: 0,
            orders: VecDeque::new(),
            failures: 0,
            retry_at: now,
            refill_at: now,
            timer: None,
            burst_at: now,
            burst: 0,
            bound_at: now,
            peak: Peak::none(BURST_HALF_LIFE, now),
        };
        self.stocks.insert(class, stock);
        self.pump(now);
    }

    /// Makes cells ahead and ends what is too many.
    pub(super) fn review_stocks(&mut self, now: Instant) {
        if self.draining {
            return;
        }
        let classes: Vec<Class> = self.stocks.keys().copied().collect();
        for class in classes {
            self.review_stock(class, now);
        }
    }

    fn review_stock(&mut self, class: Class, now: Instant) {
        let stock = &self.stocks[&class];
        let target = stock.target(self.bounds.stock_max, now);
        let (waiting, coming, orders) = (stock.waiting.len(), stock.making, stock.orders.len());
        let due = stock.refill_at.max(stock.retry_at);
        if orders > 0 {
            // What is being made goes to calls that wait; a failed make is tried again when its pause is over.
            if stock.retry_at > now {
                self.set_stock_timer(class, stock.retry_at);
            }
            return;
        }
        if waiting + coming < target {
            if due > now {
                return self.set_stock_timer(class, due);
            }
            let waits_until = stock.refill_at + REFILL_WAITS_MAX;
            if self.starting > 0 && waits_until > now {
                // The end of each start comes back here.
                return self.set_stock_timer(class, waits_until);
            }
            let stock_memory = self.stock_memory();
            let room = self.memory_short.is_none()
                && stock_memory + class.waiting_bytes() <= self.bounds.stock_bytes
                && self.memory + class.waiting_bytes() <= self.bounds.memory_bytes;
            // The end of each make comes back here and makes the next.
            if room && coming < AHEAD_MAKING_MAX && self.making < self.bounds.making {
                self.make(class, false, now);
                self.review_stock(class, now);
            }
        } else if waiting > target {
            let (oldest, last_bind) = (stock.waiting[0], stock.bound_at);
            if now.saturating_duration_since(last_bind) >= TRIM_EVERY {
                self.end_waiting(oldest);
                self.review_stock(class, now);
            } else {
                self.set_stock_timer(class, last_bind + TRIM_EVERY);
            }
        }
    }

    fn stock_memory(&self) -> u64 {
        let bytes = |stock: &Stock| (stock.waiting.len() + stock.making) as u64 * stock.class.waiting_bytes();
        self.stocks.values().map(bytes).sum()
    }

    /// A waiting cell beyond its class's minimum, or any if there is none: the cheapest thing to give up.
    pub(super) fn surplus_cell(&self) -> Option<CellNo> {
        self.stocks.values().filter(|stock| stock.orders.is_empty()).find_map(|stock| stock.waiting.front().copied())
    }
}
