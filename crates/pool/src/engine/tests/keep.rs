//! Claims about instances that are kept ready.

use super::*;

fn keep(instances: usize) -> Keep {
    Keep { instances, ..Keep::default() }
}

#[test]
fn kept_instances_are_started_before_a_call_and_the_first_call_is_warm() {
    let mut world = World::new(bounds());
    let f = python("f");
    world.keep(&f, keep(2));
    world.settle();
    let load = world.engine.load_of(&f.key);
    assert_eq!((load.ready, load.in_use, load.limit), (2, 0, None));
    let waiter = world.lease(&f, MINUTE);
    assert!(world.served_by(waiter).is_some());
    assert_eq!(world.colds, 0);
}

#[test]
fn a_call_that_comes_while_a_kept_instance_starts_gets_that_one() {
    let mut world = World::new(bounds());
    let f = python("f");
    world.keep(&f, keep(1));
    let waiter = world.lease(&f, MINUTE);
    world.settle();
    assert!(world.served_by(waiter).is_some());
    assert_eq!(world.engine.load_of(&f.key).ready, 1, "none was started beside it");
}

#[test]
fn kept_instances_are_spared_for_ever_and_the_others_go() {
    let mut world = World::new(bounds());
    let f = python("f");
    world.keep(&f, keep(1));
    world.settle();
    for _ in 0..3 {
        world.lease(&f, MINUTE);
    }
    world.run_dry();
    assert_eq!(world.engine.load_of(&f.key).ready, 3);
    for _ in 0..20 {
        world.pass(MINUTE);
        world.run_dry();
    }
    assert_eq!(world.engine.load_of(&f.key).ready, 1);
    world.on(Event::Pressure { bytes: 1 << 40 });
    world.settle();
    assert_eq!(world.engine.load_of(&f.key).ready, 1, "not even when memory is short");
}

#[test]
fn one_that_dies_is_replaced_and_one_that_is_let_go_ends() {
    let mut world = World::new(bounds());
    let f = python("f");
    world.keep(&f, keep(2));
    world.settle();
    let waiter = world.lease(&f, MINUTE);
    let cell = world.served_by(waiter).expect("served");
    world.spent.insert(cell);
    world.on(Event::Died { cell });
    assert_eq!(world.starting.len() + world.making.len(), 1, "already while its last call ends");
    world.run_dry();
    assert_eq!(world.engine.load_of(&f.key).ready, 2);
    world.keep(&f, keep(1));
    assert_eq!(world.stopping.len(), 1, "at once");
    world.keep(&f, Keep::default());
    assert_eq!(world.stopping.len(), 2);
    world.run_dry();
    assert!(world.engine.load_of(&f.key).ready == 0 && world.starting.is_empty());
}

#[test]
fn what_is_kept_makes_no_room_for_others() {
    let mut world = World::new(Bounds { instances_per_account: 2, ..bounds() });
    let (f, g) = (python("f"), python("g"));
    world.keep(&f, keep(2));
    world.settle();
    let waiter = world.lease(&g, MINUTE);
    world.settle();
    assert!(world.waiting.contains_key(&waiter));
    world.keep(&g, keep(1));
    world.settle();
    assert_eq!(world.engine.load_of(&g.key).limit, Some(Limit::Account(2)));
    world.keep(&f, keep(1));
    world.settle();
    assert!(world.served_by(waiter).is_some());
}

#[test]
fn a_newer_revision_ends_what_is_kept_of_the_older_one_and_nothing_else_does() {
    let mut world = World::new(bounds());
    let f = python("f");
    world.keep(&f, keep(1));
    world.settle();
    world.on(Event::Retire { function: f.key.function.clone(), version: None });
    assert_eq!((world.stopping.len(), world.engine.load_of(&f.key).ready), (0, 1));
    let newer = demand(1, "f", 2, Program::Python(InterpreterId(0)), 1);
    world.keep(&newer, keep(1));
    world.settle();
    assert_eq!(world.engine.load_of(&newer.key).ready, 1);
    assert_eq!(world.engine.stats().idle, 1, "the older one ended");
    world.keep(&newer, Keep::default());
    world.settle();
    assert_eq!(world.engine.stats().idle, 0);
    world.keep(&newer, keep(2));
    world.settle();
    world.abort(&f.key.function);
    world.settle();
    assert_eq!(world.engine.load_of(&newer.key).ready, 2, "after an abort there are new ones");
}

#[test]
fn where_nothing_scales_on_demand_a_call_beyond_what_is_kept_is_refused() {
    let mut world = World::new(bounds());
    let web = demand(1, "web", 1, Program::Launcher, 2);
    world.keep(&web, Keep { instances: 1, runs_on: true, on_demand: false });
    let waiters: Vec<_> = (0..3).map(|_| world.lease(&web, MINUTE)).collect();
    assert_eq!(world.refused, [(waiters[2], Why::Throttled(Throttled::Provisioned { instances: 1 }))], "two wait for what comes");
    world.settle();
    assert!(waiters[..2].iter().all(|waiter| world.served_by(*waiter).is_some()));
    world.lease(&web, MINUTE);
    assert_eq!(world.refused.len(), 2);
    world.release(0, false);
    let next = world.lease(&web, MINUTE);
    assert!(world.served_by(next).is_some());
    world.keep(&web, Keep { instances: 0, runs_on: false, on_demand: false });
    world.run_dry();
    assert_eq!(world.engine.load_of(&web.key).ready, 0, "what was busy went after its calls");
}

#[test]
fn what_is_to_run_on_is_not_frozen_and_what_was_is_thawed() {
    let mut world = World::new(Bounds { freeze: Some(Duration::from_millis(100)), ..bounds() });
    let f = python("f");
    world.keep(&f, keep(1));
    world.settle();
    world.pass(Duration::from_secs(1));
    assert_eq!(world.frozen.len(), 1, "an instance that is kept stands still like any other");
    world.keep(&f, Keep { instances: 1, runs_on: true, on_demand: true });
    assert!(world.frozen.is_empty());
    world.pass(MINUTE);
    assert!(world.frozen.is_empty());
    world.keep(&f, keep(1));
    world.pass(Duration::from_secs(1));
    assert_eq!(world.frozen.len(), 1);
}

#[test]
fn a_kept_instance_that_does_not_start_is_tried_again_with_pauses() {
    for fault in [StartFault::Function, StartFault::Platform] {
        let mut world = World::new(bounds());
        let f = python("f");
        world.keep(&f, keep(1));
        let mut starts = 0;
        for _ in 0..100 {
            while !world.making.is_empty() {
                world.make_one(0, Ok(()));
            }
            while !world.starting.is_empty() {
                world.start_one(0, Err(fault));
                starts += 1;
            }
            while !world.stopping.is_empty() {
                world.stop_one(0);
            }
            world.pass(Duration::from_millis(100));
        }
        assert!((3..20).contains(&starts), "{fault:?}: {starts} starts in ten seconds");
        assert!(world.engine.load_of(&f.key).failing);
        world.pass(MINUTE);
        world.settle();
        assert_eq!(world.engine.load_of(&f.key).ready, 1);
    }
}

#[test]
fn a_drain_keeps_nothing() {
    let mut world = World::new(bounds());
    world.keep(&python("f"), keep(2));
    world.settle();
    world.on(Event::Drain);
    world.kept.clear();
    world.run_dry();
    assert!(world.engine.is_empty());
}
