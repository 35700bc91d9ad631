//! Claims about the engine, and random events held against a slow reading of the same rules.

use dunlin_model::{FunctionKey, Provision, SettingKind};
use serde_json::json;

use super::*;

fn function(name: &str) -> FunctionKey {
    FunctionKey::from_stored("0000000000000001".parse().expect("16 digits"), name.parse().expect("a name"))
}

fn key(name: &str) -> SettingKey {
    SettingKey::for_qualifier(&function(name), SettingKind::Provision, "prod")
}

fn version(name: &str, number: u64) -> VersionKey {
    VersionKey { function: function(name), version: number.to_string().into(), revision: Revision(number) }
}

fn time(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

/// A platform on paper: whoever asks for an instance has it at once, as far as there is room.
struct World {
    engine: Engine,
    wishes: BTreeMap<SettingKey, Wish>,
    loads: HashMap<VersionKey, Load>,
    keeps: HashMap<VersionKey, Keep>,
    now: Timestamp,
    revision: u64,
}

impl World {
    fn new() -> Self {
        Self {
            engine: Engine::new(Config::default()),
            wishes: BTreeMap::new(),
            loads: HashMap::new(),
            keeps: HashMap::new(),
            now: time("2026-03-01T00:00:00Z"),
            revision: 0,
        }
    }

    fn put(&mut self, name: &str, said: serde_json::Value, parts: &[(u64, f64)]) {
        let said: Provision = serde_json::from_value(said).expect("well-formed");
        let plan = Arc::new(said.plan(300).expect("it is right"));
        self.revision += 1;
        let parts = parts.iter().map(|(number, share)| (version(name, *number), *share)).collect();
        self.wishes.insert(key(name), Wish { revision: Revision(self.revision), plan, since: self.now, parts });
    }

    fn point(&mut self, name: &str, parts: &[(u64, f64)]) {
        let parts = parts.iter().map(|(number, share)| (version(name, *number), *share)).collect();
        self.wishes.get_mut(&key(name)).expect("it was put").parts = parts;
    }

    fn step(&mut self) -> Vec<Change> {
        let changes = self.engine.step(self.wishes.clone(), &self.loads, self.now);
        for Change { version, keep } in &changes {
            self.keeps.insert(version.clone(), *keep);
        }
        changes
    }

    fn pass(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
        self.step();
    }

    fn load(&mut self, name: &str, number: u64) -> &mut Load {
        self.loads.entry(version(name, number)).or_insert(Load { concurrency: 1, ..Load::default() })
    }

    /// Everybody has what is kept for them.
    fn arrive(&mut self) {
        for (version, keep) in &self.keeps {
            let load = self.loads.entry(version.clone()).or_insert(Load { concurrency: 1, ..Load::default() });
            load.ready = keep.instances;
        }
    }

    fn kept(&self, name: &str, number: u64) -> usize {
        self.keeps.get(&version(name, number)).map_or(0, |keep| keep.instances)
    }

    fn target(&self, name: &str) -> usize {
        self.engine.target(&key(name)).0
    }
}

#[test]
fn what_is_said_is_kept_and_what_is_taken_back_is_let_go() {
    let mut world = World::new();
    world.put("f", json!({"defaultTarget": 3, "alwaysAllocateCPU": false}), &[(1, 1.0)]);
    assert_eq!(world.step(), [Change { version: version("f", 1), keep: Keep { instances: 3, runs_on: false, on_demand: true } }]);
    assert_eq!(world.step(), [], "once");
    world.wishes.clear();
    assert_eq!(world.step(), [Change { version: version("f", 1), keep: Keep::default() }]);
    assert_eq!(world.target("f"), 0);
}

#[test]
fn the_action_that_was_due_last_decides_while_it_counts() {
    let mut world = World::new();
    let said = json!({"defaultTarget": 1, "scheduledActions": [
        {"name": "up", "scheduleExpression": "cron(0 0 8 * * *)", "target": 5, "endTime": "2026-03-03T12:00:00Z"},
        {"name": "down", "scheduleExpression": "cron(0 0 20 * * *)", "target": 2, "endTime": "2026-03-03T12:00:00Z"},
        {"name": "once", "scheduleExpression": "at(2026-03-02T10:00:00)", "target": 9, "timeZone": "Asia/Shanghai"},
    ]});
    world.put("f", said, &[(1, 1.0)]);
    let mut seen = Vec::new();
    for at in
        ["01T00:00:00", "01T07:59:59", "01T08:00:00", "01T20:00:00", "02T02:00:00", "02T08:00:00", "03T11:59:59", "03T12:00:00"]
    {
        world.now = time(&format!("2026-03-{at}Z"));
        world.step();
        seen.push(world.target("f"));
    }
    // The last one never ends: once the other two have, it was due last.
    assert_eq!(seen, [1, 1, 5, 2, 9, 5, 5, 9]);
}

#[test]
fn a_policy_follows_the_load_up_at_once_and_down_after_a_while() {
    let mut world = World::new();
    let said = json!({"targetTrackingPolicies": [{
        "name": "p", "metricType": "ProvisionedConcurrencyUtilization", "metricTarget": 0.5, "minCapacity": 1, "maxCapacity": 8,
    }]});
    world.put("f", said, &[(1, 1.0)]);
    world.step();
    assert_eq!(world.target("f"), 1);
    world.load("f", 1).calls = 3;
    world.step();
    assert_eq!(world.target("f"), 6, "three calls keep six instances half busy");
    world.load("f", 1).calls = 100;
    world.pass(1);
    assert_eq!(world.target("f"), 8);
    world.load("f", 1).calls = 1;
    world.pass(59);
    assert_eq!(world.target("f"), 8, "not yet");
    world.pass(2);
    assert_eq!(world.target("f"), 2);
    world.load("f", 1).calls = 0;
    world.pass(1);
    world.pass(61);
    assert_eq!(world.target("f"), 1);
}

#[test]
fn processor_time_is_held_where_it_should_be() {
    let mut world = World::new();
    let said = json!({"targetTrackingPolicies": [{
        "name": "p", "metricType": "CPUUtilization", "metricTarget": 0.5, "minCapacity": 2, "maxCapacity": 8,
    }]});
    world.put("f", said, &[(1, 1.0)]);
    world.step();
    assert_eq!(world.target("f"), 2, "nothing is known yet");
    world.arrive();
    world.load("f", 1).cpu = Some(1.0);
    world.pass(1);
    assert_eq!(world.target("f"), 4);
    world.arrive();
    world.load("f", 1).cpu = Some(0.53);
    world.pass(1);
    assert_eq!(world.target("f"), 4, "that is close enough");
}

#[test]
fn a_name_that_moves_leaves_its_version_when_the_next_one_is_there() {
    let mut world = World::new();
    world.put("f", json!({"defaultTarget": 2}), &[(1, 1.0)]);
    world.step();
    world.arrive();
    world.point("f", &[(2, 1.0)]);
    world.step();
    assert_eq!((world.kept("f", 1), world.kept("f", 2)), (2, 2), "side by side");
    world.load("f", 2).ready = 1;
    world.pass(1);
    assert_eq!(world.kept("f", 1), 2, "one is missing");
    world.load("f", 2).ready = 2;
    world.pass(1);
    assert_eq!((world.kept("f", 1), world.kept("f", 2)), (0, 2));
}

#[test]
fn a_version_is_not_held_for_what_cannot_be_had_nor_for_ever() {
    for short in [true, false] {
        let mut world = World::new();
        world.put("f", json!({"defaultTarget": 2}), &[(1, 1.0)]);
        world.step();
        world.arrive();
        world.point("f", &[(2, 1.0)]);
        world.step();
        world.load("f", 2).short = short;
        world.pass(if short { 1 } else { 61 });
        assert_eq!((world.kept("f", 1), world.kept("f", 2)), (0, 2));
    }
}

#[test]
fn two_versions_share_the_instances_of_a_name() {
    let shares = |target: usize, share: f64| {
        let mut world = World::new();
        world.put("f", json!({ "defaultTarget": target }), &[(1, 1.0 - share), (2, share)]);
        world.step();
        (world.kept("f", 1), world.kept("f", 2))
    };
    assert_eq!(shares(10, 0.3), (7, 3));
    assert_eq!(shares(10, 0.01), (9, 1), "whoever has calls has an instance");
    assert_eq!(shares(2, 0.9), (1, 1));
    assert_eq!(shares(1, 0.4), (1, 0));
}

/// splitmix64: small, and good enough to shake a state machine.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

/// What a policy asked for, step by step: read again from the start each time.
#[derive(Default)]
struct Slow {
    asked: Vec<(Timestamp, usize)>,
    due: Vec<(Timestamp, usize)>,
}

#[test]
fn random_events_agree_with_a_slow_reading_of_the_rules() {
    let seed = std::env::var("DUNLIN_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    eprintln!("DUNLIN_SEED={seed}");
    let mut dice = Dice(seed);
    let (mut moved, mut followed, mut fired) = (0, 0, 0);
    for _ in 0..60 {
        let mut world = World::new();
        let names = ["f", "g"];
        let mut slow: HashMap<&str, Slow> = HashMap::new();
        let mut said: HashMap<&str, (usize, u64, usize, usize)> = HashMap::new();
        for _ in 0..400 {
            let name = names[usize::try_from(dice.roll(2)).expect("small")];
            match dice.roll(12) {
                0 => {
                    let (base, minute, min, most) = (dice.roll(5), dice.roll(60), dice.roll(3), 3 + dice.roll(5));
                    let action =
                        json!({"name": "a", "scheduleExpression": format!("cron(0 {minute} * * * *)"), "target": base + 1});
                    let policy = json!({"name": "p", "metricType": "ProvisionedConcurrencyUtilization", "metricTarget": 0.5,
                        "minCapacity": min, "maxCapacity": most});
                    let value = json!({"defaultTarget": base, "scheduledActions": [action], "targetTrackingPolicies": [policy]});
                    world.put(name, value, &[(1 + dice.roll(3), 1.0)]);
                    let number = |value: u64| usize::try_from(value).expect("small");
                    said.insert(name, (number(base), minute, number(min), number(most)));
                    slow.insert(name, Slow::default());
                }
                1 => {
                    world.wishes.remove(&key(name));
                    said.remove(name);
                }
                2 if said.contains_key(name) => {
                    world.point(name, &[(1 + dice.roll(3), 1.0)]);
                    moved += 1;
                }
                3..6 => world.arrive(),
                6..9 => {
                    let (number, calls) = (1 + dice.roll(3), usize::try_from(dice.roll(6)).expect("small"));
                    world.load(name, number).calls = calls;
                }
                _ => world.now += SignedDuration::from_secs(i64::try_from(dice.roll(150)).expect("small")),
            }
            world.step();
            let mut sums: HashMap<VersionKey, usize> = HashMap::new();
            for (name, (base, minute, min, most)) in &said {
                let wish = &world.wishes[&key(name)];
                let (part, _) = wish.parts[0].clone();
                let calls = world.loads.get(&part).map_or(0, |load| load.calls);
                let past = slow.get_mut(name).expect("it was put");
                past.asked.push((world.now, (calls * 2).clamp(*min, *most)));
                // Every second since it was put, by the clock on the wall: the zone is UTC.
                let from = past.due.last().map_or(wish.since.as_second() - 1, |(at, _)| at.as_second());
                for second in from + 1..=world.now.as_second() {
                    if second.rem_euclid(3600) == i64::try_from(*minute).expect("small") * 60 {
                        past.due.push((Timestamp::from_second(second).expect("near"), base + 1));
                    }
                }
                let oldest = world.now - SignedDuration::from_secs(60);
                let recent = past.asked.iter().filter(|(at, _)| *at > oldest || *at == world.now).map(|(_, asked)| *asked).max();
                let due = past.due.last().map(|(_, target)| *target);
                let expected = due.max(recent).unwrap_or(*base);
                assert_eq!(world.target(name), expected, "{name} at {}", world.now);
                *sums.entry(part).or_default() += expected;
                (followed, fired) = (followed + usize::from(recent > due), fired + usize::from(due > recent));
            }
            for (version, sum) in &sums {
                let kept = world.keeps.get(version).map_or(0, |keep| keep.instances);
                assert_eq!(kept, *sum, "{version:?}");
            }
            for (version, keep) in world.keeps.iter().filter(|(version, keep)| keep.instances > 0 && !sums.contains_key(*version))
            {
                let waits = world.loads.iter().any(|(other, load)| {
                    other.function == version.function && sums.get(other).is_some_and(|sum| load.ready < *sum)
                });
                let unknown = sums.keys().any(|other| other.function == version.function && !world.loads.contains_key(other));
                assert!(waits || unknown, "{version:?} is held for nothing: {keep:?}");
            }
        }
    }
    assert!(moved > 100 && followed > 100 && fired > 100, "the dice reached the interesting states: {moved} {followed} {fired}");
}
