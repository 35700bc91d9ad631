//! How booting, starting and calling can fail. One variant per thing a caller does differently.

use std::io;

use dunlin_model::FunctionError;
use dunlin_sandbox::{BindError, Ended};

/// Why a cell never became a guest: always the platform's fault, no user code has been near it.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The bootstrap did not say that it is ready in time.
    #[error("the bootstrap was silent until the deadline; it printed: {printed:?}")]
    Silent {
        /// The end of what it wrote to stdout and stderr.
        printed: String,
    },
    /// The cell ended first.
    #[error("the bootstrap ended with {ended:?}; it printed: {printed:?}")]
    Exited {
        /// How.
        ended: Ended,
        /// The end of what it wrote to stdout and stderr.
        printed: String,
    },
    /// The program could not be executed.
    #[error("the launcher cannot start the interpreter: {0}")]
    Exec(String),
    /// Something else than `Ready` came.
    #[error("the bootstrap broke the wire: {0}")]
    Protocol(String),
    /// A descriptor of the cell could not be used.
    #[error("cannot use the cell's descriptors")]
    Io(#[from] io::Error),
}

/// A failure, and what the function printed before it.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Failed<E> {
    /// What went wrong.
    pub error: E,
    /// The user's lines, last 4 KB, when they were captured.
    pub log_tail: Vec<u8>,
}

impl<E> From<E> for Failed<E> {
    fn from(error: E) -> Self {
        Self { error, log_tail: Vec::new() }
    }
}

/// Why a guest did not become an instance.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// User code failed while it was loaded; the caller gets this error.
    #[error("user code failed to load")]
    Function(FunctionError),
    /// The start command does not exist.
    #[error("the start command was not found")]
    FileNotFound,
    /// The start command is not executable.
    #[error("the start command is not executable")]
    FilePermission,
    /// Not up before the deadline.
    #[error("the instance was not up in time")]
    TimedOut,
    /// The process ended before it was up.
    #[error("the process ended before it was up: {0:?}")]
    Exited(Ended),
    /// The guest broke the wire.
    #[error("the guest broke the wire: {0}")]
    Protocol(String),
    /// The platform could not do its part.
    #[error("the sandbox failed")]
    Sandbox(#[from] BindError),
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The function failed in a way its runtime could still report. The instance may serve on.
    #[error("the function failed ({})", .0.error_type.as_str())]
    Function(FunctionError),
    /// Not answered before the deadline. The instance must be discarded.
    #[error("the call ran out of time")]
    TimedOut,
    /// The instance ended. Out of memory is [`Ended::out_of_memory`].
    #[error("the instance ended during the call: {0:?}")]
    Exited(Ended),
    /// The guest was gone before it had read the call: no handler has seen it, and another instance may have it. The
    /// instance must be discarded.
    #[error("the instance was gone before it had read the call")]
    NotDelivered,
    /// The guest broke the wire. The instance must be discarded.
    #[error("the guest broke the wire: {0}")]
    Protocol(String),
    /// The user's server gave a response that cannot be passed on.
    #[error("bad response: {0}")]
    BadResponse(String),
    /// The answer is over the limit.
    #[error("the answer is larger than {limit} bytes")]
    TooLarge {
        /// In bytes.
        limit: usize,
    },
}

impl CallError {
    /// Whether the instance is of no further use.
    #[must_use]
    pub fn ends_instance(&self) -> bool {
        match self {
            Self::Function(_) | Self::BadResponse(_) => false,
            Self::TimedOut | Self::Exited(_) | Self::NotDelivered | Self::Protocol(_) | Self::TooLarge { .. } => true,
        }
    }
}
