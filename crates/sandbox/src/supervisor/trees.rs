//! The directory of unpacked packages.
//!
//! # Invariants
//! - A tree has its name only once it is root's, read-only and on disk.
//! - The files of a tree stay as long as a cell has it mounted, also when the tree was discarded meanwhile.
//! - Names are digests in hexadecimal and `.tmp-<n>`; nothing else is made here, and every path is resolved from the
//!   directory's descriptor, beneath it and through no symbolic link.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use dunlin_model::Digest;
use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, RawDir, RenameFlags, ResolveFlags, Stat, Uid};
use rustix::io::Errno;

use crate::uids::RANGE_SIZE;

/// Deeper trees than this are refused, and flattened when they are removed.
const DEPTH_MAX: usize = 64;

const TEMPORARY: &str = ".tmp-";

/// All trees.
pub(super) struct Trees {
    directory: OwnedFd,
    last: AtomicU64,
    held: Mutex<HashMap<Digest, Held>>,
}

/// A tree that live cells have mounted.
#[derive(Default)]
struct Held {
    cells: usize,
    /// Temporary names of discarded trees of this digest, to be removed with the last cell.
    discarded: Vec<String>,
}

/// A directory for one unpacker.
pub(super) struct Temporary {
    pub(super) name: String,
    pub(super) directory: OwnedFd,
}

impl Trees {
    /// Opens the directory and removes what an earlier run left half done.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let directory = rustix::fs::open(path, flags, Mode::empty())?;
        let trees = Self { directory, last: AtomicU64::new(0), held: Mutex::default() };
        let mut left = Vec::new();
        for entry in Dir::read_from(&trees.directory)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.starts_with(TEMPORARY) {
                left.push(name);
            }
        }
        for name in left {
            trees.remove_temporary(&name)?;
        }
        Ok(trees)
    }

    /// Whether the package is unpacked.
    pub(super) fn contains(&self, package: Digest) -> io::Result<bool> {
        Ok(self.open_tree(package)?.is_some())
    }

    /// Opens a tree for one more cell. `None` when there is no such tree.
    pub(super) fn hold(&self, package: Digest) -> io::Result<Option<OwnedFd>> {
        let mut held = self.held();
        let tree = self.open_tree(package)?;
        if tree.is_some() {
            held.entry(package).or_default().cells += 1;
        }
        Ok(tree)
    }

    /// One cell less has the tree. Returns what can be removed now.
    #[must_use]
    pub(super) fn release(&self, package: Digest) -> Vec<String> {
        let mut held = self.held();
        let Some(entry) = held.get_mut(&package) else { return Vec::new() };
        entry.cells -= 1;
        if entry.cells > 0 {
            return Vec::new();
        }
        held.remove(&package).map(|entry| entry.discarded).unwrap_or_default()
    }

    /// Takes a tree's name away; removes its files unless a cell has it mounted, then the last one's end does.
    pub(super) fn discard(&self, package: Digest) -> io::Result<()> {
        let name = self.temporary_name();
        {
            let mut held = self.held();
            match rustix::fs::renameat(&self.directory, package.to_string(), &self.directory, &name) {
                Ok(()) => {}
                Err(Errno::NOENT) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            if let Some(entry) = held.get_mut(&package) {
                entry.discarded.push(name);
                return Ok(());
            }
        }
        self.remove_temporary(&name)
    }

    /// A new directory that `uid` alone may use.
    pub(super) fn make_temporary(&self, uid: u32) -> io::Result<Temporary> {
        let name = self.temporary_name();
        rustix::fs::mkdirat(&self.directory, &name, Mode::RWXU)?;
        let made = self.open_directory(&self.directory, &name).and_then(|directory| {
            rustix::fs::fchown(&directory, Some(Uid::from_raw(uid)), Some(Gid::from_raw(uid)))?;
            Ok(directory)
        });
        match made {
            Ok(directory) => Ok(Temporary { name, directory }),
            Err(error) => {
                self.remove_temporary(&name)?;
                Err(error)
            }
        }
    }

    /// Makes what `owners` left in a temporary directory the package's tree. Nothing of those uids runs any more.
    pub(super) fn publish(&self, name: &str, owners: Owners, entries_max: u64, package: Digest) -> io::Result<()> {
        let directory = self.open_directory(&self.directory, name)?;
        let mut seal = Seal { owners, entries_left: entries_max };
        seal.directory(&directory)?;
        seal.contents(self, directory, DEPTH_MAX)?;
        // One flush for all files: they are many, and this is cheaper than one for each.
        rustix::fs::syncfs(&self.directory)?;
        let target = package.to_string();
        match rustix::fs::renameat_with(&self.directory, name, &self.directory, target, RenameFlags::NOREPLACE) {
            // Another request unpacked the same bytes meanwhile. Its tree is as good.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(rustix::fs::fsync(&self.directory)?)
    }

    /// Removes a temporary directory, if it is still there, whatever its contents are.
    pub(super) fn remove_temporary(&self, name: &str) -> io::Result<()> {
        let mut left = vec![name.to_owned()];
        while let Some(name) = left.pop() {
            match rustix::fs::unlinkat(&self.directory, &name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(Errno::ISDIR | Errno::PERM) => {}
                Err(error) => return Err(error.into()),
            }
            let directory = self.open_directory(&self.directory, &name)?;
            self.empty(directory, DEPTH_MAX, &mut left)?;
            rustix::fs::unlinkat(&self.directory, &name, AtFlags::REMOVEDIR)?;
        }
        Ok(())
    }

    /// Removes everything in a directory. What lies too deep is moved up and left to the caller.
    fn empty(&self, directory: OwnedFd, depth: usize, deep: &mut Vec<String>) -> io::Result<()> {
        loop {
            // Removing entries may confuse the reading of the same directory: read again until nothing is found.
            let mut found = false;
            for entry in Dir::read_from(&directory)? {
                let entry = entry?;
                let name = entry.file_name();
                if is_dots(name) {
                    continue;
                }
                found = true;
                match rustix::fs::unlinkat(&directory, name, AtFlags::empty()) {
                    Ok(()) => continue,
                    Err(Errno::ISDIR | Errno::PERM) => {}
                    Err(error) => return Err(error.into()),
                }
                if depth > 0 {
                    self.empty(self.open_directory(&directory, name)?, depth - 1, deep)?;
                    rustix::fs::unlinkat(&directory, name, AtFlags::REMOVEDIR)?;
                } else {
                    let up = self.temporary_name();
                    rustix::fs::renameat(&directory, name, &self.directory, &up)?;
                    deep.push(up);
                }
            }
            if !found {
                return Ok(());
            }
        }
    }

    fn open_tree(&self, package: Digest) -> io::Result<Option<OwnedFd>> {
        match self.open_directory(&self.directory, package.to_string()) {
            Ok(tree) => Ok(Some(tree)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn open_directory(&self, at: impl AsFd, name: impl rustix::path::Arg) -> io::Result<OwnedFd> {
        open_beneath(at, name, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    fn temporary_name(&self) -> String {
        format!("{TEMPORARY}{}", self.last.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Digest, Held>> {
        self.held.lock().expect("nothing panics while it holds the trees")
    }
}

/// Who unpacked a tree, and so what becomes of its owners and modes.
#[derive(Clone, Copy)]
pub(super) enum Owners {
    /// One uid. The files become root's, and read-only.
    One(u32),
    /// An image's unpacker, with a range of uids from this one on. The files keep their modes, without what gives rights, and
    /// become those of the ids that it gave them: who can write them is for the mount to say.
    Range(u32),
}

impl Owners {
    /// The lasting owner or group of a file that has this one.
    fn lasting(self, id: u32) -> Option<u32> {
        match self {
            Self::One(owner) => (id == owner).then_some(0),
            Self::Range(first) => id.checked_sub(first).filter(|id| *id < RANGE_SIZE),
        }
    }

    fn mode(self, mode: u32, directory: bool) -> Mode {
        Mode::from_raw_mode(match (self, directory) {
            (Self::One(_), true) => 0o555,
            (Self::One(_), false) => 0o444 | mode & 0o111,
            // The bit that keeps users from each other's files in /tmp stays.
            (Self::Range(_), true) => mode & 0o1777,
            (Self::Range(_), false) => mode & 0o777,
        })
    }
}

/// Gives a tree its lasting owners and modes, file by file.
struct Seal {
    owners: Owners,
    entries_left: u64,
}

impl Seal {
    fn contents(&mut self, trees: &Trees, directory: OwnedFd, depth: usize) -> io::Result<()> {
        let mut buffer = Vec::with_capacity(16 * 1024);
        let mut entries = RawDir::new(&directory, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if is_dots(name) {
                continue;
            }
            self.entries_left = self.entries_left.checked_sub(1).ok_or_else(refused)?;
            let seen = rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
            let many = matches!(self.owners, Owners::Range(_));
            if many && seen.st_nlink > 1 && seen.st_uid < RANGE_SIZE && !FileType::from_raw_mode(seen.st_mode).is_dir() {
                // Another name of a file or link that was met before: an unpacker can make nothing that belongs to such a uid.
                continue;
            }
            let (uid, gid) = self.lasting(&seen)?;
            match FileType::from_raw_mode(seen.st_mode) {
                FileType::Directory => {
                    let depth = depth.checked_sub(1).ok_or_else(refused)?;
                    let child = trees.open_directory(&directory, name)?;
                    self.directory(&child)?;
                    self.contents(trees, child, depth)?;
                }
                FileType::RegularFile => {
                    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
                    let file = open_beneath(&directory, name, flags)?;
                    let seen = rustix::fs::fstat(&file)?;
                    let linked = seen.st_nlink != 1 && !many;
                    if FileType::from_raw_mode(seen.st_mode) != FileType::RegularFile || linked {
                        return Err(refused());
                    }
                    rustix::fs::fchown(&file, Some(uid), Some(gid))?;
                    rustix::fs::fchmod(&file, self.owners.mode(seen.st_mode, false))?;
                }
                FileType::Symlink => {
                    let flags = AtFlags::SYMLINK_NOFOLLOW;
                    rustix::fs::chownat(&directory, name, Some(uid), Some(gid), flags)?;
                }
                _ => return Err(refused()),
            }
        }
        Ok(())
    }

    fn directory(&self, directory: &OwnedFd) -> io::Result<()> {
        let seen = rustix::fs::fstat(directory)?;
        let (uid, gid) = self.lasting(&seen)?;
        rustix::fs::fchown(directory, Some(uid), Some(gid))?;
        Ok(rustix::fs::fchmod(directory, self.owners.mode(seen.st_mode, true))?)
    }

    fn lasting(&self, seen: &Stat) -> io::Result<(Uid, Gid)> {
        let uid = self.owners.lasting(seen.st_uid).ok_or_else(refused)?;
        let gid = match self.owners {
            // What an unpacker left has no other group, and would lose it here.
            Owners::One(_) => 0,
            Owners::Range(_) => self.owners.lasting(seen.st_gid).ok_or_else(refused)?,
        };
        Ok((Uid::from_raw(uid), Gid::from_raw(gid)))
    }
}

/// An unpacker left something that no tree may hold.
fn refused() -> io::Error {
    io::Error::from_raw_os_error(libc::EINVAL)
}

fn is_dots(name: &std::ffi::CStr) -> bool {
    name == c"." || name == c".."
}

/// The directory at `path` in a tree, if that is one and no link leads there.
pub(super) fn directory_in(tree: &OwnedFd, path: &Path) -> io::Result<Option<OwnedFd>> {
    match open_beneath(tree, path, OFlags::RDONLY | OFlags::DIRECTORY) {
        Ok(directory) => Ok(Some(directory)),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            _ => Err(error),
        },
    }
}

fn open_beneath(at: impl AsFd, name: impl rustix::path::Arg, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(rustix::io::retry_on_intr(|| {
        // Taken by reference each time: a path argument can be used once.
        rustix::fs::openat2(&at, name.as_cow_c_str()?.as_ref(), flags, Mode::empty(), resolve)
    })?)
}

#[cfg(test)]
mod tests;
