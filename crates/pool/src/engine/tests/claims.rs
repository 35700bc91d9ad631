//! One claim about the engine each.

use super::*;

#[test]
fn the_second_call_finds_the_first_ones_instance() {
    let mut world = World::new(bounds());
    let f = python("f");
    let first = world.lease(&f, MINUTE);
    world.settle();
    let cell = world.served_by(first).expect("served");
    world.release(0, false);
    let second = world.lease(&f, MINUTE);
    assert_eq!(world.served_by(second), Some(cell), "at once, without an action to wait for");
    assert_eq!(world.colds, 1);
}

#[test]
fn a_waiting_cell_is_bound_without_making_one_first() {
    let mut world = World::new(bounds());
    let f = python("f");
    world.on(Event::Expect { class: f.class });
    world.settle();
    assert_eq!(world.engine.stats().waiting_cells, 2, "python keeps two");
    world.lease(&f, MINUTE);
    assert_eq!((world.starting.len(), world.making.len()), (1, 0), "bound at once, replaced later");
    world.pass(Duration::from_millis(30));
    assert_eq!(world.making.len(), 0, "the start has the CPU");
    world.pass(Duration::from_millis(250));
    assert_eq!(world.making.len(), 1, "but not for ever");
}

#[test]
fn the_most_recently_used_instance_serves_and_the_others_grow_old() {
    let mut world = World::new(bounds());
    let f = python("f");
    let waiters: Vec<_> = (0..3).map(|_| world.lease(&f, MINUTE)).collect();
    world.settle();
    let cells: Vec<_> = waiters.iter().map(|w| world.served_by(*w).expect("served")).collect();
    for cell in &cells {
        let at = world.leases.iter().position(|(_, other)| other == cell).expect("in flight");
        world.release(at, false);
        world.pass(Duration::from_secs(1));
    }
    let next = world.lease(&f, MINUTE);
    assert_eq!(world.served_by(next), Some(cells[2]));
    world.pass(5 * MINUTE - Duration::from_secs(2));
    assert_eq!(world.stopping, [cells[0], cells[1]], "each at its own time, and not the busy one");
}

#[test]
fn a_freed_instance_goes_to_the_oldest_waiter() {
    let mut world = World::new(Bounds { instances_per_account: 1, ..bounds() });
    let f = python("f");
    let [first, second, third] = [0; 3].map(|_| world.lease(&f, MINUTE));
    world.settle();
    assert!(world.served_by(first).is_some() && world.waiting.len() == 2);
    world.release(0, false);
    assert!(world.served_by(second).is_some() && world.waiting.contains_key(&third));
    world.release(0, true);
    world.settle();
    assert!(world.served_by(third).is_some(), "after a discard, by a new instance");
}

#[test]
fn a_start_nobody_waits_for_any_more_leaves_an_idle_instance() {
    let mut world = World::new(bounds());
    let f = python("f");
    let waiter = world.lease(&f, MINUTE);
    world.make_one(0, Ok(()));
    assert_eq!(world.starting.len(), 1);
    world.waiting.remove(&waiter);
    world.on(Event::Cancel { waiter });
    world.settle();
    assert_eq!(world.engine.stats().idle, 1);
    let next = world.lease(&f, MINUTE);
    assert!(world.served_by(next).is_some());
}

#[test]
fn an_update_ends_idle_instances_and_lets_busy_ones_finish() {
    let mut world = World::new(bounds());
    let old = python("f");
    world.lease(&old, MINUTE);
    world.lease(&old, MINUTE);
    world.settle();
    world.release(0, false);
    let busy = world.leases[0].1;
    let new = demand(1, "f", 2, Program::Python(InterpreterId(0)), 1);
    let waiter = world.lease(&new, MINUTE);
    assert_eq!(world.stopping.len(), 1, "the idle one");
    assert_eq!(world.engine.state_of(busy), Some(InstanceState::Draining));
    world.settle();
    assert!(world.served_by(waiter).is_some_and(|cell| cell != busy));
    let at = world.leases.iter().position(|(_, cell)| *cell == busy).expect("in flight");
    world.release(at, false);
    assert_eq!(world.stopping, [busy]);
}

#[test]
fn an_idle_function_makes_room_for_another_at_the_accounts_limit() {
    let mut world = World::new(Bounds { instances_per_account: 2, ..bounds() });
    let (f, g, h) = (python("f"), python("g"), python("h"));
    world.lease(&f, MINUTE);
    world.lease(&g, MINUTE);
    world.settle();
    let waiter = world.lease(&h, MINUTE);
    world.settle();
    assert!(world.waiting.contains_key(&waiter), "both are busy");
    world.release(0, false);
    world.settle();
    assert!(world.served_by(waiter).is_some());
}

#[test]
fn memory_that_is_short_is_taken_from_who_idles_longest() {
    let one = python("f").class.instance_bytes();
    let mut world = World::new(Bounds { memory_bytes: 2 * one + (3 << 20), stock_bytes: 0, ..bounds() });
    for name in ["a", "b", "c", "d"] {
        let waiter = world.lease(&python(name), MINUTE);
        world.settle();
        assert!(world.served_by(waiter).is_some(), "{name}");
        let at = world.leases.len() - 1;
        let (_, cell) = world.leases.remove(at);
        world.on(Event::Released { cell, memory_bytes: 0, took: Duration::ZERO, discard: false });
        world.pass(Duration::from_secs(1));
    }
    assert!(world.engine.stats().idle <= 2);
}

#[test]
fn the_call_whose_start_failed_hears_of_it_and_the_rest_go_on() {
    let mut world = World::new(Bounds { starting: 1, ..bounds() });
    let f = python("f");
    let [first, second] = [0; 2].map(|_| world.lease(&f, MINUTE));
    world.make_one(0, Ok(()));
    world.start_one(0, Err(StartFault::Function));
    assert_eq!(world.refused, [(first, Why::StartFailed)]);
    world.settle();
    assert!(world.served_by(second).is_some());
}

#[test]
fn a_function_that_never_starts_is_left_alone_longer_and_longer() {
    let mut world = World::new(Bounds { starting: 1, ..bounds() });
    let (f, other) = (python("f"), python("other"));
    let waiters: Vec<_> = (0..10).map(|_| world.lease(&f, 10 * MINUTE)).collect();
    for _ in 0..3 {
        while world.starting.is_empty() {
            world.make_one(0, Ok(()));
        }
        world.start_one(0, Err(StartFault::Function));
    }
    assert_eq!(world.refused.len(), 10, "after three failures everybody is told");
    assert_eq!(world.refused[9], (waiters[9], Why::OthersFailed));
    let late = world.lease(&f, MINUTE);
    while !world.stopping.is_empty() {
        world.stop_one(0);
    }
    assert!(world.starting.is_empty(), "not before the pause is over");
    let quick = world.lease(&other, MINUTE);
    world.settle();
    assert!(world.served_by(quick).is_some(), "other functions start as ever");
    world.pass(Duration::from_millis(100));
    world.settle();
    assert!(world.served_by(late).is_some());
}

#[test]
fn a_platform_that_makes_no_cells_says_so_after_a_while() {
    let mut world = World::new(bounds());
    let waiter = world.lease(&python("f"), MINUTE);
    for _ in 0..3 {
        assert!(world.waiting.contains_key(&waiter));
        while !world.making.is_empty() {
            world.make_one(0, Err(MakeFault::Broken));
        }
        world.pass(Duration::from_secs(1));
    }
    assert_eq!(world.refused, [(waiter, Why::Platform)]);
}

#[test]
fn cells_that_fail_side_by_side_are_tried_again_when_the_longer_pause_is_over() {
    let mut world = World::new(Bounds { stock_max: Some(0), ..bounds() });
    for _ in 0..2 {
        world.lease(&python("f"), MINUTE);
    }
    while !world.making.is_empty() {
        world.make_one(0, Err(MakeFault::Full));
    }
    world.pass(Duration::from_millis(50));
    assert!(world.making.is_empty(), "the second failure's pause is twice as long");
    world.pass(Duration::from_millis(50));
    assert_eq!(world.making.len(), 2);
}

#[test]
fn a_full_sandbox_is_waited_for() {
    let mut world = World::new(bounds());
    let waiter = world.lease(&python("f"), MINUTE);
    for _ in 0..4 {
        while !world.making.is_empty() {
            world.make_one(0, Err(MakeFault::Full));
        }
        world.pass(Duration::from_secs(1));
    }
    world.settle();
    assert!(world.served_by(waiter).is_some());
}

#[test]
fn a_wait_ends_at_its_deadline() {
    let mut world = World::new(bounds());
    let waiter = world.lease(&python("f"), Duration::from_secs(3));
    world.pass(Duration::from_secs(2));
    assert!(world.refused.is_empty());
    world.pass(Duration::from_secs(1));
    assert_eq!(world.refused, [(waiter, Why::Throttled(Throttled::Waited { limit: None, expected: None }))]);
}

#[test]
fn concurrent_calls_share_an_instance_and_a_discard_lets_them_finish() {
    let mut world = World::new(bounds());
    let web = demand(1, "web", 1, Program::Launcher, 3);
    for _ in 0..3 {
        world.lease(&web, MINUTE);
    }
    assert_eq!(world.making.len(), 1, "one instance is enough");
    world.settle();
    assert_eq!(world.leases.iter().map(|(_, cell)| cell).collect::<HashSet<_>>().len(), 1);
    world.release(0, true);
    let fourth = world.lease(&web, MINUTE);
    world.settle();
    assert_eq!(world.leases.len(), 3, "two on the old one, one on a new one");
    let fresh = world.served_by(fourth).expect("served");
    for _ in 0..2 {
        let at = world.leases.iter().position(|(_, cell)| *cell != fresh).expect("still in flight");
        assert!(world.stopping.is_empty(), "not while calls are in flight");
        world.release(at, false);
    }
    assert_eq!(world.stopping.len(), 1);
}

#[test]
fn an_idle_instance_that_dies_is_gone_before_the_next_call() {
    let mut world = World::new(bounds());
    let f = python("f");
    world.lease(&f, MINUTE);
    world.settle();
    let dead = world.leases[0].1;
    world.release(0, false);
    world.on(Event::Died { cell: dead });
    let next = world.lease(&f, MINUTE);
    world.settle();
    assert!(world.served_by(next).is_some_and(|cell| cell != dead));
}

#[test]
fn a_drain_serves_who_waits_and_ends_everything() {
    let mut world = World::new(Bounds { instances_per_account: 1, ..bounds() });
    let f = python("f");
    let [_, second] = [0; 2].map(|_| world.lease(&f, MINUTE));
    world.settle();
    world.on(Event::Drain);
    let late = world.lease(&f, MINUTE);
    assert_eq!(world.refused, [(late, Why::Draining)]);
    world.release(0, false);
    assert!(world.served_by(second).is_some());
    world.run_dry();
    assert!(world.engine.is_empty());
}

#[test]
fn a_stock_of_none_makes_a_cell_for_each_start_only() {
    let mut world = World::new(Bounds { stock_max: Some(0), ..bounds() });
    let f = python("f");
    world.on(Event::Expect { class: f.class });
    assert!(world.making.is_empty());
    let waiter = world.lease(&f, MINUTE);
    world.settle();
    assert!(world.served_by(waiter).is_some());
    world.pass(MINUTE);
    assert!(world.making.is_empty());
}

#[test]
fn demand_makes_more_cells_wait_and_quiet_fewer() {
    let mut world = World::new(bounds());
    for n in 0..200 {
        world.lease(&python(&format!("f{n}")), MINUTE);
    }
    world.run_dry();
    while world.engine.stats().waiting_cells < 8 {
        world.pass(Duration::from_millis(50));
        assert!(!world.making.is_empty());
        world.settle();
    }
    world.pass(10 * MINUTE);
    world.run_dry();
    assert_eq!(world.engine.stats().waiting_cells, 2);
}

#[test]
fn an_instance_that_idles_is_frozen_after_a_while_and_a_busy_one_is_not() {
    let after = Duration::from_millis(100);
    let mut world = World::new(Bounds { freeze: Some(after), ..bounds() });
    let f = python("f");
    for _ in 0..2 {
        world.lease(&f, MINUTE);
    }
    world.settle();
    let busy = world.leases[1].1;
    // Calls that follow each other closely never let it come to that.
    for _ in 0..10 {
        world.release(0, false);
        world.pass(after - Duration::from_millis(1));
        assert!(world.frozen.is_empty());
        world.lease(&f, MINUTE);
        world.leases.rotate_right(1);
    }
    let cell = world.leases[0].1;
    assert_ne!(cell, busy);
    world.release(0, false);
    world.pass(after);
    assert_eq!(world.frozen, HashSet::from([cell]));
    world.pass(10 * after);
    let next = world.lease(&f, MINUTE);
    assert_eq!(world.served_by(next), Some(cell), "a frozen instance serves like any other");
    world.pass(10 * after);
    assert!(world.frozen.is_empty());
}

#[test]
fn a_frozen_instance_ends_at_its_time() {
    let mut world = World::new(Bounds { freeze: Some(Duration::from_millis(100)), ..bounds() });
    world.lease(&python("f"), MINUTE);
    world.settle();
    let cell = world.leases[0].1;
    world.release(0, false);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.frozen, HashSet::from([cell]));
    while world.stopping.is_empty() {
        world.pass(MINUTE);
    }
    assert_eq!((world.stopping.as_slice(), world.gentle.as_slice()), ([cell].as_slice(), [true].as_slice()));
}

#[test]
fn an_abort_ends_busy_instances_at_once_and_serves_who_waits() {
    let mut world = World::new(Bounds { instances_per_account: 1, ..bounds() });
    let f = python("f");
    world.lease(&f, MINUTE);
    let second = world.lease(&f, MINUTE);
    world.settle();
    let cell = world.leases[0].1;
    world.abort(&f.key.function);
    assert_eq!(world.stopping, [cell]);
    world.settle();
    assert!(world.served_by(second).is_some_and(|other| other != cell));
}

#[test]
fn only_the_version_that_is_meant_retires() {
    let mut world = World::new(bounds());
    let head = python("f");
    let key = VersionKey { version: "1".into(), ..head.key.clone() };
    let published = Arc::new(Demand { key, ..Demand::clone(&head) });
    let waiters = [world.lease(&head, MINUTE), world.lease(&published, MINUTE)];
    world.settle();
    let [of_head, of_published] = waiters.map(|waiter| world.served_by(waiter).expect("served"));
    world.release(0, false);
    world.release(0, false);
    world.on(Event::Retire { function: head.key.function.clone(), version: Some("LATEST".into()) });
    assert_eq!(world.stopping, [of_head]);
    let next = world.lease(&published, MINUTE);
    assert_eq!(world.served_by(next), Some(of_published), "the published version stays warm");
}

#[test]
fn the_second_instance_is_forked_from_a_template_and_the_first_is_not() {
    let mut world = World::new(bounds());
    let f = forking("f", 1);
    let first = world.lease(&f, MINUTE);
    assert!(world.templating.is_empty(), "nothing shows yet that it loads");
    world.settle();
    assert!(!world.forked.contains_key(&world.served_by(first).expect("served")));
    let second = world.lease(&f, MINUTE);
    world.settle();
    assert!(world.forked.contains_key(&world.served_by(second).expect("served")));
    assert_eq!(world.templates.len(), 1);
    let other = world.lease(&python("other"), MINUTE);
    world.settle();
    assert!(!world.forked.contains_key(&world.served_by(other).expect("served")));
}

#[test]
fn a_template_ends_with_its_revision_and_after_its_forks() {
    let mut world = World::new(bounds());
    let f = forking("f", 1);
    for _ in 0..2 {
        world.lease(&f, MINUTE);
        world.settle();
    }
    let template = *world.templates.keys().next().expect("there is one");
    let forked = world.leases[1].1;
    assert!(world.forked.contains_key(&forked));
    let new = forking("f", 2);
    world.lease(&new, MINUTE);
    while !world.making.is_empty() {
        world.make_one(0, Ok(()));
    }
    assert!(!world.stopping.contains(&template), "a fork is still busy");
    let at = world.leases.iter().position(|(_, cell)| *cell == forked).expect("in flight");
    world.release(at, false);
    while let Some(at) = world.stopping.iter().position(|cell| *cell != template) {
        world.stop_one(at);
    }
    assert_eq!(world.stopping, [template]);
}

#[test]
fn what_was_forked_from_a_dead_template_serves_nobody_and_the_next_start_is_ordinary() {
    let mut world = World::new(bounds());
    let f = forking("f", 1);
    for _ in 0..3 {
        world.lease(&f, MINUTE);
        world.settle();
    }
    let template = *world.templates.keys().next().expect("there is one");
    world.release(1, false);
    let family: Vec<_> = world.forked.keys().copied().collect();
    world.spent.extend(family);
    world.on(Event::Died { cell: template });
    world.engine.check(world.now);
    let next = world.lease(&f, MINUTE);
    world.settle();
    assert!(!world.forked.contains_key(&world.served_by(next).expect("served")));
    assert_eq!(world.templates.len(), 1, "and no other template is made");
}

#[test]
fn a_version_that_makes_no_template_starts_as_ever() {
    let mut world = World::new(bounds());
    let f = forking("f", 1);
    world.lease(&f, MINUTE);
    while world.templating.is_empty() {
        if world.making.is_empty() {
            world.start_one(0, Ok(()));
        } else {
            world.make_one(0, Ok(()));
        }
    }
    world.template_one(0, false);
    let second = world.lease(&f, MINUTE);
    world.settle();
    assert!(!world.forked.contains_key(&world.served_by(second).expect("served")));
}

#[test]
fn memory_that_a_refused_template_gives_back_goes_to_who_waits_for_it() {
    let mut world = World::new(Bounds { memory_bytes: 24 << 20, ..bounds() });
    world.lease(&forking("f", 1), MINUTE);
    while world.templating.is_empty() {
        if world.making.is_empty() {
            world.start_one(0, Ok(()));
        } else {
            world.make_one(0, Ok(()));
        }
    }
    let other = world.lease(&python("other"), MINUTE);
    assert!(world.making.is_empty() && world.starting.is_empty(), "the template's memory is taken");
    world.template_one(0, false);
    world.settle();
    assert!(world.served_by(other).is_some());
}
