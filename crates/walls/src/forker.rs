//! Forks a template: a cell that has loaded a function becomes two, and the new one stands behind walls of its own.
//!
//! ```text
//!  supervisor ──ForkRequest──▶ forker ──channel, log──▶ template      asks its filter for one clone
//!                                │ traces it for that long                │
//!                                │                                        ▼
//!                                ├── cgroups, mounts, ids ──────────▶   child   stands still since before its first
//!                                ├── calls it is made to make ──────▶           instruction
//!             ◀──MakeReply───────┤
//!  verifies   ──go──────────────▶└── lets it go on
//! ```
//!
//! A template runs a tenant's code, so it has no more rights than any cell: the clone it asks for is refused by its own
//! filter unless a tracer stands by ([`crate::seccomp`]), and nobody but this process can. Making namespaces gives the
//! child every capability over them. It never has the chance to use one: between the clone and the last wall it
//! executes nothing but single system calls that this process chooses, at an instruction the kernel provides.
//!
//! # Invariants
//! - A child runs an instruction of a tenant's only behind all of its walls, and after the supervisor has said so.
//! - The child's memory is taken for hostile: what it is made to call takes numbers, or is verified by its effect.
//! - Whatever goes wrong, the child is killed. A template that does not do as it is asked is killed too.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::process::{Pid, PidfdFlags, Signal};
use rustix::thread::LinkNameSpaceType;

use crate::build::{self, Failed, GUEST_ID};
use crate::limit::write_at;
use crate::protocol::{self, CGROUPS_MAX, Descriptors, MakeReply, Step, VERSION};
use crate::seccomp::FORK_FLAGS;
use crate::serve::errno;
use crate::sys::{self, trace};

/// How long a template may take to ask for its clone, and its child to make the calls it is made to make.
const PATIENCE: Duration = Duration::from_secs(2);
/// What stops, mostly stops at once: for so long it is only the processor that is left to others meanwhile.
const AT_ONCE: Duration = Duration::from_millis(1);
/// How often it is looked afterwards.
const GLANCE: Duration = Duration::from_micros(50);

/// Asks for one more cell of a template.
///
/// The descriptors that go with it: the template's pidfd, our end of its control socket, the child's channel and the write
/// end of its log pipe, and `cgroups` writable `tasks` or `cgroup.procs` files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForkRequest {
    /// The template, as the host sees it.
    pub template: i32,
    /// The uid and gid on the host of the template and all its children.
    pub host_uid: u32,
    /// Size of `/tmp`; `/dev/shm` gets a quarter of it.
    pub tmp_bytes: u64,
    /// How many cgroup descriptors follow.
    pub cgroups: u32,
    /// Whether `/proc` shows what concerns no process as well.
    pub full_proc: bool,
}

/// Says that the child may go on. Anything else ends it.
const GO: &[u8] = b"go";

impl ForkRequest {
    const SIZE: usize = 28;

    /// Sends the request with its descriptors.
    pub fn send(&self, socket: impl AsFd, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut bytes = [0; Self::SIZE];
        bytes[0..4].copy_from_slice(&VERSION.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.template.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.host_uid.to_ne_bytes());
        bytes[12..16].copy_from_slice(&self.cgroups.to_ne_bytes());
        bytes[16..24].copy_from_slice(&self.tmp_bytes.to_ne_bytes());
        bytes[24..28].copy_from_slice(&u32::from(self.full_proc).to_ne_bytes());
        protocol::send(socket, &bytes, descriptors)
    }

    /// Lets the child of the last request go on, or ends it.
    pub fn conclude(socket: impl AsFd, good: bool) -> io::Result<()> {
        protocol::send(socket, if good { GO } else { b"no" }, &[])
    }

    fn receive(socket: impl AsFd) -> io::Result<Option<(Self, Descriptors)>> {
        let mut bytes = [0; Self::SIZE];
        let (length, descriptors) = protocol::receive(socket, &mut bytes)?;
        if length == 0 {
            return Ok(None);
        }
        let request = Self {
            template: protocol::word(&bytes, 4).cast_signed(),
            host_uid: protocol::word(&bytes, 8),
            cgroups: protocol::word(&bytes, 12),
            tmp_bytes: u64::from(protocol::word(&bytes, 16)) | u64::from(protocol::word(&bytes, 20)) << 32,
            full_proc: protocol::word(&bytes, 24) != 0,
        };
        let whole = length == Self::SIZE && protocol::word(&bytes, 0) == VERSION && request.cgroups as usize <= CGROUPS_MAX;
        if whole && descriptors.len() == FIXED + request.cgroups as usize {
            Ok(Some((request, descriptors)))
        } else {
            Err(io::ErrorKind::InvalidData.into())
        }
    }
}

/// Descriptors before the cgroups.
const FIXED: usize = 4;

/// Serves requests from `socket` until the supervisor closes it, then exits the process. `host_proc` is a descriptor of the
/// host's `/proc`. The caller is root and has one thread.
pub fn serve(socket: OwnedFd, host_proc: OwnedFd) -> ! {
    loop {
        let (request, descriptors) = match ForkRequest::receive(&socket) {
            Ok(Some(received)) => received,
            Ok(None) => sys::exit_now(0),
            Err(_) => sys::exit_now(1),
        };
        let outcome = fork(host_proc.as_fd(), &request, &descriptors);
        drop(descriptors);
        let answered = match outcome {
            Ok(child) => {
                let told = MakeReply { pid: child.pid, errno: 0, step: Step::None }.send(&socket, Some(child.pidfd.as_fd()));
                let mut verdict = [0; 8];
                match told.and_then(|()| protocol::receive(&socket, &mut verdict)) {
                    Ok((length, _)) if &verdict[..length] == GO => {
                        child.release();
                        Ok(())
                    }
                    // It is killed as it is dropped.
                    Ok((length, _)) if length > 0 => Ok(()),
                    Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
                    Err(error) => Err(error),
                }
            }
            Err((step, error)) => MakeReply { pid: 0, errno: errno(&error), step }.send(&socket, None),
        };
        if answered.is_err() {
            // Nobody is left to serve. Whatever is still traced dies.
            sys::exit_now(1);
        }
    }
}

fn required(descriptors: &Descriptors, index: usize) -> BorrowedFd<'_> {
    descriptors.get(index).expect("the request came with its descriptors")
}

fn fork(host_proc: BorrowedFd<'_>, request: &ForkRequest, descriptors: &Descriptors) -> Result<Child, Failed> {
    let at = |step| move |error: io::Error| (step, error);
    let owner = (Uid::from_raw(request.host_uid), Gid::from_raw(request.host_uid));
    rustix::fs::fchown(required(descriptors, 3), Some(owner.0), Some(owner.1))
        .map_err(|error| (Step::Descriptors, error.into()))?;
    let child = clone(host_proc, request, descriptors).map_err(at(Step::Trace))?;
    for index in FIXED..FIXED + request.cgroups as usize {
        let joined = rustix::io::write(required(descriptors, index), child.pid.to_string().as_bytes());
        joined.map_err(|error| (Step::Cgroups, error.into()))?;
    }
    build_outside(host_proc, request, child.pid).map_err(at(Step::UserNamespace))?;
    child.build_inside().map_err(at(Step::Capabilities))?;
    Ok(child)
}

/// Has the template make the one clone it may make.
fn clone(host_proc: BorrowedFd<'_>, request: &ForkRequest, descriptors: &Descriptors) -> io::Result<Child> {
    let template = Template::seize(request.template, required(descriptors, 0))?;
    // From here on it is killed when it does not do as it is asked.
    protocol::send(required(descriptors, 1), b"fork", &[required(descriptors, 2), required(descriptors, 3)])?;
    let deadline = Instant::now() + PATIENCE;
    let mut asked = false;
    let pid = loop {
        match stop_by(template.pid, deadline)? {
            trace::Stop::Filter => {
                let (number, flags) = trace::registers(template.pid)?.call();
                if number != libc::SYS_clone.cast_unsigned() || flags != u64::from(FORK_FLAGS) {
                    return Err(io::ErrorKind::PermissionDenied.into());
                }
                asked = true;
                trace::go_on(template.pid, 0)?;
            }
            trace::Stop::Fork if asked => break trace::forked(template.pid)?,
            trace::Stop::Fork => {
                // Another fork than the one that was asked for. The child is traced by now, so it is ours to bury.
                let stray = trace::forked(template.pid)?;
                if let Some(number) = Pid::from_raw(stray) {
                    let _ = rustix::process::kill_process(number, Signal::KILL);
                    lay_to_rest(stray);
                }
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            trace::Stop::Signal(signal) => trace::go_on(template.pid, signal)?,
            trace::Stop::Other | trace::Stop::Call => trace::go_on(template.pid, 0)?,
            trace::Stop::Ended => return Err(io::Error::from_raw_os_error(libc::ESRCH)),
        }
    };
    let child = Child::adopt(host_proc, pid)?;
    if !has_namespaces_of_its_own(host_proc, request.template, pid)? {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    template.release()?;
    Ok(child)
}

/// Whether every namespace of the child is another than the template's: its clone may have failed, and what stands still may
/// come from another fork.
fn has_namespaces_of_its_own(host_proc: BorrowedFd<'_>, template: i32, child: i32) -> io::Result<bool> {
    for name in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let link = |pid: i32| rustix::fs::readlinkat(host_proc, format!("{pid}/ns/{name}"), Vec::new());
        if link(template)? == link(child)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A template while it is traced. Killed when dropped.
struct Template<'a> {
    pid: i32,
    pidfd: BorrowedFd<'a>,
    released: bool,
}

impl<'a> Template<'a> {
    fn seize(pid: i32, pidfd: BorrowedFd<'a>) -> io::Result<Self> {
        trace::seize(pid)?;
        let template = Self { pid, pidfd, released: false };
        // A pidfd that still leads somewhere says that the number is still its own.
        if !is_alive(pidfd) {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        Ok(template)
    }

    fn release(mut self) -> io::Result<()> {
        trace::detach(self.pid)?;
        self.released = true;
        Ok(())
    }
}

impl Drop for Template<'_> {
    fn drop(&mut self) {
        if !self.released {
            // By pidfd: a number could be another's by now.
            let _ = rustix::process::pidfd_send_signal(self.pidfd, Signal::KILL);
            lay_to_rest(self.pid);
        }
    }
}

/// Waits for a traced process to stop. It need not: its tenant's code may run where it should not.
fn stop_by(pid: i32, deadline: Instant) -> io::Result<trace::Stop> {
    let began = Instant::now();
    loop {
        if let Some(stop) = trace::stopped(pid)? {
            return Ok(stop);
        }
        let now = Instant::now();
        if now >= deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        if now < began + AT_ONCE { std::thread::yield_now() } else { std::thread::sleep(GLANCE) }
    }
}

fn is_alive(pidfd: BorrowedFd<'_>) -> bool {
    let mut polled = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
    matches!(rustix::event::poll(&mut polled, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(0))
}

/// Waits until a traced process that was killed has ended: as long as its tracer has not heard of it, nobody does.
fn lay_to_rest(pid: i32) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match trace::stopped(pid) {
            Ok(Some(trace::Stop::Ended)) | Err(_) => return,
            Ok(Some(_)) => drop(trace::go_on(pid, 0)),
            // It may be waiting for a child that is frozen. When the tracer ends, nothing is traced any more.
            Ok(None) if Instant::now() >= deadline => sys::exit_now(1),
            Ok(None) => std::thread::sleep(GLANCE),
        }
    }
}

/// A new cell that stands still. Killed when dropped.
struct Child {
    pid: i32,
    pidfd: OwnedFd,
    released: bool,
    instruction: u64,
    registers: Option<trace::Registers>,
    /// When it has to be done.
    deadline: Instant,
}

impl Child {
    /// Waits until the child stands still at its first instruction.
    fn adopt(host_proc: BorrowedFd<'_>, pid: i32) -> io::Result<Self> {
        let number = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?;
        // It is traced by us, so its number stays its own until we have heard of its end.
        let pidfd = rustix::process::pidfd_open(number, PidfdFlags::empty())?;
        let deadline = Instant::now() + PATIENCE;
        let mut child = Self { pid, pidfd, released: false, instruction: 0, registers: None, deadline };
        if stop_by(pid, deadline)? == trace::Stop::Ended {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        child.registers = Some(trace::registers(pid)?);
        child.instruction = call_instruction(host_proc, pid)?;
        Ok(child)
    }

    /// The walls that only the child itself can build, call by call.
    fn build_inside(&self) -> io::Result<()> {
        let zero = |result: i64| if result == 0 { Ok(()) } else { Err(os_error(result)) };
        // Its parent's signals are not its own.
        if self.call(libc::SYS_setsid, [0, 0])? < 0 {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        // After it has joined its cgroups, so that their roots are its own.
        zero(self.call(libc::SYS_unshare, [flag(libc::CLONE_NEWCGROUP), 0])?)?;
        for capability in 0..64 {
            match self.call(libc::SYS_prctl, [flag(libc::PR_CAPBSET_DROP), capability])? {
                0 => {}
                // The kernel's last capability is behind us.
                result if result == -i64::from(libc::EINVAL) && capability > 0 => break,
                result => return Err(os_error(result)),
            }
        }
        zero(self.call(libc::SYS_prctl, [flag(libc::PR_CAP_AMBIENT), flag(libc::PR_CAP_AMBIENT_CLEAR_ALL)])?)?;
        self.drop_capabilities()
    }

    /// The one call that reads memory: what it does is verified by the supervisor, whatever is found there.
    fn drop_capabilities(&self) -> io::Result<()> {
        const VERSION_3: u64 = 0x2008_0522;
        let registers = self.registers.as_ref().expect("an adopted child has registers");
        // Below what the interrupted function may have left under its stack pointer.
        let header = (registers.stack() - 512) & !15;
        trace::poke(self.pid, header, VERSION_3)?;
        for word in 0..3 {
            trace::poke(self.pid, header + 16 + 8 * word, 0)?;
        }
        match self.call(libc::SYS_capset, [header, header + 16])? {
            0 => Ok(()),
            result => Err(os_error(result)),
        }
    }

    /// Has the child make one call. It executes the call's instruction and no other.
    ///
    /// Almost: a child that has registered a restartable sequence around that instruction (`rseq`) may be sent to an
    /// address of its own instead. It gets as far as a call, and that is refused: what is made here is what was asked for.
    fn call(&self, number: libc::c_long, arguments: [u64; 2]) -> io::Result<i64> {
        let registers = self.registers.as_ref().expect("an adopted child has registers");
        trace::prepare_call(self.pid, registers, self.instruction, number, arguments)?;
        let asked = trace::CallStop::Entry {
            number: number.cast_unsigned(),
            arguments,
            behind: self.instruction + INSTRUCTION.len() as u64,
        };
        let mut begun = false;
        loop {
            trace::go_on_to_call(self.pid)?;
            match stop_by(self.pid, self.deadline)? {
                trace::Stop::Call => match trace::call_stop(self.pid)? {
                    trace::CallStop::Exit(result) if begun => return Ok(result),
                    stop if stop == asked && !begun => begun = true,
                    _ => return Err(io::ErrorKind::PermissionDenied.into()),
                },
                trace::Stop::Ended => return Err(io::Error::from_raw_os_error(libc::ESRCH)),
                // A signal is not delivered: its handler would be an instruction of the tenant's.
                _ => {}
            }
        }
    }

    fn release(mut self) {
        let registers = self.registers.as_ref().expect("an adopted child has registers");
        if trace::restore(self.pid, registers, 0).and_then(|()| trace::detach(self.pid)).is_ok() {
            self.released = true;
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.released {
            let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
            lay_to_rest(self.pid);
        }
    }
}

fn flag(value: libc::c_int) -> u64 {
    u64::from(value.cast_unsigned())
}

fn os_error(result: i64) -> io::Error {
    io::Error::from_raw_os_error(i32::try_from(-result).unwrap_or(libc::EIO))
}

/// `syscall`.
const INSTRUCTION: &[u8] = &[0x0f, 0x05];

/// The address of a system call instruction in the page that the kernel maps into every process. A page of the tenant's
/// would not do: it could be one that others write to.
fn call_instruction(host_proc: BorrowedFd<'_>, pid: i32) -> io::Result<u64> {
    let missing = || io::Error::from(io::ErrorKind::NotFound);
    let open =
        |name: &str| rustix::fs::openat(host_proc, format!("{pid}/{name}"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let maps = io::read_to_string(std::fs::File::from(open("maps")?))?;
    let (start, end) = maps.lines().find_map(kernels_page).ok_or_else(missing)?;
    let mut code = vec![0; usize::try_from(end - start).map_err(|_| missing())?];
    let length = rustix::io::pread(open("mem")?, code.as_mut_slice(), start)?;
    let at = code[..length].windows(INSTRUCTION.len()).position(|bytes| bytes == INSTRUCTION).ok_or_else(missing)?;
    Ok(start + at as u64)
}

/// The range of a line of `maps`, if it is the kernel's own page: private, executable, of no file, and named by the kernel.
/// A file's name begins with a slash, and a name given by the process stands in `[anon:…]`.
fn kernels_page(line: &str) -> Option<(u64, u64)> {
    let mut columns = line.splitn(6, ' ');
    let (range, mode, _offset, device, inode) =
        (columns.next()?, columns.next()?, columns.next()?, columns.next()?, columns.next()?);
    let ours = mode == "r-xp" && device == "00:00" && inode == "0" && columns.next()?.trim_start() == "[vdso]";
    let (start, end) = range.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    let (start, end) = (number(start)?, number(end)?);
    (ours && end > start && end - start <= 64 << 10).then_some((start, end))
}

/// The walls that are built from outside: mounts, ids, and the limit of further namespaces. Done by a helper, because a
/// process cannot come back from where this leads.
fn build_outside(host_proc: BorrowedFd<'_>, request: &ForkRequest, child: i32) -> io::Result<()> {
    let open = |path: String| rustix::fs::openat(host_proc, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let (pids, mounts) = (open(format!("{child}/ns/pid"))?, open(format!("{child}/ns/mnt"))?);
    let (parent, own) = (open(format!("{}/ns/user", request.template))?, open(format!("{child}/ns/user"))?);
    in_helper(|| {
        // Only a process of the new pid namespace mounts its proc, and that is a child of whoever enters it.
        build::enter(pids.as_fd(), LinkNameSpaceType::ProcessID)?;
        in_helper(|| {
            build::enter(mounts.as_fd(), LinkNameSpaceType::Mount)?;
            build::mount_proc(true, request.full_proc)?;
            build::mount_tmp_of(request.host_uid, request.tmp_bytes, true)
        })?;
        // A map is written from the parent's namespace.
        build::enter(parent.as_fd(), LinkNameSpaceType::User)?;
        write_at(host_proc, &format!("{child}/setgroups"), "deny")?;
        for map in ["uid_map", "gid_map"] {
            write_at(host_proc, &format!("{child}/{map}"), &format!("{GUEST_ID} {GUEST_ID} 1"))?;
        }
        build::enter(own.as_fd(), LinkNameSpaceType::User)?;
        write_at(host_proc, "sys/user/max_user_namespaces", "0")
    })
}

/// Runs `work` in a process of its own and waits for its end.
fn in_helper(work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let Some(helper) = sys::fork()? else {
        let status = match work() {
            Ok(()) => 0,
            Err(error) => errno(&error),
        };
        sys::exit_now(status);
    };
    match sys::wait(helper)? {
        Some(0) => Ok(()),
        Some(number) => Err(io::Error::from_raw_os_error(number)),
        None => Err(io::Error::other("the helper was killed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_kernels_own_page_is_executed() {
        let good = "7ffd1234a000-7ffd1234c000 r-xp 00000000 00:00 0                          [vdso]";
        assert_eq!(kernels_page(good), Some((0x7ffd_1234_a000, 0x7ffd_1234_c000)));
        for bad in [
            "7ffd1234a000-7ffd1234c000 r-xs 00000000 00:00 0                          [vdso]",
            "7ffd1234a000-7ffd1234c000 rwxp 00000000 00:00 0                          [vdso]",
            "7ffd1234a000-7ffd1234c000 r-xp 00000000 00:2a 17                         /w/tmp/x [vdso]",
            "7ffd1234a000-7ffd1234c000 r-xp 00000000 00:00 0                          /w/tmp/x [vdso]",
            "7ffd1234a000-7ffd1234c000 r-xp 00000000 00:00 0                          [anon:x [vdso]",
            "7ffd1234a000-7ffd1234c000 r-xp 00000000 00:00 0",
        ] {
            assert_eq!(kernels_page(bad), None, "{bad}");
        }
    }

    #[test]
    fn this_process_has_a_call_instruction() {
        let proc = rustix::fs::open("/proc", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let own = rustix::process::getpid().as_raw_nonzero().get();
        assert!(call_instruction(proc.as_fd(), own).unwrap() > 0);
    }
}
