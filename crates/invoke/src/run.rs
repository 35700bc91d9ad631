//! The account of one call: what is known about it so far, and the one record it leaves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dunlin_model::{Function, InstanceId, Invocation, Outcome, Phases, Record};
use dunlin_pool::Lease;
use dunlin_runtime::{Carried, TunnelEnd};
use jiff::Timestamp;
use tokio::time::Instant;

use crate::OutcomeSink;
use crate::invoker::Presence;

/// One call under way. Whatever happens to it, also that it is dropped, its record is written once and its instance is
/// given back or ended.
pub(crate) struct Account {
    sink: Arc<dyn OutcomeSink>,
    record: Record,
    /// Longest time that is charged for the handler.
    timeout: Duration,
    phases: Phases,
    lease: Option<Lease>,
    /// When the handler was started, and the instance's CPU time then.
    called: Option<(Instant, u64)>,
    /// Whether the instance is of no use when the call is dropped now: its handler has not answered.
    unanswered: bool,
    written: bool,
    /// Whether the instance takes several calls at a time.
    serves_several: bool,
    /// Bytes of a request's body that have streamed in so far.
    streamed_in: Option<Arc<AtomicU64>>,
    _presence: Presence,
}

impl Account {
    pub(crate) fn open(
        sink: Arc<dyn OutcomeSink>,
        invocation: &Invocation,
        function: &Function,
        version: &str,
        bytes_in: u64,
        presence: Presence,
    ) -> Self {
        let config = &function.config;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0.05 to 16 vCPUs")]
        let cpu_millis = (config.cpu_in_force() * 1000.0).round() as u32;
        let record = Record {
            request_id: invocation.request_id.clone(),
            account: invocation.function.account().clone(),
            function: invocation.function.name().clone(),
            version: version.to_owned(),
            qualifier: invocation.qualifier.to_string(),
            instance: None,
            origin: invocation.origin,
            trigger: invocation.trigger.clone(),
            started: Timestamp::now(),
            cold: false,
            queue_us: 0,
            bind_us: 0,
            load_us: 0,
            init_us: 0,
            handler_us: 0,
            billed_ms: 0,
            memory_mb: u32::try_from(config.memory_size).unwrap_or(u32::MAX),
            memory_peak_bytes: 0,
            cpu_millis,
            cpu_us: 0,
            bytes_in,
            bytes_out: 0,
            outcome: Outcome::Cancelled,
            error_type: None,
        };
        Self {
            sink,
            record,
            timeout: timeout_of(function),
            phases: Phases::default(),
            lease: None,
            called: None,
            unanswered: false,
            written: false,
            serves_several: config.concurrency_in_force() > 1,
            streamed_in: None,
            _presence: presence,
        }
    }

    /// The call got an instance after waiting `waited` in all.
    pub(crate) fn leased(&mut self, lease: Lease, waited: Duration) {
        self.phases = lease.phases();
        let start = self.phases.bind + self.phases.load + self.phases.init;
        self.phases.queue = waited.saturating_sub(start);
        self.record.instance = Some(lease.instance().clone());
        self.record.cold = lease.cold();
        self.lease = Some(lease);
    }

    /// The instance that was to serve the call did not come up.
    pub(crate) fn not_started(&mut self, instance: InstanceId, phases: Phases, waited: Duration, memory_peak_bytes: u64) {
        self.phases = phases;
        self.phases.queue = waited.saturating_sub(phases.bind + phases.load + phases.init);
        self.record.instance = Some(instance);
        self.record.cold = true;
        self.record.memory_peak_bytes = memory_peak_bytes;
    }

    /// The call got no instance.
    pub(crate) fn waited(&mut self, waited: Duration) {
        self.phases.queue = waited;
    }

    /// The handler is about to be started.
    pub(crate) fn call_begins(&mut self) -> Option<&Lease> {
        let cpu = self.lease.as_ref().map_or(0, |lease| lease.guest().cpu_us());
        self.called = Some((Instant::now(), cpu));
        self.unanswered = true;
        self.lease.as_ref()
    }

    /// The handler answered (or its response began) or failed: take the time.
    pub(crate) fn call_ended(&mut self) {
        self.unanswered = false;
        self.take_time();
    }

    fn take_time(&mut self) {
        let (Some((began, cpu_before)), Some(lease)) = (self.called, &self.lease) else { return };
        self.phases.handler = began.elapsed().min(self.timeout);
        self.record.cpu_us = lease.guest().cpu_us().saturating_sub(cpu_before);
        self.record.memory_peak_bytes = lease.guest().memory_peak();
    }

    /// The instance died before it had read the call: it is as if it had not been leased.
    pub(crate) fn undelivered(&mut self) {
        self.discard();
        self.called = None;
        self.phases = Phases::default();
        self.record.cpu_us = 0;
        self.record.memory_peak_bytes = 0;
    }

    /// The handler is charged for the whole of its limit.
    pub(crate) fn timed_out(&mut self) {
        self.phases.handler = self.timeout;
    }

    /// Where the bytes of a request's body are counted while they stream in.
    pub(crate) fn counts_bytes_in(&mut self) -> Arc<AtomicU64> {
        Arc::clone(self.streamed_in.get_or_insert_default())
    }

    pub(crate) fn add_bytes_out(&mut self, bytes: usize) {
        self.record.bytes_out += bytes as u64;
    }

    pub(crate) fn phases(&self) -> Phases {
        self.phases
    }

    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    /// The instance serves no further call.
    pub(crate) fn discard(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.discard();
        }
    }

    /// Writes the record and gives the instance back.
    pub(crate) fn close(&mut self, outcome: Outcome, error_type: Option<&str>) {
        if self.written {
            return;
        }
        self.written = true;
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let phases = self.phases;
        let record = &mut self.record;
        record.queue_us = us(phases.queue);
        record.bind_us = us(phases.bind);
        record.load_us = us(phases.load);
        record.init_us = us(phases.init);
        record.handler_us = us(phases.handler);
        record.billed_ms = match outcome {
            Outcome::Throttled | Outcome::PlatformError => 0,
            Outcome::Succeeded
            | Outcome::FunctionError
            | Outcome::TimedOut
            | Outcome::OutOfMemory
            | Outcome::Exited
            | Outcome::InitFailed
            | Outcome::Cancelled => phases.billed_ms(),
        };
        if let Some(streamed) = &self.streamed_in {
            record.bytes_in += streamed.load(Ordering::Relaxed);
        }
        record.outcome = outcome;
        record.error_type = error_type.map(str::to_owned);
        self.sink.record(record.clone());
        self.lease = None;
    }

    /// For a streamed answer: the body ended, one way or the other.
    pub(crate) fn close_stream(&mut self, outcome: Outcome, error_type: Option<&str>) {
        self.take_time();
        match outcome {
            Outcome::TimedOut => {
                self.timed_out();
                self.discard();
            }
            Outcome::Exited | Outcome::OutOfMemory => self.discard(),
            _ => {}
        }
        self.close(outcome, error_type);
    }
}

impl Account {
    /// For a connection that changed its protocol: it is closed.
    pub(crate) fn close_tunnel(&mut self, carried: Carried) {
        self.record.bytes_in += carried.bytes_in;
        self.record.bytes_out += carried.bytes_out;
        match carried.end {
            TunnelEnd::Closed => self.close_stream(Outcome::Succeeded, None),
            TunnelEnd::TimedOut => self.close_stream(Outcome::TimedOut, Some("FunctionTimeoutError")),
            TunnelEnd::Exited => self.close_stream(Outcome::Exited, Some("FunctionUnhandledError")),
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if self.written {
            return;
        }
        // The caller went away.
        self.take_time();
        // One that takes several calls at a time is told that this one is over and goes on with the others.
        if self.unanswered && !self.serves_several {
            self.discard();
        }
        self.close(Outcome::Cancelled, Some("ClientClosedRequest"));
    }
}

/// How long one call may run.
pub(crate) fn timeout_of(function: &Function) -> Duration {
    Duration::from_secs(u64::try_from(function.config.timeout).unwrap_or(1).max(1))
}
