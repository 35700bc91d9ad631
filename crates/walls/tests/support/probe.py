# Looks around from inside a cell and prints one `name = value` line per question.
import ctypes
import errno
import os
import socket
import subprocess
import threading

libc = ctypes.CDLL(None, use_errno=True)


def name_of(error):
    if isinstance(error, OSError) and error.errno:
        return errno.errorcode.get(error.errno, str(error.errno))
    return type(error).__name__


def say(name, value):
    print(name, "=", value)


def ask(name, question):
    try:
        answer = question()
    except BaseException as error:
        answer = name_of(error)
    say(name, answer)


def call(number, *arguments):
    result = libc.syscall(number, *arguments)
    if number == 56 and result == 0:
        os._exit(0)
    return "ok" if result >= 0 else errno.errorcode[ctypes.get_errno()]


def write(path):
    with open(path, "w") as file:
        file.write("\n")
    return "ok"


def listing(path):
    return " ".join(sorted(os.listdir(path)))


def open_socket(family, kind, protocol=0):
    socket.socket(family, kind, protocol).close()
    return "ok"


def loopback():
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen(1)
    client = socket.create_connection(server.getsockname(), 5)
    client.close()
    return "ok"


def thread():
    done = []
    worker = threading.Thread(target=lambda: done.append("ok"))
    worker.start()
    worker.join()
    return done[0]


def script():
    with open("/tmp/script", "w") as file:
        file.write("#!/bin/sh\necho ran\n")
    os.chmod("/tmp/script", 0o755)
    return subprocess.run(["/tmp/script"], capture_output=True, text=True).stdout.strip()


def fill(path):
    with open(path, "wb") as file:
        for _ in range(1000):
            file.write(bytes(1 << 20))
    return "unlimited"


def many_files():
    for number in range(1 << 20):
        os.close(os.open("/tmp/n%d" % number, os.O_CREAT))
    return "unlimited"


def others_in_proc():
    return " ".join(sorted(entry for entry in os.listdir("/proc") if not entry.isdigit() or int(entry) > 500))


status = dict(line.split(":\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\t" in line)
for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters", "Groups"):
    say(key, status[key].strip())
say("NSpid", status["NSpid"].split()[-1])
say("ids", "%d %d" % (os.getuid(), os.getgid()))
for kind in ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup"):
    say("ns " + kind, os.readlink("/proc/self/ns/" + kind))
say("uid_map", " ".join(open("/proc/self/uid_map").read().split()))
say("host", socket.gethostname())
say("cwd", os.getcwd())



def open_now(descriptor):
    try:
        os.fstat(descriptor)
        return True
    except OSError:
        return False


# The descriptor of a listing would be listed; there are not many to try.
say("descriptors", " ".join(str(descriptor) for descriptor in range(1024) if open_now(descriptor)))
say("stdin", os.readlink("/proc/self/fd/0"))

ask("list /", lambda: listing("/"))
ask("list /dev", lambda: listing("/dev"))
ask("list /code", lambda: listing("/code"))
ask("list /root", lambda: listing("/root"))
ask("list /home", lambda: listing("/home"))
ask("list /sys", lambda: listing("/sys"))
ask("list /run", lambda: listing("/run"))
ask("read shadow", lambda: open("/etc/shadow"))
ask("read passwd", lambda: open("/etc/passwd").read().splitlines()[-1])
ask("read resolv.conf", lambda: open("/etc/resolv.conf").readline().strip())
ask("proc others", others_in_proc)
ask("mounts", lambda: " ".join(sorted(line.split()[3] for line in open("/proc/self/mountinfo"))))
ask("proc sys", lambda: listing("/proc/sys"))
ask("proc comm", lambda: write("/proc/self/comm"))

for path in ("/x", "/usr/x", "/etc/x", "/code/x", "/opt/x", "/rt/x", "/dev/x", "/w/x"):
    ask("write " + path, lambda: write(path))
for path in ("/tmp/x", "/var/tmp/y", "/dev/shm/x", "/dev/null", "/dev/stderr"):
    ask("write " + path, lambda: write(path))
ask("script in /tmp", script)
ask("sparse file", lambda: os.truncate("/tmp/x", 1 << 60))

import resource

ask("limits", lambda: "%d %d %d" % tuple(resource.getrlimit(limit)[1] for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_CORE, resource.RLIMIT_MEMLOCK)))
ask("threads", thread)
ask("multiprocessing", lambda: __import__("multiprocessing").Pool(2).map(abs, [-1, -2]))
ask("subprocess", lambda: subprocess.run(["/bin/sh", "-c", "echo ran"], capture_output=True, text=True).stdout.strip())

calls = {
    "unshare user": (272, 0x10000000),
    "clone newuser": (56, 0x10000011, 0, 0, 0, 0),
    "clone3": (435, 0, 0),
    "setns": (308, 0, 0),
    "mount": (165, 0, 0, 0, 0, 0),
    "umount2": (166, b"/tmp", 2),
    "open_tree": (428, -100, b"/", 1),
    "chroot": (161, b"/tmp"),
    "bpf": (321, 0, 0, 0),
    "io_uring_setup": (425, 1, 0),
    "keyctl": (250, 0, 0, 0),
    "add_key": (248, 0, 0, 0, 0, 0),
    # Not TRACEME: where it works, the next signal stops the probe for good.
    "ptrace": (101, 1, 0, 0, 0),
    "process_vm_readv": (310, 1, 0, 0, 0, 0, 0),
    "pidfd_getfd": (438, 0, 0, 0),
    "userfaultfd": (323, 0),
    "perf_event_open": (298, 0, 0, -1, -1, 0),
    "setuid": (105, 0),
    "mknod": (133, b"/tmp/n", 0o20666, 0x103),
    "x32 getpid": (0x40000000 | 39,),
    "unknown": (500,),
    "splice": (275, 0, 0, 0, 0, 0, 0),
    "tiocsti": (16, 0, 0x5412, 0),
    "tiocsti high": (16, 0, (1 << 32) | 0x5412, 0),
    "siocsifflags": (16, 0, 0x8914, 0),
    "prctl mm": (157, 35, 0, 0, 0, 0),
    "prctl deathsig": (157, 1, 0, 0, 0, 0),
    "personality": (135, 0x40000),
    "mincore": (27, 0, 0, 0),
    "name_to_handle_at": (303, 0, 0, 0, 0, 0),
    "clock_settime": (227, 0, 0),
    "seccomp": (317, 99, 0, 0),
}
for name, arguments in calls.items():
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    say("call " + name, call(*wide))

for name, arguments in {
    "unix": (1, 1),
    "inet": (2, 1),
    "inet6": (10, 2),
    "raw": (2, 3, 1),
    "ping": (2, 2, 1),
    "mptcp": (2, 1, 262),
    "packet": (17, 3),
    "netlink": (16, 3),
    "alg": (38, 5),
    "vsock": (40, 1),
    "xdp": (44, 3),
}.items():
    ask("socket " + name, lambda: open_socket(*arguments))
ask("multicast", lambda: socket.socket(2, 2).setsockopt(0, 35, bytes(8)))
ask("mark", lambda: socket.socket(2, 2).setsockopt(1, 36, 1))
ask("loopback", loopback)
ask("outside", lambda: socket.create_connection(("1.1.1.1", 80), 2))
ask("fill /tmp", lambda: fill("/tmp/big"))
ask("unlink", lambda: os.unlink("/tmp/big"))
ask("fill /dev/shm", lambda: fill("/dev/shm/big"))
ask("files in /tmp", many_files)
say("end", "reached")
