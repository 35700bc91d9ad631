//! The steps by name, so that a failure says where.

/// A step on the way from a request to a running child. The number is on the wire, the name is in messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Step {
    /// Nothing failed.
    None = 0,
    /// Reading the request.
    Request = 1,
    /// Cloning the child.
    Clone = 2,
    /// Joining a cgroup.
    Cgroups = 3,
    /// Entering the net namespace.
    NetNamespace = 4,
    /// Mounting the private `/proc`.
    Proc = 5,
    /// Mounting `/tmp` or `/dev/shm`.
    Tmp = 6,
    /// Making the root writable (only when a test leaves that wall out).
    Root = 7,
    /// Setting the host name.
    Uts = 8,
    /// Setting a resource limit.
    Rlimits = 9,
    /// Leaving the cgroup namespace.
    CgroupNamespace = 10,
    /// Entering the namespace that allows no further ones.
    NamespaceLimit = 11,
    /// Taking the host uid.
    HostUid = 12,
    /// Making the user namespace and its map.
    UserNamespace = 13,
    /// Giving up capabilities.
    Capabilities = 14,
    /// Setting `no_new_privs`.
    NoNewPrivs = 15,
    /// Asking to die with the supervisor.
    DeathSignal = 16,
    /// Arranging the descriptors.
    Descriptors = 17,
    /// Enforcing landlock.
    Landlock = 18,
    /// Installing the filter.
    Seccomp = 19,
    /// Having a template clone itself.
    Trace = 20,
}

impl Step {
    pub(crate) const ALL: [Step; 21] = [
        Step::None,
        Step::Request,
        Step::Clone,
        Step::Cgroups,
        Step::NetNamespace,
        Step::Proc,
        Step::Tmp,
        Step::Root,
        Step::Uts,
        Step::Rlimits,
        Step::CgroupNamespace,
        Step::NamespaceLimit,
        Step::HostUid,
        Step::UserNamespace,
        Step::Capabilities,
        Step::NoNewPrivs,
        Step::DeathSignal,
        Step::Descriptors,
        Step::Landlock,
        Step::Seccomp,
        Step::Trace,
    ];

    /// The step in words, for messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Step::None => "nothing",
            Step::Request => "read the request",
            Step::Clone => "clone the child",
            Step::Cgroups => "join the cgroups",
            Step::NetNamespace => "enter the net namespace",
            Step::Proc => "mount /proc",
            Step::Tmp => "mount /tmp and /dev/shm",
            Step::Root => "remount the root",
            Step::Uts => "set the host name",
            Step::Rlimits => "set the resource limits",
            Step::CgroupNamespace => "make the cgroup namespace",
            Step::NamespaceLimit => "enter the namespace limit",
            Step::HostUid => "take the host uid",
            Step::UserNamespace => "make the user namespace",
            Step::Capabilities => "give up capabilities",
            Step::NoNewPrivs => "set no_new_privs",
            Step::DeathSignal => "set the death signal",
            Step::Descriptors => "arrange the descriptors",
            Step::Landlock => "enforce landlock",
            Step::Seccomp => "install the system call filter",
            Step::Trace => "have the template clone itself",
        }
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
