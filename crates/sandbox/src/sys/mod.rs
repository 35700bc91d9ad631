//! The system calls that need `unsafe`, one wrapper each.
#![expect(unsafe_code, reason = "raw system calls, each with its reason")]

mod spawn;

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

pub(crate) use spawn::{Jail, Plan, Reserved, spawn};

/// Gives the calling thread a working directory, root and umask of its own, without which it cannot enter a mount
/// namespace while other threads run.
pub(crate) fn unshare_fs() -> io::Result<()> {
    // SAFETY: only the file system attributes are unshared; descriptors stay shared by all threads.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FS) }?;
    Ok(())
}

/// Makes a detached mount, with what is mounted below it, read-only (unless `writable`), nosuid, nodev and private.
pub(crate) fn restrict_mount(mount: impl AsFd, writable: bool) -> io::Result<()> {
    let mut set = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    set |= if writable { libc::MOUNT_ATTR_NOEXEC } else { libc::MOUNT_ATTR_RDONLY };
    set_mount_attributes(mount, set, libc::MS_PRIVATE, 0)
}

/// Makes a mount read-only and nothing else.
pub(crate) fn freeze_mount(mount: impl AsFd) -> io::Result<()> {
    set_mount_attributes(mount, libc::MOUNT_ATTR_RDONLY, 0, 0)
}

/// Has the owners of a detached mount's files be what the map of a user namespace makes of them: whom it has as 0 owns what
/// belongs to root.
pub(crate) fn map_mount(mount: impl AsFd, namespace: impl AsFd) -> io::Result<()> {
    let namespace = u64::from(namespace.as_fd().as_raw_fd().cast_unsigned());
    set_mount_attributes(mount, libc::MOUNT_ATTR_IDMAP, 0, namespace)
}

fn set_mount_attributes(mount: impl AsFd, attr_set: u64, propagation: u64, userns_fd: u64) -> io::Result<()> {
    const EMPTY: &CStr = c"";
    let attributes = libc::mount_attr { attr_set, attr_clr: 0, propagation, userns_fd };
    // SAFETY: path and attributes live until the call returns, and the size is that of the attributes.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            EMPTY.as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Blocks the signals that ask a process to stop, in this thread and all it starts, and hands them out here instead.
pub(crate) fn stop_signals() -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised by sigemptyset before it is read, and outlives every call.
    let raw = unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            libc::sigaddset(&raw mut set, signal);
        }
        let errno = libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        if errno != 0 {
            return Err(io::Error::from_raw_os_error(errno));
        }
        libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Lets tokio wait for a descriptor. Must be called inside a runtime.
pub(crate) fn watch(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd keeps the same descriptor open for as long as it lives, and nothing takes it out.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE | Interest::WRITABLE) }?)
}

/// How a process ended that is not this one's child, as `wait` would say it. `None` while its parent has not heard of it.
pub(crate) fn exit_status(pidfd: impl AsFd) -> io::Result<Option<i32>> {
    /// `struct pidfd_info` as far as the exit code, and the bit that says there is one.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        mask: u64,
        cgroup: u64,
        ids: [u32; 11],
        exit_code: i32,
    }
    const EXIT: u64 = 1 << 3;
    // _IOWR(0xff, 11, struct pidfd_info), with the size that is passed.
    const GET_INFO: libc::c_ulong = 3 << 30 | (size_of::<Info>() as libc::c_ulong) << 16 | 0xff << 8 | 11;
    let mut info = Info { mask: EXIT, ..Info::default() };
    // SAFETY: the kernel writes no more than the size that is part of the request.
    if unsafe { libc::ioctl(pidfd.as_fd().as_raw_fd(), GET_INFO, &raw mut info) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((info.mask & EXIT != 0).then_some(info.exit_code))
}

/// Takes a descriptor that this process was started with. `None` when there is none of that number.
pub(crate) fn inherited(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: F_GETFD reads flags and touches nothing else.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    // Descriptors that this process opened itself are close-on-exec; what it was started with is not. That also keeps
    // a second call from taking the same one.
    if flags < 0 || flags & libc::FD_CLOEXEC != 0 {
        return None;
    }
    // SAFETY: the descriptor is open and belongs to the process since its start; it is marked so that it is taken once.
    unsafe {
        libc::fcntl(number, libc::F_SETFD, flags | libc::FD_CLOEXEC);
        Some(OwnedFd::from_raw_fd(number))
    }
}

/// Takes a descriptor that a cell was born with. To be called once per number, by the one that owns it all.
pub(crate) fn adopt(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: F_GETFD reads flags and touches nothing else.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return None;
    }
    // SAFETY: the walls arranged this descriptor for the new process and left it to nobody else.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}
