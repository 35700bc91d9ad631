//! Reading lines back.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use dunlin_model::FunctionKey;

use super::segment::{Segment, nanoseconds, records};
use super::{LogEntry, LogQuery, LogsError};

/// Most bytes of text in one answer; the newest lines win.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Where a function's segments are. Both names were checked to be harmless when they were made.
pub(super) fn folder(root: &Path, key: &FunctionKey) -> PathBuf {
    root.join(key.account().as_str()).join(key.name().as_str())
}

/// Walks the segments from the newest back, until there is enough. Blocks.
pub(super) fn run(folder: &Path, query: &LogQuery) -> Result<Vec<LogEntry>, LogsError> {
    let failed = |path: &Path, source| LogsError::Io { path: path.to_owned(), source };
    let limit = if query.limit == 0 { 1000 } else { query.limit.min(10_000) };
    let since = query.since.map_or(i64::MIN, nanoseconds);
    let until = query.until.map_or(i64::MAX, nanoseconds);
    let mut answer: VecDeque<LogEntry> = VecDeque::new();
    let mut answer_bytes = 0;
    let mut segments = Segment::list(folder).map_err(|error| failed(folder, error))?;
    let mut read = Vec::new();
    while let Some(segment) = segments.pop() {
        if segment.first >= until || segment.last.is_some_and(|last| last < since) || read.contains(&segment.first) {
            continue;
        }
        read.push(segment.first);
        let bytes = match segment.read() {
            Ok(bytes) => bytes,
            // Sealed or removed since it was listed: what there is now is looked at instead, once.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let sealed = Segment::list(folder)
                    .map_err(|error| failed(folder, error))?
                    .into_iter()
                    .find(|other| other.first == segment.first);
                match sealed.map(|sealed| sealed.read()) {
                    Some(Ok(bytes)) => bytes,
                    _ => continue,
                }
            }
            Err(error) => return Err(failed(&segment.path, error)),
        };
        let fitting: Vec<_> = records(&bytes).map(|(entry, _)| entry).filter(|entry| fits(entry, query, since, until)).collect();
        for entry in fitting.into_iter().rev() {
            answer_bytes += entry.text.len();
            if answer.len() == limit || answer_bytes > ANSWER_BYTES_MAX {
                return Ok(answer.into());
            }
            answer.push_front(entry);
        }
    }
    Ok(answer.into())
}

fn fits(entry: &LogEntry, query: &LogQuery, since: i64, until: i64) -> bool {
    let time = nanoseconds(entry.time);
    (since..until).contains(&time)
        && query.request.as_ref().is_none_or(|request| entry.request.as_ref() == Some(request))
        && query.contains.as_ref().is_none_or(|needle| contains(&entry.text, needle.as_bytes()))
}

fn contains(text: &[u8], needle: &[u8]) -> bool {
    needle.is_empty() || text.windows(needle.len()).any(|window| window == needle)
}
