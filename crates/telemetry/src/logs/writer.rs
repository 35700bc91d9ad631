//! The thread that writes lines to disk.
//!
//! A disk that fails costs lines, never a call: what cannot be written is dropped and counted, the file is cut back to
//! its last whole record, and the next batch is tried again.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use dunlin_model::FunctionKey;
use jiff::Timestamp;
use tokio::sync::watch;

use super::door::Counters;
use super::retention::{Kept, expired};
use super::segment::{Segment, encode, nanoseconds, records, seal};
use super::{LogEntry, LogsConfig, query};

/// How long lines gather before they are written together: whoever prints does not wake this thread for each of them.
const GATHER: Duration = Duration::from_millis(10);
/// Lines taken from the queue at once.
const BATCH_LINES_MAX: usize = 1024;
/// Files open at once.
const OPEN_MAX: usize = 128;
/// How often old segments are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

pub(super) struct Line {
    pub(super) key: Arc<FunctionKey>,
    pub(super) entry: LogEntry,
}

pub(super) struct Writer {
    config: LogsConfig,
    counters: Arc<Counters>,
    progress: watch::Sender<u64>,
    open: HashMap<Arc<FunctionKey>, Active>,
    /// When the disk's last failure was told.
    complained: Option<Instant>,
}

/// A segment that is being written.
struct Active {
    file: File,
    path: PathBuf,
    first: i64,
    last: i64,
    bytes: u64,
    used: Instant,
}

impl Writer {
    pub(super) fn new(config: LogsConfig, counters: Arc<Counters>, progress: watch::Sender<u64>) -> Self {
        Self { config, counters, progress, open: HashMap::new(), complained: None }
    }

    pub(super) fn spawn(self, lines: Receiver<Line>) -> io::Result<()> {
        std::thread::Builder::new().name("log-writer".into()).spawn(move || self.run(&lines)).map(drop)
    }

    fn run(mut self, lines: &Receiver<Line>) {
        self.sweep();
        let mut swept = Instant::now();
        loop {
            match lines.recv_timeout(SWEEP_INTERVAL) {
                Ok(first) => {
                    std::thread::sleep(GATHER);
                    let mut batch = vec![first];
                    batch.extend(lines.try_iter().take(BATCH_LINES_MAX - 1));
                    let length = batch.len() as u64;
                    self.write(batch);
                    self.progress.send_modify(|done| *done += length);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if swept.elapsed() >= SWEEP_INTERVAL {
                self.sweep();
                swept = Instant::now();
            }
        }
    }

    fn write(&mut self, batch: Vec<Line>) {
        let mut of_function: HashMap<Arc<FunctionKey>, Vec<LogEntry>> = HashMap::new();
        for line in batch {
            self.counters.queued_bytes.fetch_sub(line.entry.text.len(), Ordering::Relaxed);
            of_function.entry(line.key).or_default().push(line.entry);
        }
        for (key, entries) in of_function {
            if let Err((path, error)) = self.write_function(&key, &entries) {
                self.counters.dropped.fetch_add(entries.len() as u64, Ordering::Relaxed);
                if self.complained.is_none_or(|complained| complained.elapsed() > SWEEP_INTERVAL) {
                    tracing::warn!(%error, path = %path.display(), "lines of functions are dropped: they cannot be written");
                    self.complained = Some(Instant::now());
                }
            }
        }
    }

    fn write_function(&mut self, key: &Arc<FunctionKey>, entries: &[LogEntry]) -> Result<(), (PathBuf, io::Error)> {
        let folder = query::folder(&self.config.folder, key);
        if !self.open.contains_key(key) {
            self.close_longest_unused();
            let first = nanoseconds(entries[0].time);
            let active = Active::open(&folder, first, self.config.segment_bytes).map_err(|error| (folder.clone(), error))?;
            self.open.insert(Arc::clone(key), active);
        }
        let active = self.open.get_mut(key).expect("it was opened above");
        let mut bytes = Vec::new();
        entries.iter().for_each(|entry| encode(entry, &mut bytes));
        if let Err(error) = active.file.write_all(&bytes) {
            let active = self.open.remove(key).expect("it was opened above");
            let _ = active.file.set_len(active.bytes); // else the next opening finds the torn end
            return Err((active.path, error));
        }
        active.bytes += bytes.len() as u64;
        active.used = Instant::now();
        for entry in entries {
            active.last = active.last.max(nanoseconds(entry.time));
        }
        if active.bytes >= self.config.segment_bytes {
            let active = self.open.remove(key).expect("it was opened above");
            seal(&active.path, active.first, active.last).map_err(|error| (active.path, error))?;
            let segments = Segment::list(&folder).map_err(|error| (folder.clone(), error))?;
            self.remove_expired(kept(&folder, segments));
        }
        Ok(())
    }

    fn close_longest_unused(&mut self) {
        if self.open.len() < OPEN_MAX {
            return;
        }
        if let Some(key) = self.open.iter().min_by_key(|(_, active)| active.used).map(|(key, _)| Arc::clone(key)) {
            self.open.remove(&key);
        }
    }

    /// Removes what is too old or too much, over all functions.
    fn sweep(&mut self) {
        self.open.retain(|_, active| active.used.elapsed() < SWEEP_INTERVAL * 10);
        let mut all = Vec::new();
        for account in folders(&self.config.folder) {
            for folder in folders(&account) {
                match Segment::list(&folder) {
                    Ok(segments) if segments.is_empty() => {
                        let _ = fs::remove_dir(&folder); // fails if something is in it after all
                    }
                    Ok(segments) => all.extend(kept(&folder, segments)),
                    Err(error) => tracing::warn!(%error, path = %folder.display(), "a folder of lines cannot be read"),
                }
            }
            let _ = fs::remove_dir(&account); // only if it is empty
        }
        self.remove_expired(all);
    }

    fn remove_expired(&mut self, segments: Vec<Kept>) {
        for path in expired(segments, &self.config, nanoseconds(Timestamp::now())) {
            self.open.retain(|_, active| active.path != path);
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(%error, path = %path.display(), "old lines of a function cannot be removed");
            }
        }
    }
}

impl Active {
    /// Goes on with the function's open segment, without a torn end, or begins one.
    fn open(folder: &Path, first: i64, bytes_max: u64) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let newest = Segment::list(folder)?.pop();
        if let Some(segment) = newest.as_ref().filter(|segment| segment.last.is_none()) {
            let bytes = segment.read()?;
            let (mut end, mut last) = (0, segment.first);
            for (entry, after) in records(&bytes) {
                end = after;
                last = last.max(nanoseconds(entry.time));
            }
            if (end as u64) < bytes_max {
                let file = File::options().append(true).open(&segment.path)?;
                file.set_len(end as u64)?;
                return Ok(Self {
                    file,
                    path: segment.path.clone(),
                    first: segment.first,
                    last,
                    bytes: end as u64,
                    used: Instant::now(),
                });
            }
            seal(&segment.path, segment.first, last)?;
        }
        // Names rise even when the clock goes back.
        let first = newest.map_or(first, |newest| first.max(newest.first + 1)).max(0);
        let path = Segment::open_path(folder, first);
        let file = File::options().append(true).create_new(true).open(&path)?;
        Ok(Self { file, path, first, last: first, bytes: 0, used: Instant::now() })
    }
}

fn kept(folder: &Path, segments: Vec<Segment>) -> Vec<Kept> {
    let kept = |segment: Segment| Kept {
        last: segment.last.unwrap_or_else(|| modified(&segment.path)),
        folder: folder.into(),
        path: segment.path,
        bytes: segment.bytes,
    };
    segments.into_iter().map(kept).collect()
}

/// When a file was last written, in nanoseconds since 1970; what cannot be read counts as new.
fn modified(path: &Path) -> i64 {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    let since = modified.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    since.and_then(|since| i64::try_from(since.as_nanos()).ok()).unwrap_or(i64::MAX)
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}
