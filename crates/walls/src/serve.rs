//! The loop of a spawner or zygote.

use std::os::fd::OwnedFd;

use crate::protocol::CellKind;

/// Returned inside a child, once all its walls stand: 0 is `/dev/null`, 1 and 2 the log pipe, 3 the channel, and 4
/// the extra descriptor when the request had one. No other descriptor is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Child {
    /// What the caller is to become now.
    pub kind: CellKind,
}

/// Serves requests from `socket` until the supervisor closes it, then exits the process. Returns in each child only.
///
/// The caller is a direct child of the supervisor with one thread, already in its prepared root
/// ([`crate::prepare_root`]). `host_proc` is a descriptor of the host's `/proc`.
pub fn serve(socket: OwnedFd, host_proc: OwnedFd) -> Child {
    let _ = (socket, host_proc);
    std::process::exit(1)
}
