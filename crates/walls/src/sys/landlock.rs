//! The three landlock calls.

use std::ffi::c_long;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::call::check;

const CREATE_RULESET_VERSION: u32 = 1;
const RULE_PATH_BENEATH: u32 = 1;

/// Rights on files, as the kernel numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AccessFs(pub(crate) u64);

impl AccessFs {
    pub(crate) const EXECUTE: AccessFs = AccessFs(1 << 0);
    pub(crate) const WRITE_FILE: AccessFs = AccessFs(1 << 1);
    pub(crate) const READ_FILE: AccessFs = AccessFs(1 << 2);
    pub(crate) const READ_DIR: AccessFs = AccessFs(1 << 3);
    pub(crate) const MAKE_CHAR: AccessFs = AccessFs(1 << 6);
    pub(crate) const MAKE_BLOCK: AccessFs = AccessFs(1 << 11);
    pub(crate) const TRUNCATE: AccessFs = AccessFs(1 << 14);
    pub(crate) const IOCTL_DEV: AccessFs = AccessFs(1 << 15);

    pub(crate) const fn and(self, other: AccessFs) -> AccessFs {
        AccessFs(self.0 | other.0)
    }

    pub(crate) const fn within(self, other: AccessFs) -> AccessFs {
        AccessFs(self.0 & other.0)
    }

    pub(crate) const fn but(self, other: AccessFs) -> AccessFs {
        AccessFs(self.0 & !other.0)
    }
}

#[repr(C)]
struct RulesetAttr {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

#[repr(C, packed)]
struct PathBeneathAttr {
    allowed_access: u64,
    parent_fd: i32,
}

/// The version of landlock this kernel has; an error when it has none or it is switched off.
pub(crate) fn landlock_version() -> io::Result<u32> {
    // SAFETY: with this flag the kernel reads no memory and returns a number.
    let version = check(unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0usize, CREATE_RULESET_VERSION)
    })?;
    u32::try_from(version).map_err(|_| io::Error::from(io::ErrorKind::Unsupported))
}

/// Rules that are being collected.
pub(crate) struct Ruleset(OwnedFd);

impl Ruleset {
    /// Handles `fs` and the scopes in `scoped`: what no rule allows is refused. A kernel that knows fewer members of
    /// the structure accepts it as long as those are zero.
    pub(crate) fn new(fs: AccessFs, scoped: u64) -> io::Result<Ruleset> {
        let attr = RulesetAttr { handled_access_fs: fs.0, handled_access_net: 0, scoped };
        // SAFETY: the pointer and the length describe `attr`, which lives through the call.
        let fd =
            check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attr, size_of::<RulesetAttr>(), 0u32) })?;
        // SAFETY: the kernel has just made this descriptor for us; it is close-on-exec and nobody else has it.
        Ok(Ruleset(unsafe { OwnedFd::from_raw_fd(fd_of(fd)) }))
    }

    /// Allows `access` on everything below `parent`.
    pub(crate) fn allow(&self, parent: BorrowedFd<'_>, access: AccessFs) -> io::Result<()> {
        let attr = PathBeneathAttr { allowed_access: access.0, parent_fd: parent.as_raw_fd() };
        // SAFETY: the pointer describes `attr` in the layout of this rule type, and it lives through the call.
        check(unsafe {
            libc::syscall(libc::SYS_landlock_add_rule, self.0.as_fd().as_raw_fd(), RULE_PATH_BENEATH, &raw const attr, 0u32)
        })?;
        Ok(())
    }

    /// Enforces the rules on the calling thread and its future children.
    pub(crate) fn enforce(self) -> io::Result<()> {
        // SAFETY: passes a descriptor and a flag word, no memory.
        check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, self.0.as_raw_fd(), 0u32) })?;
        Ok(())
    }
}

fn fd_of(result: c_long) -> i32 {
    i32::try_from(result).expect("the kernel's descriptors are ints")
}
