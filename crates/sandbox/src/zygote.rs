//! The Python zygote: a booted interpreter that serves requests for cells by forking itself.

use std::io;
use std::os::fd::OwnedFd;

/// Replaces this process, already in the guests' root, by the zygote. Returns only why it could not.
pub(crate) fn become_python(socket: OwnedFd, host_proc: OwnedFd) -> io::Error {
    drop((socket, host_proc));
    io::ErrorKind::Unsupported.into()
}
