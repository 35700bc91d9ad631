"""What every hostile function starts with: raw system calls, and an attempt that names its errno."""
import ctypes
import errno
import os

libc = ctypes.CDLL(None, use_errno=True)


def syscall(number, *arguments):
    """The name of the error a system call gives, or 'ok'."""
    ctypes.set_errno(0)
    result = libc.syscall(number, *arguments)
    if number == 56 and result == 0:
        os._exit(0)  # a clone that should not exist
    return "ok" if result >= 0 else errno.errorcode.get(ctypes.get_errno(), str(ctypes.get_errno()))


def attempt(action):
    """'ok', or the name of the error that `action` raises."""
    try:
        action()
        return "ok"
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
    except Exception as error:
        return type(error).__name__
