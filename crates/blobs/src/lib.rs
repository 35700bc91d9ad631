//! Code packages and other large values, addressed by the SHA-256 of their bytes.
//!
//! [`LocalBlobs`] keeps each blob as one file, `ab/abcdef…`, under a folder of its own. A blob is written under a
//! temporary name, synced, and only then given its name; what a crash left half-written is swept at the next start.
//!
//! # Invariants
//! - A file with a blob's name holds that blob whole: names are given after the sync, and the folder is synced after.
//! - Bytes that do not match their address are never given out by [`Blobs::read`]; [`Blobs::open`] proves them first.
//! - Putting the same bytes twice is the same as once, also at the same time.
//!
//! Which blobs are still needed is known in `store`; what is in them is nobody's business here.

mod local;

use std::fs::File;
use std::io;
use std::path::PathBuf;

use async_trait::async_trait;
use bytes::Bytes;
use dunlin_model::Digest;

pub use local::{LocalBlobs, Upload};

/// Why a blob was not kept, given or removed.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// There is no such blob.
    #[error("blob {digest} does not exist")]
    NotFound {
        /// Its address.
        digest: Digest,
    },
    /// The stored bytes are not the ones that were put.
    #[error("blob {digest} is damaged: {} does not hold what its name says", path.display())]
    Damaged {
        /// Its address.
        digest: Digest,
        /// Where it is.
        path: PathBuf,
    },
    /// No space is left.
    #[error("the disk of the blobs is full")]
    Full,
    /// The bytes do not have the digest that was announced.
    #[error("the bytes have the digest {actual}, not {expected}")]
    Mismatch {
        /// What was announced.
        expected: Digest,
        /// What they have.
        actual: Digest,
    },
    /// The disk refused.
    #[error("cannot use {}", path.display())]
    Io {
        /// What was used.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl BlobError {
    /// Whether the same may succeed later without anybody's help but time's.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Full | Self::Io { .. } => true,
            Self::NotFound { .. } | Self::Damaged { .. } | Self::Mismatch { .. } => false,
        }
    }
}

/// One blob in a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobInfo {
    /// Its address.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
}

/// Where large values are kept.
#[async_trait]
pub trait Blobs: Send + Sync + 'static {
    /// Keeps `bytes` and gives their address. Durable when it returns.
    async fn put(&self, bytes: Bytes) -> Result<Digest, BlobError>;
    /// Begins a blob whose bytes come in chunks.
    async fn upload(&self) -> Result<Upload, BlobError>;
    /// Opens a blob for another process to read, after its bytes were verified.
    async fn open(&self, digest: Digest) -> Result<File, BlobError>;
    /// Reads a blob, verified.
    async fn read(&self, digest: Digest) -> Result<Bytes, BlobError>;
    /// Removes a blob. One that is not there is gone already.
    async fn remove(&self, digest: Digest) -> Result<(), BlobError>;
    /// All blobs, by address.
    async fn list(&self) -> Result<Vec<BlobInfo>, BlobError>;
}
