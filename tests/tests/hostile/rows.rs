//! What one function alone can try, as data.

/// What a row of plain probes expects: the function answers a JSON object, and each member is one of the words.
pub(crate) type Expected = &'static [(&'static str, &'static [&'static str])];

pub(crate) struct Row {
    pub(crate) claim: &'static str,
    /// In MB; enough that a row about something else does not meet this limit first.
    pub(crate) memory: u32,
    /// The body of `def handler(event, context):`, four spaces deep; `probe` is imported with its names.
    pub(crate) code: &'static str,
    pub(crate) expected: Expected,
}

const DENIED: &[&str] = &["EPERM", "ENOSYS", "EACCES"];

pub(crate) const ROWS: &[Row] = &[
    Row {
        claim: "c01_a_fork_bomb_stops_at_the_limit_of_processes",
        memory: 2048,
        code: "
    count = 0
    try:
        while count < 5000:
            if os.fork() == 0:
                import signal
                signal.pause()
            count += 1
    except OSError as e:
        return {'error': errno.errorcode[e.errno], 'bounded': str(count < 1100)}
    return {'error': 'none', 'bounded': 'False'}",
        expected: &[("error", &["EAGAIN"]), ("bounded", &["True"])],
    },
    Row {
        claim: "c02_a_thread_bomb_stops_at_the_limit_of_tasks",
        memory: 2048,
        code: "
    import threading
    stop = threading.Event()
    threading.stack_size(65536)
    count = 0
    try:
        while count < 5000:
            threading.Thread(target=stop.wait, daemon=True).start()
            count += 1
    except RuntimeError:
        return {'bounded': str(count < 1100)}
    finally:
        stop.set()
    return {'bounded': 'none'}",
        expected: &[("bounded", &["True"])],
    },
    Row {
        claim: "c06_descriptors_run_out_inside_only",
        memory: 512,
        code: "
    held = []
    try:
        while len(held) < 200000:
            held.append(os.open('/dev/null', os.O_RDONLY))
    except OSError as e:
        return {'error': errno.errorcode[e.errno]}
    return {'error': 'none'}",
        expected: &[("error", &["EMFILE"])],
    },
    Row {
        claim: "c07_tmp_fills_up_by_bytes_inside_only",
        memory: 512,
        code: "
    try:
        with open('/tmp/fill', 'wb') as f:
            for _ in range(2000):
                f.write(b'x' * (1 << 20))
    except OSError as e:
        os.unlink('/tmp/fill')
        return {'error': errno.errorcode[e.errno]}
    return {'error': 'none'}",
        expected: &[("error", &["ENOSPC"])],
    },
    Row {
        claim: "c08_tmp_fills_up_by_inodes_inside_only",
        memory: 512,
        code: "
    try:
        for n in range(2_000_000):
            os.close(os.open(f'/tmp/{n}', os.O_CREAT | os.O_WRONLY))
    except OSError as e:
        return {'error': errno.errorcode[e.errno]}
    return {'error': 'none'}",
        expected: &[("error", &["ENOSPC"])],
    },
    Row {
        claim: "c09_code_and_root_are_read_only",
        memory: 512,
        code: "
    w = lambda p: attempt(lambda: open(p, 'w'))
    return {p: w(p) for p in ('/code/x', '/x', '/usr/x', '/etc/passwd', '/opt/x', '/rt/x', '/code/index.py')}",
        expected: &[
            ("/code/x", &["EROFS", "EACCES"]), ("/x", &["EROFS", "EACCES"]), ("/usr/x", &["EROFS", "EACCES"]),
            ("/etc/passwd", &["EROFS", "EACCES"]), ("/opt/x", &["EROFS", "EACCES"]), ("/rt/x", &["EROFS", "EACCES"]),
            ("/code/index.py", &["EROFS", "EACCES"]),
        ],
    },
    Row {
        claim: "c10_a_huge_file_is_refused",
        memory: 512,
        code: "
    import signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    f = os.open('/tmp/huge', os.O_CREAT | os.O_RDWR)
    return {'fallocate': attempt(lambda: os.posix_fallocate(f, 0, 1 << 50))}",
        expected: &[("fallocate", &["ENOSPC", "EFBIG"])],
    },
    Row {
        claim: "c12_c13_no_core_dumps_and_no_locked_memory",
        memory: 512,
        code: "
    import resource, mmap
    m = mmap.mmap(-1, 8 << 20)
    address = ctypes.addressof(ctypes.c_char.from_buffer(m))
    r = libc.mlock(ctypes.c_void_p(address), 8 << 20)
    return {'core': str(resource.getrlimit(resource.RLIMIT_CORE)), 'mlock': 'ok' if r == 0 else errno.errorcode[ctypes.get_errno()],
            'raise': attempt(lambda: resource.setrlimit(resource.RLIMIT_CORE, (1 << 20, 1 << 20)))}",
        expected: &[("core", &["(0, 0)"]), ("mlock", &["ENOMEM", "EPERM", "EAGAIN"]), ("raise", &["ValueError", "EPERM"])],
    },
    Row {
        claim: "c14_no_posix_message_queues",
        memory: 512,
        code: "
    return {'mq_open': syscall(240, b'q', os.O_CREAT | os.O_RDWR, 0o600, 0)}",
        expected: &[("mq_open", &["EPERM", "ENOSYS", "EMFILE"])],
    },
    Row {
        claim: "c15_a_deep_tree_does_not_hinder_the_teardown",
        memory: 512,
        code: "
    os.chdir('/tmp')
    depth = 0
    try:
        while depth < 4096:
            os.mkdir('d'); os.chdir('d'); depth += 1
    except OSError:
        pass
    os.chdir('/')
    return {'deep': str(depth >= 4096)}",
        expected: &[("deep", &["True"])],
    },
    Row {
        claim: "c16_tmp_is_memory",
        memory: 512,
        code: "
    kinds = {l.split()[4]: l.split(' - ')[1].split()[0] for l in open('/proc/self/mountinfo')}
    return {'tmp': kinds[os.path.realpath('/tmp')], 'shm': kinds[os.path.realpath('/dev/shm')]}",
        expected: &[("tmp", &["tmpfs"]), ("shm", &["tmpfs"])],
    },
    Row {
        claim: "c18_proc_shows_only_its_own_processes",
        memory: 512,
        code: "
    pids = sorted(int(p) for p in os.listdir('/proc') if p.isdigit())
    out = {'pids': str(all(p < 100 for p in pids) and pids[0] == 1 and len(pids) < 4), 'self': str(os.getpid() in pids)}
    for p in ('/proc/kcore', '/proc/kallsyms', '/proc/sysrq-trigger', '/proc/sys/kernel/core_pattern', '/proc/modules', '/proc/mounts/../1/root/proc/kmsg'):
        out[p] = attempt(lambda: open(p, 'rb').read(1))
    return out",
        expected: &[
            ("pids", &["True"]), ("self", &["True"]), ("/proc/kcore", &["ENOENT", "EACCES"]), ("/proc/kallsyms", &["ENOENT", "EACCES"]),
            ("/proc/sysrq-trigger", &["ENOENT", "EACCES"]), ("/proc/sys/kernel/core_pattern", &["ENOENT", "EACCES"]),
            ("/proc/modules", &["ENOENT", "EACCES"]), ("/proc/mounts/../1/root/proc/kmsg", &["ENOENT", "EACCES", "ENOTDIR"]),
        ],
    },
    Row {
        claim: "c19_there_is_no_sysfs_and_no_cgroup_file_system",
        memory: 512,
        code: "
    kinds = {l.split(' - ')[1].split()[0] for l in open('/proc/self/mountinfo')}
    return {'sys': attempt(lambda: os.listdir('/sys')), 'kinds': str(sorted(kinds & {'sysfs', 'cgroup', 'cgroup2', 'debugfs', 'tracefs', 'securityfs', 'devpts'}))}",
        expected: &[("sys", &["ENOENT"]), ("kinds", &["[]"])],
    },
    Row {
        claim: "c20_the_environment_holds_only_documented_names",
        memory: 512,
        code: "
    known = {'PATH', 'HOME', 'LANG', 'TZ', 'PYTHONPATH', 'LD_LIBRARY_PATH', 'LC_CTYPE', 'PWD', 'DUNLIN_ENDPOINT', 'PYTHONDONTWRITEBYTECODE', 'PYTHONUNBUFFERED'}
    return {'unknown': str(sorted(k for k in os.environ if k not in known and not k.startswith('FC_')))}",
        expected: &[("unknown", &["[]"])],
    },
    Row {
        claim: "c21_no_descriptor_leaks_in",
        memory: 512,
        code: "
    fds = set(os.listdir('/proc/self/fd'))
    extra = sorted(fds - {'0', '1', '2', '3'})
    extra = [f for f in extra if os.path.exists('/proc/self/fd/' + f)]
    return {'extra': str(extra), 'cwd': os.getcwd(), 'up': str(sorted(os.listdir('/proc/self/root/..')) == sorted(os.listdir('/')))}",
        expected: &[("extra", &["[]"]), ("cwd", &["/code"]), ("up", &["True"])],
    },
    Row {
        claim: "c22_the_running_program_cannot_be_overwritten",
        memory: 512,
        code: "
    return {'exe': attempt(lambda: open('/proc/self/exe', 'r+b')), 'one': attempt(lambda: open('/proc/1/exe', 'r+b'))}",
        expected: &[("exe", &["ETXTBSY", "EROFS", "EACCES", "ENOENT"]), ("one", &["ETXTBSY", "EROFS", "EACCES", "ENOENT"])],
    },
    Row {
        claim: "c23_dev_holds_only_harmless_devices",
        memory: 512,
        code: "
    import stat
    devices = sorted(n for n in os.listdir('/dev') if stat.S_ISCHR(os.lstat('/dev/' + n).st_mode) or stat.S_ISBLK(os.lstat('/dev/' + n).st_mode))
    return {'devices': ' '.join(devices), 'dmesg': syscall(103, 3, 0, 0)}",
        expected: &[("devices", &["full null random urandom zero"]), ("dmesg", DENIED)],
    },
    Row {
        claim: "c24_the_host_name_is_neutral",
        memory: 512,
        code: "
    import socket
    return {'name': socket.gethostname(), 'set': attempt(lambda: socket.sethostname('x'))}",
        expected: &[("name", &["fn"]), ("set", DENIED)],
    },
    Row {
        claim: "c25_kernel_keyrings_are_closed",
        memory: 512,
        code: "
    return {'add_key': syscall(248, b'user', b'k', b'v', 1, -3), 'keyctl': syscall(250, 0, -3, 0), 'request_key': syscall(249, b'user', b'k', 0, -3)}",
        expected: &[("add_key", DENIED), ("keyctl", DENIED), ("request_key", DENIED)],
    },
    Row {
        claim: "c27_mincore_does_not_tell_what_others_read",
        memory: 512,
        code: "
    return {'mincore': syscall(27, 0, 0, 0)}",
        expected: &[("mincore", DENIED)],
    },
    Row {
        claim: "c29_dangerous_system_calls_are_denied",
        memory: 512,
        code: "
    names = {'io_uring_setup': 425, 'bpf': 321, 'perf_event_open': 298, 'userfaultfd': 323, 'kexec_load': 246, 'init_module': 175, 'reboot': 169,
             'swapon': 167, 'acct': 163, 'quotactl': 179, 'open_by_handle_at': 304, 'name_to_handle_at': 303, 'fanotify_init': 300,
             'process_vm_readv': 310, 'process_vm_writev': 311, 'kcmp': 312, 'pidfd_getfd': 438, 'memfd_secret': 447, 'iopl': 172}
    return {n: syscall(v, 0, 0, 0, 0, 0) for n, v in names.items()}",
        expected: &[
            ("io_uring_setup", DENIED), ("bpf", DENIED), ("perf_event_open", DENIED), ("userfaultfd", DENIED), ("kexec_load", DENIED),
            ("init_module", DENIED), ("reboot", DENIED), ("swapon", DENIED), ("acct", DENIED), ("quotactl", DENIED), ("open_by_handle_at", DENIED),
            ("name_to_handle_at", DENIED), ("fanotify_init", DENIED), ("process_vm_readv", DENIED), ("process_vm_writev", DENIED),
            ("kcmp", DENIED), ("pidfd_getfd", DENIED), ("memfd_secret", DENIED), ("iopl", DENIED),
        ],
    },
    Row {
        claim: "c30_nothing_can_be_mounted",
        memory: 512,
        code: "
    return {'mount': syscall(165, b'x', b'/tmp', b'tmpfs', 0, 0), 'umount2': syscall(166, b'/code', 2), 'pivot_root': syscall(155, b'/tmp', b'/tmp'),
            'chroot': syscall(161, b'/tmp'), 'fsopen': syscall(430, b'tmpfs', 0), 'open_tree': syscall(428, -100, b'/', 1),
            'move_mount': syscall(429, -100, b'/', -100, b'/tmp', 0), 'mount_setattr': syscall(442, -100, b'/', 0, 0, 0)}",
        expected: &[
            ("mount", DENIED), ("umount2", DENIED), ("pivot_root", DENIED), ("chroot", DENIED), ("fsopen", DENIED), ("open_tree", DENIED),
            ("move_mount", DENIED), ("mount_setattr", DENIED),
        ],
    },
    Row {
        claim: "c31_no_new_namespaces",
        memory: 512,
        code: "
    out = {}
    for name, flag in {'user': 0x10000000, 'mnt': 0x20000, 'pid': 0x20000000, 'net': 0x40000000, 'ipc': 0x8000000, 'uts': 0x4000000, 'cgroup': 0x2000000}.items():
        out['unshare ' + name] = syscall(272, flag)
        out['clone ' + name] = syscall(56, flag | 17, 0, 0, 0, 0)
    # clone knows no flag for it.
    out['unshare time'] = syscall(272, 0x80)
    out['clone3'] = syscall(435, 0, 0)
    out['setns'] = syscall(308, 0, 0)
    return out",
        expected: &[
            ("unshare user", DENIED), ("unshare mnt", DENIED), ("unshare pid", DENIED), ("unshare net", DENIED), ("unshare ipc", DENIED),
            ("unshare uts", DENIED), ("unshare cgroup", DENIED), ("unshare time", DENIED), ("clone user", DENIED), ("clone mnt", DENIED),
            ("clone pid", DENIED), ("clone net", DENIED), ("clone ipc", DENIED), ("clone uts", DENIED), ("clone cgroup", DENIED),
            ("clone3", &["ENOSYS"]), ("setns", DENIED),
        ],
    },
    Row {
        claim: "c32_only_plain_sockets",
        memory: 512,
        code: "
    import socket
    s = lambda *a: attempt(lambda: socket.socket(*a).close())
    return {'unix': s(1, 1), 'inet': s(2, 1), 'inet6': s(10, 2), 'raw': s(2, 3, 1), 'packet': s(17, 3), 'netlink': s(16, 3), 'alg': s(38, 5),
            'vsock': s(40, 1), 'xdp': s(44, 3), 'key': s(15, 3, 2), 'rxrpc': s(33, 2), 'tipc': s(30, 1), 'can': s(29, 3), 'smc': s(43, 1), 'rds': s(21, 5)}",
        expected: &[
            ("unix", &["ok"]), ("inet", &["ok"]), ("inet6", &["ok"]), ("raw", NOSOCK), ("packet", NOSOCK), ("netlink", NOSOCK), ("alg", NOSOCK),
            ("vsock", NOSOCK), ("xdp", NOSOCK), ("key", NOSOCK), ("rxrpc", NOSOCK), ("tipc", NOSOCK), ("can", NOSOCK), ("smc", NOSOCK), ("rds", NOSOCK),
        ],
    },
    Row {
        claim: "c33_socket_options_that_reach_into_the_kernel_are_denied",
        memory: 512,
        code: "
    import socket
    t, u = socket.socket(), socket.socket(2, 2)
    o = lambda s, *a: attempt(lambda: s.setsockopt(*a))
    return {'SO_ATTACH_FILTER': o(t, 1, 26, b'\\0' * 16), 'SO_ATTACH_BPF': o(t, 1, 50, 0), 'SO_MARK': o(t, 1, 36, 1), 'TCP_ULP': o(t, 6, 31, b'tls'), 'UDP_ENCAP': o(u, 17, 100, 2),
            'TCP_NODELAY': o(t, 6, 1, 1)}",
        expected: &[
            ("SO_ATTACH_FILTER", DENIED), ("SO_ATTACH_BPF", DENIED), ("SO_MARK", DENIED), ("TCP_ULP", DENIED), ("UDP_ENCAP", DENIED),
            ("TCP_NODELAY", &["ok"]),
        ],
    },
    Row {
        claim: "c34_splice_falls_back",
        memory: 512,
        code: "
    return {'splice': syscall(275, 0, 0, 0, 0, 0, 0), 'tee': syscall(276, 0, 0, 0, 0), 'vmsplice': syscall(278, 0, 0, 0, 0)}",
        expected: &[("splice", &["ENOSYS"]), ("tee", &["ENOSYS"]), ("vmsplice", &["ENOSYS"])],
    },
    Row {
        claim: "c35_c36_no_tracing_and_no_change_of_identity",
        memory: 512,
        code: "
    status = dict(l.split(':', 1) for l in open('/proc/self/status') if ':' in l)
    return {'ptrace': syscall(101, 0, 0, 0, 0), 'setuid': syscall(105, 0), 'setgid': syscall(106, 0), 'setgroups': syscall(116, 0, 0), 'uid': str(os.getuid()),
            'caps': ''.join(status[c].strip() for c in ('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb')).strip('0'), 'nnp': status['NoNewPrivs'].strip(), 'seccomp': status['Seccomp'].strip()}",
        expected: &[
            ("ptrace", DENIED), ("setuid", DENIED), ("setgid", DENIED), ("setgroups", DENIED), ("uid", &["1000"]), ("caps", &[""]), ("nnp", &["1"]),
            ("seccomp", &["2"]),
        ],
    },
    Row {
        claim: "c37_no_device_nodes",
        memory: 512,
        code: "
    return {'mknod': syscall(133, b'/tmp/n', 0o20666, 0x103), 'mknodat': syscall(259, -100, b'/tmp/n', 0o60666, 0x700)}",
        expected: &[("mknod", DENIED), ("mknodat", DENIED)],
    },
    Row {
        claim: "c38_terminal_injection_is_denied_whatever_the_high_bits_say",
        memory: 512,
        code: "
    return {'TIOCSTI': syscall(16, 0, ctypes.c_ulong(0x5412), b'x'), 'high': syscall(16, 0, ctypes.c_ulong(0x100005412), b'x'), 'TIOCLINUX': syscall(16, 0, ctypes.c_ulong(0x541C), b'x')}",
        expected: &[("TIOCSTI", DENIED), ("high", DENIED), ("TIOCLINUX", DENIED)],
    },
    Row {
        claim: "c41_a_signal_to_everybody_reaches_only_its_own",
        memory: 512,
        code: "
    import signal
    child = os.fork()
    if child == 0:
        signal.pause()
    return {'kill': attempt(lambda: os.kill(-1, 9)), 'status': str(os.waitpid(child, 0)[1])}",
        expected: &[("kill", &["ok"]), ("status", &["9"])],
    },
    Row {
        claim: "c42_c43_no_clock_and_no_scheduler_tricks",
        memory: 512,
        code: "
    return {'PR_SET_MM': syscall(157, 35, 1, 0, 0, 0), 'settimeofday': syscall(164, 0, 0), 'clock_settime': syscall(227, 0, 0), 'adjtimex': syscall(159, 0),
            'fifo': attempt(lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))), 'nice': attempt(lambda: os.nice(-5)), 'personality': syscall(135, 0x40000)}",
        expected: &[
            ("PR_SET_MM", DENIED), ("settimeofday", DENIED), ("clock_settime", DENIED), ("adjtimex", DENIED), ("fifo", DENIED), ("nice", DENIED),
            ("personality", DENIED),
        ],
    },
];

const NOSOCK: &[&str] = &["EAFNOSUPPORT", "EPERM", "EACCES", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT"];
