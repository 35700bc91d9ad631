//! Claims about sessions, and about instances that end with a session or a call.

use super::*;

fn sharing(name: &str, concurrency: u32, sharing: Sharing) -> Arc<Demand> {
    Arc::new(Demand { sharing, ..(*demand(1, name, 1, Program::Launcher, concurrency)).clone() })
}

fn sessions(per_instance: u32) -> Arc<Demand> {
    sharing("f", 2, Sharing::Sessions { per_instance, exclusive: false })
}

fn exclusive() -> Arc<Demand> {
    sharing("f", 2, Sharing::Sessions { per_instance: 1, exclusive: true })
}

const A: Option<SessionNo> = Some(SessionNo(1));
const B: Option<SessionNo> = Some(SessionNo(2));
const C: Option<SessionNo> = Some(SessionNo(3));

/// One call, from its arrival to its end, and where it ran.
fn call(world: &mut World, demand: &Arc<Demand>, session: Option<SessionNo>) -> CellNo {
    let waiter = world.ask(demand, session, MINUTE);
    world.settle();
    let cell = world.served_by(waiter).expect("served");
    let at = world.leases.iter().position(|(id, _)| *id == waiter).expect("it is served");
    world.release(at, false);
    world.settle();
    cell
}

fn drop_call(world: &mut World, waiter: WaiterId) {
    let at = world.leases.iter().position(|(id, _)| *id == waiter).expect("it is served");
    world.release(at, false);
}

#[test]
fn a_session_stays_and_a_full_instance_takes_no_further_one() {
    let mut world = World::new(bounds());
    let f = sessions(2);
    let first = call(&mut world, &f, A);
    assert_eq!(call(&mut world, &f, B), first, "there is room for two");
    let second = call(&mut world, &f, C);
    assert_ne!(second, first, "and not for a third");
    for _ in 0..3 {
        assert_eq!((call(&mut world, &f, A), call(&mut world, &f, C), call(&mut world, &f, B)), (first, second, first));
    }
    world.end_session(SessionNo(1), false);
    world.settle();
    let fourth = Some(SessionNo(4));
    assert_eq!(call(&mut world, &f, C), second);
    assert!([first, second].contains(&call(&mut world, &f, fourth)), "the place of one that has ended is free");
}

#[test]
fn a_call_waits_for_the_instance_of_its_session_beside_free_ones() {
    let mut world = World::new(bounds());
    let f = sharing("f", 1, Sharing::Sessions { per_instance: 1, exclusive: false });
    let (a, b) = (call(&mut world, &f, A), call(&mut world, &f, B));
    assert_ne!(a, b);
    let first = world.ask(&f, A, MINUTE);
    let second = world.ask(&f, A, MINUTE);
    world.settle();
    assert_eq!((world.served_by(first), world.served_by(second)), (Some(a), None), "one call at a time");
    drop_call(&mut world, first);
    assert_eq!(world.served_by(second), Some(a));
}

#[test]
fn calls_of_one_session_that_come_before_its_instance_make_one_start() {
    let mut world = World::new(bounds());
    let f = sessions(1);
    let waiters: Vec<_> = (0..5).map(|_| world.ask(&f, A, MINUTE)).collect();
    world.settle();
    let served: Vec<_> = waiters.iter().filter_map(|waiter| world.served_by(*waiter)).collect();
    assert_eq!((served.len(), world.colds), (2, 1), "two calls at a time in the one instance");
    world.run_dry();
    assert!(world.waiting.is_empty());
    assert_eq!(world.engine.load_of(&f.key).ready, 1);
}

#[test]
fn when_the_first_call_goes_away_the_next_one_of_its_session_stands_in_its_place() {
    let mut world = World::new(bounds());
    let f = sessions(1);
    let first = world.ask(&f, A, MINUTE);
    let second = world.ask(&f, A, MINUTE);
    world.waiting.remove(&first);
    world.on(Event::Cancel { waiter: first });
    world.settle();
    assert!(world.served_by(second).is_some());
}

#[test]
fn a_session_whose_instance_died_finds_another_one() {
    let mut world = World::new(bounds());
    let f = sessions(2);
    let cell = call(&mut world, &f, A);
    let (first, second) = (world.ask(&f, A, MINUTE), world.ask(&f, A, MINUTE));
    let third = world.ask(&f, A, MINUTE);
    world.spent.insert(cell);
    world.on(Event::Died { cell });
    world.settle();
    assert_eq!((world.served_by(first), world.served_by(second)), (Some(cell), Some(cell)), "they were in it");
    let home = world.served_by(third).expect("it waited for it");
    assert_ne!(home, cell);
    drop_call(&mut world, third);
    world.run_dry();
    assert_eq!(call(&mut world, &f, A), home);
}

#[test]
fn an_instance_with_sessions_is_kept_for_them_and_ends_after_them() {
    let mut world = World::new(Bounds { instances_per_account: 1, ..bounds() });
    let f = sessions(2);
    let home = call(&mut world, &f, A);
    for _ in 0..200 {
        world.pass(Duration::from_secs(60));
    }
    world.settle();
    assert_eq!(call(&mut world, &f, A), home, "it does not end while it idles");
    let other = world.lease(&python("g"), Duration::from_secs(10));
    world.pass(Duration::from_secs(5));
    world.settle();
    assert_eq!(world.served_by(other), None, "nor to make room");
    world.end_session(SessionNo(1), false);
    world.pass(Duration::from_secs(1));
    world.settle();
    assert!(world.served_by(other).is_some(), "until its session has ended");
}

#[test]
fn memory_that_runs_out_takes_instances_with_sessions_last() {
    let mut world = World::new(bounds());
    let f = sessions(1);
    let home = call(&mut world, &f, A);
    let g = python("g");
    let plain = world.lease(&g, MINUTE);
    world.settle();
    let plain = world.served_by(plain).expect("served");
    world.run_dry();
    world.on(Event::Pressure { bytes: 1 });
    assert_eq!(world.stopping, [plain]);
    world.on(Event::Pressure { bytes: 1 << 40 });
    assert!(world.stopping.contains(&home), "rather than that the machine has none");
    world.settle();
    assert_ne!(call(&mut world, &f, A), home);
}

#[test]
fn a_new_revision_has_the_sessions_of_the_old_one_find_new_instances() {
    let mut world = World::new(bounds());
    let f = sessions(1);
    let old = call(&mut world, &f, A);
    world.on(Event::Retire { function: f.key.function.clone(), version: None });
    world.settle();
    assert_eq!(world.engine.state_of(old), None, "it was idle and has ended");
    let newer = VersionKey { revision: Revision(2), ..f.key.clone() };
    let newer = Arc::new(Demand { key: newer, ..Demand::clone(&f) });
    world.end_session(SessionNo(1), false);
    let home = call(&mut world, &newer, B);
    assert_eq!(call(&mut world, &newer, B), home);
}

#[test]
fn an_instance_of_one_session_ends_with_it_and_serves_nobody_else() {
    let mut world = World::new(bounds());
    let f = exclusive();
    let (a, b) = (call(&mut world, &f, A), call(&mut world, &f, B));
    assert_ne!(a, b);
    let late = world.ask(&f, A, MINUTE);
    world.end_session(SessionNo(1), false);
    assert!(!world.stopping.contains(&a), "its call is let finish");
    drop_call(&mut world, late);
    assert!(world.stopping.contains(&a) && world.gentle == [true]);
    world.settle();
    assert!(![a, b].contains(&call(&mut world, &f, C)));
    let cut = world.ask(&f, B, MINUTE);
    assert_eq!(world.served_by(cut), Some(b));
    world.end_session(SessionNo(2), true);
    assert!(world.stopping.contains(&b), "or it is not, where that is asked for");
    world.settle();
}

#[test]
fn an_instance_that_nobody_shares_serves_one_call() {
    let mut world = World::new(bounds());
    let f = sharing("f", 1, Sharing::Nobody);
    let cells: HashSet<_> = (0..5).map(|_| call(&mut world, &f, None)).collect();
    assert_eq!(cells.len(), 5);
    world.settle();
    assert_eq!(world.engine.load_of(&f.key).ready, 0);
    // Also one that was kept ready for it.
    world.keep(&f, Keep { instances: 1, ..Keep::default() });
    world.settle();
    let one = call(&mut world, &f, None);
    world.settle();
    assert_ne!(call(&mut world, &f, None), one);
    assert_eq!(world.engine.load_of(&f.key).ready, 1, "another one is");
}

#[test]
fn a_paused_session_stops_its_instance_unless_that_has_others() {
    let mut world = World::new(bounds());
    let f = sessions(2);
    let home = call(&mut world, &f, A);
    call(&mut world, &f, B);
    world.pause(SessionNo(1), true);
    assert!(world.frozen.is_empty(), "the other one runs");
    world.pause(SessionNo(2), true);
    assert!(world.frozen.contains(&home));
    world.pause(SessionNo(1), false);
    assert!(world.frozen.is_empty());
    world.engine.check(world.now);
    let busy = world.ask(&f, A, MINUTE);
    world.pause(SessionNo(1), true);
    assert!(world.frozen.is_empty(), "not while it has a call");
    drop_call(&mut world, busy);
    assert!(world.frozen.contains(&home));
    world.pause(SessionNo(1), false);
    world.end_session(SessionNo(1), false);
    assert!(world.frozen.contains(&home), "what is left of its sessions is paused");
    world.engine.check(world.now);
}

#[test]
fn calls_of_a_session_that_is_deleted_with_its_instance_are_refused() {
    let mut world = World::new(bounds());
    let f = Arc::new(Demand { concurrency: 1, ..Demand::clone(&exclusive()) });
    call(&mut world, &f, A);
    world.ask(&f, A, MINUTE);
    let waits = world.ask(&f, A, MINUTE);
    world.end_session(SessionNo(1), true);
    assert_eq!(world.refused, [(waits, Why::SessionEnded)]);
    world.settle();
}
