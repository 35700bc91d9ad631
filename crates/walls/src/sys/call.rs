//! From the C convention to `io::Result`.

use std::io;

/// A system call that answers -1 and `errno`.
pub(super) fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
