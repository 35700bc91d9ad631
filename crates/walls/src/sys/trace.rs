//! Tracing: what it takes to let another process make system calls of our choice and no other instruction.

use std::ffi::{c_int, c_long};
use std::io;
use std::mem::MaybeUninit;

use super::call::check;

/// The registers of a stopped process.
#[derive(Clone, Copy)]
pub(crate) struct Registers(libc::user_regs_struct);

impl Registers {
    /// The call that is about to be made: its number and first argument.
    pub(crate) fn call(&self) -> (u64, u64) {
        (self.0.orig_rax, self.0.rdi)
    }

    /// The top of the stack.
    pub(crate) fn stack(&self) -> u64 {
        self.0.rsp
    }
}

/// Why a traced process stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Its filter asks about a call.
    Filter,
    /// It has forked; the child is traced too and stands still as well.
    Fork,
    /// At the beginning or the end of a call.
    Call,
    /// Before this signal is delivered.
    Signal(c_int),
    /// For another reason, which is of no interest.
    Other,
    /// It has ended.
    Ended,
}

const OPTIONS: c_int =
    libc::PTRACE_O_TRACEFORK | libc::PTRACE_O_TRACESECCOMP | libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;

fn trace(request: libc::c_uint, pid: i32, address: usize, data: usize) -> io::Result<c_long> {
    // SAFETY: the requests used here take numbers, or pointers that the callers below keep valid.
    check(unsafe { libc::ptrace(request, pid, address, data) })
}

/// Begins to trace a process, which runs on. It is killed should the caller end first.
pub(crate) fn seize(pid: i32) -> io::Result<()> {
    trace(libc::PTRACE_SEIZE, pid, 0, OPTIONS.cast_unsigned() as usize).map(drop)
}

/// Lets a stopped process go on, untraced.
pub(crate) fn detach(pid: i32) -> io::Result<()> {
    trace(libc::PTRACE_DETACH, pid, 0, 0).map(drop)
}

/// Lets a stopped process go on, with a signal or 0.
pub(crate) fn go_on(pid: i32, signal: c_int) -> io::Result<()> {
    trace(libc::PTRACE_CONT, pid, 0, signal.cast_unsigned() as usize).map(drop)
}

/// Lets a stopped process go on to the next beginning or end of a call.
pub(crate) fn go_on_to_call(pid: i32) -> io::Result<()> {
    trace(libc::PTRACE_SYSCALL, pid, 0, 0).map(drop)
}

/// The process that was just forked by one that stands at [`Stop::Fork`].
pub(crate) fn forked(pid: i32) -> io::Result<i32> {
    let mut message: libc::c_ulong = 0;
    trace(libc::PTRACE_GETEVENTMSG, pid, 0, (&raw mut message) as usize)?;
    i32::try_from(message).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// The registers of a stopped process.
pub(crate) fn registers(pid: i32) -> io::Result<Registers> {
    let mut registers = MaybeUninit::<libc::user_regs_struct>::uninit();
    trace(libc::PTRACE_GETREGS, pid, 0, registers.as_mut_ptr() as usize)?;
    // SAFETY: the call succeeded, so the kernel has filled them all.
    Ok(Registers(unsafe { registers.assume_init() }))
}

/// Has a stopped process begin a call at `instruction`, where a system call instruction is.
pub(crate) fn prepare_call(pid: i32, base: &Registers, instruction: u64, number: c_long, arguments: [u64; 2]) -> io::Result<()> {
    let mut registers = base.0;
    registers.rip = instruction;
    registers.rax = number.cast_unsigned();
    registers.orig_rax = u64::MAX;
    [registers.rdi, registers.rsi] = arguments;
    [registers.rdx, registers.r10, registers.r8, registers.r9] = [0; 4];
    set_registers(pid, &registers)
}

/// Has a stopped process go on where it was, with `result` as the result of its last call.
pub(crate) fn restore(pid: i32, base: &Registers, result: u64) -> io::Result<()> {
    let mut registers = base.0;
    registers.rax = result;
    // No call is to be begun again.
    registers.orig_rax = u64::MAX;
    set_registers(pid, &registers)
}

fn set_registers(pid: i32, registers: &libc::user_regs_struct) -> io::Result<()> {
    trace(libc::PTRACE_SETREGS, pid, 0, std::ptr::from_ref(registers) as usize).map(drop)
}

/// One end of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallStop {
    /// About to be made: its number, its first two arguments, and where the process goes on behind it.
    Entry { number: u64, arguments: [u64; 2], behind: u64 },
    /// Made, with this result.
    Exit(i64),
    /// Neither.
    Other,
}

/// Which end of which call a process stands at.
pub(crate) fn call_stop(pid: i32) -> io::Result<CallStop> {
    // `struct ptrace_syscall_info`: one byte says which, the instruction pointer is at 8, and what differs begins at 24.
    const GET_SYSCALL_INFO: libc::c_uint = 0x420e;
    const ENTRY: u8 = 1;
    const EXIT: u8 = 2;
    let mut info = [0u8; 88];
    trace(GET_SYSCALL_INFO, pid, info.len(), info.as_mut_ptr() as usize)?;
    let word = |at: usize| u64::from_ne_bytes(info[at..at + 8].try_into().expect("eight bytes"));
    Ok(match info[0] {
        ENTRY => CallStop::Entry { number: word(24), arguments: [word(32), word(40)], behind: word(8) },
        EXIT => CallStop::Exit(word(24).cast_signed()),
        _ => CallStop::Other,
    })
}

/// Writes one word into a stopped process.
pub(crate) fn poke(pid: i32, address: u64, word: u64) -> io::Result<()> {
    let address = usize::try_from(address).expect("64 bits");
    trace(libc::PTRACE_POKEDATA, pid, address, usize::try_from(word).expect("64 bits")).map(drop)
}

/// Why a traced process stands still; `None` while it does not, or once that was told.
pub(crate) fn stopped(pid: i32) -> io::Result<Option<Stop>> {
    const SECCOMP: c_int = libc::PTRACE_EVENT_SECCOMP;
    const FORK: c_int = libc::PTRACE_EVENT_FORK;
    const CALL: c_int = libc::SIGTRAP | 0x80;
    let mut status: c_int = 0;
    let flags = libc::__WALL | libc::WNOHANG;
    loop {
        // SAFETY: `status` is valid for the write.
        match check(i64::from(unsafe { libc::waitpid(pid, &raw mut status, flags) })) {
            Ok(0) => return Ok(None),
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Some(if !libc::WIFSTOPPED(status) {
        Stop::Ended
    } else {
        match (status >> 16, libc::WSTOPSIG(status)) {
            (SECCOMP, _) => Stop::Filter,
            (FORK, _) => Stop::Fork,
            (0, CALL) => Stop::Call,
            (0, signal) => Stop::Signal(signal),
            _ => Stop::Other,
        }
    }))
}
