//! Makes an image the root of a container.
//!
//! ```text
//! the image's tree, its ids mapped to the cell's   lower ─┐
//! a tmpfs of the cell's own, as large as its disk  upper ─┴─ overlay ──▶ the new root
//!    /proc, /dev, /dev/shm, /etc/{hostname,hosts,resolv.conf}             mounted on it
//! ```
//! The cell was born in the root of all cells. The supervisor exchanges that for the new one from outside, which moves the
//! waiting launcher along; then the old root is let go.
//!
//! # Invariants
//! - All of this is done before the launcher has heard of any program, so nothing of the image's runs meanwhile.
//! - Places in the image are resolved through no link. They are there: whoever unpacked the image has made them.
//! - Nobody inside can write the tree: it is read-only, and what an overlay takes for signs of its own is in the layer of the
//!   cell, where only a privileged process could have put it.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{FileType, Gid, Mode, OFlags, ResolveFlags, Uid, makedev};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags};

use super::bind::{attach, detach, inodes};
use super::cells::Container;
use crate::sys;

/// Where the parts are mounted in the old root while the new one is put together.
const LOWER: &CStr = c"/code";
const WRITABLE: &CStr = c"/w/out";
const ROOT: &CStr = c"/opt";

/// Files of the old root that tell about the cell's network, seen in the new one too.
const FILES: [(&CStr, &CStr); 3] =
    [(c"/etc/hostname", c"etc/hostname"), (c"/etc/hosts", c"etc/hosts"), (c"/etc/resolv.conf", c"etc/resolv.conf")];

/// Mounts that are attached nowhere yet.
pub(super) struct Image {
    lower: OwnedFd,
    writable: OwnedFd,
    devices: OwnedFd,
}

impl Image {
    /// The parts of a root out of this tree, for a container whose walls stand. It may write `bytes`.
    pub(super) fn prepare(tree: &OwnedFd, cell: impl AsFd, container: Container, bytes: u64) -> io::Result<Self> {
        let lower = detach(tree, false)?;
        sys::map_mount(&lower, user_namespace(cell, container.pid)?)?;
        Ok(Self { lower, writable: writable(container.first_uid, bytes)?, devices: devices()? })
    }

    /// Makes them the root, where the calling thread stands.
    pub(super) fn enter(&self) -> io::Result<()> {
        attach(&self.lower, LOWER)?;
        attach(&self.writable, WRITABLE)?;
        attach(overlay()?, ROOT)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(ROOT, flags, Mode::empty())?;
        place(detach(open(c"/proc")?, true)?, &root, c"proc")?;
        place(&self.devices, &root, c"dev")?;
        place(detach(open(c"/w/shm")?, true)?, &root, c"dev/shm")?;
        for (source, target) in FILES {
            place(detach(open(source)?, false)?, &root, target)?;
        }
        rustix::process::chdir(ROOT)?;
        rustix::process::pivot_root(".", ".")?;
        rustix::mount::unmount(".", UnmountFlags::DETACH)?;
        Ok(rustix::process::chdir("/")?)
    }
}

/// The user namespace of a process that lives.
fn user_namespace(process: impl AsFd, pid: i32) -> io::Result<OwnedFd> {
    let namespace = std::fs::File::open(format!("/proc/{pid}/ns/user"))?;
    // While it lives, nobody else has its pid.
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    if rustix::event::poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&at_once))? > 0 {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    Ok(namespace.into())
}

/// A tmpfs with a place for what the cell writes, and one for the overlay's own use.
fn writable(owner: u32, bytes: u64) -> io::Result<OwnedFd> {
    let options = [("size", bytes.to_string()), ("nr_inodes", inodes(bytes).to_string())];
    let mount = tmpfs(&options, MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV)?;
    let open = Mode::from_raw_mode(0o755);
    rustix::fs::mkdirat(&mount, c"upper", open)?;
    rustix::fs::mkdirat(&mount, c"work", open)?;
    let owner = (Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner)));
    rustix::fs::chownat(&mount, c"upper", owner.0, owner.1, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(mount)
}

/// The devices that every program may expect, and nothing else.
fn devices() -> io::Result<OwnedFd> {
    const NODES: [(&CStr, u32); 5] = [(c"null", 3), (c"zero", 5), (c"full", 7), (c"random", 8), (c"urandom", 9)];
    const LINKS: [(&CStr, &CStr); 4] = [
        (c"fd", c"/proc/self/fd"),
        (c"stdin", c"/proc/self/fd/0"),
        (c"stdout", c"/proc/self/fd/1"),
        (c"stderr", c"/proc/self/fd/2"),
    ];
    let options = [("size", "64k".to_owned()), ("nr_inodes", "64".to_owned())];
    let mount = tmpfs(&options, MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC)?;
    for (name, minor) in NODES {
        rustix::fs::mknodat(&mount, name, FileType::CharacterDevice, Mode::from_raw_mode(0o666), makedev(1, minor))?;
        // Whatever the umask is.
        rustix::fs::chmodat(&mount, name, Mode::from_raw_mode(0o666), rustix::fs::AtFlags::empty())?;
    }
    for (name, target) in LINKS {
        rustix::fs::symlinkat(target, &mount, name)?;
    }
    rustix::fs::mkdirat(&mount, c"shm", Mode::from_raw_mode(0o755))?;
    sys::freeze_mount(&mount)?;
    Ok(mount)
}

fn tmpfs(options: &[(&str, String)], attributes: MountAttrFlags) -> io::Result<OwnedFd> {
    let tmpfs = rustix::mount::fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        rustix::mount::fsconfig_set_string(&tmpfs, *key, value.as_str())?;
    }
    rustix::mount::fsconfig_set_string(&tmpfs, c"mode", c"755")?;
    rustix::mount::fsconfig_create(&tmpfs)?;
    Ok(rustix::mount::fsmount(tmpfs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

fn overlay() -> io::Result<OwnedFd> {
    let overlay = rustix::mount::fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&overlay, c"lowerdir", LOWER)?;
    rustix::mount::fsconfig_set_string(&overlay, c"upperdir", c"/w/out/upper")?;
    rustix::mount::fsconfig_set_string(&overlay, c"workdir", c"/w/out/work")?;
    rustix::mount::fsconfig_create(&overlay)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    Ok(rustix::mount::fsmount(overlay.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

fn open(path: &CStr) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
}

/// Mounts a detached mount on a place in the new root.
fn place(mount: impl AsFd, root: &OwnedFd, place: &CStr) -> io::Result<()> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target = rustix::io::retry_on_intr(|| rustix::fs::openat2(root, place, flags, Mode::empty(), resolve))?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, c"", target, c"", flags)?)
}
