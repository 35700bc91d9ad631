//! Claims about too much to do: who is served, who is turned away, and what is kept.

use super::*;
use crate::throttle::{Limit, Room};

const SECOND: Duration = Duration::from_secs(1);

impl World {
    fn lease_many(&mut self, count: usize, demand: &Arc<Demand>, patience: Duration) -> Vec<WaiterId> {
        (0..count).map(|_| self.lease(demand, patience)).collect()
    }

    /// Ends one call of the function, and lets everything that follows happen.
    fn end_one(&mut self, function: &Arc<Demand>) {
        let of_function = |(_, cell): &(WaiterId, CellNo)| self.bound[cell].key == function.key;
        let at = self.leases.iter().position(of_function).expect("a call of it is in flight");
        self.release(at, false);
        self.settle();
    }

    fn in_flight(&self, function: &Arc<Demand>) -> usize {
        self.leases.iter().filter(|(_, cell)| self.bound[cell].key == function.key).count()
    }

    fn why(&self, waiter: WaiterId) -> Option<Why> {
        self.refused.iter().find(|(id, _)| *id == waiter).map(|(_, why)| *why)
    }

    fn idle_of(&self, function: &Arc<Demand>) -> usize {
        let idle = |cell: &&CellNo| self.engine.state_of(**cell) == Some(InstanceState::Idle);
        self.bound.iter().filter(|(_, demand)| demand.key == function.key).map(|(cell, _)| cell).filter(idle).count()
    }
}

#[test]
fn a_flood_gives_up_places_to_a_sibling_until_both_hold_the_same() {
    let mut world = World::new(Bounds { instances_per_account: 4, ..bounds() });
    let (flood, other) = (python("flood"), python("other"));
    world.lease_many(100, &flood, MINUTE);
    world.settle();
    assert_eq!(world.in_flight(&flood), 4);
    let [first, _, third] = [0; 3].map(|_| world.lease(&other, MINUTE));
    assert!(world.served_by(first).is_none());
    world.end_one(&flood);
    assert!(world.served_by(first).is_some(), "the first place that comes free is the other's");
    world.end_one(&flood);
    assert_eq!((world.in_flight(&flood), world.in_flight(&other)), (2, 2));
    world.end_one(&flood);
    assert_eq!((world.in_flight(&flood), world.in_flight(&other)), (2, 2), "and no further");
    world.end_one(&other);
    assert!(world.served_by(third).is_some());
    world.run_dry();
    assert!(world.waiting.is_empty() && world.refused.is_empty(), "all were served");
}

#[test]
fn an_instance_is_not_taken_the_moment_it_has_no_call() {
    let mut world = World::new(Bounds { instances_per_account: 4, ..bounds() });
    let (flood, other) = (python("flood"), python("other"));
    world.lease(&other, MINUTE);
    world.settle();
    world.lease_many(100, &flood, MINUTE);
    world.settle();
    world.end_one(&other);
    assert_eq!((world.in_flight(&flood), world.idle_of(&other)), (3, 1), "spared for its next call");
    world.pass(2 * SECOND);
    world.end_one(&flood);
    assert_eq!((world.in_flight(&flood), world.idle_of(&other)), (4, 0), "nobody called it");
}

#[test]
fn an_account_that_took_all_memory_gives_some_to_another() {
    let one = python("f").class.instance_bytes();
    let mut world = World::new(Bounds { memory_bytes: 4 * one + (4 << 20), stock_bytes: 0, ..bounds() });
    let (greedy, other) = (python("greedy"), demand(2, "other", 1, Program::Python(InterpreterId(0)), 1));
    world.lease_many(50, &greedy, MINUTE);
    world.settle();
    assert_eq!(world.in_flight(&greedy), 4);
    let waiter = world.lease(&other, MINUTE);
    world.end_one(&greedy);
    assert!(world.served_by(waiter).is_some());
    assert!(world.in_flight(&greedy) > 0, "and not all");
}

#[test]
fn cells_that_come_go_to_accounts_and_functions_in_turn() {
    let mut world = World::new(Bounds { making: 1, ..bounds() });
    let (flood, sibling, stranger) =
        (python("flood"), python("sibling"), demand(2, "stranger", 1, Program::Python(InterpreterId(0)), 1));
    world.lease_many(40, &flood, MINUTE);
    let late = [world.lease(&sibling, MINUTE), world.lease(&stranger, MINUTE)];
    for _ in 0..5 {
        world.make_one(0, Ok(()));
        while !world.starting.is_empty() {
            world.start_one(0, Ok(()));
        }
    }
    assert!(late.iter().all(|waiter| world.served_by(*waiter).is_some()), "not behind forty others");
}

#[test]
fn slow_starts_of_one_function_leave_room_for_those_of_others() {
    let mut world = World::new(Bounds { starting: 8, ..bounds() });
    world.lease_many(40, &python("slow"), MINUTE);
    while !world.making.is_empty() {
        world.make_one(0, Ok(()));
    }
    assert_eq!(world.starting.len(), 4, "a half");
    let other = world.lease(&python("other"), MINUTE);
    while !world.making.is_empty() {
        world.make_one(0, Ok(()));
    }
    let last = world.starting.len() - 1;
    world.start_one(last, Ok(()));
    assert!(world.served_by(other).is_some());
}

#[test]
fn a_full_room_turns_away_the_newest_call_of_its_longest_queue() {
    let small = Bounds { instances_per_account: 1, waiting_per_account: 10, waiting_per_function: 9, ..bounds() };
    let mut world = World::new(small);
    let (flood, other) = (python("flood"), python("other"));
    world.lease(&flood, MINUTE);
    world.settle();
    let flooding = world.lease_many(9, &flood, MINUTE);
    let crowded = |room| Some(Why::Throttled(Throttled::Crowded { room, expected: None }));
    let too_many = world.lease(&flood, MINUTE);
    assert_eq!(world.why(too_many), crowded(Room::Function(9)));
    let others = world.lease_many(5, &other, MINUTE);
    assert!(others.iter().all(|waiter| world.waiting.contains_key(waiter)), "the other's calls are let in");
    assert_eq!(world.why(flooding[8]), crowded(Room::Account(10)), "for the flood's last ones");
    assert_eq!(world.refused.len(), 5);
    let sixth = world.lease(&other, MINUTE);
    assert_eq!(world.why(sixth), crowded(Room::Account(10)), "two queues of five");
    assert_eq!(world.engine.stats().refusals.crowded, 6);
}

#[test]
fn a_full_platform_turns_away_the_account_with_most_calls() {
    let mut world = World::new(Bounds { instances_per_account: 1, waiting: 10, ..bounds() });
    for n in 0..3 {
        world.lease_many(5, &python(&format!("f{n}")), MINUTE);
    }
    let queued = world.waiting.len();
    let strangers: Vec<_> =
        (0..3).map(|n| world.lease(&demand(2, &format!("g{n}"), 1, Program::Python(InterpreterId(0)), 1), MINUTE)).collect();
    assert!(strangers.iter().all(|waiter| world.waiting.contains_key(waiter)), "{queued} waited");
    world.run_dry();
    assert!(world.waiting.is_empty());
}

#[test]
fn a_call_that_would_wait_too_long_is_told_at_once_and_not_when_it_has_waited() {
    let mut world = World::new(Bounds { instances_per_account: 2, ..bounds() });
    let f = python("f");
    world.lease_many(2, &f, MINUTE);
    world.settle();
    let early = world.lease_many(50, &f, MINUTE);
    assert!(world.refused.is_empty(), "as long as nobody knows how long calls take");
    world.pass(10 * SECOND);
    world.end_one(&f);
    world.end_one(&f);
    // 48 calls of ten seconds for two instances: four minutes.
    let late = world.lease(&f, MINUTE);
    let Some(Why::Throttled(Throttled::Hopeless { limit, expected })) = world.why(late) else { panic!("{:?}", world.refused) };
    assert_eq!((limit, expected), (Limit::Account(2), 245 * SECOND));
    let patient = world.lease(&f, 10 * MINUTE);
    assert!(world.waiting.contains_key(&patient), "who has the time may wait");
    world.run_dry();
    assert!(early.iter().all(|waiter| !world.waiting.contains_key(waiter)));
    let after = world.lease(&f, SECOND);
    assert!(world.served_by(after).is_some(), "and all is as before");
}

#[test]
fn a_function_has_as_many_instances_as_was_said() {
    let mut world = World::new(Bounds { instances_per_account: 6, ..bounds() });
    let (f, g) = (python("f"), python("g"));
    world.on(Event::Limit { function: f.key.function.clone(), instances: Some(2) });
    world.lease_many(8, &g, 2 * MINUTE);
    world.settle();
    assert_eq!(world.in_flight(&g), 4, "two of six are set aside");
    world.lease_many(4, &f, MINUTE);
    world.settle();
    assert_eq!((world.in_flight(&f), world.in_flight(&g)), (2, 4));
    world.pass(MINUTE);
    let limits: Vec<_> = world.refused.iter().map(|(_, why)| *why).collect();
    let waited = Why::Throttled(Throttled::Waited { limit: Some(Limit::Function(2)), expected: None });
    assert_eq!(limits, [waited; 2]);
    world.end_one(&f);
    world.end_one(&f);
    world.pass(2 * SECOND);
    world.end_one(&g);
    world.on(Event::Tick);
    assert_eq!((world.idle_of(&f), world.in_flight(&g)), (2, 4), "what is set aside for one is not the other's");
    world.on(Event::Limit { function: f.key.function.clone(), instances: None });
    world.settle();
    assert_eq!(world.in_flight(&g), 6, "until it is not set aside any more");
}

#[test]
fn a_function_that_may_have_no_instance_is_refused_at_once() {
    let mut world = World::new(bounds());
    let f = python("f");
    world.lease(&f, MINUTE);
    world.settle();
    world.release(0, false);
    world.on(Event::Limit { function: f.key.function.clone(), instances: Some(0) });
    world.settle();
    assert_eq!(world.idle_of(&f), 0, "what idled has ended");
    let refused = world.lease(&f, MINUTE);
    assert_eq!(world.why(refused), Some(Why::Throttled(Throttled::Disabled)));
    world.on(Event::Limit { function: f.key.function.clone(), instances: Some(1) });
    let served = world.lease(&f, MINUTE);
    world.settle();
    assert!(world.served_by(served).is_some());
}

#[test]
fn room_is_made_by_the_instance_that_is_worth_least() {
    let mut world = World::new(Bounds { instances_per_account: 3, ..bounds() });
    let (busy, rare, slow) = (python("busy"), python("rare"), python("slow"));
    world.lease(&slow, MINUTE);
    world.make_one(0, Ok(()));
    world.pass(10 * SECOND);
    world.start_one(0, Ok(()));
    world.release(0, false);
    for (demand, times) in [(&busy, 50), (&rare, 1)] {
        for _ in 0..times {
            world.lease(demand, MINUTE);
            world.settle();
            world.end_one(demand);
        }
    }
    world.pass(2 * SECOND);
    world.lease(&python("next"), MINUTE);
    world.settle();
    assert_eq!([&busy, &rare, &slow].map(|demand| world.idle_of(demand)), [1, 0, 1], "not the one that idles longest");
    world.pass(2 * SECOND);
    world.lease(&python("second"), MINUTE);
    world.settle();
    assert_eq!([&busy, &slow].map(|demand| world.idle_of(demand)), [0, 1], "a long start is worth more than many short ones");
}

#[test]
fn instances_end_as_demand_falls_and_the_last_one_stays() {
    let mut world = World::new(bounds());
    let f = python("f");
    world.lease_many(16, &f, MINUTE);
    world.settle();
    (0..16).for_each(|_| world.release(0, false));
    let mut seen = Vec::new();
    for _ in 0..7 {
        for _ in 0..6 {
            world.pass(10 * SECOND);
            world.settle();
            world.lease(&f, MINUTE);
            world.release(0, false);
        }
        seen.push(world.idle_of(&f));
    }
    assert!(seen.windows(2).all(|pair| pair[0] >= pair[1]) && seen[0] >= 8, "{seen:?}");
    assert!(seen[1] <= 8 && seen[2] <= 4 && seen[4] == 1, "{seen:?}");
    world.pass(4 * MINUTE);
    world.settle();
    assert_eq!(world.idle_of(&f), 1, "the last one");
    for _ in 0..8 {
        world.pass(15 * SECOND);
    }
    world.settle();
    assert_eq!(world.idle_of(&f), 0);
}
