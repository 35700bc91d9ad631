//! Why a store did not do what it was asked: one enum per operation a caller can act on.

use std::io;
use std::path::PathBuf;

use dunlin_model::{Revision, VersionId};

/// The store itself failed; nothing was changed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// No space is left. Clears by itself when space returns.
    #[error("the store's disk is full")]
    Full,
    /// The disk may not have kept what it was told to keep. Nothing more is written until a restart.
    #[error("the store stopped writing after a disk error: {detail}")]
    Poisoned {
        /// The first error.
        detail: String,
    },
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
    /// A stored row cannot be read.
    #[error("a stored {what} is damaged: {detail}")]
    Damaged {
        /// Which kind of row.
        what: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// Anything else SQLite reports.
    #[error("the store failed: {detail}")]
    Failed {
        /// Its message.
        detail: String,
    },
}

impl StoreError {
    /// Whether the same write may succeed later without anybody's help but time's.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Full | Self::Failed { .. } => true,
            Self::Poisoned { .. } | Self::Closed | Self::Damaged { .. } => false,
        }
    }
}

/// Why something was not created.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CreateError {
    /// The name is taken.
    #[error("it exists already")]
    AlreadyExists,
    /// Its parent holds as many as it may.
    #[error("at most {limit} are allowed")]
    LimitExceeded {
        /// How many it may hold.
        limit: usize,
    },
    /// Its function does not exist.
    #[error("its function does not exist")]
    FunctionNotFound,
    /// Another trigger has this URL prefix.
    #[error("its URL prefix is taken")]
    PrefixTaken,
    /// A version it points to does not exist.
    #[error("version {id} does not exist")]
    VersionNotFound {
        /// Which.
        id: VersionId,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why something was not replaced.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReplaceError {
    /// There is nothing to replace.
    #[error("it does not exist")]
    NotFound,
    /// Somebody else wrote since.
    #[error("it is at revision {} by now", actual.0)]
    Conflict {
        /// Its revision.
        actual: Revision,
    },
    /// A version it points to does not exist.
    #[error("version {id} does not exist")]
    VersionNotFound {
        /// Which.
        id: VersionId,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a setting was not written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PutError {
    /// Its function does not exist.
    #[error("its function does not exist")]
    FunctionNotFound,
    /// Somebody else wrote since.
    #[error("it is at revision {} by now", actual.0)]
    Conflict {
        /// Its revision; 0 when it is gone.
        actual: Revision,
    },
    /// The account's settings of this kind together would take more than there is.
    #[error("at most {max} can be set aside, and {taken} are already")]
    ShareExceeded {
        /// What there is.
        max: u64,
        /// What the others take.
        taken: u64,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why something was not deleted.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DeleteError {
    /// There is nothing to delete.
    #[error("it does not exist")]
    NotFound,
    /// Something still belongs to it.
    #[error("it is not empty")]
    NotEmpty,
    /// Somebody else wrote since.
    #[error("it is at revision {} by now", actual.0)]
    Conflict {
        /// Its revision.
        actual: Revision,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a store file was refused. The file is left as it was.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{} is in use by another process", path.display())]
    Locked {
        /// The store.
        path: PathBuf,
    },
    /// A newer release wrote it.
    #[error("{} has schema version {found}; this release reads up to {known}: start the newer release, or restore a back-up", path.display())]
    ForeignVersion {
        /// The store.
        path: PathBuf,
        /// What it says.
        found: i64,
        /// The newest this release has.
        known: i64,
    },
    /// It is a database of something else.
    #[error("{} is a SQLite database, but not one of this platform: move it away", path.display())]
    NotOurs {
        /// The store.
        path: PathBuf,
    },
    /// Its pages or rows are damaged.
    #[error("{} is damaged: {detail}; restore a back-up, or move it and its -wal file away to start empty", path.display())]
    Corrupt {
        /// The store.
        path: PathBuf,
        /// What the check found first.
        detail: String,
    },
    /// The system refused.
    #[error("cannot open {}", path.display())]
    Io {
        /// What was opened.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// SQLite refused.
    #[error("cannot open {}", path.display())]
    Sqlite {
        /// The store.
        path: PathBuf,
        /// Why not.
        source: rusqlite::Error,
    },
}
