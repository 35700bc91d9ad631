//! Plugs: what one room needs, made out of another.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use dunlin_api::Api;
use dunlin_gateway::{Body, ControlPlane};
use dunlin_invoke::{Invoker, OutcomeSink, Refusal, Reply};
use dunlin_meter::Ledger;
use dunlin_model::{FunctionKey, InstanceId, Invocation, Qualifier, Record, SessionAsk, Target, VersionKey};
use dunlin_pool::{LogSinks, Observer, Pool, Seen};
use dunlin_runtime::{LogLine, LogSink, Payload};
use dunlin_store::Sqlite;
use dunlin_telemetry::{FunctionLogs, InstanceState, Logs, Metrics};
use http::{Request, Response};
use hyper::body::Incoming;

/// Every call's record goes to the ledger and into the metrics.
pub(crate) struct Outcomes {
    pub(crate) ledger: Ledger,
    pub(crate) metrics: Metrics,
}

impl OutcomeSink for Outcomes {
    fn record(&self, record: Record) {
        self.metrics.call(&record);
        self.ledger.record(record);
    }
}

/// Calls, let in only while their records have room: that bounds what is held while the store does not take records.
pub(crate) struct Recorded {
    pub(crate) invoker: Invoker,
    pub(crate) ledger: Ledger,
}

/// How long a call waits for room before it is refused. Long enough for a slow disk, short enough for a client.
const ROOM_PATIENCE: Duration = Duration::from_secs(10);

#[async_trait]
impl dunlin_api::Calls for Recorded {
    async fn call(&self, invocation: Invocation, payload: Payload) -> Result<Reply, Refusal> {
        // Resolves at its first poll, before any timer starts, unless the backlog is full.
        tokio::time::timeout(ROOM_PATIENCE, self.ledger.room()).await.map_err(|_| Refusal::Backlogged)?;
        self.invoker.call(invocation, payload).await
    }

    fn session_target(&self, function: &FunctionKey, qualifier: &Qualifier, ask: &SessionAsk) -> Option<Target> {
        self.invoker.session_target(function, qualifier, ask)
    }
}

/// What instances print goes to their function's log.
pub(crate) struct FunctionOutput(pub(crate) Logs);

impl LogSinks for FunctionOutput {
    fn open(&self, key: &VersionKey, _instance: &InstanceId) -> Arc<dyn LogSink> {
        Arc::new(InstanceOutput(self.0.of(&key.function)))
    }
}

struct InstanceOutput(FunctionLogs);

impl LogSink for InstanceOutput {
    fn line(&self, line: LogLine<'_>) {
        self.0.line(line.at, line.instance, line.request, line.text);
    }
}

/// What happens in the pool goes to the platform's own log.
pub(crate) struct PoolEvents;

impl Observer for PoolEvents {
    fn seen(&self, seen: &Seen) {
        tracing::debug!(?seen, "pool");
    }
}

/// The control plane behind the door.
pub(crate) struct Control(pub(crate) Api);

#[async_trait]
impl ControlPlane for Control {
    async fn handle(&self, request: Request<Incoming>, _peer: IpAddr) -> Response<Body> {
        self.0.handle(request).await
    }
}

/// What the platform says about itself.
pub(crate) struct Status {
    pub(crate) ready: AtomicBool,
    pub(crate) metrics: Metrics,
    pub(crate) pool: Pool,
    pub(crate) store: Arc<Sqlite>,
    pub(crate) ledger: Ledger,
    pub(crate) logs: Logs,
}

impl dunlin_gateway::Status for Status {
    fn ready(&self) -> Result<(), String> {
        if !self.ready.load(Ordering::Acquire) {
            return Err("the platform is starting or stopping".to_owned());
        }
        match self.ledger.status().degraded {
            Some(error) => Err(format!("records of calls cannot be stored: {error}")),
            None => Ok(()),
        }
    }

    fn metrics(&self) -> String {
        let pool = self.pool.stats();
        let written = self.store.statistics();
        self.metrics.set_instances(InstanceState::Starting, pool.starting);
        self.metrics.set_instances(InstanceState::Idle, pool.idle);
        self.metrics.set_instances(InstanceState::Busy, pool.busy);
        self.metrics.set_instances(InstanceState::Unbound, pool.waiting_cells);
        self.metrics.set_instances(InstanceState::Template, pool.templates);
        self.metrics.set_templates_gone([pool.templates_refused, pool.templates_lost]);
        self.metrics.set_queue_length(pool.waiting_calls);
        let refusals = pool.refusals;
        let refusals = [refusals.disabled, refusals.crowded, refusals.hopeless, refusals.waited, refusals.provisioned];
        self.metrics.set_refusals(refusals);
        self.metrics.set_store(written.commits, written.writes);
        self.metrics.set_ledger_backlog(self.ledger.status().backlog);
        self.metrics.set_log_lines_dropped(self.logs.dropped());
        self.metrics.render()
    }
}
