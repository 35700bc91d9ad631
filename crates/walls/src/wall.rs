//! The walls by name, and which of them a request leaves out.

/// One wall. A test harness may leave one out to show that its attack does work when nothing stands in the way; the
/// shipped paths always send [`Without::NOTHING`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Wall {
    /// The system call filter.
    Seccomp = 1 << 0,
    /// Landlock: a second say about files, abstract sockets and signals.
    Landlock = 1 << 1,
    /// Empty capability sets, including the bounding set.
    Capabilities = 1 << 2,
    /// `no_new_privs`. Landlock and seccomp need it, so they fall with it.
    NoNewPrivs = 1 << 3,
    /// A pid namespace of its own.
    PidNamespace = 1 << 4,
    /// A `/proc` that shows own processes only. Left out, the host's `/proc` is mounted instead.
    PrivateProc = 1 << 5,
    /// A root file system that cannot be written.
    ReadOnlyRoot = 1 << 6,
    /// The net namespace that came with the request.
    NetNamespace = 1 << 7,
    /// A user namespace of its own.
    UserNamespace = 1 << 8,
    /// The intermediate namespace that allows no further user namespaces.
    NamespaceLimit = 1 << 9,
    /// A host uid of its own. Left out, the child keeps uid 0 on the host.
    HostUid = 1 << 10,
    /// An IPC namespace of its own.
    Ipc = 1 << 11,
    /// A host name of its own.
    Uts = 1 << 12,
    /// A cgroup namespace of its own.
    CgroupNamespace = 1 << 13,
    /// Membership of the cgroups that came with the request.
    Cgroups = 1 << 14,
    /// Bounds on the bytes and inodes of `/tmp` and `/dev/shm`.
    TmpSize = 1 << 15,
    /// Closing every inherited descriptor.
    Descriptors = 1 << 16,
    /// Resource limits.
    Rlimits = 1 << 17,
    /// Dying with the supervisor.
    DeathSignal = 1 << 18,
}

impl Wall {
    /// Every wall, in the order in which they are built.
    pub const ALL: [Wall; 19] = [
        Wall::PidNamespace,
        Wall::Ipc,
        Wall::Uts,
        Wall::Cgroups,
        Wall::NetNamespace,
        Wall::ReadOnlyRoot,
        Wall::PrivateProc,
        Wall::TmpSize,
        Wall::Rlimits,
        Wall::CgroupNamespace,
        Wall::NamespaceLimit,
        Wall::HostUid,
        Wall::UserNamespace,
        Wall::Capabilities,
        Wall::NoNewPrivs,
        Wall::DeathSignal,
        Wall::Descriptors,
        Wall::Landlock,
        Wall::Seccomp,
    ];
}

/// The walls a request leaves out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Without(u32);

impl Without {
    /// Leaves out nothing: the only value the product sends.
    pub const NOTHING: Without = Without(0);

    /// Leaves out `wall` as well.
    #[must_use]
    pub fn and(self, wall: Wall) -> Without {
        Without(self.0 | wall as u32)
    }

    pub(crate) fn bits(self) -> u32 {
        self.0
    }

    pub(crate) fn from_bits(bits: u32) -> Without {
        Without(bits)
    }

    /// Whether `wall` is to be built.
    #[must_use]
    pub fn keeps(self, wall: Wall) -> bool {
        self.0 & wall as u32 == 0
    }
}

impl From<Wall> for Without {
    fn from(wall: Wall) -> Without {
        Without::NOTHING.and(wall)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wall_has_a_bit_of_its_own() {
        let mut seen = Without::NOTHING;
        for wall in Wall::ALL {
            assert!(seen.keeps(wall), "{wall:?} shares a bit");
            seen = seen.and(wall);
            assert!(!seen.keeps(wall));
        }
    }
}
