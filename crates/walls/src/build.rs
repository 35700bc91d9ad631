//! The walls of one child, from the inside out of reach: built in this order, by the child itself.
//!
//! The order matters. Cgroups first, so that everything after is charged to the child. Mounts while still root. The
//! cgroup namespace after joining, so that its root is the child's own group. The user namespace last of the
//! namespaces, so that it owns none of the others. Then capabilities, then descriptors, then the two filters, each of
//! which would refuse an earlier step.

use std::io;
use std::io::Write as _;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::mount::MountFlags;
use rustix::process::{Resource, Rlimit};
use rustix::thread::LinkNameSpaceType;

use crate::ids::Mapper;
use crate::landlock;
use crate::limit::write_at;
use crate::protocol::{CellKind, Descriptors, MakeRequest, Step, Wall};
use crate::serve::{Spawner, errno};
use crate::sys;

/// The uid and gid a guest sees itself as.
pub(crate) const GUEST_ID: u32 = 1000;

/// The host name every guest sees.
pub(crate) const HOST_NAME: &str = "fn";

/// Numbers from here on are free for juggling descriptors: above everything a child keeps.
const SPARE: i32 = 64;

/// A failed step with its reason.
pub(crate) type Failed = (Step, io::Error);

/// Builds every wall the request does not leave out. On return the child's descriptors are the documented ones.
pub(crate) fn walls(spawner: &Spawner, request: &MakeRequest, descriptors: &Descriptors) -> Result<(), Failed> {
    let keeps = |wall| request.without.keeps(wall);
    let at = |step| move |error: io::Error| (step, error);
    let _ = rustix::process::setsid();

    if keeps(Wall::Cgroups) {
        join_cgroups(request, descriptors).map_err(at(Step::Cgroups))?;
    }
    if keeps(Wall::NetNamespace) {
        enter(required(descriptors, 2), LinkNameSpaceType::Network).map_err(at(Step::NetNamespace))?;
    }
    if !keeps(Wall::ReadOnlyRoot) {
        rustix::mount::mount_remount("/", MountFlags::BIND, "").map_err(|error| (Step::Root, error.into()))?;
    }
    mount_proc(keeps(Wall::PrivateProc), request.full_proc).map_err(at(Step::Proc))?;
    mount_tmp(request, keeps(Wall::TmpSize)).map_err(at(Step::Tmp))?;
    if keeps(Wall::Uts) {
        rustix::system::sethostname(HOST_NAME.as_bytes()).map_err(|error| (Step::Uts, error.into()))?;
    }
    if keeps(Wall::Rlimits) {
        limit_resources(spawner.host_proc.as_fd()).map_err(at(Step::Rlimits))?;
    }
    if keeps(Wall::CgroupNamespace) {
        sys::unshare(libc::CLONE_NEWCGROUP).map_err(at(Step::CgroupNamespace))?;
    }
    let null = devices(request, descriptors).map_err(at(Step::Descriptors))?;

    if keeps(Wall::UserNamespace) && keeps(Wall::NamespaceLimit) {
        enter(spawner.bounds(request.kind).0.as_fd(), LinkNameSpaceType::User).map_err(at(Step::NamespaceLimit))?;
    }
    // A new user namespace brings a full bounding set: it is emptied after that. Without one, the right to empty it
    // goes with the uid.
    if keeps(Wall::Capabilities) && !keeps(Wall::UserNamespace) {
        sys::limit_bounding_set().map_err(at(Step::Capabilities))?;
    }
    let has_map = keeps(Wall::HostUid) && keeps(Wall::UserNamespace) && request.kind.has_many_ids();
    let mapper = has_map.then(|| Mapper::start(spawner.host_proc.as_fd(), request.host_uid)).transpose();
    let mapper = mapper.map_err(at(Step::UserNamespace))?;
    if keeps(Wall::HostUid) {
        take_uid(request.host_uid).map_err(at(Step::HostUid))?;
    }
    if let Some(mapper) = mapper {
        mapper.enter().map_err(at(Step::UserNamespace))?;
    } else if keeps(Wall::UserNamespace) {
        let uid = if keeps(Wall::HostUid) { request.host_uid } else { 0 };
        own_user_namespace(spawner.host_proc.as_fd(), uid).map_err(at(Step::UserNamespace))?;
    }
    if keeps(Wall::Capabilities) {
        drop_capabilities(keeps(Wall::UserNamespace), kept(request.kind)).map_err(at(Step::Capabilities))?;
    }
    if keeps(Wall::NoNewPrivs) {
        sys::set_prctl(libc::PR_SET_NO_NEW_PRIVS, 1).map_err(at(Step::NoNewPrivs))?;
    }
    // After every change of credentials, because those clear it.
    if keeps(Wall::DeathSignal) {
        sys::set_prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong).map_err(at(Step::DeathSignal))?;
    }
    arrange(spawner, request, descriptors, null).map_err(at(Step::Descriptors))?;
    if request.kind == CellKind::Container {
        // What is left are those that look at files and calls, and the files are not there yet: see `launcher::run_container`.
        return Ok(());
    }
    if keeps(Wall::NoNewPrivs) && keeps(Wall::Landlock) {
        landlock::enforce().map_err(at(Step::Landlock))?;
    }
    if keeps(Wall::NoNewPrivs) && keeps(Wall::Seccomp) {
        sys::install_filter(spawner.bounds(request.kind).1).map_err(at(Step::Seccomp))?;
    }
    Ok(())
}

/// Tells the server, as an `Error` frame on stream 0, which step failed.
pub(crate) fn report(descriptors: &Descriptors, step: Step, error: &io::Error) {
    // Once the descriptors are arranged the original is closed and the channel is where it belongs.
    let arranged = matches!(step, Step::Landlock | Step::Seccomp);
    let channel = if arranged { sys::channel() } else { required(descriptors, 0) };
    let _ = send_error(channel, errno(error), &format!("cannot {step}: {error}"));
}

/// Writes an `Error` frame on stream 0: an empty head, and the body `<errno> <message>`.
pub(crate) fn send_error(channel: BorrowedFd<'_>, number: i32, message: &str) -> io::Result<()> {
    const ERROR: u8 = 19;
    let mut frame = vec![0; 32];
    frame[0] = ERROR;
    write!(frame, "{number} {message}")?;
    let length = u32::try_from(frame.len() - 32).expect("a message is short");
    frame[12..16].copy_from_slice(&length.to_le_bytes());
    rustix::net::send(channel, &frame, rustix::net::SendFlags::NOSIGNAL)?;
    Ok(())
}

/// A descriptor that `MakeRequest::receive` has counted.
fn required(descriptors: &Descriptors, index: usize) -> BorrowedFd<'_> {
    descriptors.get(index).expect("the request came with its descriptors")
}

fn join_cgroups(request: &MakeRequest, descriptors: &Descriptors) -> io::Result<()> {
    let first = 3 + usize::from(request.has_extra);
    for index in first..first + request.cgroups as usize {
        rustix::io::write(required(descriptors, index), b"0")?;
    }
    Ok(())
}

pub(crate) fn enter(namespace: BorrowedFd<'_>, kind: LinkNameSpaceType) -> io::Result<()> {
    Ok(rustix::thread::move_into_link_name_space(namespace, Some(kind))?)
}

/// The guest's own processes, and nothing of the machine unless `full`. Others' processes are in other namespaces.
pub(crate) fn mount_proc(private: bool, full: bool) -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let options = match (private, full) {
        (true, false) => Some(c"subset=pid,hidepid=2"),
        (true, true) => Some(c"hidepid=2"),
        (false, _) => None,
    };
    Ok(rustix::mount::mount("proc", "/proc", "proc", flags, options)?)
}

/// `/tmp` and `/dev/shm`, which are links to these.
fn mount_tmp(request: &MakeRequest, sized: bool) -> io::Result<()> {
    let owner = if request.without.keeps(Wall::HostUid) { request.host_uid } else { 0 };
    mount_tmp_of(owner, request.tmp_bytes, sized)
}

/// The same, for a cell that is built from outside.
pub(crate) fn mount_tmp_of(owner: u32, tmp_bytes: u64, sized: bool) -> io::Result<()> {
    const SHM_BYTES_MIN: u64 = 16 << 20;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    let shm_bytes = (tmp_bytes / 4).max(SHM_BYTES_MIN);
    for (path, bytes, flags) in [("/w/tmp", tmp_bytes, flags), ("/w/shm", shm_bytes, flags | MountFlags::NOEXEC)] {
        let mut options = format!("mode=1777,uid={owner},gid={owner}");
        if sized {
            // An inode costs about a kilobyte that no size limit sees.
            let inodes = (bytes / 4096).clamp(1024, 1 << 18);
            options.push_str(&format!(",size={bytes},nr_inodes={inodes}"));
        }
        let options = std::ffi::CString::new(options).expect("options have no NUL");
        rustix::mount::mount("tmpfs", path, "tmpfs", flags, Some(options.as_c_str()))?;
    }
    Ok(())
}

fn limit_resources(host_proc: BorrowedFd<'_>) -> io::Result<()> {
    let limits = [
        (Resource::Nofile, 100_000),
        (Resource::Core, 0),
        (Resource::Memlock, 64 << 10),
        (Resource::Msgqueue, 0),
        (Resource::Rtprio, 0),
        (Resource::Nice, 0),
        (Resource::Sigpending, 4096),
        // No file system of a guest is larger; a sparse file should not look as if one were.
        (Resource::Fsize, 10 << 30),
    ];
    for (resource, value) in limits {
        // Never more than the host gave us: raising takes a right that a container's root may lack.
        let value = rustix::process::getrlimit(resource).maximum.map_or(value, |maximum| maximum.min(value));
        rustix::process::setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) })?;
    }
    // When the host itself runs out of memory, guests go before the platform.
    write_at(host_proc, "self/oom_score_adj", "500")
}

/// What has to be done to descriptors while still root: `/dev/null` opened, and the log handed to the guest, so that
/// opening `/dev/stderr` again is allowed.
fn devices(request: &MakeRequest, descriptors: &Descriptors) -> io::Result<OwnedFd> {
    if request.without.keeps(Wall::HostUid) {
        let owner = (Uid::from_raw(request.host_uid), Gid::from_raw(request.host_uid));
        rustix::fs::fchown(required(descriptors, 1), Some(owner.0), Some(owner.1))?;
    }
    Ok(rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

fn take_uid(host_uid: u32) -> io::Result<()> {
    if host_uid == 0 || host_uid == u32::MAX {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let (uid, gid) = (Uid::from_raw(host_uid), Gid::from_raw(host_uid));
    sys::change_groups()?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    // The change has made our files in /proc root's; the next step writes to them.
    sys::set_prctl(libc::PR_SET_DUMPABLE, 1)
}

/// One line maps the guest's id to the caller's own uid, which needs nobody's help.
fn own_user_namespace(host_proc: BorrowedFd<'_>, uid: u32) -> io::Result<()> {
    sys::unshare(libc::CLONE_NEWUSER)?;
    let own = rustix::fs::openat(host_proc, "self", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    write_at(own.as_fd(), "setgroups", "deny")?;
    let map = format!("{GUEST_ID} {uid} 1");
    write_at(own.as_fd(), "uid_map", &map)?;
    write_at(own.as_fd(), "gid_map", &map)
}

/// Capabilities over a child's own user namespace, and nothing else, that it needs for what it does before a tenant's code
/// runs. None comes through an exec.
fn kept(kind: CellKind) -> u32 {
    const CHOWN: u32 = 1 << 0;
    const DAC_OVERRIDE: u32 = 1 << 1;
    const FOWNER: u32 = 1 << 3;
    const SETGID: u32 = 1 << 6;
    const SETUID: u32 = 1 << 7;
    match kind {
        CellKind::Container => SETUID | SETGID,
        CellKind::ImageUnpacker => CHOWN | DAC_OVERRIDE | FOWNER,
        _ => 0,
    }
}

fn drop_capabilities(bounding_too: bool, kept: u32) -> io::Result<()> {
    if bounding_too {
        sys::limit_bounding_set()?;
    }
    sys::set_prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong)?;
    sys::keep_capabilities(kept)
}

/// Descriptors 0 to 3 (and 4), and no other. Those inherited by a program it starts are 0 to 2.
fn arrange(spawner: &Spawner, request: &MakeRequest, descriptors: &Descriptors, opened: OwnedFd) -> io::Result<()> {
    rustix::process::chdir("/")?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    // First out of the way of the numbers they are going to.
    let away = |fd: BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, SPARE);
    let channel = away(required(descriptors, 0))?;
    let log = away(required(descriptors, 1))?;
    let null = away(opened.as_fd())?;
    let extra = if request.has_extra { Some(away(required(descriptors, 3))?) } else { None };

    if !request.without.keeps(Wall::Descriptors) {
        rustix::io::fcntl_setfd(&spawner.host_proc, rustix::io::FdFlags::empty())?;
        // What would be overwritten below is what the test wants to find.
        if spawner.host_proc.as_raw_fd() <= sys::EXTRA {
            std::mem::forget(rustix::io::dup(&spawner.host_proc)?);
        }
    }
    sys::place(null.as_fd(), 0, false)?;
    sys::place(log.as_fd(), 1, false)?;
    sys::place(log.as_fd(), 2, false)?;
    sys::place(channel.as_fd(), sys::CHANNEL, true)?;
    let mut first_other = sys::CHANNEL + 1;
    if let Some(extra) = &extra {
        sys::place(extra.as_fd(), sys::EXTRA, true)?;
        first_other = sys::EXTRA + 1;
    }
    if request.without.keeps(Wall::Descriptors) {
        std::mem::forget((channel, log, opened, null, extra));
        sys::close_from(first_other)?;
    }
    Ok(())
}
