//! What went wrong, in the one shape every command reports it.

use std::error::Error;

/// A failure: what could not be done, why, and what to do next.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    /// What failed, for example "cannot deploy 'hello'".
    pub(crate) what: String,
    /// Why.
    pub(crate) why: String,
    /// A command, or what to change.
    pub(crate) next: Option<String>,
    pub(crate) request_id: Option<String>,
}

/// The kinds of failure, one for each exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The function or the operation failed.
    Failed,
    NotFound,
    Denied,
    Conflict,
    Throttled,
    TimedOut,
    Unreachable,
    /// The command line asks for something that cannot be.
    Usage,
    Interrupted,
}

impl Kind {
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::NotFound => 3,
            Self::Denied => 4,
            Self::Conflict => 5,
            Self::Throttled => 6,
            Self::TimedOut => 7,
            Self::Unreachable => 8,
            Self::Usage => 64,
            Self::Interrupted => 130,
        }
    }

    /// By the status the platform answered with.
    pub(crate) fn of_status(status: u16) -> Self {
        match status {
            401 | 403 => Self::Denied,
            404 => Self::NotFound,
            408 | 504 => Self::TimedOut,
            409 | 412 => Self::Conflict,
            429 | 503 => Self::Throttled,
            _ => Self::Failed,
        }
    }
}

impl Failure {
    pub(crate) fn new(kind: Kind, what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { kind, what: what.into(), why: why.into(), next: None, request_id: None }
    }

    /// A failure of this machine's, with every cause.
    pub(crate) fn of(what: impl Into<String>, error: &(dyn Error + 'static)) -> Self {
        Self::new(Kind::Failed, what, chain(error))
    }

    pub(crate) fn usage(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(Kind::Usage, what, why)
    }

    pub(crate) fn next(self, next: impl Into<String>) -> Self {
        Self { next: Some(next.into()), ..self }
    }

    /// The same failure, as part of something larger.
    pub(crate) fn during(self, what: impl Into<String>) -> Self {
        Self { what: what.into(), ..self }
    }
}

/// An error with its causes, each said once.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}
