//! The one thread that writes.
//!
//! # Invariants
//! - A write is acknowledged only after the transaction that holds it was committed and synced, and the view swapped.
//! - When a commit fails, every write of its batch fails with the same error: refusals too, because they were decided
//!   on writes that are not there.
//! - After an error that leaves open what the disk kept, nothing is written again.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use dunlin_model::{Record, Revision};
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot, watch};

use super::rows;
use crate::change::{Change, Done, Refused};
use crate::error::StoreError;
use crate::view::View;

/// Most writes in one transaction.
pub(super) const BATCH_MAX: usize = 256;

/// What the next commit fails with.
#[cfg(test)]
pub(super) type Fault = Arc<std::sync::Mutex<Option<rusqlite::Error>>>;

pub(super) struct Job {
    pub(super) write: Write,
    pub(super) reply: oneshot::Sender<Result<Done, Refused>>,
}

pub(super) enum Write {
    Change(Box<Change>),
    PutNonces(Vec<(u64, i64)>),
    ForgetNonces(i64),
    AppendRecords(Vec<Record>),
    Close,
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) commits: AtomicU64,
    pub(super) writes: AtomicU64,
    pub(super) failures: AtomicU64,
}

pub(super) struct Writer {
    pub(super) connection: Connection,
    /// Held for as long as the connection is open.
    pub(super) lock: File,
    pub(super) view: Arc<ArcSwap<View>>,
    pub(super) revision: u64,
    pub(super) counters: Arc<Counters>,
    pub(super) failed: watch::Sender<Option<StoreError>>,
    #[cfg(test)]
    pub(super) fault: Fault,
}

impl Writer {
    pub(super) fn spawn(self, jobs: mpsc::Receiver<Job>) -> io::Result<()> {
        std::thread::Builder::new().name("store-writer".into()).spawn(move || self.run(jobs)).map(drop)
    }

    fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(first) = jobs.blocking_recv() {
            let mut batch = vec![first];
            while batch.len() < BATCH_MAX
                && let Ok(job) = jobs.try_recv()
            {
                batch.push(job);
            }
            // What came before a close is written, what comes after is told so.
            let close = batch.iter().position(|job| matches!(job.write, Write::Close));
            let rest = close.map(|at| batch.split_off(at));
            if !batch.is_empty() {
                self.commit_and_acknowledge(batch);
            }
            if let Some(mut rest) = rest {
                jobs.close();
                let Self { connection, lock, .. } = self;
                if let Err((_, error)) = connection.close() {
                    tracing::warn!(%error, "the store did not close cleanly; its log is replayed at the next start");
                }
                drop(lock);
                let closer = rest.remove(0);
                let _ = closer.reply.send(Ok(Done { revision: Revision(0), number: 0 }));
                // The replies of the others are dropped, which reads as closed.
                return;
            }
        }
    }

    fn commit_and_acknowledge(&mut self, batch: Vec<Job>) {
        let (writes, replies): (Vec<_>, Vec<_>) = batch.into_iter().map(|job| (job.write, job.reply)).unzip();
        let poisoned = self.failed.borrow().clone();
        let outcome = match poisoned {
            Some(error) => Err(error),
            None => self.commit(&writes),
        };
        match outcome {
            Ok(results) => {
                self.counters.commits.fetch_add(1, Ordering::Relaxed);
                self.counters.writes.fetch_add(results.len() as u64, Ordering::Relaxed);
                for (reply, result) in replies.into_iter().zip(results) {
                    let _ = reply.send(result); // the caller may have gone away; the write stands
                }
            }
            Err(error) => {
                self.counters.failures.fetch_add(1, Ordering::Relaxed);
                if matches!(error, StoreError::Poisoned { .. }) && self.failed.borrow().is_none() {
                    tracing::error!(%error, "the store stops writing");
                    self.failed.send_replace(Some(error.clone()));
                }
                for reply in replies {
                    let _ = reply.send(Err(Refused::Store(error.clone())));
                }
            }
        }
    }

    /// One transaction with a savepoint per write, then the new view.
    fn commit(&mut self, writes: &[Write]) -> Result<Vec<Result<Done, Refused>>, StoreError> {
        let mut view = View::clone(&self.view.load());
        let mut revision = self.revision;
        let mut results = Vec::with_capacity(writes.len());
        let mut transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(|error| classify(&error))?;
        for write in writes {
            let savepoint = transaction.savepoint().map_err(|error| classify(&error))?;
            let mut draft = view.clone();
            let next = Revision(revision + 1);
            let plain = Done { revision: next, number: 0 };
            let failed = |error| Refused::Store(classify(&error));
            let result = match write {
                Write::Change(change) => change
                    .apply(&mut draft, next)
                    .and_then(|done| rows::write(&savepoint, change, &draft, done).map(|()| done).map_err(failed)),
                Write::PutNonces(nonces) => rows::put_nonces(&savepoint, nonces).map(|()| plain).map_err(failed),
                Write::ForgetNonces(second) => rows::forget_nonces(&savepoint, *second).map(|()| plain).map_err(failed),
                Write::AppendRecords(records) => rows::append_records(&savepoint, records).map(|()| plain).map_err(failed),
                Write::Close => Ok(plain),
            };
            match result {
                Ok(done) => {
                    savepoint.commit().map_err(|error| classify(&error))?;
                    view = draft;
                    if matches!(write, Write::Change(_)) {
                        revision = next.0;
                    }
                    results.push(Ok(done));
                }
                // A full or failing disk may have ended the whole transaction, not only this write.
                Err(Refused::Store(error @ (StoreError::Full | StoreError::Poisoned { .. }))) => return Err(error),
                Err(refused) => {
                    savepoint.finish().map_err(|error| classify(&error))?; // rolls back: that is its default
                    results.push(Err(refused));
                }
            }
        }
        if revision != self.revision {
            rows::set_revision(&transaction, revision).map_err(|error| classify(&error))?;
        }
        #[cfg(test)]
        if let Some(error) = self.fault.lock().expect("no test panics with it").take() {
            return Err(classify(&error));
        }
        transaction.commit().map_err(|error| classify(&error))?;
        self.revision = revision;
        self.view.store(Arc::new(view));
        Ok(results)
    }
}

/// Tells errors that pass by themselves from those after which the file cannot be trusted to hold what was written.
pub(super) fn classify(error: &rusqlite::Error) -> StoreError {
    use rusqlite::ffi;
    let detail = error.to_string();
    match error.sqlite_error() {
        Some(cause) => match (cause.code, cause.extended_code) {
            (ffi::ErrorCode::DiskFull, _) => StoreError::Full,
            (_, ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC) => StoreError::Poisoned { detail },
            (ffi::ErrorCode::DatabaseCorrupt | ffi::ErrorCode::NotADatabase, _) => StoreError::Poisoned { detail },
            _ => StoreError::Failed { detail },
        },
        None => StoreError::Failed { detail },
    }
}
