//! Claims about the engine, one script each, and a million random events.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use dunlin_model::{FunctionKey, Language, Revision, VersionKey};
use dunlin_sandbox::Net;
use tokio::time::Instant;

use super::*;
use crate::api::InstanceState;
use crate::class::Program;

const MINUTE: Duration = Duration::from_secs(60);

fn bounds() -> Bounds {
    Bounds {
        instances_per_account: 300,
        memory_bytes: 16 << 30,
        starting: 64,
        making: 8,
        waiting_per_account: 10_000,
        stock_bytes: 1 << 30,
        stock_max: None,
        idle: 5 * MINUTE,
    }
}

fn demand(account: u64, name: &str, revision: u64, program: Program, concurrency: u32) -> Arc<Demand> {
    let account = format!("{account:016}").parse().expect("16 digits");
    let function = FunctionKey::from_stored(account, name.parse().expect("a name"));
    Arc::new(Demand {
        key: VersionKey { function, version: "LATEST".into(), revision: Revision(revision) },
        class: Class { program, net: Net::Internet },
        concurrency,
        idle: None,
        memory_bytes: 128 << 20,
    })
}

fn python(name: &str) -> Arc<Demand> {
    demand(1, name, 1, Program::Python, 1)
}

/// Performs actions on paper and holds every grant and every stop against what was promised.
struct World {
    engine: Engine,
    now: Instant,
    last: u64,
    making: Vec<CellNo>,
    starting: Vec<CellNo>,
    stopping: Vec<CellNo>,
    bound: HashMap<CellNo, (VersionKey, u32)>,
    /// Calls in flight.
    leases: Vec<(WaiterId, CellNo)>,
    waiting: HashMap<WaiterId, VersionKey>,
    refused: Vec<(WaiterId, Why)>,
    colds: usize,
    /// Cells that must not be granted any more.
    spent: HashSet<CellNo>,
    gentle: Vec<bool>,
}

impl World {
    fn new(bounds: Bounds) -> Self {
        Self {
            engine: Engine::new(bounds),
            now: Instant::now(),
            last: 0,
            making: Vec::new(),
            starting: Vec::new(),
            stopping: Vec::new(),
            bound: HashMap::new(),
            leases: Vec::new(),
            waiting: HashMap::new(),
            refused: Vec::new(),
            colds: 0,
            spent: HashSet::new(),
            gentle: Vec::new(),
        }
    }

    fn on(&mut self, event: Event) {
        for action in self.engine.on(event, self.now) {
            match action {
                Action::Make { cell, .. } => self.making.push(cell),
                Action::Start { cell, demand, waiter } => {
                    assert_eq!(self.waiting.get(&waiter), Some(&demand.key), "a start is for somebody who waits");
                    let earlier = self.bound.insert(cell, (demand.key.clone(), demand.concurrency));
                    assert!(earlier.is_none(), "a cell is bound once");
                    self.starting.push(cell);
                }
                Action::Grant { waiter, cell, cold } => {
                    let key = self.waiting.remove(&waiter).expect("only who waits is granted");
                    let (bound, concurrency) = &self.bound[&cell];
                    assert_eq!(&key, bound, "an instance serves one version");
                    assert!(!self.spent.contains(&cell), "a spent instance serves nobody");
                    assert!(!self.stopping.contains(&cell), "an ending instance serves nobody");
                    self.leases.push((waiter, cell));
                    let in_flight = self.leases.iter().filter(|(_, other)| *other == cell).count();
                    assert!(in_flight <= *concurrency as usize, "no more calls than the function takes");
                    self.colds += usize::from(cold);
                }
                Action::Refuse { waiter, why } => {
                    assert!(self.waiting.remove(&waiter).is_some(), "only who waits is refused");
                    self.refused.push((waiter, why));
                }
                Action::Stop { cell, graceful } => {
                    assert!(!self.leases.iter().any(|(_, other)| *other == cell), "nobody is cut off");
                    assert!(!self.stopping.contains(&cell), "a cell ends once");
                    self.stopping.push(cell);
                    self.gentle.push(graceful);
                }
            }
        }
    }

    fn tick(&mut self) {
        if self.engine.next_tick().is_some_and(|at| at <= self.now) {
            self.on(Event::Tick);
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.tick();
    }

    fn lease(&mut self, demand: &Arc<Demand>, patience: Duration) -> WaiterId {
        self.last += 1;
        let waiter = WaiterId(self.last);
        self.waiting.insert(waiter, demand.key.clone());
        self.on(Event::Lease { waiter, demand: Arc::clone(demand), deadline: self.now + patience });
        waiter
    }

    fn release(&mut self, at: usize, discard: bool) {
        let (_, cell) = self.leases.swap_remove(at);
        if discard {
            self.spent.insert(cell);
        }
        self.on(Event::Released { cell, memory_bytes: 20 << 20, discard });
    }

    fn make_one(&mut self, at: usize, result: Result<(), MakeFault>) {
        let cell = self.making.swap_remove(at);
        self.on(Event::Made { cell, result });
    }

    fn start_one(&mut self, at: usize, result: Result<(), StartFault>) {
        let cell = self.starting.swap_remove(at);
        if result.is_err() {
            self.spent.insert(cell);
        }
        self.on(Event::Started { cell, result });
    }

    fn stop_one(&mut self, at: usize) {
        let cell = self.stopping.swap_remove(at);
        self.bound.remove(&cell);
        self.on(Event::Stopped { cell });
    }

    /// Reports success for everything under way, without letting time pass.
    fn settle(&mut self) {
        while !(self.making.is_empty() && self.starting.is_empty() && self.stopping.is_empty()) {
            if !self.making.is_empty() {
                self.make_one(0, Ok(()));
            } else if !self.starting.is_empty() {
                self.start_one(0, Ok(()));
            } else {
                self.stop_one(0);
            }
        }
        self.engine.check(self.now);
    }

    /// Ends every call in flight and everything under way, over and over, until nothing moves.
    fn run_dry(&mut self) {
        self.settle();
        while !self.leases.is_empty() {
            self.release(0, false);
            self.settle();
        }
    }

    fn served_by(&self, waiter: WaiterId) -> Option<CellNo> {
        self.leases.iter().find(|(id, _)| *id == waiter).map(|(_, cell)| *cell)
    }
}

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
    assert_eq!(world.making.len(), 1);
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
    let new = demand(1, "f", 2, Program::Python, 1);
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
        world.on(Event::Released { cell, memory_bytes: 0, discard: false });
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
    assert_eq!(world.refused, [(waiter, Why::Deadline)]);
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

/// splitmix64: small, and good enough to shake a state machine.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % sides as u64).expect("below a usize")
    }
}

fn random_step(world: &mut World, dice: &mut Dice, demands: &[Arc<Demand>], newest: &mut usize) {
    match dice.roll(100) {
        0..30 => {
            // Mostly the present revision, sometimes one that was resolved long ago.
            let names = 6;
            let revision = if dice.roll(20) == 0 { dice.roll(*newest + 1) } else { *newest };
            let demand = &demands[revision * names + dice.roll(names)];
            world.lease(demand, Duration::from_millis(1 + dice.roll(20_000) as u64));
        }
        30..50 if !world.leases.is_empty() => {
            let at = dice.roll(world.leases.len());
            world.release(at, dice.roll(10) == 0);
        }
        50..65 if !world.making.is_empty() => {
            let at = dice.roll(world.making.len());
            let result = match dice.roll(20) {
                0 => Err(MakeFault::Broken),
                1 => Err(MakeFault::Full),
                _ => Ok(()),
            };
            world.make_one(at, result);
        }
        65..78 if !world.starting.is_empty() => {
            let at = dice.roll(world.starting.len());
            let result = match dice.roll(12) {
                0 => Err(StartFault::Function),
                1 => Err(StartFault::Platform),
                _ => Ok(()),
            };
            world.start_one(at, result);
        }
        78..88 if !world.stopping.is_empty() => {
            let at = dice.roll(world.stopping.len());
            world.stop_one(at);
        }
        88..92 => {
            if let Some(waiter) = world.waiting.keys().min().copied() {
                world.waiting.remove(&waiter);
                world.on(Event::Cancel { waiter });
            }
        }
        92 => {
            let mut cells: Vec<_> = world.bound.keys().filter(|cell| !world.starting.contains(cell)).copied().collect();
            cells.sort();
            if !cells.is_empty() {
                let cell = cells[dice.roll(cells.len())];
                world.spent.insert(cell);
                world.on(Event::Died { cell });
            }
        }
        93 => world.on(Event::Pressure { bytes: (dice.roll(64) as u64) << 20 }),
        94 if dice.roll(10) == 0 => *newest = (*newest + 1).min(demands.len() / 6 - 1),
        95 if dice.roll(10) == 0 => {
            let function = demands[dice.roll(6)].key.function.clone();
            world.on(Event::Retire { function });
        }
        96 if dice.roll(50) == 0 => world.pass(Duration::from_secs(dice.roll(400) as u64)),
        _ => world.pass(Duration::from_millis(dice.roll(200) as u64)),
    }
}

/// Six functions of two accounts and every class, in four revisions.
fn demands(dice: &mut Dice) -> Vec<Arc<Demand>> {
    let mut all = Vec::new();
    for revision in 1..=4 {
        for name in 0..6 {
            let program =
                [Program::Python, Program::Bootstrap { language: Language::Node, memory_mb: 128 }, Program::Launcher][name % 3];
            let concurrency = if name % 3 == 2 { 1 + dice.roll(4) } else { 1 };
            all.push(demand(
                1 + name as u64 / 3,
                &format!("f{name}"),
                revision,
                program,
                u32::try_from(concurrency).expect("small"),
            ));
        }
    }
    all
}

#[test]
fn a_million_random_events_break_no_promise() {
    let seed = std::env::var("DUNLIN_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs());
    eprintln!("DUNLIN_SEED={seed}");
    let mut dice = Dice(seed);
    let mut served = 0;
    for episode in 0..200 {
        let bounds = Bounds {
            instances_per_account: 1 + dice.roll(8),
            memory_bytes: (64 + dice.roll(400) as u64) << 20,
            starting: 1 + dice.roll(6),
            making: 1 + dice.roll(4),
            waiting_per_account: 1 + dice.roll(20),
            stock_bytes: (dice.roll(40) as u64) << 20,
            idle: Duration::from_secs(1 + dice.roll(300) as u64),
            stock_max: (dice.roll(4) == 0).then(|| dice.roll(3)),
        };
        let demands = demands(&mut dice);
        let mut world = World::new(bounds);
        let mut newest = 0;
        for step in 0..5_000 {
            random_step(&mut world, &mut dice, &demands, &mut newest);
            if step % 8 == 0 {
                world.tick();
                world.engine.check(world.now);
            }
            if world.making.is_empty() && world.starting.is_empty() && world.stopping.is_empty() && world.leases.is_empty() {
                world.tick();
                world.engine.check_nobody_is_forgotten(world.now);
            }
        }
        world.tick();
        world.run_dry();
        world.engine.check_nobody_is_forgotten(world.now);
        served += world.colds;
        world.on(Event::Drain);
        world.run_dry();
        // Those that wait behind a pause are served after it or refused at their deadline.
        for _ in 0..50 {
            world.pass(Duration::from_secs(1));
            world.run_dry();
        }
        assert!(world.engine.is_empty(), "episode {episode}: {:?}", world.engine.stats());
        assert!(world.waiting.is_empty() && world.bound.is_empty(), "episode {episode}");
    }
    assert!(served > 10_000, "the dice reached the interesting states: {served}");
}
