//! The Python zygote: a booted interpreter that serves requests for cells by forking itself.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::io::FdFlags;
use serde::{Deserialize, Serialize};

/// Where guests' roots have the zygote's code.
const ZYGOTE: &str = "/rt/python/zygote.py";

/// What a zygote has imported. Each module is paid for by every fork, in page tables and in pages that are copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Imports {
    /// What handlers import most: for cells that wait.
    Many,
    /// What the bootstrap needs: for cells that are waited for.
    Few,
}

impl Imports {
    fn as_str(self) -> &'static str {
        match self {
            Self::Many => "many",
            Self::Few => "few",
        }
    }
}

/// Replaces this process, already in the guests' root, by a zygote of the interpreter `python`. Returns only why it could not.
pub(crate) fn become_python(python: &str, socket: OwnedFd, host_proc: OwnedFd, imports: Imports) -> io::Error {
    for descriptor in [&socket, &host_proc] {
        if let Err(error) = rustix::io::fcntl_setfd(descriptor, FdFlags::empty()) {
            return error.into();
        }
    }
    Command::new(python)
        .args(["-I", "-S", ZYGOTE])
        .arg(socket.as_raw_fd().to_string())
        .arg(host_proc.as_raw_fd().to_string())
        .arg(imports.as_str())
        .env_clear()
        .envs([("PATH", "/usr/bin:/bin"), ("LANG", "C.UTF-8"), ("HOME", "/tmp")])
        // Where native libraries of the user's look for each other; the linker reads it once, when a process starts.
        .env("LD_LIBRARY_PATH", "/code:/code/lib:/opt/lib")
        .exec()
}
