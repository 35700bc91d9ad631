//! Why a call is turned away although nothing is wrong, and when it may come again.

use std::fmt;
use std::time::Duration;

/// What keeps a function from having one more instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// It has as many as it may.
    Function(usize),
    /// Its account has as many as it may.
    Account(usize),
    /// The memory for instances is used up.
    Node,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Function(most) => write!(f, "the function has reached its limit of {most} instances"),
            Self::Account(most) => write!(f, "the account has reached its limit of {most} instances"),
            Self::Node => f.write_str("the platform has no memory for another instance"),
        }
    }
}

/// Where calls wait, and how many may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Room {
    /// The calls of one function.
    Function(usize),
    /// The calls of one account.
    Account(usize),
    /// All calls.
    Node(usize),
}

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Function(most) => write!(f, "{most} calls of the function wait already, as many as may"),
            Self::Account(most) => write!(f, "{most} calls of the account wait already, as many as may"),
            Self::Node(most) => write!(f, "{most} calls wait for the platform already, as many as may"),
        }
    }
}

/// Why a call got no instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Throttled {
    /// The function may have no instance.
    #[error("the function's limit is 0 instances, so that it cannot be called")]
    Disabled,
    /// Only instances that are kept ready may serve it, and all of them are taken.
    #[error("the function has no instances but the {instances} that are provisioned, and all of them are taken")]
    Provisioned {
        /// How many are kept.
        instances: usize,
    },
    /// The room where it would have waited is full.
    #[error("too many calls are waiting: {room}")]
    Crowded {
        /// Which room.
        room: Room,
        /// How long the room's longest queue takes, as far as that is known.
        expected: Option<Duration>,
    },
    /// It would have waited longer than it may, so it was told at once.
    #[error("{limit}, and the calls that wait already will take about {} s", .expected.as_secs().max(1))]
    Hopeless {
        /// What keeps the function from growing.
        limit: Limit,
        /// How long the call would have waited.
        expected: Duration,
    },
    /// It waited as long as it may.
    #[error("no instance came free within the time a call may wait{}", .limit.map(|limit| format!(": {limit}")).unwrap_or_default())]
    Waited {
        /// What kept the function from growing, if a limit did.
        limit: Option<Limit>,
        /// How long the next call would wait, as far as that is known.
        expected: Option<Duration>,
    },
}

/// Nobody is sent away for longer than this: queues are short-lived.
const RETRY_AFTER_MAX: u64 = 60;

impl Throttled {
    /// Whether it met a limit or the load of its own function or account, and not the platform's.
    #[must_use]
    pub fn is_callers(&self) -> bool {
        match self {
            Self::Disabled | Self::Provisioned { .. } => true,
            Self::Crowded { room, .. } => !matches!(room, Room::Node(_)),
            Self::Hopeless { limit, .. } => *limit != Limit::Node,
            Self::Waited { limit, .. } => limit.is_some_and(|limit| limit != Limit::Node),
        }
    }

    /// After how many seconds another attempt makes sense; at least one.
    #[must_use]
    pub fn retry_after_seconds(&self) -> u64 {
        let expected = match self {
            Self::Disabled => return RETRY_AFTER_MAX,
            Self::Provisioned { .. } => return 1,
            Self::Crowded { expected, .. } | Self::Waited { expected, .. } => expected.unwrap_or_default(),
            Self::Hopeless { expected, .. } => *expected,
        };
        (expected.as_millis().div_ceil(1000) as u64).clamp(1, RETRY_AFTER_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_limit_it_met() {
        let waited = Throttled::Waited { limit: Some(Limit::Account(300)), expected: None };
        let text = "no instance came free within the time a call may wait: the account has reached its limit of 300 instances";
        assert_eq!(waited.to_string(), text);
        let crowded = Throttled::Crowded { room: Room::Function(5000), expected: None };
        assert_eq!(crowded.to_string(), "too many calls are waiting: 5000 calls of the function wait already, as many as may");
    }

    #[test]
    fn callers_are_sent_away_for_a_whole_number_of_seconds() {
        let after = |millis| {
            let expected = Duration::from_millis(millis);
            Throttled::Hopeless { limit: Limit::Node, expected }.retry_after_seconds()
        };
        assert_eq!([after(0), after(1000), after(1001), after(3_600_000)], [1, 1, 2, 60]);
    }
}
