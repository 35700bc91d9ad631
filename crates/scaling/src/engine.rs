//! The decisions: plans, times and loads in, what is kept of each version out.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use dunlin_model::{Metric, Plan, Revision, Scheduled, SettingKey, Tracked, VersionKey};
use dunlin_pool::Keep;
use jiff::{SignedDuration, Timestamp};

/// How long a version is held that a name has left, at the longest.
const HELD_MAX: SignedDuration = SignedDuration::from_mins(1);
/// Processor time that is so close to what it is held at changes nothing.
const CLOSE: f64 = 0.1;

/// What the operator may change.
#[derive(Clone, Debug)]
pub struct Config {
    /// How long the load must have asked for fewer instances before there are fewer. Default 1 minute.
    pub scale_in_after: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { scale_in_after: Duration::from_secs(60) }
    }
}

/// One setting, and what it means now.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Of the setting: another one begins anew.
    pub revision: Revision,
    /// What it says.
    pub plan: Arc<Plan>,
    /// When it was put.
    pub since: Timestamp,
    /// The versions it means, and their shares, which add up to 1. None while it can have no instances.
    pub parts: Vec<(VersionKey, f64)>,
}

/// What is measured of a version.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Instances that serve or could.
    pub ready: usize,
    /// Calls in them or waiting for one.
    pub calls: usize,
    /// Calls at a time in one of them.
    pub concurrency: usize,
    /// Processor time used, in shares of what they may use together, where that is known.
    pub cpu: Option<f64>,
    /// No more instances can be had at the moment, so that nobody need wait for them.
    pub short: bool,
}

/// What is to be told to whoever runs instances.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Of this version,
    pub version: VersionKey,
    /// so much is kept from now on.
    pub keep: Keep,
}

/// The state machine. See the crate's page.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    known: BTreeMap<SettingKey, Known>,
    told: HashMap<VersionKey, Keep>,
}

/// One setting, and what it has come to.
#[derive(Debug)]
struct Known {
    wish: Wish,
    clocks: Vec<Clock>,
    /// What each policy asked for lately, newest last, none of them more than one before it.
    asked: Vec<VecDeque<(Timestamp, usize)>>,
    target: usize,
    /// What it has of each version, in the order of its parts.
    parts: Vec<(VersionKey, usize)>,
    /// What it had of versions that it means no more, and since when.
    held: HashMap<VersionKey, (usize, Timestamp)>,
}

/// When a schedule was due and will be.
#[derive(Debug, Default)]
struct Clock {
    last: Option<Timestamp>,
    /// Nothing changes before.
    next: Option<Timestamp>,
    read: bool,
}

impl Engine {
    /// An engine that keeps nothing.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config, known: BTreeMap::new(), told: HashMap::new() }
    }

    /// Every version whose load the next step asks for, if `wishes` are what is wished for then.
    pub fn versions(&self, wishes: &BTreeMap<SettingKey, Wish>) -> Vec<VersionKey> {
        let wished = wishes.values().flat_map(|wish| wish.parts.iter().map(|(version, _)| version));
        let mut all: Vec<_> = wished.chain(self.told.keys()).cloned().collect();
        all.sort();
        all.dedup();
        all
    }

    /// Takes in what is wished for and how every version does, and says what is to change.
    pub fn step(
        &mut self,
        mut wishes: BTreeMap<SettingKey, Wish>,
        loads: &HashMap<VersionKey, Load>,
        now: Timestamp,
    ) -> Vec<Change> {
        let load_of = |version: &VersionKey| loads.get(version).copied().unwrap_or_default();
        self.known.retain(|key, _| wishes.contains_key(key));
        for (key, known) in &mut self.known {
            let wish = wishes.remove(key).expect("others were let go of a line ago");
            known.renew(wish);
        }
        self.known.extend(wishes.into_iter().map(|(key, wish)| (key, Known::new(wish))));
        let mut keeps: HashMap<VersionKey, Keep> = HashMap::new();
        for known in self.known.values_mut() {
            known.decide(&self.config, &load_of, now);
            let plan = &known.wish.plan;
            for (version, instances) in &known.parts {
                let keep = keeps.entry(version.clone()).or_default();
                keep.instances += instances;
                keep.runs_on |= plan.runs_on && *instances > 0;
                keep.on_demand &= plan.on_demand;
            }
            // Calls that met the version before its name moved are not refused for it.
            for (version, (instances, _)) in &known.held {
                let keep = keeps.entry(version.clone()).or_default();
                keep.instances += instances;
                keep.runs_on |= plan.runs_on;
            }
        }
        keeps.retain(|_, keep| *keep != Keep::default());
        let gone = self.told.keys().filter(|version| !keeps.contains_key(*version));
        let mut changes: Vec<_> = gone.map(|version| Change { version: version.clone(), keep: Keep::default() }).collect();
        let other = keeps.iter().filter(|(version, keep)| self.told.get(*version) != Some(*keep));
        changes.extend(other.map(|(version, keep)| Change { version: version.clone(), keep: *keep }));
        // What comes is ordered before what it replaces goes.
        changes.sort_by(|one, other| (one.keep.instances == 0, &one.version).cmp(&(other.keep.instances == 0, &other.version)));
        self.told = keeps;
        changes
    }

    /// How many instances the setting asks for, and of which versions.
    #[must_use]
    pub fn target(&self, key: &SettingKey) -> (usize, &[(VersionKey, usize)]) {
        self.known.get(key).map_or((0, &[]), |known| (known.target, &known.parts))
    }

    /// What is kept of each version.
    #[must_use]
    pub fn told(&self) -> &HashMap<VersionKey, Keep> {
        &self.told
    }
}

impl Known {
    fn new(wish: Wish) -> Self {
        let clocks = wish.plan.scheduled.iter().map(|_| Clock::default()).collect();
        let asked = wish.plan.tracked.iter().map(|_| VecDeque::new()).collect();
        Self { wish, clocks, asked, target: 0, parts: Vec::new(), held: HashMap::new() }
    }

    fn renew(&mut self, wish: Wish) {
        if wish.revision == self.wish.revision {
            self.wish.parts = wish.parts;
        } else {
            let (parts, held) = (std::mem::take(&mut self.parts), std::mem::take(&mut self.held));
            *self = Self { parts, held, ..Self::new(wish) };
        }
    }

    fn decide(&mut self, config: &Config, load_of: &impl Fn(&VersionKey) -> Load, now: Timestamp) {
        let scheduled = self.scheduled(now);
        let tracked = self.tracked(config, load_of, now);
        self.target = scheduled.max(tracked).unwrap_or(self.wish.plan.base);
        let parts = split(self.target, &self.wish.parts);
        let left = std::mem::replace(&mut self.parts, parts);
        for (version, instances) in left {
            if instances > 0 && !self.parts.iter().any(|(part, _)| *part == version) {
                self.held.insert(version, (instances, now));
            }
        }
        let arrived = self.parts.iter().all(|(version, instances)| {
            let load = load_of(version);
            load.ready >= *instances || load.short
        });
        let parts = &self.parts;
        self.held
            .retain(|version, (_, since)| !arrived && now < *since + HELD_MAX && !parts.iter().any(|(part, _)| part == version));
    }

    /// What the action that was due last says, while it counts.
    fn scheduled(&mut self, now: Timestamp) -> Option<usize> {
        let since = self.wish.since;
        let due = self.wish.plan.scheduled.iter().zip(&mut self.clocks).filter_map(|(action, clock)| {
            clock.read(action, now);
            let from = action.window.from.unwrap_or(since);
            let last = clock.last.filter(|last| *last >= from && action.window.contains(*last))?;
            action.window.contains(now).then_some((last, action.target))
        });
        due.max().map(|(_, target)| target)
    }

    /// What the policy that asks for most asks for.
    fn tracked(&mut self, config: &Config, load_of: &impl Fn(&VersionKey) -> Load, now: Timestamp) -> Option<usize> {
        let loads: Vec<Load> = self.wish.parts.iter().map(|(version, _)| load_of(version)).collect();
        let oldest = now - SignedDuration::try_from(config.scale_in_after).unwrap_or(HELD_MAX);
        let mut most = None;
        for (policy, asked) in self.wish.plan.tracked.iter().zip(&mut self.asked) {
            if !policy.window.contains(now) {
                asked.clear();
                continue;
            }
            let wanted = needed(policy, &loads, self.target).clamp(policy.min, policy.max);
            // Whoever asked for no more than is asked for now decides nothing any more.
            while asked.back().is_some_and(|(_, before)| *before <= wanted) {
                asked.pop_back();
            }
            asked.push_back((now, wanted));
            while asked.len() > 1 && asked.front().is_some_and(|(at, _)| *at <= oldest) {
                asked.pop_front();
            }
            most = most.max(asked.front().map(|(_, wanted)| *wanted));
        }
        most
    }
}

impl Clock {
    fn read(&mut self, action: &Scheduled, now: Timestamp) {
        // A clock that went back is read anew.
        let stale = !self.read || self.next.is_some_and(|next| next <= now) || self.last.is_some_and(|last| last > now);
        if stale {
            *self = Self { last: action.schedule.last(now), next: action.schedule.next(now), read: true };
        }
    }
}

/// How many instances the load asks for.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "numbers of instances")]
fn needed(policy: &Tracked, loads: &[Load], target: usize) -> usize {
    match policy.metric {
        Metric::Concurrency => {
            let instances = loads.iter().map(|load| load.calls as f64 / load.concurrency.max(1) as f64 / policy.target);
            instances.sum::<f64>().ceil() as usize
        }
        Metric::Cpu => {
            let ready: usize = loads.iter().map(|load| load.ready).sum();
            let known: Vec<_> = loads.iter().filter_map(|load| Some((load.cpu?, load.ready))).collect();
            let used: f64 = known.iter().map(|(cpu, ready)| cpu * *ready as f64).sum();
            let measured: usize = known.iter().map(|(_, ready)| ready).sum();
            if measured == 0 {
                // Nothing is known yet; what was decided holds.
                return target;
            }
            let ratio = used / measured as f64 / policy.target;
            if (ratio - 1.0).abs() <= CLOSE { ready } else { (ready as f64 * ratio).ceil() as usize }
        }
    }
}

/// Shares instances out. A version with a share has at least one where there are enough.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "numbers of instances")]
fn split(target: usize, parts: &[(VersionKey, f64)]) -> Vec<(VersionKey, usize)> {
    let [(first, _), others @ ..] = parts else { return Vec::new() };
    let mut left = target;
    let mut shared: Vec<_> = others
        .iter()
        .map(|(version, share)| {
            let least = usize::from(target >= 2 && *share > 0.0);
            let most = left.saturating_sub(usize::from(*share < 1.0));
            let own = ((target as f64 * share).round() as usize).max(least).min(most);
            left -= own;
            (version.clone(), own)
        })
        .collect();
    shared.insert(0, (first.clone(), left));
    shared
}

#[cfg(test)]
mod tests;
