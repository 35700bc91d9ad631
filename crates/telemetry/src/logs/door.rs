//! Where lines come in: the rate limit, the followers, the queue.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use dunlin_model::{FunctionKey, InstanceId, RequestId};
use jiff::Timestamp;
use tokio::sync::{Semaphore, broadcast, watch};

use super::writer::{Line, Writer};
use super::{Followed, LogEntry, LogQuery, LogsConfig, LogsError, query};

/// Lines a follower may be behind.
const FOLLOW_LINES_MAX: usize = 1024;
/// Functions whose channel is kept without need before the unused ones are swept.
const CHANNELS_IDLE_MAX: usize = 1024;
/// Queries that read the disk at a time.
const QUERIES_MAX: usize = 2;
/// What stands at the end of a line that was cut.
const CUT: &[u8] = " … (line cut)".as_bytes();

/// The kept lines of all functions. Cheap to clone; when the last clone is gone the writer finishes and ends.
#[derive(Clone)]
pub struct Logs {
    shared: Arc<Shared>,
}

struct Shared {
    config: LogsConfig,
    queue: SyncSender<Line>,
    counters: Arc<Counters>,
    /// How many of the lines handed over the writer is done with.
    done: watch::Receiver<u64>,
    channels: Mutex<HashMap<FunctionKey, Arc<Channel>>>,
    queries: Semaphore,
}

/// What the door and the writer share.
#[derive(Default)]
pub(super) struct Counters {
    handed_over: AtomicU64,
    pub(super) queued_bytes: AtomicUsize,
    pub(super) dropped: AtomicU64,
}

/// One function's way in.
struct Channel {
    key: Arc<FunctionKey>,
    rate: Mutex<Rate>,
    followers: OnceLock<broadcast::Sender<LogEntry>>,
}

/// A token bucket over bytes, with a count of what it refused.
#[derive(Debug)]
struct Rate {
    tokens: u64,
    at: Timestamp,
    refused: u64,
}

impl Rate {
    /// Takes `bytes`, or counts the line as refused. Gives back how many were refused before one that passes.
    fn take(&mut self, bytes: u64, per_second: u64, now: Timestamp) -> Option<u64> {
        let elapsed = u64::try_from(now.duration_since(self.at).as_micros()).unwrap_or(0);
        let earned = elapsed.saturating_mul(per_second) / 1_000_000;
        if earned > 0 {
            self.tokens = self.tokens.saturating_add(earned).min(per_second.saturating_mul(2));
            self.at = now;
        }
        match self.tokens.checked_sub(bytes) {
            Some(left) => {
                self.tokens = left;
                Some(std::mem::take(&mut self.refused))
            }
            None => {
                self.refused += 1;
                None
            }
        }
    }
}

impl Logs {
    /// Opens the folder, makes it if it is not there, and starts the writer's thread. Blocks for a moment.
    ///
    /// # Errors
    /// The folder cannot be made, or the thread not be started.
    pub fn start(config: LogsConfig) -> Result<Self, LogsError> {
        let failed = |path: &Path, source| LogsError::Io { path: path.to_owned(), source };
        std::fs::create_dir_all(&config.folder).map_err(|error| failed(&config.folder, error))?;
        let (queue, lines) = mpsc::sync_channel(config.queue_lines_max);
        let counters = Arc::new(Counters::default());
        let (progress, done) = watch::channel(0);
        let writer = Writer::new(config.clone(), Arc::clone(&counters), progress);
        writer.spawn(lines).map_err(|error| failed(&config.folder, error))?;
        let shared = Shared { config, queue, counters, done, channels: Mutex::default(), queries: Semaphore::new(QUERIES_MAX) };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// One function's end of the log.
    #[must_use]
    pub fn of(&self, key: &FunctionKey) -> FunctionLogs {
        FunctionLogs { channel: self.channel(key), shared: Arc::clone(&self.shared) }
    }

    /// Hands over a line. Never waits: what does not fit is dropped and counted.
    pub fn append(&self, key: &FunctionKey, entry: LogEntry) {
        self.shared.append(&self.channel(key), entry);
    }

    /// Reads lines back, those handed over before included.
    ///
    /// # Errors
    /// The disk refused.
    pub async fn query(&self, key: &FunctionKey, query: LogQuery) -> Result<Vec<LogEntry>, LogsError> {
        self.flush().await;
        let _permit = self.shared.queries.acquire().await.map_err(|_| LogsError::Closed)?;
        let folder = query::folder(&self.shared.config.folder, key);
        match tokio::task::spawn_blocking(move || query::run(&folder, &query)).await {
            Ok(result) => result,
            Err(_) => Err(LogsError::Closed),
        }
    }

    /// The function's lines from now on. Who wants the stored ones as well follows first and queries then: a line may
    /// come twice so, but none is missed.
    #[must_use]
    pub fn follow(&self, key: &FunctionKey) -> Follow {
        let channel = self.channel(key);
        Follow { lines: channel.followers.get_or_init(|| broadcast::Sender::new(FOLLOW_LINES_MAX)).subscribe() }
    }

    /// Waits until everything handed over before is on disk (though not synced) or was dropped.
    pub async fn flush(&self) {
        let target = self.shared.counters.handed_over.load(Ordering::Acquire);
        // An error means that the writer has ended, and there is nothing to wait for.
        let _ = self.shared.done.clone().wait_for(|done| *done >= target).await;
    }

    /// How many lines were dropped since the start: too many a second, queue full, disk full or failing.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.counters.dropped.load(Ordering::Relaxed)
    }

    fn channel(&self, key: &FunctionKey) -> Arc<Channel> {
        let mut channels = self.shared.channels();
        if let Some(channel) = channels.get(key) {
            return Arc::clone(channel);
        }
        if channels.len() >= CHANNELS_IDLE_MAX {
            channels.retain(|_, channel| Arc::strong_count(channel) > 1 || channel.is_followed());
        }
        let rate =
            Rate { tokens: self.shared.config.function_bytes_per_second.saturating_mul(2), at: Timestamp::now(), refused: 0 };
        let channel = Channel { key: Arc::new(key.clone()), rate: Mutex::new(rate), followers: OnceLock::new() };
        Arc::clone(channels.entry(key.clone()).or_insert(Arc::new(channel)))
    }
}

impl Channel {
    fn is_followed(&self) -> bool {
        self.followers.get().is_some_and(|followers| followers.receiver_count() > 0)
    }
}

impl Shared {
    fn channels(&self) -> MutexGuard<'_, HashMap<FunctionKey, Arc<Channel>>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, channel: &Channel, mut entry: LogEntry) {
        if entry.text.len() > self.config.line_bytes_max {
            entry.text = [&entry.text[..self.config.line_bytes_max], CUT].concat().into();
        }
        let bytes = entry.text.len() as u64 + 64; // ids and headers cost, too: empty lines are not free
        let per_second = self.config.function_bytes_per_second;
        let passed = channel.rate.lock().unwrap_or_else(PoisonError::into_inner).take(bytes, per_second, entry.time);
        match passed {
            None => {
                self.counters.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Some(0) => {}
            Some(refused) => {
                let text =
                    format!("(the platform dropped {refused} lines: the function printed more than {per_second} bytes a second)");
                self.send(channel, LogEntry { text: text.into_bytes().into(), ..entry.clone() });
            }
        }
        self.send(channel, entry);
    }

    fn send(&self, channel: &Channel, entry: LogEntry) {
        if channel.is_followed() {
            // An error means that the last follower has just gone.
            let _ = channel.followers.get().map(|followers| followers.send(entry.clone()));
        }
        let bytes = entry.text.len();
        let queued = self.counters.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = queued + bytes <= self.config.queue_bytes_max;
        if fits && self.queue.try_send(Line { key: Arc::clone(&channel.key), entry }).is_ok() {
            self.counters.handed_over.fetch_add(1, Ordering::Release);
        } else {
            self.counters.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// One function's end of the log. Cheap to clone.
#[derive(Clone)]
pub struct FunctionLogs {
    shared: Arc<Shared>,
    channel: Arc<Channel>,
}

impl FunctionLogs {
    /// Hands over a line. Never waits: what does not fit is dropped and counted.
    pub fn line(&self, at: Timestamp, instance: &InstanceId, request: Option<&RequestId>, text: &[u8]) {
        // Cut before it is copied.
        let kept = text.len().min(self.shared.config.line_bytes_max + 1);
        let entry = LogEntry { time: at, request: request.cloned(), instance: instance.clone(), text: text[..kept].into() };
        self.shared.append(&self.channel, entry);
    }
}

/// The lines of one function, as they come.
pub struct Follow {
    lines: broadcast::Receiver<LogEntry>,
}

impl Follow {
    /// The next line; `None` when the log is closed. Cancel safe.
    pub async fn next(&mut self) -> Option<Followed> {
        match self.lines.recv().await {
            Ok(entry) => Some(Followed::Entry(entry)),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Followed::Missed(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_refills_with_time_and_counts_what_it_refused() {
        let second = |second| Timestamp::from_second(second).unwrap();
        let mut rate = Rate { tokens: 200, at: second(0), refused: 0 };
        assert_eq!(rate.take(150, 100, second(0)), Some(0));
        assert_eq!(rate.take(60, 100, second(0)), None);
        assert_eq!(rate.take(60, 100, second(0)), None);
        assert_eq!(rate.take(60, 100, second(1)), Some(2));
        assert_eq!(rate.take(201, 100, second(1000)), None);
        assert_eq!(rate.take(200, 100, second(1000)), Some(1));
        assert_eq!(rate.take(1, 100, second(5)), None, "a clock that goes back earns nothing");
    }
}
