//! Sessions by name: whose a call is, and when one ends.
//!
//! [`Book`] is a pure state machine with an injected clock: it knows names, terms and calls, and tells the engine which
//! number a call has and which numbers are over. Which instance a session has is the engine's business. Both stand under
//! the pool's one lock, so that a session is never in the book and over, or the other way round.
//!
//! A session is named within a function *and a qualifier*, and stays with the version it began with: the shares of an
//! alias are for new sessions. It lives in memory, as the instances it leads to do, and ends with the platform.
//!
//! # Invariants
//! - A session ends when its time is up, or when it had no call for as long as its terms say; never during a call for the
//!   second reason.
//! - What a call began and no instance ever served leaves nothing.
//! - What is kept of sessions that have expired is bounded.

mod book;
mod call;
#[cfg(test)]
mod tests;

use std::time::Duration;

use dunlin_model::{FunctionKey, InstanceId, SessionId, SessionRules};
use jiff::Timestamp;

pub(crate) use self::book::Book;
pub use self::call::SessionCall;

/// Names one session.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey {
    /// Whose.
    pub function: FunctionKey,
    /// As what the function was called: `LATEST`, a version's number or an alias.
    pub qualifier: Box<str>,
    /// Its id.
    pub id: SessionId,
}

/// How long a session lives, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionTerms {
    /// From its beginning.
    pub ttl: Duration,
    /// Without a call; none leaves it to `ttl`.
    pub idle: Option<Duration>,
    /// Its id is refused once it has expired.
    pub disable_id_reuse: bool,
    /// It is paused when it was without a call for so long, instead of ending.
    pub auto_pause: bool,
    /// A call resumes it.
    pub auto_resume: bool,
}

impl SessionTerms {
    /// Those of a session of which nothing else was said.
    #[must_use]
    pub fn of(rules: &SessionRules) -> Self {
        let seconds = |seconds: u32| Duration::from_secs(u64::from(seconds));
        Self {
            ttl: seconds(rules.ttl_s),
            idle: (rules.idle_s > 0).then(|| seconds(rules.idle_s)),
            disable_id_reuse: rules.disable_id_reuse,
            auto_pause: false,
            auto_resume: false,
        }
    }
}

/// Where a session is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionStatus {
    /// Calls are served.
    Active,
    /// Calls are refused; its instance stands still if it has no other session.
    Paused,
    /// It is remembered for a while.
    Expired,
}

/// One session, for lists.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionInfo {
    /// Its name.
    pub key: SessionKey,
    /// By what its calls tell it, as the wire spells it.
    pub affinity: &'static str,
    /// Where it is.
    pub status: SessionStatus,
    /// How long.
    pub terms: SessionTerms,
    /// When it began.
    pub created: Timestamp,
    /// When it was last changed by its owner.
    pub modified: Timestamp,
    /// Where its calls go, once it has an instance.
    pub instance: Option<InstanceId>,
    /// What the control plane keeps with it.
    pub notes: Box<str>,
}

/// Why a session cannot be had or changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionRefusal {
    /// There is none of this id.
    #[error("session '{id}' does not exist")]
    NotFound {
        /// As asked for.
        id: SessionId,
    },
    /// It has expired, and its id is not used again.
    #[error("session '{id}' has expired, and its id cannot be used again")]
    Expired {
        /// As asked for.
        id: SessionId,
    },
    /// It is paused and does not resume by itself.
    #[error("session '{id}' is paused; resume it first")]
    Paused {
        /// As asked for.
        id: SessionId,
    },
    /// There is one of this id.
    #[error("session '{id}' already exists")]
    Exists {
        /// As asked for.
        id: SessionId,
    },
}
