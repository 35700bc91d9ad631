//! The folder an image is unpacked into, and every step in it: by descriptor, with the folder as the root of all paths.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid, chmodat, chownat, fchmod, fchown,
    futimens, linkat, mkdirat, openat, openat2, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::DEPTH_MAX;
use super::tar::{Entry, broken};
use crate::UnpackLimits;
use crate::error::{Problem, Rejected};

const BUFFER_BYTES: usize = 128 << 10;
/// The highest id that a container has.
const ID_MAX: u64 = 65_535;
/// Files that give rights to whoever runs them lose that.
const FILE_MODE: u32 = 0o777;
/// A folder may keep its users from each other's files.
const DIRECTORY_MODE: u32 = 0o1777;

/// Folders that the platform mounts something on.
const PLACES: [&str; 4] = ["proc", "sys", "dev", "etc"];
/// Files that the platform mounts something on.
const FILES: [&str; 3] = ["hostname", "hosts", "resolv.conf"];

/// The components of an entry's name; none for the root itself.
pub(super) fn parts(name: &[u8]) -> Result<Vec<&[u8]>, Problem> {
    let parts: Vec<_> = name.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    if name.contains(&0) {
        return Err(Problem::Name { what: "has a NUL byte" });
    }
    if parts.len() > DEPTH_MAX {
        return Err(Problem::Name { what: "is nested more than 60 folders deep" });
    }
    for part in &parts {
        match *part {
            b".." => return Err(Problem::Traversal),
            part if part.len() > 255 => return Err(Problem::Name { what: "has a component longer than 255 bytes" }),
            _ => {}
        }
    }
    Ok(parts)
}

/// The root of an image's file system.
pub(super) struct Root<'a> {
    folder: BorrowedFd<'a>,
}

impl<'a> Root<'a> {
    pub(super) fn new(folder: BorrowedFd<'a>) -> Self {
        Self { folder }
    }

    /// Opens what is at a path, through links, none of which leads out.
    fn open(&self, path: &[&[u8]], flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b".".to_vec() } else { path.join(&b'/') };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY;
        rustix::io::retry_on_intr(|| openat2(self.folder, path.as_slice(), flags, Mode::empty(), resolve))
    }

    fn folder(&self, path: &[&[u8]]) -> Result<Option<OwnedFd>, Problem> {
        match self.open(path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(folder) => Ok(Some(folder)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(system(error)),
        }
    }

    /// Opens a folder, and makes it and those above it if they are not there.
    fn made_folder(&self, path: &[&[u8]]) -> Result<OwnedFd, Problem> {
        if let Some(folder) = self.folder(path)? {
            return Ok(folder);
        }
        let (last, above) = path.split_last().ok_or(Problem::Io(io::ErrorKind::NotFound.into()))?;
        let above = self.made_folder(above)?;
        match mkdirat(&above, *last, Mode::from_raw_mode(0o755)) {
            Ok(()) => fchmod_of(&above, last, 0o755)?,
            // A file, or a link to nowhere.
            Err(Errno::EXIST) => return Err(Problem::Conflict),
            Err(error) => return Err(system(error)),
        }
        self.folder(path)?.ok_or(Problem::Conflict)
    }

    /// Removes what is at a path, if anything is.
    pub(super) fn remove(&self, folders: &[&[u8]], name: &[u8]) -> Result<(), Problem> {
        let Some(folder) = self.folder(folders)? else { return Ok(()) };
        remove(folder.as_fd(), name, DEPTH_MAX)
    }

    /// Removes everything in a folder, if there is one.
    pub(super) fn clear(&self, path: &[&[u8]]) -> Result<(), Problem> {
        match self.folder(path)? {
            Some(folder) => empty(folder.as_fd(), DEPTH_MAX),
            None => Ok(()),
        }
    }

    /// What is said of the root itself.
    pub(super) fn adopt_root(&self, entry: &Entry) -> Result<(), Problem> {
        let (uid, gid) = owner(entry)?;
        fchown(self.folder, Some(uid), Some(gid)).map_err(system)?;
        fchmod(self.folder, Mode::from_raw_mode(entry.mode & DIRECTORY_MODE)).map_err(system)
    }

    pub(super) fn make_directory(&self, folders: &[&[u8]], name: &[u8], entry: &Entry) -> Result<(), Problem> {
        let (uid, gid) = owner(entry)?;
        let folder = self.made_folder(folders)?;
        match kind_of(folder.as_fd(), name)? {
            Some(FileType::Directory) => {}
            Some(_) => {
                unlinkat(&folder, name, AtFlags::empty()).map_err(system)?;
                mkdirat(&folder, name, Mode::RWXU).map_err(system)?;
            }
            None => mkdirat(&folder, name, Mode::RWXU).map_err(system)?,
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = openat(&folder, name, flags, Mode::empty()).map_err(system)?;
        fchown(&made, Some(uid), Some(gid)).map_err(system)?;
        fchmod(&made, Mode::from_raw_mode(entry.mode & DIRECTORY_MODE)).map_err(system)
    }

    pub(super) fn make_file(
        &self,
        folders: &[&[u8]],
        name: &[u8],
        entry: &Entry,
        contents: &mut impl Read,
    ) -> Result<(), Problem> {
        let (uid, gid) = owner(entry)?;
        let folder = self.made_folder(folders)?;
        remove(folder.as_fd(), name, DEPTH_MAX)?;
        let made = new_file(folder.as_fd(), name)?;
        let mut left = entry.size;
        let mut buffer = vec![0; BUFFER_BYTES.min(usize::try_from(left).unwrap_or(BUFFER_BYTES)).max(1)];
        while left > 0 {
            match contents.read(&mut buffer) {
                Ok(0) => return Err(Problem::Truncated),
                Ok(read) => {
                    (&made).write_all(&buffer[..read]).map_err(Problem::Io)?;
                    left -= read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(broken(error)),
            }
        }
        fchown(&made, Some(uid), Some(gid)).map_err(system)?;
        fchmod(&made, Mode::from_raw_mode(entry.mode & FILE_MODE)).map_err(system)?;
        let modified = Timespec { tv_sec: entry.modified.clamp(0, 1 << 33), tv_nsec: 0 };
        futimens(&made, &Timestamps { last_access: modified, last_modification: modified }).map_err(system)
    }

    pub(super) fn make_link(&self, folders: &[&[u8]], name: &[u8], entry: &Entry) -> Result<(), Problem> {
        let (uid, gid) = owner(entry)?;
        if entry.target.is_empty() {
            return Err(Problem::Link { what: "is empty" });
        }
        if entry.target.len() > 4095 {
            return Err(Problem::Link { what: "is longer than 4095 bytes" });
        }
        if entry.target.contains(&0) {
            return Err(Problem::Link { what: "has a NUL byte" });
        }
        let folder = self.made_folder(folders)?;
        remove(folder.as_fd(), name, DEPTH_MAX)?;
        symlinkat(entry.target.as_slice(), &folder, name).map_err(system)?;
        chownat(&folder, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(system)
    }

    /// Another name for a file that is there.
    pub(super) fn make_hard_link(&self, folders: &[&[u8]], name: &[u8], target: &[&[u8]]) -> Result<(), Problem> {
        let (target_name, target_folders) = target.split_last().ok_or(Problem::LinkTarget)?;
        let from = self.folder(target_folders)?.ok_or(Problem::LinkTarget)?;
        let seen = match stat(from.as_fd(), target_name)? {
            Some(seen) if FileType::from_raw_mode(seen.st_mode) != FileType::Directory => seen,
            _ => return Err(Problem::LinkTarget),
        };
        let folder = self.made_folder(folders)?;
        if stat(folder.as_fd(), name)?.is_some_and(|there| (there.st_dev, there.st_ino) == (seen.st_dev, seen.st_ino)) {
            return Ok(());
        }
        remove(folder.as_fd(), name, DEPTH_MAX)?;
        linkat(&from, *target_name, &folder, name, AtFlags::empty()).map_err(system)
    }

    /// Sees to the places that the platform mounts something on.
    pub(super) fn make_places(&self) -> Result<(), Rejected> {
        for place in PLACES {
            let refused = |problem| Rejected::entry(place.as_bytes(), problem);
            match kind_of(self.folder, place.as_bytes()).map_err(refused)? {
                Some(FileType::Directory) => {}
                Some(_) => return Err(refused(Problem::Place)),
                None => {
                    mkdirat(self.folder, place, Mode::RWXU).map_err(|error| refused(system(error)))?;
                    fchmod_of(self.folder, place.as_bytes(), 0o755).map_err(refused)?;
                }
            }
        }
        self.make_files().map_err(|problem| Rejected::entry(b"etc", problem))?;
        let tmp = kind_of(self.folder, b"tmp")?;
        if tmp.is_none() {
            mkdirat(self.folder, c"tmp", Mode::RWXU).map_err(system)?;
            fchmod_of(self.folder, b"tmp", 0o1777)?;
        }
        Ok(())
    }

    fn make_files(&self) -> Result<(), Problem> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let etc = openat(self.folder, c"etc", flags, Mode::empty()).map_err(system)?;
        for name in FILES {
            if kind_of(etc.as_fd(), name.as_bytes())? != Some(FileType::RegularFile) {
                remove(etc.as_fd(), name.as_bytes(), DEPTH_MAX)?;
                fchmod(new_file(etc.as_fd(), name.as_bytes())?, Mode::from_raw_mode(0o644)).map_err(system)?;
            }
        }
        Ok(())
    }

    /// Makes a folder at an absolute path, as a program that is started there needs it.
    pub(super) fn make_directories(&self, path: &[u8]) -> Result<(), Rejected> {
        let made = parts(path).and_then(|parts| self.made_folder(&parts));
        made.map(drop).map_err(|problem| Rejected::entry(path, problem))
    }

    /// A file's contents, if there is one and it is no longer than `most`.
    pub(super) fn read(&self, path: &[&[u8]], most: u64) -> Result<Vec<u8>, Problem> {
        let file = match self.open(path, OFlags::RDONLY | OFlags::NONBLOCK) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(Vec::new()),
            Err(error) => return Err(system(error)),
        };
        let seen = rustix::fs::fstat(&file).map_err(system)?;
        if FileType::from_raw_mode(seen.st_mode) != FileType::RegularFile {
            return Ok(Vec::new());
        }
        let mut bytes = Vec::new();
        file.take(most).read_to_end(&mut bytes).map_err(Problem::Io)?;
        Ok(bytes)
    }

    /// Bytes of all files, and how many entries there are.
    pub(super) fn measure(&self, limits: &UnpackLimits) -> Result<(u64, u64), Rejected> {
        let (mut bytes, mut entries) = (0, 0);
        measure(self.folder, DEPTH_MAX, &mut bytes, &mut entries)?;
        if entries > limits.entries {
            return Err(Problem::TooManyEntries { limit: limits.entries }.into());
        }
        Ok((bytes, entries))
    }
}

fn measure(folder: BorrowedFd<'_>, depth: usize, bytes: &mut u64, entries: &mut u64) -> Result<(), Problem> {
    let deeper = depth.checked_sub(1).ok_or(TOO_DEEP)?;
    for entry in Dir::read_from(folder).map_err(system)? {
        let entry = entry.map_err(system)?;
        let name = entry.file_name();
        if is_dots(name) {
            continue;
        }
        *entries += 1;
        let seen = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).map_err(system)?;
        match FileType::from_raw_mode(seen.st_mode) {
            FileType::Directory => measure(open_folder(folder, name)?.as_fd(), deeper, bytes, entries)?,
            FileType::RegularFile => *bytes += u64::try_from(seen.st_size).unwrap_or(0),
            _ => {}
        }
    }
    Ok(())
}

/// Links may make paths longer than any name says.
const TOO_DEEP: Problem = Problem::Name { what: "and links together are nested more than 60 folders deep" };

fn remove(folder: BorrowedFd<'_>, name: &[u8], depth: usize) -> Result<(), Problem> {
    match unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(system(error)),
    }
    empty(open_folder(folder, name)?.as_fd(), depth.checked_sub(1).ok_or(TOO_DEEP)?)?;
    unlinkat(folder, name, AtFlags::REMOVEDIR).map_err(system)
}

fn empty(folder: BorrowedFd<'_>, depth: usize) -> Result<(), Problem> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder).map_err(system)? {
        let entry = entry.map_err(system)?;
        if !is_dots(entry.file_name()) {
            names.push(entry.file_name().to_owned());
        }
    }
    names.iter().try_for_each(|name| remove(folder, name.to_bytes(), depth))
}

fn open_folder(folder: BorrowedFd<'_>, name: impl rustix::path::Arg) -> Result<OwnedFd, Problem> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(folder, name, flags, Mode::empty()).map_err(system)
}

fn new_file(folder: BorrowedFd<'_>, name: &[u8]) -> Result<File, Problem> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(openat(folder, name, flags, Mode::RUSR | Mode::WUSR).map_err(system)?))
}

/// The exact mode, whatever the umask is. What is there was just made, and is no link.
fn fchmod_of(folder: impl AsFd, name: &[u8], mode: u32) -> Result<(), Problem> {
    chmodat(folder, name, Mode::from_raw_mode(mode), AtFlags::empty()).map_err(system)
}

fn stat(folder: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Stat>, Problem> {
    match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(seen) => Ok(Some(seen)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(system(error)),
    }
}

fn kind_of(folder: BorrowedFd<'_>, name: &[u8]) -> Result<Option<FileType>, Problem> {
    Ok(stat(folder, name)?.map(|seen| FileType::from_raw_mode(seen.st_mode)))
}

fn owner(entry: &Entry) -> Result<(Uid, Gid), Problem> {
    let id = |id: u64| u32::try_from(id).ok().filter(|_| id <= ID_MAX).ok_or(Problem::Owner);
    Ok((Uid::from_raw(id(entry.uid)?), Gid::from_raw(id(entry.gid)?)))
}

fn is_dots(name: &std::ffi::CStr) -> bool {
    name == c"." || name == c".."
}

fn system(error: Errno) -> Problem {
    match error {
        Errno::NAMETOOLONG => Problem::Name { what: "is too long" },
        Errno::MLINK => Problem::Link { what: "has too many names already" },
        error => Problem::Io(error.into()),
    }
}
