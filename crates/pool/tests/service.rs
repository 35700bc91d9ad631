//! The pool's front door, over cells that are socket pairs and guests that follow a script. Time is paused.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use dunlin_model::{AccountId, FunctionKey, Interpreters, RequestId, Revision, VersionKey};
use dunlin_pool::testing::{Script, function, no_logs};
use dunlin_pool::{Config, InstanceSpec, InstanceState, LeaseError, Pool, Throttled};
use dunlin_runtime::{CallError, StartError};
use dunlin_sandbox::testing::{Deed, Fake};
use dunlin_sandbox::{Ended, Exit};
use tokio::time::Instant;

const MINUTE: Duration = Duration::from_secs(60);

struct Bench {
    pool: Pool,
    cells: Fake,
    script: Script,
}

fn bench(script: Script, change: impl FnOnce(&mut Config)) -> Bench {
    let (cells, _) = Fake::new();
    let mut config = Config { memory_bytes_max: 64 << 30, available_bytes_min: 0, ..Config::default() };
    change(&mut config);
    let pool = Pool::with_boot(config, Arc::new(cells.clone()), Arc::new(script.clone()), no_logs(), Arc::new(()));
    Bench { pool, cells, script }
}

fn spec(name: &str, revision: u64, more: &str) -> Arc<InstanceSpec> {
    let account: AccountId = "1234567890123456".parse().expect("16 digits");
    let key = FunctionKey::from_stored(account, name.parse().expect("a name"));
    let json = format!(r#"{{"functionName":"{name}","runtime":"python3.10","handler":"index.handler"{more}}}"#);
    let key = VersionKey { function: key, version: "LATEST".into(), revision: Revision(revision) };
    Arc::new(InstanceSpec::new(key, Arc::new(function(&json)), &Interpreters::usual()).expect("Python serves it"))
}

impl Bench {
    async fn lease(&self, spec: &Arc<InstanceSpec>) -> Result<dunlin_pool::Lease, LeaseError> {
        self.pool.lease(spec, &RequestId::random(), Instant::now() + MINUTE).await
    }

    /// Lets every task that can run do so.
    async fn settle(&self) {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_first_calls_at_once_are_all_served_within_the_limit() {
    let script = Script::loading_for(Duration::from_millis(2));
    let bench = bench(script, |_| {});
    let f = spec("f", 1, "");
    let most = Arc::new(Mutex::new((0, 0)));
    let calls: Vec<_> = (0..1000)
        .map(|_| {
            let (pool, f, most) = (bench.pool.clone(), Arc::clone(&f), Arc::clone(&most));
            tokio::spawn(async move {
                let lease = pool.lease(&f, &RequestId::random(), Instant::now() + MINUTE).await?;
                {
                    let mut most = most.lock().expect("no test panics here");
                    most.0 += 1;
                    most.1 = most.1.max(most.0);
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
                most.lock().expect("no test panics here").0 -= 1;
                drop(lease);
                Ok::<_, LeaseError>(())
            })
        })
        .collect();
    for call in calls {
        call.await.expect("no panic").expect("served");
    }
    assert!(most.lock().expect("no test panics here").1 <= 300);
    assert!(bench.script.loads() <= 300);
    bench.pool.drain().await;
    assert_eq!(bench.cells.alive(), [], "a drained pool leaves no cell");
}

#[tokio::test(start_paused = true)]
async fn an_idle_instance_is_leased_without_another_cell() {
    let bench = bench(Script::default(), |_| {});
    let f = spec("f", 1, "");
    let first = bench.lease(&f).await.expect("served");
    let id = first.instance().clone();
    assert!(first.cold());
    drop(first);
    let second = bench.lease(&f).await.expect("served");
    assert_eq!(second.instance(), &id);
    assert!(!second.cold() && second.phases() == dunlin_model::Phases::default());
    assert_eq!(bench.pool.instances(&f.key().function)[0].state, InstanceState::Busy);
}

#[tokio::test(start_paused = true)]
async fn the_cpu_is_limited_after_the_initializer() {
    let mut script = Script::loading_for(Duration::from_millis(7));
    script.init_time = Duration::from_millis(11);
    let bench = bench(script, |_| {});
    let f = spec("f", 1, r#","instanceLifecycleConfig":{"initializer":{"handler":"index.init"}}"#);
    let lease = bench.lease(&f).await.expect("served");
    assert_eq!(lease.phases().load, Duration::from_millis(7));
    assert_eq!(lease.phases().init, Duration::from_millis(11));
    let deeds = bench.cells.deeds();
    let bind =
        deeds.iter().position(|deed| matches!(deed, Deed::Bind(_, bind) if bind.memory_bytes == 128 << 20)).expect("bound");
    let cpu = deeds.iter().position(|deed| matches!(deed, Deed::SetCpu(_, 63))).expect("limited");
    assert!(bind < cpu, "{deeds:?}");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_leaves_its_instance_to_the_next() {
    let script = Script::loading_for(Duration::from_secs(1));
    let bench = bench(script, |config| config.instances_per_account_max = 1);
    let f = spec("f", 1, "");
    let gone = tokio::time::timeout(Duration::from_millis(500), bench.lease(&f)).await;
    assert!(gone.is_err());
    assert_eq!(bench.pool.stats().waiting_calls, 0);
    let lease = bench.lease(&f).await.expect("served");
    assert_eq!(bench.script.loads(), 1, "the start went on");
    drop(lease);
}

#[tokio::test(start_paused = true)]
async fn a_wait_has_an_end() {
    let bench = bench(Script::default(), |config| config.instances_per_account_max = 1);
    let f = spec("f", 1, "");
    let held = bench.lease(&f).await.expect("served");
    let error = bench.lease(&f).await.expect_err("the one instance is busy");
    assert!(matches!(error, LeaseError::Throttled(Throttled::Waited { .. })), "{error:?}");
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn a_failed_start_reaches_its_caller_with_its_phases() {
    let mut script = Script::loading_for(Duration::from_millis(5));
    script.on_load = Arc::new(|_, _| Err(StartError::FileNotFound));
    let bench = bench(script, |_| {});
    let error = bench.lease(&spec("f", 1, "")).await.expect_err("cannot start");
    let LeaseError::Start(failure) = error else { panic!("{error:?}") };
    assert!(matches!(*failure.source, StartError::FileNotFound));
    assert_eq!(failure.phases.load, Duration::from_millis(5));
}

#[tokio::test(start_paused = true)]
async fn an_initializer_that_is_late_is_the_functions_error() {
    let script = Script::initializing_for(Duration::from_secs(9));
    let bench = bench(script, |_| {});
    let f = spec("f", 1, r#","instanceLifecycleConfig":{"initializer":{"handler":"index.init","timeout":2}}"#);
    let error = bench.lease(&f).await.expect_err("cannot start");
    let LeaseError::Start(failure) = error else { panic!("{error:?}") };
    let StartError::Function(error) = &*failure.source else { panic!("{failure:?}") };
    assert!(String::from_utf8_lossy(&error.body).contains("timed out after 2 seconds"));
    assert_eq!(failure.phases.init, Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_dies_idle_is_not_leased() {
    let bench = bench(Script::default(), |_| {});
    let f = spec("f", 1, "");
    let lease = bench.lease(&f).await.expect("served");
    let cell = lease.guest().cell();
    drop(lease);
    bench.cells.die(cell, Ended { exit: Exit::Code(1), out_of_memory: false, cpu_us: 0 });
    bench.settle().await;
    let lease = bench.lease(&f).await.expect("served");
    assert_ne!(lease.guest().cell(), cell);
}

#[tokio::test(start_paused = true)]
async fn the_pre_stop_hook_runs_before_a_graceful_end_only() {
    let stops = Arc::new(Mutex::new(0));
    let count = Arc::clone(&stops);
    let mut script = Script::default();
    script.on_pre_stop = Arc::new(move |_| {
        *count.lock().expect("no test panics here") += 1;
        Err(CallError::TimedOut)
    });
    let bench = bench(script, |_| {});
    let f = spec("f", 1, r#","instanceLifecycleConfig":{"preStop":{"handler":"index.stop"}}"#);
    let discarded = bench.lease(&f).await.expect("served");
    let kept = bench.lease(&f).await.expect("served");
    discarded.discard();
    bench.settle().await;
    assert_eq!(*stops.lock().expect("no test panics here"), 0);
    drop(kept);
    bench.pool.retire(&f.key().function, None);
    bench.settle().await;
    assert_eq!(*stops.lock().expect("no test panics here"), 1);
    assert_eq!(bench.pool.instances(&f.key().function), []);
}

#[tokio::test(start_paused = true)]
async fn an_idle_instance_ends_at_its_functions_time() {
    let bench = bench(Script::default(), |_| {});
    let f = spec("f", 1, r#","idleTimeout":30"#);
    drop(bench.lease(&f).await.expect("served"));
    tokio::time::sleep(Duration::from_secs(29)).await;
    assert_eq!(bench.pool.instances(&f.key().function).len(), 1);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(bench.pool.instances(&f.key().function), []);
}

#[tokio::test(start_paused = true)]
async fn a_cell_that_cannot_be_made_is_tried_again() {
    let bench = bench(Script::default(), |_| {});
    bench.cells.fail_next_make(12);
    drop(bench.lease(&spec("f", 1, "")).await.expect("served at the second try"));
}

#[tokio::test(start_paused = true)]
async fn a_draining_pool_lets_calls_finish_and_nobody_in() {
    let bench = bench(Script::default(), |_| {});
    let f = spec("f", 1, "");
    let lease = bench.lease(&f).await.expect("served");
    let pool = bench.pool.clone();
    let drained = tokio::spawn(async move { pool.drain().await });
    bench.settle().await;
    assert!(!drained.is_finished());
    assert!(matches!(bench.lease(&f).await, Err(LeaseError::ShuttingDown)));
    drop(lease);
    drained.await.expect("no panic");
    assert_eq!(bench.cells.alive(), []);
}

fn frosts(bench: &Bench) -> Vec<bool> {
    let frosts = bench.cells.deeds().into_iter().filter_map(|deed| match deed {
        Deed::Freeze(_, frozen) => Some(frozen),
        _ => None,
    });
    frosts.collect()
}

#[tokio::test(start_paused = true)]
async fn an_idle_instance_stands_still_until_its_next_call() {
    let bench = bench(Script::default(), |_| {});
    let f = spec("f", 1, "");
    drop(bench.lease(&f).await.expect("served"));
    drop(bench.lease(&f).await.expect("served"));
    assert!(frosts(&bench).is_empty(), "calls that follow each other pay nothing");
    tokio::time::sleep(Duration::from_millis(150)).await;
    bench.settle().await;
    assert_eq!(frosts(&bench), [true]);
    let lease = bench.lease(&f).await.expect("served");
    assert!(!lease.cold());
    assert_eq!(frosts(&bench), [true, false], "before the call has it");
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert_eq!(frosts(&bench), [true, false], "not during the call");
}

#[tokio::test(start_paused = true)]
async fn an_instance_runs_on_where_that_was_said() {
    let bench = bench(Script::default(), |config| config.freeze_after = None);
    drop(bench.lease(&spec("f", 1, "")).await.expect("served"));
    tokio::time::sleep(Duration::from_secs(9)).await;
    bench.settle().await;
    assert!(frosts(&bench).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_frozen_instance_goes_on_for_its_pre_stop_hook() {
    let cells: Arc<Mutex<Option<Fake>>> = Arc::default();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut script = Script::default();
    let (fake, deeds) = (Arc::clone(&cells), Arc::clone(&seen));
    script.on_pre_stop = Arc::new(move |_| {
        let fake = fake.lock().expect("no test panics here");
        *deeds.lock().expect("no test panics here") = fake.as_ref().expect("there is a sandbox").deeds();
        Ok(())
    });
    let bench = bench(script, |_| {});
    *cells.lock().expect("no test panics here") = Some(bench.cells.clone());
    let f = spec("f", 1, r#","instanceLifecycleConfig":{"preStop":{"handler":"index.stop"}}"#);
    drop(bench.lease(&f).await.expect("served"));
    tokio::time::sleep(Duration::from_millis(150)).await;
    bench.settle().await;
    bench.pool.retire(&f.key().function, None);
    bench.settle().await;
    let last = seen.lock().expect("no test panics here").last().cloned();
    assert!(matches!(last, Some(Deed::Freeze(_, false))), "{last:?}");
}

#[tokio::test(start_paused = true)]
async fn a_frozen_instance_that_has_died_serves_nobody() {
    let bench = bench(Script::default(), |_| {});
    let f = spec("f", 1, "");
    let lease = bench.lease(&f).await.expect("served");
    let cell = lease.guest().cell();
    drop(lease);
    tokio::time::sleep(Duration::from_millis(150)).await;
    bench.settle().await;
    // The call comes before the pool has heard of it.
    bench.cells.die(cell, Ended { exit: Exit::Signal(9), out_of_memory: false, cpu_us: 0 });
    let lease = bench.lease(&f).await.expect("served");
    assert_ne!(lease.guest().cell(), cell);
}
