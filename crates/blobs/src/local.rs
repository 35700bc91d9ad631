//! Blobs as files of a local folder.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use dunlin_model::Digest;
use sha2::{Digest as _, Sha256};

use crate::{BlobError, BlobInfo, Blobs};

/// Where uploads are until they have a name. In the same file system, so that naming is one rename.
const UPLOADS: &str = "uploads";

/// See the crate. Cheap to clone.
#[derive(Clone)]
pub struct LocalBlobs {
    folder: Arc<Path>,
}

/// A blob on its way in, a chunk at a time. Dropped unfinished, it leaves nothing.
pub struct Upload {
    blobs: LocalBlobs,
    /// Absent while a blocking thread has it.
    state: Option<Growing>,
}

struct Growing {
    file: File,
    path: PathBuf,
    hash: Sha256,
    bytes: u64,
}

impl LocalBlobs {
    /// Opens the folder, makes it if it is not there, and sweeps uploads that a crash cut short. Blocks.
    ///
    /// # Errors
    /// The folder cannot be made or read.
    pub fn open(folder: &Path) -> Result<Self, BlobError> {
        let uploads = folder.join(UPLOADS);
        fs::create_dir_all(&uploads).map_err(|error| failed(&uploads, error))?;
        for entry in fs::read_dir(&uploads).map_err(|error| failed(&uploads, error))? {
            let path = entry.map_err(|error| failed(&uploads, error))?.path();
            fs::remove_file(&path).map_err(|error| failed(&path, error))?;
            tracing::debug!(path = %path.display(), "swept an upload that was never finished");
        }
        sync_folder(folder)?;
        Ok(Self { folder: folder.into() })
    }

    fn path(&self, digest: Digest) -> PathBuf {
        let name = digest.to_string();
        self.folder.join(&name[..2]).join(name)
    }

    /// Opens a blob and reads it through once.
    fn open_verified(&self, digest: Digest, mut keep: Option<&mut Vec<u8>>) -> Result<File, BlobError> {
        let path = self.path(digest);
        let mut file = File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => BlobError::NotFound { digest },
            _ => failed(&path, error),
        })?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 128 << 10];
        loop {
            let read = match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed(&path, error)),
            };
            hash.update(&buffer[..read]);
            if let Some(kept) = &mut keep {
                kept.extend_from_slice(&buffer[..read]);
            }
        }
        if Digest(hash.finalize().into()) != digest {
            tracing::error!(%digest, path = %path.display(), "a blob is damaged");
            return Err(BlobError::Damaged { digest, path });
        }
        file.rewind().map_err(|error| failed(&path, error))?;
        Ok(file)
    }

    fn list_now(&self) -> Result<Vec<BlobInfo>, BlobError> {
        let mut found = Vec::new();
        let read = |path: &Path| {
            fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(|error| failed(path, error))
        };
        for shelf in read(&self.folder)? {
            let is_shelf = shelf.file_name().len() == 2 && shelf.file_type().is_ok_and(|kind| kind.is_dir());
            if !is_shelf {
                continue;
            }
            for entry in read(&shelf.path())? {
                let Some(digest) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
                match entry.metadata() {
                    Ok(metadata) => found.push(BlobInfo { digest, size: metadata.len() }),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {} // removed meanwhile
                    Err(error) => return Err(failed(&entry.path(), error)),
                }
            }
        }
        found.sort_by_key(|blob| blob.digest);
        Ok(found)
    }
}

impl Growing {
    fn begin(blobs: &LocalBlobs) -> Result<Self, BlobError> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| failed(&blobs.folder, error.into()))?;
        let path = blobs.folder.join(UPLOADS).join(format!("{:032x}", u128::from_le_bytes(random)));
        let file = File::options().write(true).create_new(true).open(&path).map_err(|error| failed(&path, error))?;
        Ok(Self { file, path, hash: Sha256::new(), bytes: 0 })
    }

    fn write(&mut self, chunk: &[u8]) -> Result<(), BlobError> {
        self.file.write_all(chunk).map_err(|error| failed(&self.path, error))?;
        self.hash.update(chunk);
        self.bytes += chunk.len() as u64;
        Ok(())
    }

    /// Gives the upload its name.
    fn finish(self, blobs: &LocalBlobs, expected: Option<Digest>) -> Result<Digest, BlobError> {
        let digest = Digest(self.hash.clone().finalize().into());
        if let Some(expected) = expected.filter(|expected| *expected != digest) {
            return Err(BlobError::Mismatch { expected, actual: digest });
        }
        let path = blobs.path(digest);
        // What has the name already may be damaged; then the new bytes heal it.
        if blobs.open_verified(digest, None).is_ok() {
            return Ok(digest);
        }
        self.file.sync_all().map_err(|error| failed(&self.path, error))?;
        let shelf = path.parent().expect("a blob's path has a shelf");
        match fs::create_dir(shelf) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(shelf, error)),
            _ => {}
        }
        fs::rename(&self.path, &path).map_err(|error| failed(&path, error))?;
        // Both names must survive a power loss, the blob's and a new shelf's, whoever made it.
        sync_folder(shelf)?;
        sync_folder(&blobs.folder)?;
        Ok(digest)
    }
}

impl Drop for Growing {
    fn drop(&mut self) {
        // After a rename there is nothing left under this name.
        let _ = fs::remove_file(&self.path);
    }
}

impl Upload {
    /// Adds a chunk.
    ///
    /// # Errors
    /// The disk refused; the upload is over.
    pub async fn write(&mut self, chunk: Bytes) -> Result<(), BlobError> {
        let mut state = self.take()?;
        self.state = Some(blocking(move || state.write(&chunk).map(|()| state)).await?);
        Ok(())
    }

    /// Bytes that were added so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.state.as_ref().map_or(0, |state| state.bytes)
    }

    /// Makes a blob of the chunks, durable when it returns, if they have the digest that was `expected`.
    ///
    /// # Errors
    /// The disk refused, or the digest is another.
    pub async fn finish(mut self, expected: Option<Digest>) -> Result<Digest, BlobError> {
        let (state, blobs) = (self.take()?, self.blobs.clone());
        blocking(move || state.finish(&blobs, expected)).await
    }

    fn take(&mut self) -> Result<Growing, BlobError> {
        let over = || failed(&self.blobs.folder, io::Error::other("the upload failed before"));
        self.state.take().ok_or_else(over)
    }
}

#[async_trait]
impl Blobs for LocalBlobs {
    async fn put(&self, bytes: Bytes) -> Result<Digest, BlobError> {
        let blobs = self.clone();
        blocking(move || {
            let mut state = Growing::begin(&blobs)?;
            state.write(&bytes)?;
            state.finish(&blobs, None)
        })
        .await
    }

    async fn upload(&self) -> Result<Upload, BlobError> {
        let blobs = self.clone();
        blocking(move || {
            let state = Growing::begin(&blobs)?;
            Ok(Upload { blobs, state: Some(state) })
        })
        .await
    }

    async fn open(&self, digest: Digest) -> Result<File, BlobError> {
        let blobs = self.clone();
        blocking(move || blobs.open_verified(digest, None)).await
    }

    async fn read(&self, digest: Digest) -> Result<Bytes, BlobError> {
        let blobs = self.clone();
        blocking(move || {
            let mut bytes = Vec::new();
            blobs.open_verified(digest, Some(&mut bytes))?;
            Ok(bytes.into())
        })
        .await
    }

    async fn remove(&self, digest: Digest) -> Result<(), BlobError> {
        let path = self.path(digest);
        blocking(move || match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(&path, error)),
            _ => Ok(()),
        })
        .await
    }

    async fn list(&self) -> Result<Vec<BlobInfo>, BlobError> {
        let blobs = self.clone();
        blocking(move || blobs.list_now()).await
    }
}

fn failed(path: &Path, source: io::Error) -> BlobError {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => BlobError::Full,
        _ => BlobError::Io { path: path.to_owned(), source },
    }
}

fn sync_folder(path: &Path) -> Result<(), BlobError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(|error| failed(path, error))
}

/// Runs `work` where it may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, BlobError> + Send + 'static) -> Result<T, BlobError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(BlobError::Io { path: PathBuf::new(), source: io::Error::other(error) }),
    }
}
