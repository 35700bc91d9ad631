//! The runtime APIs: programs that fetch their calls (contract sections 7.5 and 17).
//!
//! The vendor's Go library and AWS Lambda's runtime clients work alike: the program asks `next`, which is held until there
//! is a call, and posts its answer under the call's id. Both dialects are served at once on one address inside the cell; the
//! program's first question says which one it speaks.
//!
//! # Invariants
//! - The listener lives in the cell's net namespace. Nothing on the host listens for guests.
//! - An answer counts once, for a call that is out, while somebody waits for it ([`desk`]).
//! - Connections, heads and bodies are bounded; what exceeds a bound costs the instance its own call and nothing else.

mod desk;
mod serve;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dunlin_model::{CellId, ErrorType, FunctionError};
use dunlin_sandbox::{BindError, Sandboxes, Step};
use http::HeaderMap;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use self::desk::{Asked, Desk, First, Verdict};
use crate::call::{Answer, Answered, CallContext};
use crate::error::{CallError, Failed};
use crate::frame::ANSWER_BYTES_MAX;
use crate::guest::{Cut, InFlight, LoadSpec, Watched, end_line};
use crate::http_headers;

/// How long the end of a cell may stay unknown after a call was cut short.
const END_GRACE: Duration = Duration::from_millis(500);

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The handler's.
    Handler,
    /// The initializer's.
    Initializer,
    /// The pre-stop hook's.
    PreStop,
}

/// Which API a program speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// The vendor's, version 2020-11-11.
    Fc,
    /// AWS Lambda's, version 2018-06-01.
    Lambda,
}

/// What the headers of `next` say besides the call, the same for every call of an instance.
#[derive(Debug)]
struct Facts {
    /// The vendor's common headers.
    common: HeaderMap,
    /// Lambda's name of the function.
    arn: String,
}

/// The API of one cell. Dropping it closes the listener.
pub(crate) struct RuntimeApi {
    desk: Arc<Desk>,
    address: SocketAddr,
    served: AbortHandle,
    watched: Arc<Watched>,
    /// A call was given up or ran out of time while the program was at work for it.
    spent: AtomicBool,
    /// Whether the program takes several calls at a time, so that one given up is no reason to give it up.
    concurrent: bool,
    /// Whether the lines that begin and end a call in the log are the platform's to write.
    marks_log: bool,
}

impl Drop for RuntimeApi {
    fn drop(&mut self) {
        self.served.abort();
    }
}

impl RuntimeApi {
    /// Opens the API inside the cell, on a port the kernel picks.
    pub(crate) async fn open(
        sandboxes: &Arc<dyn Sandboxes>,
        cell: CellId,
        spec: &LoadSpec,
        watched: Arc<Watched>,
    ) -> Result<Self, BindError> {
        let socket = sandboxes.socket(cell).await?;
        let failed = |source| BindError::Failed { step: Step::Net, source };
        let (listener, address) = listen(socket.into()).map_err(failed)?;
        let config = &spec.function.config;
        let account = spec.key.function.account();
        let facts = Facts {
            common: http_headers::common(spec),
            arn: format!("arn:aws:lambda:{}:{account}:function:{}", spec.region, config.function_name),
        };
        let desk = Arc::new(Desk::default());
        let concurrency = config.concurrency_in_force();
        let served = tokio::spawn(serve::serve(listener, Arc::clone(&desk), Arc::new(facts), concurrency)).abort_handle();
        Ok(Self {
            desk,
            address,
            served,
            watched,
            spent: AtomicBool::new(false),
            concurrent: concurrency > 1,
            marks_log: config.runtime.language().has_its_log_marked(),
        })
    }

    /// Where the program finds it.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Waits until the program asks for its first call, or says that it cannot start.
    pub(crate) async fn greeted(&self) -> Result<(), FunctionError> {
        match self.desk.first().await {
            First::Asked => Ok(()),
            First::CannotStart(error) => Err(error),
        }
    }

    /// Whether the program must not get another call.
    pub(crate) fn is_spent(&self) -> bool {
        self.spent.load(Ordering::Relaxed)
    }

    /// Whether hooks reach the program: Lambda's API has none.
    fn has_hooks(&self) -> bool {
        self.desk.dialect() == Some(Dialect::Fc)
    }

    /// One event in, one answer out.
    pub(crate) async fn invoke(
        &self,
        call: &CallContext,
        event: Bytes,
        deadline: Instant,
    ) -> Result<Answered, Failed<CallError>> {
        let (answer, log_tail) = self.ask(Purpose::Handler, call, event, deadline).await?;
        Ok(Answered { answer: Answer::Event(answer), log_tail })
    }

    /// Runs a hook; what it printed comes back.
    pub(crate) async fn hook(
        &self,
        purpose: Purpose,
        call: &CallContext,
        deadline: Instant,
    ) -> Result<Vec<u8>, Failed<CallError>> {
        if !self.has_hooks() {
            return Ok(Vec::new());
        }
        self.ask(purpose, call, Bytes::new(), deadline).await.map(|(_, log_tail)| log_tail)
    }

    async fn ask(
        &self,
        purpose: Purpose,
        call: &CallContext,
        event: Bytes,
        deadline: Instant,
    ) -> Result<(Bytes, Vec<u8>), Failed<CallError>> {
        let (output, id) = (&self.watched.output, &call.request_id);
        let in_flight = InFlight::begin(output, id, call.capture_tail);
        if self.marks_log {
            output.platform_line(id, &format!("FC Invoke Start RequestId: {id}"));
        }
        let result = self.wait(purpose, call, event, deadline).await;
        let log_tail = in_flight.end();
        if self.marks_log {
            output.platform_line(id, &end_line("Invoke", id, result.is_err()));
        }
        match result {
            Ok(answer) => Ok((answer, log_tail)),
            Err(error) => Err(Failed { error, log_tail }),
        }
    }

    async fn wait(&self, purpose: Purpose, call: &CallContext, event: Bytes, deadline: Instant) -> Result<Bytes, CallError> {
        // Dropped at the first await, this call is one that was given up.
        let mut unfinished = SpentUnlessFinished { spent: &self.spent, finished: self.concurrent };
        let mut asked = self.desk.ask(purpose, call, event);
        let result = self.watched.until(deadline, asked.answer()).await;
        let fetched = asked.was_fetched();
        drop(asked);
        // One that ran out of time may keep the program busy for ever.
        unfinished.finished = !fetched || matches!(result, Ok(Some(_)));
        drop(unfinished);
        self.watched.peak.look();
        match result {
            Ok(Some(Verdict::Done(answer))) => Ok(answer),
            Ok(Some(Verdict::Failed(error))) => {
                let error_type = if purpose == Purpose::Initializer { ErrorType::InitializationError } else { error.error_type };
                Err(CallError::Function(FunctionError { error_type, ..error }))
            }
            Ok(Some(Verdict::TooLarge)) => Err(CallError::TooLarge { limit: ANSWER_BYTES_MAX }),
            // The connection of the answer broke, most often because the program died over it.
            Ok(Some(Verdict::BrokenOff) | None) => Err(match self.watched.end_within(END_GRACE).await {
                Some(ended) => CallError::Exited(ended),
                None => CallError::Protocol("its answer broke off".to_owned()),
            }),
            Err(Cut::Deadline) => Err(CallError::TimedOut),
            Err(Cut::Ended(_)) if !fetched => Err(CallError::NotDelivered),
            Err(Cut::Ended(ended)) => Err(CallError::Exited(ended)),
        }
    }
}

/// Marks the program spent unless it is told that the call has ended well enough.
struct SpentUnlessFinished<'a> {
    spent: &'a AtomicBool,
    finished: bool,
}

impl Drop for SpentUnlessFinished<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.spent.store(true, Ordering::Relaxed);
        }
    }
}

fn listen(socket: std::net::TcpStream) -> std::io::Result<(TcpListener, SocketAddr)> {
    // Not a stream yet, whatever its type says: the socket came unconnected.
    let socket = TcpSocket::from_std_stream(socket);
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let listener = socket.listen(128)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

impl Desk {
    fn ask(self: &Arc<Self>, purpose: Purpose, call: &CallContext, event: Bytes) -> Asked {
        self.enqueue(desk::Delivery {
            id: call.request_id.clone(),
            purpose,
            deadline_ms: call.deadline_ms,
            retry_count: call.retry_count,
            event,
        })
    }
}
