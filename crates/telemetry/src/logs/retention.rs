//! What may stay. Decides on a list of segments; the writer removes.

use std::collections::HashMap;
use std::path::PathBuf;

use super::LogsConfig;

/// A segment that could go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    /// Whose it is.
    pub(super) folder: PathBuf,
    pub(super) path: PathBuf,
    /// Nanoseconds since 1970 of its newest line.
    pub(super) last: i64,
    pub(super) bytes: u64,
}

/// Which of `segments` must go at `now`: the too old, then the oldest of functions with too much, then the oldest of all.
pub(super) fn expired(mut segments: Vec<Kept>, config: &LogsConfig, now: i64) -> Vec<PathBuf> {
    let age_max = i64::try_from(config.age_max.as_nanos()).unwrap_or(i64::MAX);
    segments.sort_by_key(|segment| segment.last);
    let mut per_function: HashMap<PathBuf, u64> = HashMap::new();
    let mut total = 0;
    for segment in &segments {
        *per_function.entry(segment.folder.clone()).or_default() += segment.bytes;
        total += segment.bytes;
    }
    let mut gone = Vec::new();
    for segment in segments {
        let of_function = per_function.get_mut(&segment.folder).expect("every segment was counted");
        let too_old = segment.last < now.saturating_sub(age_max);
        if too_old || *of_function > config.function_bytes_max || total > config.total_bytes_max {
            *of_function -= segment.bytes;
            total -= segment.bytes;
            gone.push(segment.path);
        }
    }
    gone
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_old_the_many_and_the_oldest_of_all_go() {
        let segment = |folder: &str, last: i64, bytes: u64| Kept {
            folder: folder.into(),
            path: format!("{folder}/{last}").into(),
            last,
            bytes,
        };
        let config = LogsConfig {
            age_max: Duration::from_nanos(100),
            function_bytes_max: 30,
            total_bytes_max: 50,
            ..LogsConfig::new("".into())
        };
        let check = |segments: Vec<Kept>, expected: &[&str]| {
            let gone = expired(segments, &config, 1000);
            assert_eq!(gone, expected.iter().map(PathBuf::from).collect::<Vec<_>>());
        };
        check(vec![segment("f", 950, 10), segment("f", 899, 10)], &["f/899"]);
        check(vec![segment("f", 950, 20), segment("f", 940, 20), segment("g", 930, 10)], &["f/940"]);
        check(vec![segment("f", 990, 30), segment("g", 980, 30)], &["g/980"]);
    }
}
