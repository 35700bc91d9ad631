//! Starts the supervisor's own processes: spawner, zygote and server.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::Mode;
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags};
use rustix::process::{Pid, PidfdFlags, Signal};
use rustix::thread::UnshareFlags;

/// The most descriptors a process is started with, besides stdio.
const DESCRIPTORS_MAX: usize = 24;

/// What to start. The process dies with the thread that starts it.
pub(crate) struct Plan<'a> {
    pub(crate) program: &'a Path,
    pub(crate) arguments: &'a [OsString],
    pub(crate) environment: &'a [(OsString, OsString)],
    pub(crate) stdin: OwnedFd,
    /// Become 3, 4 and so on.
    pub(crate) descriptors: &'a [BorrowedFd<'a>],
    pub(crate) jail: Option<&'a Jail>,
}

/// The walls of the server: a uid without rights, and a mount namespace in which its state has a fixed place.
pub(crate) struct Jail {
    pub(crate) uid: u32,
    /// A detached mount of the state directory.
    pub(crate) state: OwnedFd,
}

/// Holds the low descriptor numbers, so that nothing the process opens later stands where a child's go.
pub(crate) struct Reserved {
    _held: Vec<OwnedFd>,
}

impl Reserved {
    pub(crate) fn new() -> io::Result<Self> {
        let null = std::fs::File::open("/dev/null")?;
        let mut held = Vec::new();
        loop {
            let next = rustix::io::fcntl_dupfd_cloexec(&null, 3)?;
            if next.as_raw_fd() >= 3 + RawFd::try_from(DESCRIPTORS_MAX).expect("a small number") {
                return Ok(Self { _held: held });
            }
            held.push(next);
        }
    }
}

/// Starts a process, and hands out its pidfd. `_reserved` shows that the low numbers are held.
pub(crate) fn spawn(plan: Plan<'_>, _reserved: &Reserved) -> io::Result<OwnedFd> {
    if plan.descriptors.len() > DESCRIPTORS_MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // Out of the way of the numbers they are to become.
    let descriptors = plan
        .descriptors
        .iter()
        .map(|descriptor| Ok(rustix::io::fcntl_dupfd_cloexec(descriptor, 64)?))
        .collect::<io::Result<Vec<OwnedFd>>>()?;
    let sources: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let jail = match plan.jail {
        Some(jail) => Some((jail.uid, jail.state.try_clone()?)),
        None => None,
    };
    let parent = rustix::process::getpid();
    let mut command = Command::new(plan.program);
    command.args(plan.arguments).env_clear().envs(plan.environment.iter().cloned()).stdin(Stdio::from(plan.stdin));
    // SAFETY: between fork and exec only system calls are made, on memory that was filled in before: nothing
    // allocates, locks or unwinds.
    unsafe {
        command.pre_exec(move || {
            rustix::process::setsid()?;
            unblock_signals()?;
            for (target, source) in (3..).zip(&sources) {
                if libc::dup2(*source, target) < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            if let Some((uid, state)) = &jail {
                enter(*uid, state)?;
            }
            // After the change of uid, which clears it.
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            if rustix::process::getppid() != Some(parent) {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
    let child = command.spawn()?;
    let pid = Pid::from_raw(child.id().cast_signed()).expect("a process that was started has a pid");
    // Nobody has waited for it yet, so the pid is still its own.
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}

/// The supervisor takes its signals from a descriptor and blocks them; what it starts takes them as usual.
fn unblock_signals() -> io::Result<()> {
    let mut none = std::mem::MaybeUninit::uninit();
    // SAFETY: `sigemptyset` fills the set before `pthread_sigmask` reads it.
    let errno = unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut())
    };
    if errno == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(errno)) }
}

/// Moves the process that is about to become the server behind its walls. Allocates nothing.
fn enter(uid: u32, state: &OwnedFd) -> io::Result<()> {
    // SAFETY: the process has one thread and shares its descriptors with nobody.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
    rustix::mount::mount_change(c"/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount(c"tmpfs", c"/mnt", c"tmpfs", flags, c"size=64k,mode=755")?;
    let open = Mode::from_raw_mode(0o755);
    rustix::fs::mkdir(c"/mnt/dunlin", open)?;
    rustix::fs::mkdir(c"/mnt/dunlin/state", open)?;
    let here = rustix::fs::CWD;
    rustix::mount::move_mount(state, c"", here, c"/mnt/dunlin/state", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    rustix::mount::mount_remount(c"/mnt", flags | MountFlags::RDONLY, c"")?;
    for capability in 0..64 {
        // SAFETY: the call takes numbers only. It fails from the first capability on that this kernel does not have.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } < 0 {
            break;
        }
    }
    let (user, group) = (rustix::process::Uid::from_raw(uid), rustix::process::Gid::from_raw(uid));
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(group, group, group)?;
    rustix::thread::set_thread_res_uid(user, user, user)?;
    rustix::thread::set_no_new_privs(true)?;
    rustix::process::chdir(c"/")?;
    Ok(())
}
