//! From who waits to what is started: orders, cells for orders, and whose idle instance makes room.

use super::idle::Among;
use super::recent::Rate;
use super::state::{Cell, Engine, FunctionNo, State, Timer, VersionNo};
use super::stock::Order;
use super::template::Templating;
use super::{Action, CellNo, MakeFault, Why, make_pause};
use crate::class::Class;
use crate::throttle::Limit;
use tokio::time::Instant;

/// Whether a version's next start was admitted.
pub(super) enum Admission {
    Placed,
    /// Not now; others may be luckier.
    Stalled,
    /// Nothing can be admitted now.
    Full,
}

impl Engine {
    /// Notes that the version may want a start.
    pub(super) fn want(&mut self, number: VersionNo, now: Instant) {
        let version = self.version(number);
        if version.hungry.is_none() && version.wants() && version.retry_at <= now {
            self.add_hungry(number);
        }
    }

    /// Starts what can be started now. Cheap when nobody waits and no stock is due.
    pub(super) fn pump(&mut self, now: Instant) {
        self.keep_up(now);
        // A bind may give an order back, and so make room for another.
        loop {
            self.bind_waiting_cells(now);
            if !self.place_orders(now) {
                break;
            }
        }
        self.make_for_orders(now);
        self.review_stocks(now);
    }

    pub(super) fn place_order(&mut self, number: VersionNo, now: Instant) -> Admission {
        if self.orders + self.starting >= self.bounds.starting {
            return Admission::Full;
        }
        let version = &self.versions[&number];
        let (class, weight) = (version.class, version.weight);
        let stock = &self.stocks[&class];
        if stock.retry_at > now && stock.waiting.len() + stock.making <= stock.orders.len() {
            // No place is held for a cell that cannot be made.
            return Admission::Stalled;
        }
        let function = version.function;
        if self.starts_enough(function) {
            return Admission::Stalled;
        }
        while let Some(limit) = self.limit_of(function) {
            let among = match limit {
                Limit::Function(_) => Among::Function,
                // What is set aside for others is no use to it, even while it idles.
                Limit::Account(most) if self.is_kept_from(function, most) => Among::Unreserved,
                Limit::Account(_) | Limit::Node => Among::Account,
            };
            if !self.evict(number, among, now) {
                return Admission::Stalled;
            }
        }
        if self.memory_short.is_some_and(|least| weight >= least) {
            return Admission::Stalled;
        }
        if !self.make_room(number, weight, now) {
            self.memory_short = Some(weight);
            return Admission::Stalled;
        }
        let version = &self.versions[&number];
        // Where calls wait that nothing under way will serve, one of them is nobody's nominal.
        let nominal = if version.is_waited_for() { version.unordered.first().copied() } else { None };
        self.memory += weight;
        self.orders += 1;
        let version = self.version(number);
        if let Some(nominal) = nominal {
            version.unordered.remove(&nominal);
        }
        version.orders += 1;
        self.take_place(number);
        self.start_begins(number);
        self.stock(class).orders.push_back(Order { version: number, nominal, weight });
        Admission::Placed
    }

    /// Whether there is memory for one more instance. Ends idle instances, and templates without any, when their end
    /// would help; their memory is there when their walls are down.
    fn make_room(&mut self, wanted: VersionNo, weight: u64, now: Instant) -> bool {
        let limit = self.bounds.memory_bytes;
        if self.memory + weight <= limit {
            return true;
        }
        while self.memory - self.ending_memory + weight > limit {
            if self.evict(wanted, Among::Node, now) {
                continue;
            }
            if let Some(cell) = self.surplus_cell() {
                self.end_waiting(cell);
            } else if let Some(version) = self.unused_template() {
                self.retire_template(version, Templating::Not, now);
            } else {
                break;
            }
        }
        // A function larger than everything may still run alone.
        self.orders == 0 && self.cells.values().all(|cell| matches!(cell.state, State::Waiting | State::Making))
    }

    /// Binds waiting cells to orders of their class, oldest order first.
    fn bind_waiting_cells(&mut self, now: Instant) {
        if self.orders == 0 {
            return;
        }
        let classes: Vec<Class> = self.stocks.iter().filter(|(_, stock)| stock.can_bind()).map(|(class, _)| *class).collect();
        for class in classes {
            while self.stock(class).can_bind() {
                let order = self.next_order(class);
                if !self.take_order(&order) {
                    self.give_back(&order, now);
                    continue;
                }
                let stock = self.stock(class);
                // The one that has waited longest: after it said Ready a bootstrap may rehearse for a while yet.
                let cell = stock.waiting.pop_front().expect("can_bind looked");
                stock.note_bind(now);
                self.bind_cell(cell, &order, now);
            }
        }
    }

    /// Takes the order whose account was served longest ago, and of that account's functions the same.
    fn next_order(&mut self, class: Class) -> Order {
        let turn = |order: &Order| {
            let function = &self.functions[&self.versions[&order.version].function];
            (self.accounts[function.key.account()].bound, function.bound)
        };
        let orders = &self.stocks[&class].orders;
        let next = (0..orders.len()).min_by_key(|at| turn(&orders[*at])).expect("can_bind looked");
        let order = self.stock(class).orders.remove(next).expect("it was found there");
        let turn = self.fresh();
        let function = self.functions.get_mut(&self.versions[&order.version].function).expect("a version's function is kept");
        function.bound = turn;
        self.accounts.get_mut(function.key.account()).expect("an account with an order is kept").bound = turn;
        order
    }

    /// Whether so many starts of the function or its account are under way that others would be kept from theirs.
    fn starts_enough(&self, function: FunctionNo) -> bool {
        let (all, function) = (self.bounds.starting, &self.functions[&function]);
        let of_account = self.accounts.get(function.key.account()).map_or(0, |account| account.starting);
        function.starting >= (all / 2).max(1) || of_account >= (all / 4 * 3).max(1)
    }

    fn start_begins(&mut self, version: VersionNo) {
        let function = self.functions.get_mut(&self.versions[&version].function).expect("a version's function is kept");
        function.starting += 1;
        self.accounts.get_mut(function.key.account()).expect("an account with a place is kept").starting += 1;
    }

    /// An order was given back, or its start is over.
    pub(super) fn start_over(&mut self, version: VersionNo) {
        let function = self.functions.get_mut(&self.versions[&version].function).expect("a version's function is kept");
        function.starting -= 1;
        self.accounts.get_mut(function.key.account()).expect("an account with a place is kept").starting -= 1;
    }

    /// Whether somebody still wants what the order is for.
    fn take_order(&self, order: &Order) -> bool {
        let version = &self.versions[&order.version];
        version.waiters.len() > version.slots(version.starting) || version.lacks_beside(version.orders)
    }

    fn bind_cell(&mut self, number: CellNo, order: &Order, now: Instant) {
        let version = self.versions.get_mut(&order.version).expect("a version with an order is kept");
        let own = order.nominal.filter(|nominal| version.waiters.contains(nominal));
        // A call that waits has the start for its own, also one that has another start already; only where none needs it
        // the instance is started to be kept.
        let waited_for = version.waiters.len() > version.slots(version.starting);
        let any = version.waiters.first().copied().filter(|_| waited_for);
        let nominal = own.or(version.unordered.first().copied()).or(any);
        if let Some(nominal) = nominal {
            version.unordered.remove(&nominal);
        }
        version.orders -= 1;
        version.starting += 1;
        version.cells += 1;
        let demand = std::sync::Arc::clone(&version.demand);
        self.orders -= 1;
        self.starting += 1;
        let cell = self.cells.get_mut(&number).expect("a stock's cells exist");
        self.memory -= cell.weight;
        cell.weight = order.weight;
        cell.state = State::Starting { version: order.version, nominal, since: now };
        self.out.push(Action::Start { cell: number, demand, waiter: nominal });
    }

    /// An order that was taken out of its queue is not carried out.
    fn give_back(&mut self, order: &Order, now: Instant) {
        self.orders -= 1;
        self.memory -= order.weight;
        let version = self.version(order.version);
        version.orders -= 1;
        version.back_in_line(order.nominal);
        self.start_over(order.version);
        self.free_place(order.version);
        self.want_if_kept(order.version, now);
    }

    fn want_if_kept(&mut self, version: VersionNo, now: Instant) {
        self.forget_version_if_over(version, now);
        if self.versions.contains_key(&version) {
            self.want(version, now);
        }
    }

    /// Takes back every order of the version.
    pub(super) fn drop_orders(&mut self, number: VersionNo) {
        let version = &self.versions[&number];
        let mut classes = vec![version.demand.class];
        if version.class != version.demand.class {
            classes.push(version.class);
        }
        let mut dropped = Vec::new();
        for class in classes {
            let Some(stock) = self.stocks.get_mut(&class) else { continue };
            let (own, kept) =
                std::mem::take(&mut stock.orders).into_iter().partition::<Vec<_>, _>(|order| order.version == number);
            stock.orders = kept.into();
            dropped.extend(own);
        }
        for order in dropped {
            self.orders -= 1;
            self.memory -= order.weight;
            let version = self.version(number);
            version.orders -= 1;
            version.back_in_line(order.nominal);
            self.start_over(number);
            self.free_place(number);
        }
    }

    /// Makes cells for orders that have none coming.
    fn make_for_orders(&mut self, now: Instant) {
        if self.orders == 0 || self.making >= self.bounds.making {
            return;
        }
        let lacking: Vec<Class> =
            self.stocks.iter().filter(|(_, stock)| stock.lacks() && stock.retry_at <= now).map(|(class, _)| *class).collect();
        let mut progress = true;
        while progress {
            progress = false;
            for class in &lacking {
                if self.making < self.bounds.making && self.stock(*class).lacks() {
                    self.make(*class, true, now);
                    progress = true;
                }
            }
        }
    }

    /// Makes a cell, for a call that waits for it or for the stock.
    pub(super) fn make(&mut self, class: Class, waited_for: bool, now: Instant) {
        let number = CellNo(self.fresh());
        let weight = class.waiting_bytes();
        self.cells.insert(number, Cell { class, state: State::Making, weight, uses: Rate::none(now) });
        self.memory += weight;
        self.making += 1;
        self.stock(class).making += 1;
        self.out.push(Action::Make { cell: number, class, waited_for });
    }

    pub(super) fn make_failed(&mut self, class: Class, fault: MakeFault, now: Instant) {
        let stock = self.stock(class);
        stock.making -= 1;
        stock.failures = stock.failures.saturating_add(1);
        stock.retry_at = now + make_pause(stock.failures);
        let (at, told) = (stock.retry_at, fault == MakeFault::Broken && stock.failures >= super::PLATFORM_ATTEMPTS);
        self.set_stock_timer(class, at);
        if fault == MakeFault::Full {
            self.evict_any(now);
        }
        // Orders that still have a cell coming stay; the others give their places back until cells can be made again.
        let stock = self.stock(class);
        let spared = (stock.waiting.len() + stock.making).min(stock.orders.len());
        let orders: Vec<_> = stock.orders.split_off(spared).into();
        let unlucky = orders
            .iter()
            .filter_map(|order| Some((order.version, order.nominal?)))
            .find(|(_, nominal)| self.waiters.contains_key(nominal));
        for order in orders {
            self.give_back(&order, now);
        }
        if let Some((version, waiter)) = unlucky.filter(|_| told) {
            self.refuse(waiter, Why::Platform);
            self.forget_version_if_over(version, now);
        }
    }

    /// Ends a cell that nobody was bound to.
    pub(super) fn end_waiting(&mut self, number: CellNo) {
        let Some(cell) = self.cells.get_mut(&number) else { return };
        cell.state = State::Ending { version: None };
        let (class, weight) = (cell.class, cell.weight);
        self.ending_memory += weight;
        self.stock(class).waiting.retain(|waiting| *waiting != number);
        self.out.push(Action::Stop { cell: number, graceful: false });
    }

    pub(super) fn set_stock_timer(&mut self, class: Class, at: Instant) {
        let stock = self.stocks.get_mut(&class).expect("a stock is made before it is timed");
        match stock.timer {
            Some(earlier) if earlier <= at => return,
            Some(later) => {
                self.timers.remove(&(later, Timer::Stock(class)));
            }
            None => {}
        }
        stock.timer = Some(at);
        self.timers.insert((at, Timer::Stock(class)));
    }
}
