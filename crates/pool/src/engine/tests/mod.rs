//! Claims about the engine, one script each, and a million random events, in a world that performs actions on paper.

mod claims;
mod keep;
mod load;
mod random;
mod sessions;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use dunlin_model::{FunctionKey, InterpreterId, Language, Revision, VersionKey};
use dunlin_sandbox::Net;
use tokio::time::Instant;

use super::*;
use crate::api::InstanceState;
use crate::class::Program;

const MINUTE: Duration = Duration::from_secs(60);

fn bounds() -> Bounds {
    Bounds {
        instances_per_account: 300,
        instances_per_function: None,
        memory_bytes: 16 << 30,
        starting: 128,
        making: 8,
        waiting: 20_000,
        waiting_per_account: 10_000,
        waiting_per_function: 5_000,
        stock_bytes: 1 << 30,
        stock_max: None,
        idle: 5 * MINUTE,
        surplus: MINUTE,
        freeze: None,
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
        template: false,
        on_demand: true,
        sharing: Sharing::All,
    })
}

/// A function that asks for templates.
fn forking(name: &str, revision: u64) -> Arc<Demand> {
    Arc::new(Demand { template: true, ..(*demand(1, name, revision, Program::Python(InterpreterId(0)), 1)).clone() })
}

fn python(name: &str) -> Arc<Demand> {
    demand(1, name, 1, Program::Python(InterpreterId(0)), 1)
}

/// Performs actions on paper and holds every grant and every stop against what was promised.
struct World {
    engine: Engine,
    now: Instant,
    last: u64,
    making: Vec<CellNo>,
    starting: Vec<CellNo>,
    stopping: Vec<CellNo>,
    bound: HashMap<CellNo, Arc<Demand>>,
    /// Calls in flight.
    leases: Vec<(WaiterId, CellNo)>,
    waiting: HashMap<WaiterId, VersionKey>,
    granted_at: HashMap<WaiterId, Instant>,
    refused: Vec<(WaiterId, Why)>,
    colds: usize,
    /// Cells that must not be granted any more.
    spent: HashSet<CellNo>,
    frozen: HashSet<CellNo>,
    /// Templates that are being made, all templates' versions, and what was forked from which.
    templating: Vec<CellNo>,
    templates: HashMap<CellNo, VersionKey>,
    forked: HashMap<CellNo, CellNo>,
    /// The sessions of calls, where they are at home, and whom an instance of one session has served.
    sessions: HashMap<WaiterId, SessionNo>,
    homes: HashMap<SessionNo, CellNo>,
    owners: HashMap<CellNo, SessionNo>,
    paused: HashSet<SessionNo>,
    over: HashSet<SessionNo>,
    /// What was said to be kept.
    kept: HashMap<VersionKey, Keep>,
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
            granted_at: HashMap::new(),
            refused: Vec::new(),
            colds: 0,
            spent: HashSet::new(),
            frozen: HashSet::new(),
            templating: Vec::new(),
            templates: HashMap::new(),
            forked: HashMap::new(),
            sessions: HashMap::new(),
            homes: HashMap::new(),
            owners: HashMap::new(),
            paused: HashSet::new(),
            over: HashSet::new(),
            kept: HashMap::new(),
            gentle: Vec::new(),
        }
    }

    fn on(&mut self, event: Event) {
        for action in self.engine.on(event, self.now) {
            match action {
                Action::Make { cell, class, .. } => {
                    if let Program::Fork(template) = class.program {
                        assert!(self.templates.contains_key(&CellNo(template)), "only a template is forked");
                        self.forked.insert(cell, CellNo(template));
                    }
                    self.making.push(cell);
                }
                Action::Template { cell, demand } => {
                    assert!(demand.template, "only who asks for it gets one");
                    self.templates.insert(cell, demand.key.clone());
                    self.templating.push(cell);
                }
                Action::Start { cell, demand, waiter } => {
                    match waiter {
                        Some(waiter) => {
                            assert_eq!(self.waiting.get(&waiter), Some(&demand.key), "a start is for somebody who waits")
                        }
                        None => assert!(self.kept.get(&demand.key).is_some_and(|keep| keep.instances > 0), "or to be kept"),
                    }
                    if let Some(template) = self.forked.get(&cell) {
                        assert_eq!(self.templates[template], demand.key, "a fork serves its template's version");
                    }
                    let earlier = self.bound.insert(cell, demand);
                    assert!(earlier.is_none(), "a cell is bound once");
                    self.starting.push(cell);
                }
                Action::Grant { waiter, cell, cold } => {
                    let key = self.waiting.remove(&waiter).expect("only who waits is granted");
                    let demand = Arc::clone(&self.bound[&cell]);
                    assert_eq!(key, demand.key, "an instance serves one version");
                    assert!(!self.spent.contains(&cell), "a spent instance serves nobody");
                    assert!(!self.stopping.contains(&cell), "an ending instance serves nobody");
                    self.frozen.remove(&cell);
                    self.leases.push((waiter, cell));
                    self.granted_at.insert(waiter, self.now);
                    let in_flight = self.leases.iter().filter(|(_, other)| *other == cell).count();
                    assert!(in_flight <= demand.concurrency as usize, "no more calls than the function takes");
                    self.at_home(waiter, cell, &demand);
                    self.colds += usize::from(cold);
                }
                Action::Refuse { waiter, why } => {
                    assert!(self.waiting.remove(&waiter).is_some(), "only who waits is refused");
                    self.refused.push((waiter, why));
                }
                Action::Freeze { cell } => {
                    assert!(!self.leases.iter().any(|(_, other)| *other == cell), "nobody's call is frozen");
                    let started = self.bound.contains_key(&cell) && !self.starting.contains(&cell);
                    assert!(started && !self.stopping.contains(&cell), "only an instance that is alive is frozen");
                    assert!(self.frozen.insert(cell), "once");
                }
                Action::Thaw { cell } => {
                    assert!(self.frozen.remove(&cell), "only what is frozen is thawed");
                    let kept = self.bound.get(&cell).and_then(|demand| self.kept.get(&demand.key));
                    let resumed = self.homes.values().any(|home| *home == cell);
                    assert!(resumed || kept.is_some_and(|keep| keep.runs_on), "what is to run on");
                }
                Action::Stop { cell, graceful } => {
                    self.frozen.remove(&cell);
                    assert!(!self.leases.iter().any(|(_, other)| *other == cell), "nobody is cut off");
                    assert!(!self.stopping.contains(&cell), "a cell ends once");
                    self.homes.retain(|_, home| *home != cell);
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

    /// A call reaches the instance of its session as long as that lives, and shares it with no more sessions than may.
    fn at_home(&mut self, waiter: WaiterId, cell: CellNo, demand: &Demand) {
        let Some(session) = self.sessions.get(&waiter).copied() else { return };
        let Sharing::Sessions { per_instance, exclusive } = demand.sharing else { panic!("no sessions where none are shared") };
        let home = self.homes.get(&session).copied().filter(|home| !self.spent.contains(home));
        assert!(home.is_none_or(|home| home == cell), "a session stays where it is");
        self.homes.insert(session, cell);
        let waits = |session: &SessionNo| self.waiting.keys().any(|waiter| self.sessions.get(waiter) == Some(session));
        let lives = |other: &SessionNo| *other == session || !self.over.contains(other) || waits(other);
        let tenants = self.homes.iter().filter(|(other, home)| **home == cell && lives(other)).count();
        assert!(tenants <= per_instance as usize, "no more sessions than an instance takes");
        let owner = *self.owners.entry(cell).or_insert(session);
        assert!(!exclusive || owner == session, "nobody comes after a session that has an instance of its own");
    }

    fn lease(&mut self, demand: &Arc<Demand>, patience: Duration) -> WaiterId {
        self.ask(demand, None, patience)
    }

    fn ask(&mut self, demand: &Arc<Demand>, session: Option<SessionNo>, patience: Duration) -> WaiterId {
        self.last += 1;
        let waiter = WaiterId(self.last);
        self.waiting.insert(waiter, demand.key.clone());
        if let Some(session) = session {
            self.sessions.insert(waiter, session);
        }
        self.on(Event::Lease { waiter, demand: Arc::clone(demand), session, deadline: self.now + patience });
        waiter
    }

    /// Ends a session; with its instance and the calls in there, if that is its alone and it is to end at once.
    fn end_session(&mut self, session: SessionNo, at_once: bool) {
        let home = self.homes.get(&session).copied();
        let exclusive = |cell: CellNo| matches!(self.bound[&cell].sharing, Sharing::Sessions { exclusive: true, .. });
        let cut = home.filter(|cell| at_once && !self.spent.contains(cell) && exclusive(*cell));
        let (cut, kept): (Vec<_>, Vec<_>) = self.leases.drain(..).partition(|(_, cell)| Some(*cell) == cut);
        self.leases = kept;
        self.paused.remove(&session);
        self.over.insert(session);
        self.on(Event::SessionOver { session, at_once });
        for (waiter, cell) in cut {
            let took = self.now - self.granted_at[&waiter];
            self.on(Event::Released { cell, memory_bytes: 20 << 20, took, discard: true });
        }
    }

    fn pause(&mut self, session: SessionNo, paused: bool) {
        if paused {
            self.paused.insert(session);
        } else {
            self.paused.remove(&session);
        }
        self.on(Event::SessionPaused { session, paused });
    }

    fn release(&mut self, at: usize, discard: bool) {
        let (waiter, cell) = self.leases.swap_remove(at);
        let took = self.now - self.granted_at[&waiter];
        if discard {
            self.spent.insert(cell);
        }
        self.on(Event::Released { cell, memory_bytes: 20 << 20, took, discard });
    }

    /// Ends everything of the function that serves. The calls that are cut off come back afterwards.
    fn abort(&mut self, function: &FunctionKey) {
        let bound = &self.bound;
        let (cut, kept): (Vec<_>, Vec<_>) = self.leases.drain(..).partition(|(_, cell)| bound[cell].key.function == *function);
        self.leases = kept;
        self.on(Event::Abort { function: function.clone() });
        for (waiter, cell) in cut {
            assert!(self.stopping.contains(&cell), "an instance that serves ends at once");
            let took = self.now - self.granted_at[&waiter];
            self.on(Event::Released { cell, memory_bytes: 20 << 20, took, discard: true });
        }
    }

    fn template_one(&mut self, at: usize, made: bool) {
        let cell = self.templating.swap_remove(at);
        self.on(Event::Templated { cell, made });
    }

    fn keep(&mut self, demand: &Arc<Demand>, keep: Keep) {
        self.kept.insert(demand.key.clone(), keep);
        self.on(Event::Keep { demand: Arc::clone(demand), keep });
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
        while !(self.making.is_empty() && self.starting.is_empty() && self.stopping.is_empty() && self.templating.is_empty()) {
            if !self.templating.is_empty() {
                self.template_one(0, true);
            } else if !self.making.is_empty() {
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
