//! Places: how many instances functions and accounts hold and may hold, and who gets the next one.
//!
//! Everything that has an instance coming or living holds a place: in its function, in its account, in the memory of the
//! node. Where places are short, *who holds least is next*: first among accounts, then among the account's functions; of
//! equals, who has waited for its turn longest. And a function that holds at least two places more than another one that
//! waits gives one up when a call of it ends, so that a flood that came first does not keep what it took.

use std::ops::Bound::{Excluded, Unbounded};

use dunlin_model::{AccountId, FunctionKey};
use tokio::time::Instant;

use super::pump::Admission;
use super::state::{Account, Engine, FunctionNo, VersionNo};
use crate::throttle::Limit;

/// Where an account stands in the order: what it holds, and its turn.
pub(super) type AccountTurn = (usize, u64, AccountId);
/// Where a version stands among its account's: what its function holds, and its turn.
pub(super) type VersionTurn = (usize, u64, VersionNo);

impl Engine {
    /// One more place is held for the version.
    pub(super) fn take_place(&mut self, version: VersionNo) {
        self.version(version).held += 1;
        self.change_held(version, |held| held + 1);
    }

    /// One place less is held for the version.
    pub(super) fn free_place(&mut self, version: VersionNo) {
        self.version(version).held -= 1;
        self.change_held(version, |held| held - 1);
    }

    fn change_held(&mut self, version: VersionNo, change: impl Fn(usize) -> usize) {
        let number = self.versions[&version].function;
        let function = self.functions.get_mut(&number).expect("a version's function is kept");
        let account = self.accounts.get_mut(function.key.account()).expect("an account with a place is kept");
        let hungry = function.versions.iter().filter_map(|version| Some((*version, self.versions.get(version)?.hungry?)));
        for (version, turn) in hungry {
            account.hungry.remove(&(function.instances, turn, version));
            account.hungry.insert((change(function.instances), turn, version));
        }
        let before = account.instances;
        account.instances = change(before);
        function.instances = change(function.instances);
        if function.limit.is_some() {
            account.capped = change(account.capped);
        }
        if !account.hungry.is_empty() {
            let (turn, name) = (account.turn, function.key.account().clone());
            let after = account.instances;
            self.hungry.remove(&(before, turn, name.clone()));
            self.hungry.insert((after, turn, name));
        }
        let name = self.functions[&number].key.account().clone();
        self.forget_account_if_empty(&name);
    }

    /// How many instances the function may have, where that is not its account's number. What is set aside for it is
    /// not there for the account's other functions.
    pub(super) fn set_limit(&mut self, key: &FunctionKey, limit: Option<usize>, now: Instant) {
        let before = match limit {
            Some(limit) => self.limits.insert(key.clone(), limit),
            None => self.limits.remove(key),
        };
        let account = self.accounts.entry(key.account().clone()).or_default();
        account.reserved = account.reserved - before.unwrap_or(0) + limit.unwrap_or(0);
        if let Some(number) = self.function_index.get(key).copied() {
            let function = self.functions.get_mut(&number).expect("the index names what is there");
            if before.is_none() && limit.is_some() {
                account.capped += function.instances;
            } else if before.is_some() && limit.is_none() {
                account.capped -= function.instances;
            }
            function.limit = limit;
            for version in function.versions.clone() {
                self.version(version).disabled = limit == Some(0);
                if limit == Some(0) {
                    self.refuse_disabled(version, now);
                } else {
                    self.bereft.insert(version);
                }
            }
            self.end_what_is_too_many(number);
        }
        self.forget_account_if_empty(key.account());
        self.pump(now);
    }

    /// Ends idle instances of a function that has more than it may; busy ones end after their calls.
    fn end_what_is_too_many(&mut self, number: FunctionNo) {
        let versions = self.functions.get(&number).map(|function| function.versions.clone()).unwrap_or_default();
        for cell in self.idle.clone() {
            let own = self.cells[&cell].state.version().is_some_and(|version| versions.contains(&version));
            if own && self.has_too_many(number) {
                self.stop(cell, true);
            }
        }
    }

    fn has_too_many(&self, number: FunctionNo) -> bool {
        self.functions.get(&number).is_some_and(|function| function.limit.is_some_and(|limit| function.instances > limit))
    }

    /// The limit that keeps the function from having one more instance, if one does.
    pub(super) fn limit_of(&self, number: FunctionNo) -> Option<Limit> {
        let function = &self.functions[&number];
        let own = function.limit.or(self.bounds.instances_per_function);
        if let Some(most) = own.filter(|most| function.instances >= *most) {
            return Some(Limit::Function(most));
        }
        let most = self.bounds.instances_per_account;
        let full = self.accounts.get(function.key.account())?.instances >= most;
        (full || self.is_kept_from(number, most)).then_some(Limit::Account(most))
    }

    /// Whether what the function's account may have, less what is set aside for others in it, is used up.
    pub(super) fn is_kept_from(&self, number: FunctionNo, most: usize) -> bool {
        let function = &self.functions[&number];
        let used = |account: &Account| account.instances - account.capped + account.reserved;
        function.limit.is_none() && self.accounts.get(function.key.account()).map_or(0, used) >= most
    }

    /// The same, with the memory of the node.
    pub(super) fn any_limit_of(&self, version: VersionNo) -> Option<Limit> {
        let version = &self.versions[&version];
        let short = self.memory + version.weight > self.bounds.memory_bytes;
        self.limit_of(version.function).or_else(|| short.then_some(Limit::Node))
    }

    /// Puts the version among those that want a start, at the end of its equals.
    pub(super) fn add_hungry(&mut self, number: VersionNo) {
        let turn = self.fresh();
        let version = self.versions.get_mut(&number).expect("it was just looked at");
        version.hungry = Some(turn);
        let function = &self.functions[&version.function];
        let account = self.accounts.entry(function.key.account().clone()).or_default();
        if account.hungry.is_empty() {
            account.turn = turn;
            self.hungry.insert((account.instances, turn, function.key.account().clone()));
        }
        account.hungry.insert((function.instances, turn, number));
    }

    pub(super) fn remove_hungry(&mut self, number: VersionNo) {
        let version = self.versions.get_mut(&number).expect("it was just looked at");
        let Some(turn) = version.hungry.take() else { return };
        let function = &self.functions[&version.function];
        let account = self.accounts.get_mut(function.key.account()).expect("an account with a hungry version is kept");
        account.hungry.remove(&(function.instances, turn, number));
        if account.hungry.is_empty() {
            let name = function.key.account().clone();
            self.hungry.remove(&(account.instances, account.turn, name.clone()));
            self.forget_account_if_empty(&name);
        }
    }

    /// To the end of the line of equals, in the account and with it.
    fn served(&mut self, number: VersionNo) {
        self.remove_hungry(number);
        if self.versions[&number].wants() {
            self.add_hungry(number);
        }
        let function = &self.functions[&self.versions[&number].function];
        let account = self.accounts.get_mut(function.key.account()).expect("an account with a waiter is kept");
        if !account.hungry.is_empty() {
            self.last += 1;
            let (instances, name) = (account.instances, function.key.account().clone());
            self.hungry.remove(&(instances, account.turn, name.clone()));
            account.turn = self.last;
            self.hungry.insert((instances, account.turn, name));
        }
    }

    /// Admits starts until all are served or none can be. Says whether there were any.
    pub(super) fn place_orders(&mut self, now: Instant) -> bool {
        let mut placed = false;
        self.memory_short = None;
        let mut after: Option<AccountTurn> = None;
        loop {
            let next = match &after {
                None => self.hungry.first(),
                Some(turn) => self.hungry.range((Excluded(turn), Unbounded)).next(),
            };
            let Some(turn) = next.cloned() else { return placed };
            match self.place_one_of(&turn.2, now) {
                Admission::Placed => {
                    placed = true;
                    after = None;
                }
                Admission::Stalled => after = Some(turn),
                Admission::Full => return placed,
            }
        }
    }

    /// Admits one start of the account.
    fn place_one_of(&mut self, account: &AccountId, now: Instant) -> Admission {
        let mut after: Option<VersionTurn> = None;
        loop {
            let Some(account) = self.accounts.get(account) else { return Admission::Stalled };
            let next = match &after {
                None => account.hungry.first(),
                Some(turn) => account.hungry.range((Excluded(turn), Unbounded)).next(),
            };
            let Some(turn) = next.copied() else { return Admission::Stalled };
            let version = &self.versions[&turn.2];
            after = Some(turn);
            if !version.wants() || version.retry_at > now {
                self.remove_hungry(turn.2);
                continue;
            }
            match self.place_order(turn.2, now) {
                Admission::Stalled => {}
                Admission::Placed => {
                    self.served(turn.2);
                    return Admission::Placed;
                }
                Admission::Full => return Admission::Full,
            }
        }
    }

    /// Whether an instance whose call just ended makes room for somebody who waits and holds less, although calls of
    /// its own version wait. One with sessions goes only when its function has too many.
    pub(super) fn gives_way(&self, number: VersionNo, has_tenants: bool, now: Instant) -> bool {
        if self.has_too_many(self.versions[&number].function) {
            return true;
        }
        if has_tenants
            || self.hungry.is_empty()
            || self.orders + self.starting >= self.bounds.starting
            || self.versions[&number].spares_none()
        {
            return false;
        }
        let function = &self.functions[&self.versions[&number].function];
        let account = &self.accounts[function.key.account()];
        let needs_less = |turn: &&VersionTurn| {
            let (held, _, other) = **turn;
            held + 1 < function.instances && self.versions[&other].function != self.versions[&number].function
        };
        let sibling = account.hungry.iter().take_while(needs_less).find(|(_, _, other)| self.would_start(*other, now));
        if let Some((_, _, other)) = sibling {
            let by_account = matches!(self.limit_of(self.versions[other].function), Some(Limit::Account(_)));
            if by_account || self.lacks_memory_for(*other) {
                return true;
            }
        }
        let mut others = self.hungry.iter().take_while(|(held, ..)| held + 1 < account.instances);
        others.any(|(_, _, name)| {
            let mut versions = self.accounts[name].hungry.iter();
            name != function.key.account()
                && versions.any(|(_, _, other)| {
                    self.would_start(*other, now)
                        && self.limit_of(self.versions[other].function).is_none()
                        && self.lacks_memory_for(*other)
                })
        })
    }

    /// Whether the version would have a start admitted if there were a place.
    fn would_start(&self, number: VersionNo, now: Instant) -> bool {
        let version = &self.versions[&number];
        let stock = &self.stocks[&version.class];
        let own = matches!(self.limit_of(version.function), Some(Limit::Function(_)));
        version.wants() && version.retry_at <= now && (stock.retry_at <= now || !stock.waiting.is_empty()) && !own
    }

    /// Whether memory is short for it and will still be when what ends now has ended.
    fn lacks_memory_for(&self, number: VersionNo) -> bool {
        self.memory - self.ending_memory + self.versions[&number].weight > self.bounds.memory_bytes
    }
}
