"""The Python zygote: an interpreter that has everything imported and forks itself for each cell.

Run as `python3 -I -S /rt/python/zygote.py SOCKET HOST_PROC many|few`, as root, in the guests' root and before any thread
exists. `many` forks cells that wait for their function and have much imported by then, `few` those that a call waits for.
The shared object beside this file does the cloning and builds the walls; here is what concerns Python alone.

What always holds:
- Nothing of a tenant is ever loaded here: user code exists only in children, behind their walls.
- A child draws no random number from state it shares with its siblings. What is shared and stays shared: the seed of
  string hashes, and the layout of the address space.
"""

import ctypes
import gc
import json
import os
import sys


def import_many():
    """What handlers import most. Each is paid for once here, and by a few pages in each child."""
    import asyncio
    import base64
    import datetime
    import decimal
    import hashlib
    import hmac
    import http.client
    import importlib.util
    import io
    import logging
    import random
    import re
    import ssl
    import threading
    import time
    import traceback
    import urllib.request
    import uuid


HERE = os.path.dirname(os.path.abspath(__file__))


class Randomness:
    """Gives a child its own randomness. OpenSSL needs force: it knows a fork by its process id, and in its own pid
    namespace every cell is process 1."""

    def __init__(self):
        self._random, self._ssl = sys.modules.get("random"), sys.modules.get("ssl")
        self._sources = []
        if self._ssl is None:
            # A child that loads it draws its own seed.
            return
        # The library that `ssl` is linked to, whichever that is; opening it again would find another one.
        crypto = ctypes.CDLL(getattr(sys.modules["_ssl"], "__file__", None))
        context, number, data = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
        size = ctypes.c_size_t
        if hasattr(crypto, "EVP_RAND_reseed"):  # OpenSSL 3
            names = ("RAND_get0_primary", "RAND_get0_public", "RAND_get0_private")
            self._reseed = crypto.EVP_RAND_reseed
            self._reseed.argtypes = (context, number, data, size, data, size)
            self._arguments = lambda source, fresh: (source, 1, None, 0, fresh, len(fresh))
            of = (None,)
        elif hasattr(crypto, "RAND_DRBG_reseed"):  # OpenSSL 1.1.1
            names = ("RAND_DRBG_get0_master", "RAND_DRBG_get0_public", "RAND_DRBG_get0_private")
            self._reseed = crypto.RAND_DRBG_reseed
            self._reseed.argtypes = (context, data, size, number)
            self._arguments = lambda source, fresh: (source, fresh, len(fresh), 1)
            of = ()
        else:
            raise RuntimeError("cannot reseed this OpenSSL: " + self._ssl.OPENSSL_VERSION)
        self._reseed.restype = number
        for name in names:
            source = getattr(crypto, name)
            source.restype = context
            source.argtypes = (context,) * len(of)
            self._sources.append((source, of))

    def renew(self):
        if self._random is not None:
            self._random.seed(os.urandom(32))
        if self._ssl is None:
            return
        fresh = os.urandom(32)
        self._ssl.RAND_add(fresh, 32.0)
        for source, of in self._sources:
            if self._reseed(*self._arguments(source(*of), fresh)) != 1:
                raise RuntimeError("OpenSSL refused to reseed")


class Template:
    """What a child needs to become a template: a cell that has loaded a function and is forked from then on."""

    # The socket on which the supervisor tells it to.
    CONTROL = 4

    def __init__(self, library, randomness):
        self._serve = library.dunlin_template_serve
        self._randomness = randomness

    def serve(self):
        """Returns in each child, which has its own channel and log by then, and its own randomness."""
        gc.collect()
        gc.freeze()
        self._serve(self.CONTROL)
        self._randomness.renew()
        numpy = sys.modules.get("numpy.random")
        if numpy is not None:
            numpy.seed()
        # It takes a process of the same number for the same process.
        names = sys.modules.get("tempfile")
        if names is not None:
            names._name_sequence = None


def load_bootstrap():
    """Imports the bootstrap without leaving a trace of this directory in what user code sees."""
    sys.dont_write_bytecode = True
    sys.path.insert(0, HERE)
    try:
        import bootstrap
    finally:
        sys.path.remove(HERE)
    return bootstrap


def main():
    supervisor, host_proc = int(sys.argv[1]), int(sys.argv[2])
    if sys.argv[3] == "many":
        import_many()
    library = ctypes.PyDLL(os.path.join(HERE, "libdunlin_walls.so"))
    bootstrap = load_bootstrap()
    randomness = Randomness()
    for descriptor in (supervisor, host_proc):
        os.set_inheritable(descriptor, False)
    # The same rehearsal once here: what it allocates for good is then shared instead of private to each child.
    bootstrap.prepare_logging()
    bootstrap.rehearse()
    sys.argv[:] = [""]
    gc.collect()
    gc.freeze()
    gc.disable()
    library.dunlin_zygote_serve(supervisor, host_proc)
    # From here on this is a child, behind its walls.
    gc.enable()
    randomness.renew()
    bootstrap.main(Template(library, randomness))


main()
