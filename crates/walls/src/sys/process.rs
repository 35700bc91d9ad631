//! Processes, credentials, descriptors.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_ulong};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::call::check;

/// Where a child finds its channel.
pub(crate) const CHANNEL: RawFd = 3;
/// Where an unpacker finds its package.
pub(crate) const EXTRA: RawFd = 4;

/// The two sides of a clone.
pub(crate) enum Cloned {
    Child,
    Parent { pid: i32, pidfd: OwnedFd },
}

/// Clones the calling process, which must have one thread, into the namespaces of `flags`. The child belongs to the
/// caller's parent and sends it no signal when it ends: the parent has the pidfd.
///
/// The raw call goes behind the C library's back. The child's copy of the thread's cached id is corrected by letting
/// the kernel write it; handlers registered with `pthread_atfork` do not run.
pub(crate) fn clone_child(flags: c_int) -> io::Result<Cloned> {
    let tid = tid_address()?;
    // A template asks for no address itself: its filter would refuse.
    TID_ADDRESS.store(tid as usize, Ordering::Relaxed);
    let mut pidfd: c_int = -1;
    let wanted = flags | libc::CLONE_PARENT | libc::CLONE_PIDFD | libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID;
    let mut args = libc::clone_args {
        flags: u64::from(wanted.cast_unsigned()),
        pidfd: (&raw mut pidfd) as u64,
        child_tid: tid as u64,
        parent_tid: 0,
        exit_signal: 0,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: 0,
    };
    // SAFETY: without CLONE_VM the child has its own copy of all memory and continues on a copy of this stack, as after
    // fork. `args` is valid for the size given; `pidfd` and `tid` are valid for the writes the flags ask for.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) })?;
    if pid == 0 {
        return Ok(Cloned::Child);
    }
    // SAFETY: the call succeeded with CLONE_PIDFD, so `pidfd` is a new descriptor that only we have.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Cloned::Parent { pid: i32::try_from(pid).expect("pids are ints"), pidfd })
}

/// Where the C library caches the id of the thread that was cloned from.
static TID_ADDRESS: AtomicUsize = AtomicUsize::new(0);

/// In a template, in the thread that was cloned from a zygote: asks for the one clone its filter knows. True in the child.
///
/// The raw call goes behind the C library's back, as in [`clone_child`].
pub(crate) fn clone_template() -> io::Result<bool> {
    let tid = TID_ADDRESS.load(Ordering::Relaxed);
    let flags = c_ulong::from(crate::seccomp::FORK_FLAGS);
    // SAFETY: as in `clone_child`: the child has its own copy of all memory and continues on a copy of this stack. The
    // address is that of this very thread, whose descendants keep it at the same place.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone, flags, 0usize, 0usize, tid, 0usize) })?;
    Ok(pid == 0)
}

/// Has ended children go without being waited for. Answers what was said of them before.
pub(crate) fn ignore_children() -> libc::sighandler_t {
    // SAFETY: ignoring runs no code of ours.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) }
}

/// What was said of children before [`ignore_children`] holds again.
pub(crate) fn restore_children(before: libc::sighandler_t) {
    // SAFETY: it was the handler of this program before, or one of the two words.
    unsafe { libc::signal(libc::SIGCHLD, before) };
}

/// Where the C library caches the calling thread's id. Needs a kernel with CONFIG_CHECKPOINT_RESTORE.
fn tid_address() -> io::Result<*mut c_int> {
    let mut address: *mut c_int = std::ptr::null_mut();
    // SAFETY: the kernel writes one pointer to `address`.
    check(i64::from(unsafe { libc::prctl(libc_missing::PR_GET_TID_ADDRESS, &raw mut address, 0, 0, 0) }))?;
    Ok(address)
}

/// Constants that `libc` does not have for this target.
mod libc_missing {
    pub(super) const PR_GET_TID_ADDRESS: libc::c_int = 40;
}

/// Moves the calling process into new namespaces.
pub(crate) fn unshare(flags: c_int) -> io::Result<()> {
    // SAFETY: the flags are namespace flags only, so no descriptor table or memory is unshared under a reference.
    check(i64::from(unsafe { libc::unshare(flags) }))?;
    Ok(())
}

/// Forks. `None` in the child. For throw-away children that make a few system calls and [`exit_now`].
pub(crate) fn fork() -> io::Result<Option<i32>> {
    // SAFETY: the child only makes system calls through this crate and leaves by `exit_now`; it takes no lock that
    // another thread could have held, apart from the allocator's, which the C library makes usable after fork.
    let pid = check(i64::from(unsafe { libc::fork() }))?;
    Ok((pid != 0).then(|| i32::try_from(pid).expect("pids are ints")))
}

/// Waits for a child of [`fork`]; its exit status, or `None` when a signal ended it.
pub(crate) fn wait(pid: i32) -> io::Result<Option<i32>> {
    let mut status: c_int = 0;
    loop {
        // SAFETY: `status` is valid for the write.
        match check(i64::from(unsafe { libc::waitpid(pid, &raw mut status, 0) })) {
            Ok(_) => return Ok(libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status))),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Ends the process at once: no destructors, no handlers of a language runtime.
pub(crate) fn exit_now(status: i32) -> ! {
    // SAFETY: `_exit` has no requirement and does not return.
    unsafe { libc::_exit(status) }
}

/// One `prctl` with a number as its argument.
pub(crate) fn set_prctl(option: c_int, value: c_ulong) -> io::Result<()> {
    let zero: c_ulong = 0;
    // SAFETY: the options used in this crate take numbers; none of them is a pointer.
    check(i64::from(unsafe { libc::prctl(option, value, zero, zero, zero) }))?;
    Ok(())
}

/// Takes every capability out of the bounding set.
pub(crate) fn limit_bounding_set() -> io::Result<()> {
    for capability in 0..64 {
        match set_prctl(libc::PR_CAPBSET_DROP, capability) {
            Ok(()) => {}
            // The kernel's last capability is behind us.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Empties the inheritable set, and the effective and permitted ones but for the capabilities whose bits are in `kept`. Only
/// the first 32 can be kept.
pub(crate) fn keep_capabilities(kept: u32) -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: c_int,
    }
    const VERSION_3: u32 = 0x2008_0522;
    let header = Header { version: VERSION_3, pid: 0 };
    let sets = [[kept, kept, 0u32], [0; 3]];
    // SAFETY: both pointers are valid in the layouts of version 3, which has two blocks of three words.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) })?;
    Ok(())
}

/// Replaces the supplementary groups by none.
pub(crate) fn change_groups() -> io::Result<()> {
    // SAFETY: with a length of zero the pointer is not read.
    check(i64::from(unsafe { libc::setgroups(0, std::ptr::null()) }))?;
    Ok(())
}

/// Replaces the supplementary groups.
pub(crate) fn set_groups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: the kernel reads as many ids as the slice has.
    check(i64::from(unsafe { libc::setgroups(groups.len(), groups.as_ptr()) }))?;
    Ok(())
}

/// Every signal back to its default, none blocked: a program that is started does not inherit our habits.
pub(crate) fn reset_signals() {
    for signal in 1..=64 {
        if signal != libc::SIGKILL && signal != libc::SIGSTOP {
            // SAFETY: SIG_DFL runs no code of ours. Numbers the C library keeps for itself fail, which is fine.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    }
    let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigemptyset` fills the set, and `sigprocmask` reads it afterwards.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
}

/// Puts a copy of `from` at the number `to`, closing what was there.
pub(crate) fn place(from: BorrowedFd<'_>, to: RawFd, close_on_exec: bool) -> io::Result<()> {
    let flags = if close_on_exec { libc::O_CLOEXEC } else { 0 };
    // SAFETY: `to` is one of the numbers 0 to 4 that this crate gives out; the caller has moved whatever it still
    // needs above them, so no owned descriptor is closed behind its owner's back.
    check(i64::from(unsafe { libc::dup3(from.as_raw_fd(), to, flags) }))?;
    Ok(())
}

/// Closes every descriptor from `first` on.
pub(crate) fn close_from(first: RawFd) -> io::Result<()> {
    // SAFETY: called in a child that keeps only its fixed descriptors below `first`; owners of others have been
    // forgotten or are never dropped.
    check(unsafe { libc::syscall(libc::SYS_close_range, first.cast_unsigned(), c_uint::MAX, 0u32) })?;
    Ok(())
}

/// The channel of the calling child.
pub(crate) fn channel() -> BorrowedFd<'static> {
    // SAFETY: a child keeps its channel open for as long as it lives.
    unsafe { BorrowedFd::borrow_raw(CHANNEL) }
}

/// Adopts a descriptor whose number came from outside (a command line or a foreign caller).
pub(crate) fn descriptor_of_spare(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD reads a flag word and fails for numbers that are not open.
    check(i64::from(unsafe { libc::fcntl(number, libc::F_GETFD) }))?;
    // SAFETY: the descriptor is open, and the caller was handed it to own.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// A further descriptor of what is open at a number.
pub(crate) fn duplicate(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC makes a new descriptor or fails; the old one is not touched.
    let new = check(i64::from(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 0) }))?;
    // SAFETY: the kernel has just made this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(new).expect("the kernel's descriptors are ints")) })
}

/// Replaces the program. Returns only the reason why not.
pub(crate) fn execve(path: &CStr, arguments: &[CString], environment: &[CString]) -> io::Error {
    let list = |strings: &[CString]| -> Vec<*const c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (arguments, environment) = (list(arguments), list(environment));
    // SAFETY: both lists end with null and their strings live through the call.
    unsafe { libc::execve(path.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

/// Makes a mount read-only and so on; `recursive` includes the mounts below it. Its propagation becomes private.
pub(crate) fn set_attributes(mount: BorrowedFd<'_>, attributes: u64, recursive: bool) -> io::Result<()> {
    #[repr(C)]
    struct MountAttr {
        attr_set: u64,
        attr_clr: u64,
        propagation: u64,
        userns_fd: u64,
    }
    let attr = MountAttr { attr_set: attributes, attr_clr: 0, propagation: libc::MS_PRIVATE, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty C string, and `attr` is valid for the size given.
    check(unsafe {
        libc::syscall(libc::SYS_mount_setattr, mount.as_raw_fd(), c"".as_ptr(), flags, &raw const attr, size_of::<MountAttr>())
    })?;
    Ok(())
}

/// Installs a filter on all threads of the calling process.
pub(crate) fn install_filter(program: &[libc::sock_filter]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: the program's pointer and length describe a slice that lives through the call; the kernel copies it and
    // does not write to it.
    let result = check(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_TSYNC, &raw const program)
    })?;
    // A positive answer is the id of a thread that could not be brought along.
    if result == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ESRCH)) }
}

/// Whether the kernel has filters that can answer with an error number.
pub(crate) fn seccomp_supports_errno() -> io::Result<()> {
    let action: u32 = libc::SECCOMP_RET_ERRNO;
    // SAFETY: the kernel reads one word.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0u32, &raw const action) })?;
    Ok(())
}
