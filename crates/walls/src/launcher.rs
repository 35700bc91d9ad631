//! Waits for one `Exec` frame and becomes that program.
//!
//! The frame comes from the server, over the channel of a child that already stands behind its walls; it is bounded
//! and checked all the same, because here nothing is left to lose but this child.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::BorrowedFd;

use crate::build::send_error;
use crate::ids::User;
use crate::serve::errno;
use crate::{landlock, seccomp, sys};

const HEADER: usize = 32;
const EXEC: u8 = 1;
const KEEP_CHANNEL: u8 = 1 << 1;
const HEAD_MAX: usize = 64 << 10;
/// The kernel takes 2 MiB of arguments and environment at the most.
const BODY_MAX: usize = 2 << 20;
/// The exit status that means the program could not be started.
const NOT_STARTED: i32 = 127;
const DEFAULT_PATH: &[u8] = b"/usr/local/bin:/usr/bin:/bin";

/// Runs in a [`crate::CellKind::Container`] child, which has its image's root by the time the frame comes: the frame's
/// directory has the user's ids in front, `<uid>:<gid>[:<gid>…]` and a NUL. The last walls are built before the program runs.
pub fn run_container() -> ! {
    let channel = sys::channel();
    let (user, exec) = match read_exec_as(channel) {
        Ok(Some(read)) => read,
        Ok(None) => sys::exit_now(0),
        Err(error) => fail(channel, &error, "cannot read the Exec frame"),
    };
    let walls = || -> io::Result<()> {
        user.become_it()?;
        landlock::enforce_in_image()?;
        sys::install_filter(&seccomp::program())
    };
    if let Err(error) = walls() {
        fail(channel, &error, "cannot build the container's walls");
    }
    let error = start(&exec, channel);
    let what = exec.arguments.first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    fail(channel, &error, &format!("cannot start {what}"))
}

/// Runs in a [`crate::CellKind::Launcher`] child, with the channel on descriptor 3. Exits quietly when the server
/// closes the channel without a frame.
pub fn run() -> ! {
    let channel = sys::channel();
    let exec = match read_exec(channel) {
        Ok(Some(exec)) => exec,
        Ok(None) => sys::exit_now(0),
        Err(error) => fail(channel, &error, "cannot read the Exec frame"),
    };
    let error = start(&exec, channel);
    let what = exec.arguments.first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    fail(channel, &error, &format!("cannot start {what}"))
}

fn fail(channel: BorrowedFd<'_>, error: &io::Error, what: &str) -> ! {
    let _ = send_error(channel, errno(error), &format!("{what}: {error}"));
    sys::exit_now(NOT_STARTED)
}

/// One `Exec` frame, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Exec {
    directory: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    keep_channel: bool,
}

impl Exec {
    fn parse(flags: u8, head: &[u8], body: &[u8]) -> Option<Exec> {
        let mut head = strings(head)?.into_iter();
        let exec = Exec {
            directory: head.next()?,
            arguments: head.collect(),
            environment: strings(body)?,
            keep_channel: flags & KEEP_CHANNEL != 0,
        };
        let program = exec.arguments.first()?;
        (!program.is_empty()).then_some(exec)
    }

    fn search_path(&self) -> &[u8] {
        self.environment.iter().find_map(|pair| pair.to_bytes().strip_prefix(b"PATH=")).unwrap_or(DEFAULT_PATH)
    }
}

/// Strings that each end with NUL; the last one may leave it out.
fn strings(bytes: &[u8]) -> Option<Vec<CString>> {
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    bytes.split(|byte| *byte == 0).map(|part| CString::new(part).ok()).collect()
}

fn invalid() -> io::Error {
    io::Error::from_raw_os_error(libc::EPROTO)
}

fn read_exec(channel: BorrowedFd<'_>) -> io::Result<Option<Exec>> {
    let Some((flags, head, body)) = read_frame(channel)? else { return Ok(None) };
    Exec::parse(flags, &head, &body).map(Some).ok_or_else(invalid)
}

fn read_exec_as(channel: BorrowedFd<'_>) -> io::Result<Option<(User, Exec)>> {
    let Some((flags, head, body)) = read_frame(channel)? else { return Ok(None) };
    let end = head.iter().position(|byte| *byte == 0).ok_or_else(invalid)?;
    let user = std::str::from_utf8(&head[..end]).ok().and_then(User::parse).ok_or_else(invalid)?;
    Exec::parse(flags, &head[end + 1..], &body).map(|exec| Some((user, exec))).ok_or_else(invalid)
}

/// Flags, head and body.
type Frame = (u8, Vec<u8>, Vec<u8>);

fn read_frame(channel: BorrowedFd<'_>) -> io::Result<Option<Frame>> {
    let mut header = [0; HEADER];
    if !read_exact(channel, &mut header)? {
        return Ok(None);
    }
    let length = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]) as usize;
    let (head_len, body_len) = (length(8), length(12));
    if header[0] != EXEC || header[1] & !KEEP_CHANNEL != 0 || header[2..4] != [0, 0] {
        return Err(invalid());
    }
    if head_len > HEAD_MAX || body_len > BODY_MAX {
        return Err(io::Error::from_raw_os_error(libc::E2BIG));
    }
    let mut head = vec![0; head_len];
    let mut body = vec![0; body_len];
    if !read_exact(channel, &mut head)? || !read_exact(channel, &mut body)? {
        return Err(invalid());
    }
    Ok(Some((header[1], head, body)))
}

/// Fills the buffer. `false` when the stream ended before its first byte; ending later is an error.
fn read_exact(channel: BorrowedFd<'_>, mut buffer: &mut [u8]) -> io::Result<bool> {
    let mut any = buffer.is_empty();
    while !buffer.is_empty() {
        match rustix::io::retry_on_intr(|| rustix::io::read(channel, &mut *buffer))? {
            0 if any => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            0 => return Ok(false),
            length => {
                any = true;
                buffer = &mut buffer[length..];
            }
        }
    }
    Ok(true)
}

/// Becomes the program, or says why not.
fn start(exec: &Exec, channel: BorrowedFd<'_>) -> io::Error {
    if let Err(error) = rustix::process::chdir(exec.directory.as_c_str()) {
        return error.into();
    }
    if exec.keep_channel
        && let Err(error) = rustix::io::fcntl_setfd(channel, rustix::io::FdFlags::empty())
    {
        return error.into();
    }
    sys::reset_signals();
    let program = &exec.arguments[0];
    if program.as_bytes().contains(&b'/') {
        return execute(program, exec);
    }
    // As a shell does it: the first that can be executed; a refusal counts only when nothing else is found.
    let mut failure = io::Error::from_raw_os_error(libc::ENOENT);
    for directory in exec.search_path().split(|byte| *byte == b':') {
        let directory = if directory.is_empty() { b"." } else { directory };
        let path = [directory, b"/", program.as_bytes()].concat();
        let path = CString::new(path).expect("its parts come from C strings");
        let error = execute(&path, exec);
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => {}
            Some(libc::EACCES) => failure = error,
            _ => return error,
        }
    }
    failure
}

fn execute(path: &CStr, exec: &Exec) -> io::Error {
    sys::execve(path, &exec.arguments, &exec.environment)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn c(text: &str) -> CString {
        CString::new(text).unwrap()
    }

    #[test]
    fn a_frame_is_taken_apart() {
        let exec = Exec::parse(KEEP_CHANNEL, b"/code\0node\0\0-e\0", b"A=1\0PATH=/x\0").unwrap();
        assert_eq!(
            exec,
            Exec {
                directory: c("/code"),
                arguments: vec![c("node"), c(""), c("-e")],
                environment: vec![c("A=1"), c("PATH=/x")],
                keep_channel: true,
            }
        );
        assert_eq!(exec.search_path(), b"/x");
    }

    #[test]
    fn a_frame_without_a_program_is_refused() {
        for head in [&b""[..], b"/code", b"/code\0", b"/code\0\0"] {
            assert_eq!(Exec::parse(0, head, b""), None, "{head:?}");
        }
    }

    #[test]
    fn the_last_string_may_lack_its_end() {
        let exec = Exec::parse(0, b"/\0a", b"B=2").unwrap();
        assert_eq!(exec.arguments, [c("a")]);
        assert_eq!(exec.environment, [c("B=2")]);
        assert_eq!(exec.search_path(), DEFAULT_PATH);
    }
}
