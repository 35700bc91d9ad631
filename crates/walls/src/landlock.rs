//! Landlock: a second say about files, whatever the mounts and permissions allow.
//!
//! A rule covers what is mounted *below* its directory later on, but not what is mounted *over* the directory itself.
//! Code, `/tmp` and the unpacker's output are mounted over their mount points after the rules exist; hence reading and
//! executing is allowed on `/`, and writing on `/w`, the parent of everything that can be written.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags};

use crate::sys::{AccessFs, Ruleset, landlock_version};

/// The version from which a child is also kept from signalling outside and from foreign abstract sockets.
pub(crate) const SCOPES_SINCE: u32 = 6;

const READ: AccessFs = AccessFs::EXECUTE.and(AccessFs::READ_FILE).and(AccessFs::READ_DIR);
const DEVICE: AccessFs = AccessFs::READ_FILE.and(AccessFs::WRITE_FILE).and(AccessFs::TRUNCATE).and(AccessFs::IOCTL_DEV);
const NEVER: AccessFs = AccessFs::MAKE_CHAR.and(AccessFs::MAKE_BLOCK).and(AccessFs::IOCTL_DEV);

/// Abstract unix sockets and signals.
const SCOPES: u64 = 0b11;

/// The file rights a version knows.
fn known(version: u32) -> AccessFs {
    AccessFs(match version {
        1 => (1 << 13) - 1,
        2 => (1 << 14) - 1,
        3 | 4 => (1 << 15) - 1,
        _ => (1 << 16) - 1,
    })
}

/// Enforces the rules on the calling child, as far as this kernel's version of landlock goes. A kernel without
/// landlock is an error.
pub(crate) fn enforce() -> io::Result<()> {
    allow_only(|all| [("/", READ), ("/w", all), ("/dev/null", DEVICE), ("/dev/zero", DEVICE), ("/dev/full", DEVICE)])
}

/// The same for a container, whose files are all below its own root and its own to write. What it must not write is mounted
/// read-only.
pub(crate) fn enforce_in_image() -> io::Result<()> {
    allow_only(|all| [("/", all)])
}

/// Leaves the calling thread these rights below these places. `rights` is told what there is to give.
fn allow_only<const N: usize>(rights: impl FnOnce(AccessFs) -> [(&'static str, AccessFs); N]) -> io::Result<()> {
    let version = landlock_version()?;
    let known = known(version);
    let rules = Ruleset::new(known, if version >= SCOPES_SINCE { SCOPES } else { 0 })?;
    for (path, access) in rights(known.but(NEVER)) {
        let place = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        rules.allow(place.as_fd(), access.within(known))?;
    }
    rules.enforce()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_version_never_knows_less() {
        for version in 1..9 {
            assert_eq!(known(version).within(known(version + 1)), known(version));
        }
        assert_eq!(known(7).0, 0xffff);
    }
}
