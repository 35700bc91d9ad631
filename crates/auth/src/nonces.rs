//! Nonces that were used: bounded, and never forgotten while their date would still be accepted.
//!
//! A nonce is kept as a 64-bit hash keyed by the secret of the key that signed it, so that nobody can aim one at somebody
//! else's. Each access key has a window of its own. When more nonces are held than may be, the key that holds most loses
//! its oldest second, and its floor rises to that second: requests dated at or before the floor are refused. So a key that
//! signs too much narrows the clock skew it is granted itself, and nobody else's.

use std::collections::{BTreeMap, HashMap};

use dunlin_model::AccessKeyId;

/// Why a nonce is not taken. Seconds are of the Unix clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stale {
    /// It was used before.
    Used,
    /// It may have been used before: its date is older than what is remembered.
    BelowFloor { floor: i64 },
}

#[derive(Debug)]
pub(crate) struct Nonces {
    max: usize,
    /// How long after its date a request is accepted.
    skew_s: i64,
    held: usize,
    windows: HashMap<AccessKeyId, Window>,
    /// From before the last start: hash and the second after which it may go.
    restored: HashMap<u64, i64>,
    /// No request dated at or before this second is accepted, of any key.
    restored_floor: i64,
    /// Not handed to the store yet.
    pending: Vec<(u64, i64)>,
    /// When the last sweep over all windows was.
    swept_s: i64,
}

#[derive(Debug)]
struct Window {
    floor: i64,
    seen: HashMap<u64, i64>,
    by_second: BTreeMap<i64, Vec<u64>>,
}

impl Window {
    fn new() -> Self {
        Self { floor: i64::MIN, seen: HashMap::new(), by_second: BTreeMap::new() }
    }

    /// Forgets its oldest second and answers how many nonces went with it.
    fn drop_oldest(&mut self) -> Option<(i64, usize)> {
        let (second, hashes) = self.by_second.pop_first()?;
        for hash in &hashes {
            self.seen.remove(hash);
        }
        Some((second, hashes.len()))
    }

    fn forget_before(&mut self, second: i64) -> usize {
        let mut gone = 0;
        while self.by_second.first_key_value().is_some_and(|(first, _)| *first < second) {
            gone += self.drop_oldest().map_or(0, |(_, count)| count);
        }
        gone
    }
}

impl Nonces {
    pub(crate) fn new(max: usize, skew_s: i64) -> Self {
        Self {
            max,
            skew_s,
            held: 0,
            windows: HashMap::new(),
            restored: HashMap::new(),
            restored_floor: i64::MIN,
            pending: Vec::new(),
            swept_s: i64::MIN,
        }
    }

    /// Takes back what the store remembered. At most half of the room is given to it; what does not fit raises the floor
    /// of every key.
    pub(crate) fn restore(&mut self, mut nonces: Vec<(u64, i64)>) {
        nonces.sort_unstable_by_key(|(_, expires)| std::cmp::Reverse(*expires));
        let room = self.max / 2;
        if let Some((_, newest_dropped)) = nonces.get(room) {
            self.restored_floor = newest_dropped - self.skew_s;
            nonces.truncate(room);
        }
        self.restored = nonces.into_iter().collect();
        self.held += self.restored.len();
    }

    /// Takes the nonce of a request that `key` signed for second `date`, once.
    pub(crate) fn take(&mut self, key: &AccessKeyId, hash: u64, date: i64, now: i64) -> Result<(), Stale> {
        let oldest = now.saturating_sub(self.skew_s);
        self.sweep(now);
        if !self.windows.contains_key(key) {
            self.windows.insert(key.clone(), Window::new());
        }
        let window = self.windows.get_mut(key).expect("it was inserted above");
        self.held -= window.forget_before(oldest);
        let floor = window.floor.max(self.restored_floor);
        if date <= floor {
            return Err(Stale::BelowFloor { floor });
        }
        if window.seen.contains_key(&hash) || self.restored.contains_key(&hash) {
            return Err(Stale::Used);
        }
        window.seen.insert(hash, date);
        window.by_second.entry(date).or_default().push(hash);
        self.held += 1;
        if self.pending.len() < self.max {
            self.pending.push((hash, date.saturating_add(self.skew_s)));
        }
        while self.held > self.max && self.shrink() {}
        Ok(())
    }

    /// Drops the oldest second of the key that holds most.
    fn shrink(&mut self) -> bool {
        let Some(window) = self.windows.values_mut().max_by_key(|window| window.seen.len()) else { return false };
        let Some((second, count)) = window.drop_oldest() else { return false };
        window.floor = window.floor.max(second);
        self.held -= count;
        true
    }

    /// Forgets, once a second at most, what is too old to be accepted again.
    fn sweep(&mut self, now: i64) {
        if now <= self.swept_s {
            return;
        }
        self.swept_s = now;
        let oldest = now.saturating_sub(self.skew_s);
        let mut gone = 0;
        self.windows.retain(|_, window| {
            gone += window.forget_before(oldest);
            !window.seen.is_empty() || window.floor >= oldest
        });
        let before = self.restored.len();
        self.restored.retain(|_, expires| *expires >= now);
        self.held -= gone + (before - self.restored.len());
    }

    /// What the store has to be told.
    pub(crate) fn take_pending(&mut self) -> Vec<(u64, i64)> {
        std::mem::take(&mut self.pending)
    }

    /// The store did not take them; they are tried again with the next ones.
    pub(crate) fn put_back(&mut self, mut nonces: Vec<(u64, i64)>) {
        let room = self.max.saturating_sub(nonces.len());
        nonces.extend(self.pending.drain(..).take(room));
        self.pending = nonces;
    }

    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(name: &str) -> AccessKeyId {
        name.parse().unwrap()
    }

    #[test]
    fn a_nonce_is_taken_once_whatever_its_date() {
        let mut nonces = Nonces::new(100, 900);
        assert_eq!(nonces.take(&key("AK-one"), 1, 1000, 1000), Ok(()));
        assert_eq!(nonces.take(&key("AK-one"), 1, 1000, 1001), Err(Stale::Used));
        assert_eq!(nonces.take(&key("AK-one"), 1, 1200, 1200), Err(Stale::Used));
        assert_eq!(nonces.take(&key("AK-one"), 2, 1000, 1200), Ok(()));
    }

    #[test]
    fn a_key_that_signs_too_much_narrows_its_own_window_only() {
        let mut nonces = Nonces::new(10, 900);
        assert_eq!(nonces.take(&key("quiet"), 1, 1000, 1000), Ok(()));
        for i in 0..20 {
            assert_eq!(nonces.take(&key("noisy"), 100 + i, 1000 + i64::try_from(i).unwrap(), 1020), Ok(()));
        }
        assert_eq!(nonces.take(&key("noisy"), 100, 1000, 1020), Err(Stale::BelowFloor { floor: 1010 }));
        assert_eq!(nonces.take(&key("quiet"), 1, 1000, 1020), Err(Stale::Used));
        assert_eq!(nonces.take(&key("quiet"), 2, 1000, 1020), Ok(()));
        assert!(nonces.held() <= 10);
    }

    #[test]
    fn what_the_store_remembered_is_refused_after_a_restart() {
        let mut before = Nonces::new(100, 900);
        before.take(&key("AK-one"), 7, 1000, 1000).unwrap();
        let mut after = Nonces::new(100, 900);
        after.restore(before.take_pending());
        assert_eq!(after.take(&key("AK-one"), 7, 1000, 1100), Err(Stale::Used));
        assert_eq!(after.take(&key("AK-one"), 7, 1950, 1950), Ok(()), "forgotten once its date is out of the window");
    }

    #[test]
    fn what_does_not_fit_after_a_restart_raises_the_floor() {
        let mut nonces = Nonces::new(4, 900);
        nonces.restore((0..4).map(|i| (i, 1900 + i64::try_from(i).unwrap())).collect());
        assert_eq!(nonces.take(&key("AK-one"), 0, 1000, 1100), Err(Stale::BelowFloor { floor: 1001 }));
        assert_eq!(nonces.take(&key("AK-one"), 3, 1003, 1100), Err(Stale::Used));
        assert_eq!(nonces.take(&key("AK-one"), 9, 1002, 1100), Ok(()));
    }

    #[test]
    fn what_the_store_did_not_take_stays_pending() {
        let mut nonces = Nonces::new(3, 900);
        nonces.take(&key("AK-one"), 1, 1000, 1000).unwrap();
        let taken = nonces.take_pending();
        nonces.take(&key("AK-one"), 2, 1000, 1000).unwrap();
        nonces.put_back(taken);
        assert_eq!(nonces.take_pending(), [(1, 1900), (2, 1900)]);
    }

    proptest! {
        /// No order of keys, dates and clock steps lets one nonce through twice, nor holds more than may be held.
        #[test]
        fn no_nonce_passes_twice(steps in proptest::collection::vec((0..3_u8, 0..40_u64, -30..30_i64, 0..10_i64), 1..400)) {
            let mut nonces = Nonces::new(16, 30);
            let mut now = 1000;
            let mut taken = std::collections::HashSet::new();
            for (who, hash, offset, pass) in steps {
                now += pass;
                let who = key(&format!("key-{who}"));
                let date = now + offset;
                if nonces.take(&who, hash, date, now).is_ok() {
                    prop_assert!(taken.insert((who, hash, date)), "{hash} passed twice");
                }
                prop_assert!(nonces.held() <= 16);
            }
        }
    }
}
