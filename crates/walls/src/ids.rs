//! The ids of a child that has many: a container, whose programs and files belong to several users, and what unpacks its
//! image.
//!
//! Inside they are 0 to 65,535; on the host they are a range that no other live child has. Only a process of the namespace
//! above may write such a map, and by then the child itself has given up its rights there: a helper does it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use crate::limit::{hear, pair, say, write_at};
use crate::serve::errno;
use crate::sys;

/// How many ids such a child has.
pub const COUNT: u32 = 65_536;

/// The most supplementary groups a program is started with.
const GROUPS_MAX: usize = 64;

/// A helper that waits to write the child's maps, with the rights that the child had when it was started.
pub(crate) struct Mapper {
    helper: i32,
    socket: OwnedFd,
}

impl Mapper {
    /// Starts the helper, for a child whose ids are `first` and those that follow it on the host.
    pub(crate) fn start(host_proc: BorrowedFd<'_>, first: u32) -> io::Result<Self> {
        let child = rustix::fs::openat(host_proc, "self", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let (ours, theirs) = pair()?;
        let Some(helper) = sys::fork()? else {
            drop(ours);
            let map = format!("0 {first} {COUNT}");
            let written = hear(theirs.as_fd())
                .and_then(|()| write_at(child.as_fd(), "uid_map", &map))
                .and_then(|()| write_at(child.as_fd(), "gid_map", &map));
            sys::exit_now(written.map_or_else(|error| errno(&error), |()| 0));
        };
        Ok(Self { helper, socket: ours })
    }

    /// Moves the child into a user namespace of its own, in which it is root and has all the ids.
    pub(crate) fn enter(self) -> io::Result<()> {
        sys::unshare(libc::CLONE_NEWUSER)?;
        say(self.socket.as_fd())?;
        match sys::wait(self.helper)? {
            Some(0) => Ok(()),
            Some(number) => Err(io::Error::from_raw_os_error(number)),
            None => Err(io::Error::other("the helper was killed")),
        }
    }
}

/// Whom a container's program runs as, by the ids inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
}

impl User {
    /// Reads `<uid>:<gid>`, and `:<gid>` for each further group.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut ids = text.split(':').map(|id| id.parse().ok().filter(|id| *id < COUNT));
        let (uid, gid) = (ids.next()??, ids.next()??);
        let groups = ids.collect::<Option<Vec<u32>>>()?;
        (groups.len() <= GROUPS_MAX).then_some(Self { uid, gid, groups })
    }

    /// Makes the calling process this user, with no rights left.
    pub(crate) fn become_it(&self) -> io::Result<()> {
        let (uid, gid) = (rustix::fs::Uid::from_raw(self.uid), rustix::fs::Gid::from_raw(self.gid));
        sys::set_groups(&self.groups)?;
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid)?;
        sys::keep_capabilities(0)?;
        // Cleared by the change of credentials.
        sys::set_prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_ids_that_a_container_has() {
        assert_eq!(User::parse("0:0"), Some(User { uid: 0, gid: 0, groups: Vec::new() }));
        assert_eq!(User::parse("1000:65535:4:27"), Some(User { uid: 1000, gid: 65_535, groups: vec![4, 27] }));
        for wrong in ["", "0", "65536:0", "0:65536", "0:0:65536", "-1:0", "root:root", "0:0:", "4294967295:0"] {
            assert_eq!(User::parse(wrong), None, "{wrong}");
        }
        assert_eq!(User::parse(&format!("0:0{}", ":1".repeat(GROUPS_MAX + 1))), None);
    }
}
