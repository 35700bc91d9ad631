//! One data directory, held by one platform.
//!
//! ```text
//! DIR/lock           held while the platform runs
//! DIR/installation   the installation's id, eight hexadecimal digits
//! DIR/uids           the block of host uids it had last
//! DIR/state/         the server's: 0700, owned by the server's uid
//! DIR/trees/         unpacked packages: 0700, root's; files of images belong to ids that people of the host may have
//! ```
//!
//! platform leaves in the kernel (cgroups, links, tables), so that a sweep removes what this installation left and
//! nothing of another's.
//!
//! # Invariants
//! - While an [`Installation`] lives, no second one is open on the same directory, whatever path it was reached by.
//! - The id is made once and stays with the directory.
//!
//! What is in `state` is the server's business; what is in `trees` is written by unpackers.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, lchown};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::uids::{Block, ClaimError};

/// Eight hexadecimal digits that tell one data directory's belongings from another's. Never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InstallationId(u32);

impl InstallationId {
    /// A new one.
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = [0; 4];
        getrandom::fill(&mut bytes).expect("the kernel has randomness once it has booted");
        Self(u32::from_le_bytes(bytes).max(1))
    }

    /// Its number.
    #[must_use]
    pub fn number(self) -> u32 {
        self.0
    }

    fn parse(text: &str) -> Option<Self> {
        let digits = text.trim_end();
        let plain = digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u32::from_str_radix(digits, 16).ok()?;
        (plain && number != 0).then_some(Self(number))
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
    #[error("another dunlin is running on {}", dir.display())]
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
    Uids(#[from] ClaimError),
}

/// An open data directory. Dropping it gives up the lock and the uids.
#[derive(Debug)]
pub struct Installation {
    dir: PathBuf,
    id: InstallationId,
    block: Block,
    _lock: File,
}

impl Installation {
    /// Opens `dir`, making it if need be. The caller is root.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        Self::open_with(dir, Block::claim)
    }

    fn open_with(dir: &Path, claim: impl FnOnce(Option<u32>) -> Result<Block, ClaimError>) -> Result<Self, OpenError> {
        DirBuilder::new().recursive(true).mode(0o755).create(dir).map_err(failed("make", dir))?;
        let dir = dir.canonicalize().map_err(failed("find", dir))?;
        let lock = lock(&dir)?;
        let id = read_or_make_id(&dir.join("installation"))?;

        let remembered = dir.join("uids");
        let preferred = fs::read_to_string(&remembered).ok().and_then(|text| text.trim_end().parse().ok());
        let block = claim(preferred)?;
        if preferred != Some(block.index()) {
            write_whole(&remembered, &format!("{}\n", block.index()))?;
        }

        let this = Self { dir, id, block, _lock: lock };
        ensure_dir(&this.trees_dir(), 0o700)?;
        ensure_dir(&this.state_dir(), 0o700)?;
        give(&this.state_dir(), this.block.server_uid())?;
        Ok(this)
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

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_path_buf();
    move |source| OpenError::Io { what, path, source }
}

fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&path)
        .map_err(failed("open", &path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::InUse { dir: dir.to_path_buf() }),
        Err(errno) => Err(failed("lock", &path)(errno.into())),
    }
}

fn read_or_make_id(path: &Path) -> Result<InstallationId, OpenError> {
    match fs::read_to_string(path) {
        Ok(text) => InstallationId::parse(&text).ok_or_else(|| OpenError::BadId { path: path.to_path_buf() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let id = InstallationId::random();
            write_whole(path, &format!("{id}\n"))?;
            Ok(id)
        }
        Err(error) => Err(failed("read", path)(error)),
    }
}

/// Writes a file so that it is there whole or not at all, whenever the power goes.
fn write_whole(path: &Path, text: &str) -> Result<(), OpenError> {
    let half = path.with_extension("new");
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&half)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&half, path)?;
        File::open(path.parent().expect("files of a data directory are in it"))?.sync_all()
    };
    write().map_err(failed("write", path))
}

fn ensure_dir(path: &Path, mode: u32) -> Result<(), OpenError> {
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => other.map_err(failed("make", path))?,
    }
    let found = fs::symlink_metadata(path).map_err(failed("look at", path))?;
    if !found.is_dir() {
        return Err(failed("use", path)(io::ErrorKind::NotADirectory.into()));
    }
    // The umask may have taken bits away, an operator may have added some.
    if found.permissions().mode() & 0o7777 != mode {
        fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed("set the mode of", path))?;
    }
    Ok(())
}

/// Makes `dir` and what is in it belong to `uid`: another platform may have had our block while we were away.
///
/// The directory's own owner is changed last, so that an interrupted change is made again. Links are not followed, and
/// what has a second name elsewhere is left alone.
fn give(dir: &Path, uid: u32) -> Result<(), OpenError> {
    let found = fs::symlink_metadata(dir).map_err(failed("look at", dir))?;
    if found.uid() == uid && found.gid() == uid {
        return Ok(());
    }
    for entry in fs::read_dir(dir).map_err(failed("list", dir))? {
        let path = entry.map_err(failed("list", dir))?.path();
        let found = fs::symlink_metadata(&path).map_err(failed("look at", &path))?;
        if found.is_dir() {
            give(&path, uid)?;
        } else if found.nlink() == 1 {
            lchown(&path, Some(uid), Some(uid)).map_err(failed("change the owner of", &path))?;
        }
    }
    lchown(dir, Some(uid), Some(uid)).map_err(failed("change the owner of", dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Opens `dir` once whoever held it has let go. Another test's child has copies of this process's locks between
    /// its fork and its exec, so that may be a moment after the drop.
    fn reopened(dir: &Path) -> Installation {
        let started = std::time::Instant::now();
        loop {
            match Installation::open(dir) {
                Err(OpenError::InUse { .. }) if started.elapsed().as_secs() < 30 => std::thread::yield_now(),
                opened => return opened.unwrap(),
            }
        }
    }

    #[test]
    fn a_second_platform_on_the_same_directory_is_refused_by_any_path() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("data");
        let alias = root.path().join("alias");
        std::os::unix::fs::symlink(&dir, &alias).unwrap();
        let first = Installation::open(&dir).unwrap();
        let error = Installation::open(&alias).unwrap_err();
        assert_eq!(error.to_string(), format!("another dunlin is running on {}", first.dir().display()));
        drop(first);
        reopened(&alias);
    }

    #[test]
    fn the_id_and_the_uids_stay_with_the_directory() {
        let root = tempfile::tempdir().unwrap();
        let first = Installation::open(root.path()).unwrap();
        let (id, block) = (first.id(), first.block().index());
        drop(first);
        let started = std::time::Instant::now();
        let mut again = reopened(root.path());
        while again.block().index() != block && started.elapsed().as_secs() < 30 {
            // The block's own lock was copied as well.
            drop(again);
            fs::write(root.path().join("uids"), format!("{block}\n")).unwrap();
            again = reopened(root.path());
        }
        assert_eq!((again.id(), again.block().index()), (id, block));
    }

    #[test]
    fn the_state_follows_the_servers_uid() {
        let root = tempfile::tempdir().unwrap();
        let first = Installation::open(root.path()).unwrap();
        let file = first.state_dir().join("blobs").join("x");
        fs::create_dir(first.state_dir().join("blobs")).unwrap();
        fs::write(&file, "x").unwrap();
        lchown(first.state_dir().join("blobs"), Some(1), Some(1)).unwrap();
        let outside = root.path().join("outside");
        fs::write(&outside, "x").unwrap();
        std::os::unix::fs::symlink(&outside, first.state_dir().join("link")).unwrap();
        fs::hard_link(&outside, first.state_dir().join("second-name")).unwrap();
        drop(first);
        // The state was somebody else's last time.
        lchown(root.path().join("state"), Some(2), Some(2)).unwrap();
        let again = reopened(root.path());
        let uid = again.block().server_uid();
        for path in [again.state_dir(), again.state_dir().join("blobs"), file, again.state_dir().join("link")] {
            assert_eq!(fs::symlink_metadata(&path).unwrap().uid(), uid, "{}", path.display());
        }
        assert_eq!(fs::symlink_metadata(&outside).unwrap().uid(), 0);
    }

    #[test]
    fn the_fixed_parts_have_their_modes() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("new/data");
        let open = Installation::open(&dir).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(open.dir()), 0o755);
        assert_eq!(mode(&open.state_dir()), 0o700);
        assert_eq!(mode(&open.trees_dir()), 0o700);
    }

    #[test]
    fn a_spoiled_id_is_refused_by_name() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("installation"), "dunlin\n").unwrap();
        assert!(matches!(Installation::open(root.path()), Err(OpenError::BadId { .. })));
    }

    #[test]
    fn an_id_is_eight_hexadecimal_digits() {
        let id = InstallationId::random();
        assert_eq!(InstallationId::parse(&id.to_string()), Some(id));
        for bad in ["", "1234567", "123456789", "1234567g", "+1234567", "00000000"] {
            assert_eq!(InstallationId::parse(bad), None, "{bad}");
        }
    }
}
