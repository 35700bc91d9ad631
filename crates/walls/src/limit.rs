//! The intermediate user namespace.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

/// Makes the shared user namespace. `host_proc` is the host's `/proc`.
pub fn limit_namespace(host_proc: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    host_proc.try_clone_to_owned()
}
