//! The intermediate user namespace.
//!
//! Each child gets a user namespace of its own, and must not be able to make further ones. Writing a limit into every
//! child's namespace costs time that grows with the number of live children; so all of them are made inside one
//! namespace, mapped one to one, that allows each uid a single namespace. A child's own is that one.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use crate::serve::errno;
use crate::sys;

/// Makes that namespace and returns its descriptor; the caller stays where it is. `host_proc` is the host's `/proc`.
///
/// The namespace is born by a helper process that lives for the length of this call. Needs root.
pub fn limit_namespace(host_proc: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    limit_namespace_of(host_proc, 1)
}

/// The same, allowing each uid `most` namespaces.
pub(crate) fn limit_namespace_of(host_proc: BorrowedFd<'_>, most: u32) -> io::Result<OwnedFd> {
    let (ours, theirs) = pair()?;
    let Some(helper) = sys::fork()? else {
        drop(ours);
        let status = match help(host_proc, theirs.as_fd(), most) {
            Ok(()) => 0,
            Err(error) => errno(&error),
        };
        sys::exit_now(status);
    };
    drop(theirs);
    let namespace = adopt(host_proc, helper, ours.as_fd());
    drop(ours);
    let status = sys::wait(helper)?;
    match (namespace, status) {
        (Ok(namespace), Some(0)) => Ok(namespace),
        (_, Some(number)) if number != 0 => Err(io::Error::from_raw_os_error(number)),
        (Err(error), _) => Err(error),
        (Ok(_), _) => Err(io::Error::other("the helper was killed")),
    }
}

/// In the helper: make the namespace, wait for its map, set its limit, wait until it has been opened.
fn help(host_proc: BorrowedFd<'_>, socket: BorrowedFd<'_>, most: u32) -> io::Result<()> {
    sys::unshare(libc::CLONE_NEWUSER)?;
    say(socket)?;
    hear(socket)?;
    write_at(host_proc, "sys/user/max_user_namespaces", &most.to_string())?;
    say(socket)?;
    hear(socket)
}

fn adopt(host_proc: BorrowedFd<'_>, helper: i32, socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    hear(socket)?;
    for map in ["uid_map", "gid_map"] {
        write_at(host_proc, &format!("{helper}/{map}"), "0 0 4294967295")?;
    }
    say(socket)?;
    hear(socket)?;
    let namespace = rustix::fs::openat(host_proc, format!("{helper}/ns/user"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    say(socket)?;
    Ok(namespace)
}

/// The two ends of what a helper and who started it say to each other.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

pub(crate) fn say(socket: BorrowedFd<'_>) -> io::Result<()> {
    rustix::net::send(socket, b".", rustix::net::SendFlags::NOSIGNAL)?;
    Ok(())
}

pub(crate) fn hear(socket: BorrowedFd<'_>) -> io::Result<()> {
    let mut byte = [0; 1];
    let (length, _) =
        rustix::io::retry_on_intr(|| rustix::net::recv(socket, byte.as_mut_slice(), rustix::net::RecvFlags::empty()))?;
    if length == 1 { Ok(()) } else { Err(io::Error::from(io::ErrorKind::UnexpectedEof)) }
}

/// Writes a short text to a file of a proc tree, in one call as its files demand.
pub(crate) fn write_at(directory: BorrowedFd<'_>, path: &str, text: &str) -> io::Result<()> {
    let file = rustix::fs::openat(directory, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    let written = rustix::io::write(&file, text.as_bytes())?;
    if written == text.len() { Ok(()) } else { Err(io::Error::from(io::ErrorKind::WriteZero)) }
}
