//! What a guest may ask of the kernel. This is data: the filter, its documentation and its tests are made from it.

use std::fmt;

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// It is carried out.
    Allow,
    /// ENOSYS, as if this kernel did not have it: programs fall back.
    Absent,
    /// EPERM.
    Refuse,
    /// It depends on the arguments.
    Check(Check),
}

/// Calls whose arguments decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// No new namespace.
    Clone,
    /// Only unix, IPv4 and IPv6, as streams or datagrams of TCP and UDP.
    Socket,
    /// Only unix.
    SocketPair,
    /// No terminal injection, no change to a network interface.
    Ioctl,
    /// Harmless options; the death signal stays SIGKILL.
    Prctl,
    /// No filters or marks on sockets, no multicast membership, no protocol stacking, no firewall.
    SetSocketOption,
    /// The default personality, or asking which.
    Personality,
}

/// Calls that share a rule and a reason.
#[derive(Debug)]
pub struct Group {
    /// What happens.
    pub rule: Rule,
    /// What they are, or why.
    pub why: &'static str,
    /// Name and number.
    pub calls: &'static [(&'static str, i64)],
}

macro_rules! calls {
    ($($name:ident $(= $number:literal)?),* $(,)?) => {
        &[$((stringify!($name), calls!(@number $name $($number)?))),*]
    };
    (@number $name:ident) => { libc::$name };
    // Newer than the bindings.
    (@number $name:ident $number:literal) => { $number };
}

/// The table. A number occurs once.
pub const TABLE: &[Group] = &[
    Group {
        rule: Rule::Allow,
        why: "files and directories",
        calls: calls![
            SYS_read, SYS_write, SYS_open, SYS_close, SYS_stat, SYS_fstat, SYS_lstat, SYS_poll, SYS_lseek,
            SYS_pread64, SYS_pwrite64, SYS_readv, SYS_writev, SYS_access, SYS_select, SYS_dup, SYS_dup2, SYS_sendfile,
            SYS_fcntl, SYS_flock, SYS_fsync, SYS_fdatasync, SYS_truncate, SYS_ftruncate, SYS_getdents, SYS_getcwd,
            SYS_chdir, SYS_fchdir, SYS_rename, SYS_mkdir, SYS_rmdir, SYS_creat, SYS_link, SYS_unlink, SYS_symlink,
            SYS_readlink, SYS_chmod, SYS_fchmod, SYS_chown, SYS_fchown, SYS_lchown, SYS_umask, SYS_utime, SYS_statfs,
            SYS_fstatfs, SYS_readahead, SYS_setxattr, SYS_lsetxattr, SYS_fsetxattr, SYS_getxattr, SYS_lgetxattr,
            SYS_fgetxattr, SYS_listxattr, SYS_llistxattr, SYS_flistxattr, SYS_removexattr, SYS_lremovexattr,
            SYS_fremovexattr, SYS_getdents64, SYS_fadvise64, SYS_utimes, SYS_openat, SYS_mkdirat, SYS_fchownat,
            SYS_futimesat, SYS_newfstatat, SYS_unlinkat, SYS_renameat, SYS_linkat, SYS_symlinkat, SYS_readlinkat,
            SYS_fchmodat, SYS_faccessat, SYS_pselect6, SYS_ppoll, SYS_sync_file_range, SYS_utimensat, SYS_fallocate,
            SYS_dup3, SYS_preadv, SYS_pwritev, SYS_renameat2, SYS_copy_file_range, SYS_preadv2, SYS_pwritev2,
            SYS_statx, SYS_close_range, SYS_openat2, SYS_faccessat2, SYS_fchmodat2, SYS_inotify_init,
            SYS_inotify_add_watch, SYS_inotify_rm_watch, SYS_inotify_init1, SYS_memfd_create,
        ],
    },
    Group {
        rule: Rule::Allow,
        why: "memory of its own",
        calls: calls![
            SYS_mmap, SYS_mprotect, SYS_munmap, SYS_brk, SYS_mremap, SYS_msync, SYS_madvise, SYS_mlock, SYS_munlock,
            SYS_mlockall, SYS_munlockall, SYS_mlock2, SYS_membarrier, SYS_mseal,
        ],
    },
    Group {
        rule: Rule::Allow,
        why: "processes, threads and signals in its own pid namespace",
        calls: calls![
            SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_rt_sigpending, SYS_rt_sigtimedwait,
            SYS_rt_sigqueueinfo, SYS_rt_sigsuspend, SYS_rt_tgsigqueueinfo, SYS_sigaltstack, SYS_sched_yield, SYS_pause,
            SYS_getpid, SYS_fork, SYS_vfork, SYS_execve, SYS_execveat, SYS_exit, SYS_exit_group, SYS_wait4, SYS_waitid,
            SYS_kill, SYS_tkill, SYS_tgkill, SYS_gettid, SYS_futex, SYS_futex_waitv, SYS_set_tid_address,
            SYS_set_robust_list, SYS_get_robust_list, SYS_rseq, SYS_restart_syscall, SYS_arch_prctl, SYS_setpgid,
            SYS_getppid, SYS_getpgrp, SYS_getpgid, SYS_setsid, SYS_getsid, SYS_pidfd_open, SYS_pidfd_send_signal,
            SYS_getpriority, SYS_setpriority, SYS_ioprio_get, SYS_sched_setparam, SYS_sched_getparam,
            SYS_sched_setscheduler, SYS_sched_getscheduler, SYS_sched_get_priority_max, SYS_sched_get_priority_min,
            SYS_sched_rr_get_interval, SYS_sched_setaffinity, SYS_sched_getaffinity, SYS_sched_setattr,
            SYS_sched_getattr, SYS_getcpu,
        ],
    },
    Group {
        rule: Rule::Allow,
        why: "asking about itself and the machine",
        calls: calls![
            SYS_uname, SYS_getrlimit, SYS_setrlimit, SYS_prlimit64, SYS_getrusage, SYS_sysinfo, SYS_times, SYS_getuid,
            SYS_getgid, SYS_geteuid, SYS_getegid, SYS_getgroups, SYS_getresuid, SYS_getresgid, SYS_capget,
            SYS_getrandom,
        ],
    },
    Group {
        rule: Rule::Allow,
        why: "time",
        calls: calls![
            SYS_nanosleep, SYS_getitimer, SYS_alarm, SYS_setitimer, SYS_gettimeofday, SYS_time, SYS_timer_create,
            SYS_timer_settime, SYS_timer_gettime, SYS_timer_getoverrun, SYS_timer_delete, SYS_clock_gettime,
            SYS_clock_getres, SYS_clock_nanosleep, SYS_timerfd_create, SYS_timerfd_settime, SYS_timerfd_gettime,
        ],
    },
    Group {
        rule: Rule::Allow,
        why: "pipes, events, and sockets that the socket check let through",
        calls: calls![
            SYS_pipe, SYS_pipe2, SYS_eventfd, SYS_eventfd2, SYS_signalfd, SYS_signalfd4, SYS_epoll_create,
            SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_wait, SYS_epoll_pwait, SYS_epoll_pwait2, SYS_connect,
            SYS_accept, SYS_accept4, SYS_sendto, SYS_recvfrom, SYS_sendmsg, SYS_recvmsg, SYS_sendmmsg, SYS_recvmmsg,
            SYS_shutdown, SYS_bind, SYS_listen, SYS_getsockname, SYS_getpeername, SYS_getsockopt,
        ],
    },
    Group {
        rule: Rule::Allow,
        why: "System V objects, which its IPC namespace confines",
        calls: calls![
            SYS_shmget, SYS_shmat, SYS_shmctl, SYS_shmdt, SYS_semget, SYS_semop, SYS_semctl, SYS_semtimedop,
            SYS_msgget, SYS_msgsnd, SYS_msgrcv, SYS_msgctl,
        ],
    },
    Group { rule: Rule::Check(Check::Clone), why: "no new namespace", calls: calls![SYS_clone] },
    Group {
        rule: Rule::Check(Check::Socket),
        why: "unix, IPv4 and IPv6 only; streams and datagrams of TCP and UDP",
        calls: calls![SYS_socket],
    },
    Group { rule: Rule::Check(Check::SocketPair), why: "unix only", calls: calls![SYS_socketpair] },
    Group {
        rule: Rule::Check(Check::Ioctl),
        why: "no terminal injection, no change to a network interface",
        calls: calls![SYS_ioctl],
    },
    Group {
        rule: Rule::Check(Check::Prctl),
        why: "harmless options; the death signal stays SIGKILL",
        calls: calls![SYS_prctl],
    },
    Group {
        rule: Rule::Check(Check::SetSocketOption),
        why: "no socket filters or marks, no multicast membership, no protocol stacking, no firewall",
        calls: calls![SYS_setsockopt],
    },
    Group {
        rule: Rule::Check(Check::Personality),
        why: "the default, or asking which it is",
        calls: calls![SYS_personality],
    },
    Group {
        rule: Rule::Absent,
        why: "probes that runtimes fall back from: arguments out of the filter's sight, or a history of holes",
        calls: calls![
            SYS_clone3, SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register, SYS_splice, SYS_vmsplice,
            SYS_tee, SYS_io_setup, SYS_io_destroy, SYS_io_getevents, SYS_io_submit, SYS_io_cancel,
            SYS_io_pgetevents = 333, SYS_pkey_mprotect, SYS_pkey_alloc, SYS_pkey_free, SYS_memfd_secret,
            SYS_map_shadow_stack = 453,
        ],
    },
    Group {
        rule: Rule::Refuse,
        why: "namespaces and mounts",
        calls: calls![
            SYS_unshare, SYS_setns, SYS_mount, SYS_umount2, SYS_pivot_root, SYS_chroot, SYS_open_tree, SYS_move_mount,
            SYS_fsopen, SYS_fsconfig, SYS_fsmount, SYS_fspick, SYS_mount_setattr, SYS_statmount = 457,
            SYS_listmount = 458, SYS_open_tree_attr = 467, SYS_sethostname, SYS_setdomainname,
        ],
    },
    Group {
        rule: Rule::Refuse,
        why: "other ids, other rights",
        calls: calls![
            SYS_setuid, SYS_setgid, SYS_setreuid, SYS_setregid, SYS_setgroups, SYS_setresuid, SYS_setresgid,
            SYS_setfsuid, SYS_setfsgid, SYS_capset, SYS_seccomp, SYS_landlock_create_ruleset, SYS_landlock_add_rule,
            SYS_landlock_restrict_self, SYS_lsm_get_self_attr = 459, SYS_lsm_set_self_attr = 460,
            SYS_lsm_list_modules = 461,
        ],
    },
    Group {
        rule: Rule::Refuse,
        why: "looking into, or reaching into, other processes",
        calls: calls![
            SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_process_madvise, SYS_process_mrelease,
            SYS_kcmp, SYS_pidfd_getfd, SYS_perf_event_open, SYS_userfaultfd, SYS_migrate_pages, SYS_move_pages,
        ],
    },
    Group {
        rule: Rule::Refuse,
        why: "what is in the page cache says what neighbours do",
        calls: calls![SYS_mincore, SYS_cachestat = 451],
    },
    Group {
        rule: Rule::Refuse,
        why: "keyrings are not in any namespace",
        calls: calls![SYS_add_key, SYS_request_key, SYS_keyctl],
    },
    Group {
        rule: Rule::Refuse,
        why: "files by other means than their path; devices; everybody's disks",
        calls: calls![
            SYS_name_to_handle_at, SYS_open_by_handle_at, SYS_mknod, SYS_mknodat, SYS_fanotify_init,
            SYS_fanotify_mark, SYS_lookup_dcookie, SYS_sync, SYS_syncfs, SYS_quotactl, SYS_quotactl_fd, SYS_acct,
            SYS_swapon, SYS_swapoff, SYS_sysfs, SYS_ustat,
        ],
    },
    Group {
        rule: Rule::Refuse,
        why: "the machine",
        calls: calls![
            SYS_reboot, SYS_kexec_load, SYS_kexec_file_load, SYS_init_module, SYS_finit_module, SYS_delete_module,
            SYS_bpf, SYS_syslog, SYS_iopl, SYS_ioperm, SYS_modify_ldt, SYS_uselib, SYS_vhangup, SYS_nfsservctl,
            SYS_settimeofday, SYS_clock_settime, SYS_adjtimex, SYS_clock_adjtime, SYS_ioprio_set, SYS_mbind,
            SYS_set_mempolicy, SYS_get_mempolicy, SYS_set_mempolicy_home_node, SYS_remap_file_pages,
        ],
    },
    Group {
        rule: Rule::Refuse,
        why: "POSIX message queues, of which a guest has none",
        calls: calls![
            SYS_mq_open, SYS_mq_unlink, SYS_mq_timedsend, SYS_mq_timedreceive, SYS_mq_notify, SYS_mq_getsetattr,
        ],
    },
];

/// The rule for a number of this architecture.
#[must_use]
pub fn rule(number: u32) -> Rule {
    TABLE
        .iter()
        .find(|group| group.calls.iter().any(|(_, named)| *named == i64::from(number)))
        .map_or(Rule::Absent, |group| group.rule)
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rule::Allow => "allowed",
            Rule::Absent => "ENOSYS",
            Rule::Refuse => "EPERM",
            Rule::Check(_) => "allowed by argument",
        })
    }
}
