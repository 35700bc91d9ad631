//! What this host's kernel can do, wall by wall: for `doctor`, and for refusing to start on a host that cannot hold.
//!
//! Each question is put to the kernel in a way that changes nothing, in a throw-away child where needed.

use std::io;
use std::path::Path;

use crate::landlock::SCOPES_SINCE;
use crate::protocol::Wall;
use crate::serve::errno;
use crate::sys;

/// How well a wall stands on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// As designed.
    Ok,
    /// Weaker than designed, still safe to serve behind.
    Degraded,
    /// Not at all: nothing may be served.
    Missing,
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The wall.
    pub wall: Wall,
    /// How it stands.
    pub standing: Standing,
    /// What was seen.
    pub seen: String,
    /// What to do about it; empty when nothing.
    pub fix: String,
}

impl Finding {
    fn ok(wall: Wall, seen: impl Into<String>) -> Finding {
        Finding { wall, standing: Standing::Ok, seen: seen.into(), fix: String::new() }
    }

    fn missing(wall: Wall, seen: impl Into<String>, fix: impl Into<String>) -> Finding {
        Finding { wall, standing: Standing::Missing, seen: seen.into(), fix: fix.into() }
    }

    fn of(wall: Wall, outcome: io::Result<()>, seen: &str, fix: &str) -> Finding {
        match outcome {
            Ok(()) => Finding::ok(wall, seen),
            Err(error) => Finding::missing(wall, format!("{seen}: {error}"), fix),
        }
    }
}

/// Tries each wall that depends on the kernel and reports, in the order in which they are built.
#[must_use]
pub fn probe() -> Vec<Finding> {
    let mut findings = vec![
        rights(),
        namespace(Wall::PidNamespace, libc::CLONE_NEWPID, "CONFIG_PID_NS"),
        namespace(Wall::Ipc, libc::CLONE_NEWIPC, "CONFIG_IPC_NS"),
        namespace(Wall::Uts, libc::CLONE_NEWUTS, "CONFIG_UTS_NS"),
        namespace(Wall::NetNamespace, libc::CLONE_NEWNET, "CONFIG_NET_NS"),
        namespace(Wall::CgroupNamespace, libc::CLONE_NEWCGROUP, "CONFIG_CGROUPS"),
        cloning(),
        read_only_root(),
        private_proc(),
        user_namespace(),
        namespace_limit(),
        landlock(),
        Finding::of(
            Wall::Seccomp,
            sys::seccomp_supports_errno(),
            "system call filters",
            "use a kernel with CONFIG_SECCOMP_FILTER",
        ),
    ];
    findings.sort_by_key(|finding| Wall::ALL.iter().position(|wall| *wall == finding.wall));
    findings
}

fn rights() -> Finding {
    if rustix::process::geteuid().is_root() {
        Finding::ok(Wall::HostUid, "running as root")
    } else {
        Finding::missing(Wall::HostUid, "not running as root", "start as root: only root can give each guest a uid")
    }
}

fn namespace(wall: Wall, flag: libc::c_int, config: &str) -> Finding {
    let fix = format!("use a kernel with {config}, and start with CAP_SYS_ADMIN (in a container: privileged)");
    Finding::of(wall, in_child(|| sys::unshare(flag)), "a namespace of its own", &fix)
}

/// The descriptor wall stands for what a clone needs besides namespaces: `clone3`, `close_range`, the id's address.
fn cloning() -> Finding {
    let attempt = in_child(|| {
        if let sys::Cloned::Child = sys::clone_child(0)? {
            sys::exit_now(0);
        }
        sys::close_from(sys::EXTRA + 1)
    });
    let fix = "use Linux 5.9 or later with CONFIG_CHECKPOINT_RESTORE";
    Finding::of(Wall::Descriptors, attempt, "clone3 with a pidfd, and close_range", fix)
}

fn read_only_root() -> Finding {
    for link in ["/bin", "/sbin", "/lib"] {
        if Path::new(link).is_dir() && !Path::new(link).is_symlink() {
            let seen = format!("{link} is not a link into /usr");
            return Finding::missing(Wall::ReadOnlyRoot, seen, "use a usr-merged distribution");
        }
    }
    let attempt = in_child(|| {
        sys::unshare(libc::CLONE_NEWNS)?;
        let flags = rustix::mount::OpenTreeFlags::OPEN_TREE_CLONE | rustix::mount::OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = rustix::mount::open_tree(rustix::fs::CWD, "/usr", flags)?;
        sys::set_attributes(std::os::fd::AsFd::as_fd(&tree), libc::MOUNT_ATTR_RDONLY, false)
    });
    let fix = "use Linux 5.12 or later, and start with CAP_SYS_ADMIN";
    Finding::of(Wall::ReadOnlyRoot, attempt, "read-only copies of mounts", fix)
}

fn private_proc() -> Finding {
    let attempt = in_child(|| {
        let proc = rustix::mount::fsopen("proc", rustix::mount::FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_set_string(&proc, "subset", "pid")?;
        rustix::mount::fsconfig_set_string(&proc, "hidepid", "2")?;
        Ok(())
    });
    Finding::of(Wall::PrivateProc, attempt, "/proc with subset=pid and hidepid=2", "use Linux 5.8 or later")
}

fn user_namespace() -> Finding {
    // A guest's is made with a uid of its own, which distributions may forbid to all but root.
    const NOBODY: u32 = 65_534;
    let attempt = in_child(|| {
        let uid = rustix::fs::Uid::from_raw(NOBODY);
        rustix::thread::set_thread_res_uid(uid, uid, uid)?;
        sys::unshare(libc::CLONE_NEWUSER)
    });
    let Err(error) = attempt else {
        return Finding::ok(Wall::UserNamespace, "a namespace of its own, made without rights");
    };
    let fix = match (setting("kernel/unprivileged_userns_clone"), error.raw_os_error()) {
        (Some(0), _) => "sysctl -w kernel.unprivileged_userns_clone=1",
        (_, Some(libc::ENOSPC)) => "sysctl -w user.max_user_namespaces=65536",
        _ if setting("kernel/apparmor_restrict_unprivileged_userns") == Some(1) => {
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile that allows userns"
        }
        _ => "use a kernel with CONFIG_USER_NS and no policy against unprivileged user namespaces",
    };
    Finding::missing(Wall::UserNamespace, format!("a namespace of its own: {error}"), fix)
}

fn namespace_limit() -> Finding {
    let attempt = (|| {
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        let proc = rustix::fs::open("/proc", flags, rustix::fs::Mode::empty())?;
        crate::limit_namespace(std::os::fd::AsFd::as_fd(&proc)).map(drop)
    })();
    let fix = "/proc/sys has to be writable, and user.max_user_namespaces above zero";
    Finding::of(Wall::NamespaceLimit, attempt, "no further user namespaces inside", fix)
}

fn landlock() -> Finding {
    match sys::landlock_version() {
        Ok(version) if version >= SCOPES_SINCE => Finding::ok(Wall::Landlock, format!("version {version}")),
        Ok(version) => Finding {
            wall: Wall::Landlock,
            standing: Standing::Degraded,
            seen: format!("version {version}: files, but neither signals nor abstract sockets"),
            fix: "Linux 6.12 or later adds those; pid and net namespaces cover them meanwhile".into(),
        },
        Err(error) => Finding::missing(
            Wall::Landlock,
            error.to_string(),
            "boot with `landlock` in the lsm= list, on a kernel with CONFIG_SECURITY_LANDLOCK",
        ),
    }
}

fn setting(name: &str) -> Option<u64> {
    std::fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?.trim().parse().ok()
}

/// Runs `attempt` in a child that ends with it.
fn in_child(attempt: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let Some(pid) = sys::fork()? else {
        let status = match attempt() {
            Ok(()) => 0,
            Err(error) => errno(&error).clamp(1, 255),
        };
        sys::exit_now(status);
    };
    match sys::wait(pid)? {
        Some(0) => Ok(()),
        Some(number) => Err(io::Error::from_raw_os_error(number)),
        None => Err(io::Error::other("the probing child was killed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_can_hold_guests() {
        for finding in probe() {
            assert_ne!(finding.standing, Standing::Missing, "{finding:?}");
        }
    }
}
