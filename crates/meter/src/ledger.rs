//! See the crate.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dunlin_model::Record;
use dunlin_store::{Store, StoreError};
use tokio::sync::{Notify, watch};

/// How the ledger batches and waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Records that may wait for the store before [`Ledger::room`] makes callers wait. Default 8192: a few megabytes,
    /// and seconds of calls at full load.
    pub backlog_max: usize,
    /// Most records in one append. Default 256, which is what the store commits at once.
    pub batch_max: usize,
    /// How long records gather before they are appended together, unless somebody waits for them. Default 20 ms.
    pub gather: Duration,
    /// First pause after a failed append; each further one doubles. Default 50 ms.
    pub retry_min: Duration,
    /// Longest pause between attempts. Default 5 s.
    pub retry_max: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            backlog_max: 8192,
            batch_max: 256,
            gather: Duration::from_millis(20),
            retry_min: Duration::from_millis(50),
            retry_max: Duration::from_secs(5),
        }
    }
}

/// What the ledger is doing.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Records that are not durable yet.
    pub backlog: usize,
    /// Records that were made durable since the start.
    pub stored: u64,
    /// Appends that failed since the start.
    pub failures: u64,
    /// Why the store does not take records at the moment; absent when it does.
    pub degraded: Option<StoreError>,
}

/// Takes records of calls. Cheap to clone.
#[derive(Clone)]
pub struct Ledger {
    shared: Arc<Shared>,
}

struct Shared {
    config: Config,
    state: Mutex<State>,
    /// Wakes the task: something was recorded, or the ledger closes.
    work: Notify,
    /// Ends the gathering: a batch is full, or somebody waits.
    hurry: Notify,
    /// How many records were made durable, in the order they came.
    durable: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Record>,
    /// Taken out of `waiting` and being appended.
    in_flight: usize,
    recorded: u64,
    failures: u64,
    degraded: Option<StoreError>,
    closing: bool,
}

impl Ledger {
    /// Makes a ledger over `store` and the task that does its work. The task must be spawned; it ends after
    /// [`Ledger::close`], when everything is stored.
    pub fn start(store: Arc<dyn Store>, config: Config) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let shared = Arc::new(Shared {
            config,
            state: Mutex::default(),
            work: Notify::new(),
            hurry: Notify::new(),
            durable: watch::Sender::new(0),
        });
        (Self { shared: Arc::clone(&shared) }, append(store, shared))
    }

    /// Takes a record. Neither waits nor fails.
    pub fn record(&self, record: Record) {
        let mut state = self.shared.state();
        state.recorded += 1;
        state.waiting.push_back(record);
        let length = state.waiting.len();
        drop(state);
        if length == 1 {
            self.shared.work.notify_one();
        } else if length == self.shared.config.batch_max {
            self.shared.hurry.notify_one();
        }
    }

    /// Waits until the backlog has room for another call. Doors await it before they admit one; as long as the store
    /// keeps up it is one look.
    pub async fn room(&self) {
        if self.has_room() {
            return;
        }
        let mut durable = self.shared.durable.subscribe();
        loop {
            durable.borrow_and_update();
            if self.has_room() {
                return;
            }
            if durable.changed().await.is_err() {
                return;
            }
        }
    }

    fn has_room(&self) -> bool {
        self.shared.state().backlog() < self.shared.config.backlog_max
    }

    /// Waits until everything recorded before is durable. Waits for as long as the store fails; the caller sets the limit.
    pub async fn flush(&self) {
        let target = self.shared.state().recorded;
        self.shared.hurry.notify_one();
        // The sender lives in `shared`, so this cannot fail.
        let _ = self.shared.durable.subscribe().wait_for(|durable| *durable >= target).await;
    }

    /// Lets the task end once everything is stored. What is recorded afterwards is still taken until it has ended.
    pub fn close(&self) {
        self.shared.state().closing = true;
        self.shared.work.notify_one();
        self.shared.hurry.notify_one();
    }

    /// What the ledger is doing.
    #[must_use]
    pub fn status(&self) -> Status {
        let state = self.shared.state();
        Status {
            backlog: state.backlog(),
            stored: *self.shared.durable.borrow(),
            failures: state.failures,
            degraded: state.degraded.clone(),
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn backlog(&self) -> usize {
        self.waiting.len() + self.in_flight
    }
}

/// The task: takes a batch, appends it until the store has it, begins again.
async fn append(store: Arc<dyn Store>, shared: Arc<Shared>) {
    // Whether more is waiting than a batch takes, so that nothing need gather.
    let mut behind = true;
    loop {
        if !behind {
            // Either way: what has gathered is appended.
            let _ = tokio::time::timeout(shared.config.gather, shared.hurry.notified()).await;
        }
        let batch: Vec<Record> = {
            let mut state = shared.state();
            let length = state.waiting.len().min(shared.config.batch_max);
            state.in_flight = length;
            state.waiting.drain(..length).collect()
        };
        if batch.is_empty() {
            if shared.state().closing {
                return;
            }
            shared.work.notified().await;
            behind = false;
            continue;
        }
        behind = batch.len() == shared.config.batch_max;
        let mut pause = shared.config.retry_min;
        while let Err(error) = store.append_records(&batch).await {
            shared.fail(&error, batch.len());
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(shared.config.retry_max);
        }
        let mut state = shared.state();
        state.in_flight = 0;
        if state.degraded.take().is_some() {
            tracing::info!(backlog = state.backlog(), "the store takes records of calls again");
        }
        drop(state);
        shared.durable.send_modify(|durable| *durable += batch.len() as u64);
    }
}

impl Shared {
    fn fail(&self, error: &StoreError, held: usize) {
        let mut state = self.state();
        state.failures += 1;
        if state.degraded.replace(error.clone()).is_none() {
            tracing::error!(%error, held, "the store does not take records of calls; they are kept and tried again");
        }
    }
}
