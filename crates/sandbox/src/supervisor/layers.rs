//! What a cell sees at `/opt`: the layers of its function, as one read-only folder.
//!
//! ```text
//! one layer     its tree, mounted as it is
//! several       an overlay of their trees: of two that hold the same path the first counts, folders are merged
//! ```
//! Nothing is copied: whichever cells have a layer, they read the same files of one tree.
//!
//! An interpreter of the host may lie below `/opt` too. It stays where it is: its directory is mounted above the layers, and
//! holds what they have at the same place behind what is its own.
//!
//! # Invariants
//! - A path that is resolved in a cell leads through directories of [`Opt::skeleton`] only, whatever the layers hold there.
//! - An unpacker can leave no file that an overlay would take for a sign of its own: those are devices and `trusted.*`
//!   attributes.

use std::ffi::{CStr, CString};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use dunlin_model::Interpreters;
use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags};

use super::bind::attach;
use super::trees;
use crate::{interpreters, sys};

const OPT: &CStr = c"/opt";

/// What this host has below `/opt` that cells need.
pub(super) struct Opt {
    homes: Vec<Home>,
    /// Nothing but directories to mount the homes on. `None` when there is no home.
    skeleton: Option<OwnedFd>,
}

/// The directory of an interpreter.
struct Home {
    /// Where it is, here and in cells.
    path: CString,
    /// The same below `/opt`.
    below: PathBuf,
    directory: OwnedFd,
}

/// Mounts that are attached nowhere yet.
pub(super) struct Layers<'a> {
    opt: OwnedFd,
    homes: Vec<(&'a CStr, OwnedFd)>,
}

impl Opt {
    /// Looks up the directories of `interpreters`, and makes a skeleton at `place`.
    pub(super) fn open(interpreters: &Interpreters, place: &Path) -> io::Result<Self> {
        Self::with(interpreters::shown(interpreters), place)
    }

    fn with(shown: Vec<PathBuf>, place: &Path) -> io::Result<Self> {
        match fs::remove_dir_all(place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut homes = Vec::new();
        for home in shown {
            let Ok(below) = home.strip_prefix("/opt") else { continue };
            DirBuilder::new().recursive(true).mode(0o755).create(place.join(below))?;
            let path = CString::new(home.as_os_str().as_bytes())?;
            homes.push(Home { directory: directory(&home)?, below: below.to_owned(), path });
        }
        let skeleton = if homes.is_empty() { None } else { Some(directory(place)?) };
        Ok(Self { homes, skeleton })
    }

    /// Mounts that show these trees. `None` for none, for whom `/opt` stays as it is.
    pub(super) fn show(&self, trees: &[OwnedFd]) -> io::Result<Option<Layers<'_>>> {
        if trees.is_empty() {
            return Ok(None);
        }
        let mut lower: Vec<&OwnedFd> = self.skeleton.iter().collect();
        lower.extend(trees);
        let opt = mount(&lower)?;
        let homes = self.homes.iter().map(|home| Ok((home.path.as_c_str(), home.beside(trees)?)));
        Ok(Some(Layers { opt, homes: homes.collect::<io::Result<_>>()? }))
    }
}

impl Home {
    /// The directory, and behind it what the trees have in its place.
    fn beside(&self, trees: &[OwnedFd]) -> io::Result<OwnedFd> {
        let mut found = Vec::new();
        for tree in trees {
            found.extend(trees::directory_in(tree, &self.below)?);
        }
        let lower: Vec<&OwnedFd> = std::iter::once(&self.directory).chain(&found).collect();
        mount(&lower)
    }
}

impl Layers<'_> {
    /// Mounts them where the calling thread stands.
    pub(super) fn attach(&self) -> io::Result<()> {
        attach(&self.opt, OPT)?;
        self.homes.iter().try_for_each(|(path, home)| attach(home, path))
    }
}

/// A mount, attached nowhere, of the directories as one.
fn mount(directories: &[&OwnedFd]) -> io::Result<OwnedFd> {
    let mount = match directories {
        [one] => {
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            rustix::mount::open_tree(one, c"", flags | OpenTreeFlags::AT_EMPTY_PATH | OpenTreeFlags::AT_RECURSIVE)?
        }
        several => overlay(several)?,
    };
    sys::restrict_mount(&mount, false)?;
    Ok(mount)
}

/// Directories go in by their descriptors: their paths could hold what separates paths, and may be long.
fn overlay(directories: &[&OwnedFd]) -> io::Result<OwnedFd> {
    let names: Vec<String> = directories.iter().map(|directory| format!("/proc/self/fd/{}", directory.as_raw_fd())).collect();
    let overlay = rustix::mount::fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&overlay, c"lowerdir", names.join(":"))?;
    rustix::mount::fsconfig_create(&overlay)?;
    Ok(rustix::mount::fsmount(overlay.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)?)
}

fn directory(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}
