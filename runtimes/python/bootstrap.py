"""The Python bootstrap: loads the user's module and answers calls on descriptor 3 (docs/design/wire.md).

`main()` is called in a process that was forked from the zygote, or by running this file. It never returns. It says Ready
as soon as it can serve. When told that it will wait for its function it rehearses a Load and an Invoke: a fork shares its
memory with the zygote until it writes to it, and what is copied then is not copied while a caller waits.

What always holds:
- Nothing is imported on top that user code would pay for: the zygote's page tables are copied for every instance.
  `logging`, `traceback`, `asyncio` are loaded when user code asks for them.
- stdout and stderr are flushed before an answer is written: the host has a call's output before its answer.
- What the user may replace (`json.dumps`, `os.write`, `sys.stdout`) is bound here before user code is loaded.
- A process that user code forked never answers: only the process that read a request writes its answer.
- A template answers one `Load` and nothing else; in what is forked from it the code is loaded already.
- With one call at a time everything happens in the main thread. With several, the main thread reads and each call has a
  thread of its own; coroutines of all calls share one event loop.
"""

import builtins
import gc
import io
import json
import os
import struct
import sys
import time

import _contextvars
import _frozen_importlib_external
import _signal
import _sitebuiltins

CHANNEL = 3
# Of a template: where it is told to fork.
CONTROL = 4

EXEC, LOAD, INIT, INVOKE, CHUNK, CANCEL, PRE_STOP, GRANT, PREPARE, REHEARSE = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
READY, HEAD, END, ERROR, CREDIT = 16, 17, 18, 19, 20
MORE = 1

HANDLED, UNHANDLED, INITIALIZATION = "HandledInvocationError", "UnhandledInvocationError", "InitializationError"

RESULT_MAX = 32 << 20
MESSAGE_CHARS_MAX = 64 << 10
FRAMES_MAX = 100
# Bytes of Chunk frames, headers included, that may be on their way in either direction.
WINDOW = 256 << 10
CHUNK_MAX = 64 << 10
HEADER_BYTES = 32
# Libraries that compute in threads of their own start one while this is set.
_ONE_THREAD = {name: "1" for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")}

_HEADER = struct.Struct("<BBHIII16s")
_NO_TOKEN = bytes(16)

_dumps, _loads = json.dumps, json.loads
_writev, _write, _getpid, _exit = os.writev, os.write, os.getpid, os._exit
_putenv, _unsetenv = os.putenv, os.unsetenv
_OWN_FILE = __file__

CODE = "/code"

# The call that this thread or task serves, where there are several at a time.
_request_id = _contextvars.ContextVar("request_id", default="")


async def _nothing():
    pass


def _coroutine_type():
    sample = _nothing()
    sample.close()
    return type(sample)


_Coroutine = _coroutine_type()


class Credentials:
    def __init__(self, given):
        self.access_key_id = given.get("accessKeyId", "")
        self.access_key_secret = given.get("accessKeySecret", "")
        self.security_token = given.get("securityToken", "")

    def to_json(self):
        return {
            "access_key_id": self.access_key_id,
            "access_key_secret": self.access_key_secret,
            "security_token": self.security_token,
        }


class Function:
    def __init__(self, given, with_version):
        self.name = given.get("name", "")
        self.handler = given.get("handler", "")
        self.memory = given.get("memory", 0)
        self.timeout = given.get("timeout", 0)
        if with_version:
            self.version_id = given.get("versionId", "")
            self.qualifier = given.get("qualifier", "")

    def to_json(self):
        return dict(self.__dict__)


class Service:
    def __init__(self, given):
        self.name = given.get("name", "")
        self.log_project = given.get("logProject", "")
        self.log_store = given.get("logStore", "")
        self.qualifier = given.get("qualifier", "")
        self.version_id = given.get("versionId", "")

    def to_json(self):
        return dict(self.__dict__)


class Tracing:
    def __init__(self):
        self.span_context = ""
        self.span_baggages = ""
        self.jaeger_endpoint = ""

    def to_json(self):
        return dict(self.__dict__)


class Context:
    """What a handler gets as its second argument in Python 3.12 and later."""

    def __init__(self, instance, call):
        load = instance.load
        service = load.get("service") or {}
        self.request_id = call.get("requestId", "")
        self.account_id = load.get("accountId", "")
        self.region = load.get("region", "")
        self.function = Function(load.get("function") or {}, True)
        self.log_project = service.get("logProject", "")
        self.log_store = service.get("logStore", "")

    @property
    def logger(self):
        import logging

        return logging.getLogger()

    def to_json(self):
        return {
            name: value.to_json() if hasattr(value, "to_json") else value
            for name, value in self.__dict__.items()
        }


class ContextWithService(Context):
    """What a handler gets up to Python 3.10."""

    def __init__(self, instance, call):
        load = instance.load
        self.request_id = self.requestId = call.get("requestId", "")
        self.credentials = Credentials(call.get("credentials") or {})
        self.function = Function(load.get("function") or {}, False)
        self.service = Service(load.get("service") or {})
        self.region = load.get("region", "")
        self.account_id = load.get("accountId", "")
        self.tracing = Tracing()
        self.retry_count = call.get("retryCount", 0)


class Failure(Exception):
    """A failure this bootstrap words itself: it has no stack of the user's."""

    def __init__(self, kind, message):
        super().__init__(message)
        self.kind = kind


class Cancelled(BaseException):
    """Nobody waits for the answer any more."""


class Exchange:
    """One request in flight."""

    def __init__(self, kind, stream, token):
        self.kind = kind
        self.stream = stream
        self.token = token
        # The first is the reader's to write, the second the sender's: two threads, perhaps.
        self.granted = WINDOW
        self.spent = 0
        self.cancelled = False
        self.arrived = []
        self.body_ended = True
        # The answer is out, or about to be: the host knows no such stream any more.
        self.over = False


class Wire:
    """Frames in, frames out, and what arrives for the requests in flight."""

    def __init__(self, source, out):
        self.source = source
        self.out = out
        self.pid = _getpid()
        self.exchanges = {}
        # Where there are several calls at a time: what guards the writing, and what waits for news of the exchanges.
        self.writing = None
        self.news = None

    def share(self):
        import threading

        self.writing = threading.Lock()
        self.news = threading.Condition()

    def grant(self, exchange, count):
        """Lets the host send so much more of the request's body, unless the request has been answered."""
        if self.writing is None:
            self.write_grant(exchange, count)
        else:
            with self.writing:
                self.write_grant(exchange, count)

    def write_grant(self, exchange, count):
        if not exchange.over and _getpid() == self.pid:
            self.write(CREDIT, exchange.stream, exchange.token, b"", count.to_bytes(4, "little"))

    def send(self, kind, stream, token, head, body):
        if _getpid() != self.pid:
            _exit(0)
        if self.writing is None:
            self.write(kind, stream, token, head, body)
        else:
            with self.writing:
                self.write(kind, stream, token, head, body)

    def write(self, kind, stream, token, head, body):
        first = _HEADER.pack(kind, 0, 0, stream, len(head), len(body), token) + head
        sent = _writev(self.out, (first, body)) if body else _write(self.out, first)
        if sent < len(first) + len(body):
            _send_rest(self.out, first, body, sent)

    def read(self):
        """The next frame; None at the end."""
        header = self.source.read(HEADER_BYTES)
        if len(header) < HEADER_BYTES:
            return None
        kind, flags, _, stream, head_length, body_length, token = _HEADER.unpack(header)
        head = self.source.read(head_length) if head_length else b""
        body = self.source.read(body_length) if body_length else b""
        if len(head) < head_length or len(body) < body_length:
            return None
        return kind, flags, stream, token, head, body

    def note(self, kind, flags, stream, body):
        """Takes in what concerns a request in flight. False for a frame that is none of these."""
        if kind not in (GRANT, CANCEL, CHUNK):
            return False
        exchange = self.exchanges.get(stream)
        if exchange is not None:
            if kind == GRANT:
                exchange.granted += int.from_bytes(body, "little")
            elif kind == CANCEL:
                exchange.cancelled = True
            else:
                exchange.arrived.append(body)
                exchange.body_ended = not flags & MORE
        return True

    def wait(self, exchange, done):
        """Waits until something arrived that `done` is content with."""
        if self.news is not None:
            with self.news:
                self.news.wait_for(lambda: exchange.cancelled or exchange.over or done())
        while not exchange.cancelled and not exchange.over and not done():
            frame = self.read()
            if frame is None or not self.note(frame[0], frame[1], frame[2], frame[5]):
                _exit(0)
        if exchange.cancelled:
            raise Cancelled()

    def send_parts(self, exchange, head, parts):
        """Sends an answer in parts, each as soon as it is there and the host takes it."""
        self.send(HEAD, exchange.stream, exchange.token, head, b"")
        for part in parts:
            data = memoryview(part.encode() if isinstance(part, str) else part).cast("B")
            for at in range(0, len(data), CHUNK_MAX):
                piece = data[at : at + CHUNK_MAX]
                exchange.spent += HEADER_BYTES + len(piece)
                if exchange.cancelled or exchange.spent > exchange.granted:
                    self.wait(exchange, lambda: exchange.spent <= exchange.granted)
                self.send(CHUNK, exchange.stream, exchange.token, b"", piece)


class RequestBody(io.RawIOBase):
    """The body of the request that an event stands for, as it arrives."""

    def __init__(self, wire, exchange):
        super().__init__()
        self.wire = wire
        self.exchange = exchange
        self.taken = 0
        self.part = memoryview(b"")

    def readable(self):
        return True

    def readinto(self, into):
        exchange = self.exchange
        while not self.part:
            if exchange.over:
                raise OSError("the call has been answered")
            ended = exchange.body_ended
            if not exchange.arrived:
                if ended:
                    return 0
                self.wire.wait(exchange, lambda: exchange.arrived)
                continue
            part = exchange.arrived.pop(0)
            self.part = memoryview(part)
            self.taken += HEADER_BYTES + len(part)
            if self.taken >= CHUNK_MAX and not exchange.body_ended:
                taken, self.taken = self.taken, 0
                self.wire.grant(exchange, taken)
        count = min(len(into), len(self.part))
        into[:count] = self.part[:count]
        self.part = self.part[count:]
        return count


class Instance:
    """One function's code and hooks, and the calls in flight."""

    def __init__(self, wire):
        self.wire = wire
        self.load = {}
        self.unprepared = None
        self.handler = None
        self.context = Context
        self.paths = _paths_of_python()
        self.request_id = ""
        self.loop = None
        self.callers = None
        # Set where this process can become a template, until it has loaded code that is to be forked.
        self.template = None

    def request(self, exchange, head, body):
        """Serves one request. Returns nothing; whatever happens, an answer was written or the process ends."""
        kind, wire = exchange.kind, self.wire
        error_type = INITIALIZATION if kind == INIT else UNHANDLED
        wire.exchanges[exchange.stream] = exchange
        try:
            if kind == INVOKE:
                call = _loads(head)
                self.name_call(call["requestId"])
                context = self.context(self, call)
                if not exchange.body_ended:
                    context.body = io.BufferedReader(RequestBody(wire, exchange), CHUNK_MAX)
                result = self.finish(self.handler(body, context))
                if type(result) is not bytes:
                    streamed = None if type(result) is str else _in_parts(result)
                    if streamed is not None:
                        self.stream(exchange, *streamed)
                        result = b""
                    else:
                        result = _encode(result)
                if len(result) > RESULT_MAX:
                    raise Failure(
                        "FunctionError", f"The result is {len(result)} bytes, more than the limit of {RESULT_MAX} bytes"
                    )
            elif kind == LOAD:
                if head:
                    self.prepare(head)
                self.begin()
                result = b""
            else:
                call = _loads(head)
                self.name_call(call["requestId"])
                hook = self.lookup(self.load["initializer" if kind == INIT else "preStop"])
                self.finish(hook(self.context(self, call)))
                result = b""
        except SystemExit as error:
            self.leave(error)
        except Cancelled:
            self.answer(exchange, END, b"", b"")
        except BaseException as error:
            self.answer(exchange, ERROR, b'{"errorType":"%s"}' % error_type.encode(), _error_body(error))
        else:
            self.answer(exchange, END, b"", result)
        self.name_call("")

    def answer(self, exchange, kind, head, body):
        self.flush()
        exchange.over = True
        if self.wire.news is not None and not exchange.body_ended:
            with self.wire.news:
                self.wire.news.notify_all()
        self.wire.exchanges.pop(exchange.stream, None)
        self.wire.send(kind, exchange.stream, exchange.token, head, body)

    def name_call(self, request_id):
        if self.callers is None:
            self.request_id = request_id
        else:
            _request_id.set(request_id)

    def stream(self, exchange, head, parts):
        """Answers with what a generator yields, and has it clean up when it is not run to its end."""
        if hasattr(type(parts), "__anext__"):
            parts = self.each(parts)
        try:
            self.wire.send_parts(exchange, _dumps(head).encode(), parts)
        finally:
            close = getattr(parts, "close", None)
            if close is not None:
                close()

    def each(self, parts):
        try:
            while True:
                try:
                    part = self.run(parts.__anext__())
                except StopAsyncIteration:
                    return
                yield part
        finally:
            if hasattr(parts, "aclose"):
                self.run(parts.aclose())

    def finish(self, result):
        """Runs what an `async def` handler returned."""
        return self.run(result) if type(result) is _Coroutine else result

    def run(self, awaitable):
        """Runs a coroutine. One event loop lives as long as the instance."""
        if self.callers is not None:
            return self.callers.run(awaitable)
        if self.loop is None or self.loop.is_closed():
            import asyncio

            self.loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self.loop)
        return self.loop.run_until_complete(awaitable)

    def serve(self, exchange, head, body):
        """Serves a request here, or in a thread of its own when calls were agreed to come side by side."""
        if self.callers is None or exchange.kind != INVOKE:
            self.request(exchange, head, body)
            if exchange.kind != LOAD or self.handler is None:
                return
            if self.load.get("template"):
                self.become_template()
            elif self.load.get("concurrency", 1) > 1:
                self.wire.share()
                self.callers = Callers(self)
        else:
            self.callers.begin(exchange, head, body)

    def become_template(self):
        """From here on this process answers nothing but orders to fork. Returns in each child: an instance that has its
        code already, and gets a `Load` that says who it is."""
        self.template.serve()
        wire = self.wire
        wire.exchanges.clear()
        wire.source = io.open(CHANNEL, "rb", 65536, closefd=False)
        wire.send(READY, 0, _NO_TOKEN, _ready(), b"")

    def prepare(self, head):
        """Makes the process look as the function's own, as far as that goes without its code."""
        self.load = load = _loads(head)
        # The runtime's name is pythonX.Y; before 3.12 contexts had credentials and a service.
        minor = load.get("runtime", "").partition(".")[2]
        self.context = Context if minor.isdigit() and int(minor) >= 12 else ContextWithService
        _set_environment(load.get("env") or {})

    def prepare_early(self, head):
        """The same before there is a request to answer: what goes wrong is told when there is one."""
        try:
            self.prepare(head)
        except Exception as error:
            self.unprepared = error

    def begin(self):
        """The rest: working directory and paths, then the function's module."""
        if self.unprepared is not None:
            raise self.unprepared
        if self.handler is not None:
            # Forked from a template, which has done it.
            return
        code = self.load.get("codePath", CODE)
        os.chdir(code)
        _set_paths(code, self.paths)
        if self.load.get("template"):
            self.handler = self.lookup_to_fork()
        else:
            self.handler = self.lookup(self.load["handler"])

    def lookup_to_fork(self):
        """Loads the function so that it can be forked, or says why it cannot."""
        if self.template is None:
            raise Failure("TemplateRefused", "This process cannot become a template")
        os.environ.update(_ONE_THREAD)
        handler = self.lookup(self.load["handler"])
        _set_environment(self.load.get("env") or {})
        tie = _tie()
        if tie is not None:
            raise Failure("TemplateRefused", f"Loading '{self.load['handler']}' {tie}")
        return handler

    def lookup(self, name):
        """Imports what `file.function` names. Folders are written with slashes."""
        file, dot, attribute = name.rpartition(".")
        if not dot or not file or not attribute:
            raise Failure("HandlerNotFound", f"Handler '{name}' is not of the form 'file.function'")
        module = _import(self.load.get("codePath", CODE), file)
        found = getattr(module, attribute, None)
        if not callable(found):
            raise Failure("HandlerNotFound", f"Handler '{attribute}' missing on module '{file}'")
        return found

    def flush(self):
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:
                pass  # The user closed it or put something else in its place: nothing of ours is lost.

    def leave(self, error):
        """User code asked to exit. The host sees the process end and words the error."""
        code = error.code
        if code is not None and not isinstance(code, int):
            try:
                print(code, file=sys.stderr)
            except Exception:
                pass
            code = 1
        self.flush()
        _exit((code or 0) & 0xFF)


class Callers:
    """Threads that serve calls side by side, and the event loop that their coroutines share."""

    def __init__(self, instance):
        import queue

        self.instance = instance
        self.waiting = queue.SimpleQueue()
        # Threads that wait and have nothing coming to them. Guarded by the wire's lock.
        self.idle = 0
        self.loop = None

    def begin(self, exchange, head, body):
        # Known to the wire before the next frame is read, which may be about it.
        self.instance.wire.exchanges[exchange.stream] = exchange
        with self.instance.wire.writing:
            idle = self.idle > 0
            self.idle -= idle
        if idle:
            self.waiting.put((exchange, head, body))
        else:
            import threading

            threading.Thread(target=self.work, args=((exchange, head, body),), daemon=True).start()

    def work(self, call):
        while True:
            self.instance.request(*call)
            call = None
            with self.instance.wire.writing:
                self.idle += 1
            call = self.waiting.get()

    def run(self, awaitable):
        import asyncio

        with self.instance.wire.writing:
            if self.loop is None:
                import threading

                self.loop = asyncio.new_event_loop()
                threading.Thread(target=self.loop.run_forever, daemon=True).start()

        async def completed():
            try:
                return await awaitable, None
            except BaseException as error:
                return None, error

        # The error comes back as a value, so that its stack is the user's and not that of how it came here.
        result, error = asyncio.run_coroutine_threadsafe(completed(), self.loop).result()
        if error is not None:
            raise error
        return result


def _send_rest(out, first, body, sent):
    """Goes on where a partial write stopped: a signal may come in the middle of a large body."""
    if sent < len(first):
        first = first[sent:]
        while first:
            first = first[_write(out, first):]
        sent = 0
    else:
        sent -= len(first)
    rest = memoryview(body)[sent:]
    while rest:
        rest = rest[_write(out, rest):]


def _in_parts(result):
    """Head and parts of an answer in parts: a generator's or any iterator's, alone or as the body of a response object.
    None for everything else."""
    head, parts = {}, result
    if isinstance(result, dict):
        parts = result.get("body")
        if "statusCode" not in result:
            return None
        head = {name: value for name, value in result.items() if name not in ("body", "isBase64Encoded")}
    if hasattr(type(parts), "__next__") or hasattr(type(parts), "__anext__"):
        return head, parts
    return None


def _encode(result):
    if isinstance(result, str):
        return result.encode()
    if isinstance(result, (bytes, bytearray, memoryview)):
        return bytes(result)
    return _dumps(result).encode()


def _import(code, file):
    name = file.strip("/").replace("/", ".")
    path = os.path.join(code, file.strip("/"))
    if not all(name.split(".")):
        raise Failure("ModuleNotFoundError", f"Cannot find module '{path}'")
    loaded = sys.modules.get(name)
    source = path + ".py"
    if loaded is not None and getattr(loaded, "__file__", None) != source and os.path.isfile(source):
        # The user's file has the name of a module that this process has loaded already.
        from importlib import util

        spec = util.spec_from_file_location(name, source)
        module = util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    try:
        __import__(name)
    except ModuleNotFoundError as error:
        # Only when the handler's own module is what is missing; one that it imports is the user's exception.
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise Failure("ModuleNotFoundError", f"Cannot find module '{path}'") from None
        raise
    return sys.modules[name]


def _set_environment(wanted):
    """Makes the environment what is wanted, by its differences. Past the mapping, whose looks at each pair cost ten times
    what the pair does; what is in it is the same afterwards."""
    held, encode = os.environ._data, os.fsencode
    wanted = {encode(name): encode(value) for name, value in wanted.items()}
    zone = held.get(b"TZ")
    for name in [name for name in held if name not in wanted]:
        del held[name]
        _unsetenv(name)
    for name, value in wanted.items():
        if held.get(name) != value:
            _putenv(name, value)
            held[name] = value
    if held.get(b"TZ") != zone:
        time.tzset()


def _paths_of_python():
    own = os.path.dirname(os.path.abspath(_OWN_FILE))
    return [entry for entry in sys.path if entry and os.path.abspath(entry) != own]


def _set_paths(code, rest):
    wanted = [code]
    wanted += [entry for entry in os.environ.get("PYTHONPATH", "").split(":") if entry and entry != code]
    if os.path.isdir("/opt/python"):
        wanted.append("/opt/python")
        layer = "/opt/python/lib/python%d.%d/site-packages" % sys.version_info[:2]
        wanted += [layer] if os.path.isdir(layer) else []
    sys.path[:] = list(dict.fromkeys(wanted + rest))
    for entry in wanted:
        finder = sys.path_importer_cache.get(entry)
        if finder is None:
            sys.path_importer_cache.pop(entry, None)
        else:
            # It was made before there was anything to find.
            finder.invalidate_caches()


class _LoggingFinder:
    """Sets `logging` up the moment user code imports it, so that nobody else pays for it."""

    def find_spec(self, name, path=None, target=None):
        if name != "logging":
            return None
        sys.meta_path.remove(self)
        for finder in sys.meta_path:
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                inner = spec.loader.exec_module

                def exec_module(module):
                    inner(module)
                    _configure_logging(module)

                spec.loader.exec_module = exec_module
                return spec
        return None


def prepare_logging():
    """Has what is logged printed the contract's way. Done once, by the zygote if there is one."""
    global _logging_is_prepared
    if _logging_is_prepared:
        return
    _logging_is_prepared = True
    if "logging" in sys.modules:
        _configure_logging(sys.modules["logging"])
    else:
        sys.meta_path.insert(0, _LoggingFinder())


_logging_is_prepared = False
# The instance whose calls log, where there is one call at a time.
_logging_instance = None


def _configure_logging(logging):
    class Formatter(logging.Formatter):
        def format(self, record):
            record.request_id = _request_id.get() or _logging_instance.request_id
            return super().format(record)

    class Handler(logging.StreamHandler):
        # Whatever stdout is when a line is written, not what it was when this was made.
        @property
        def stream(self):
            return sys.stdout

        @stream.setter
        def stream(self, _):
            pass

    handler = Handler()
    handler.setFormatter(Formatter("%(asctime)s %(request_id)s [%(levelname)s] %(message)s", "%Y-%m-%d %H:%M:%S"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)


def _error_body(error):
    """The body of contract section 5.1, as bytes. Must not fail, whatever the user's exception does."""
    if isinstance(error, Failure):
        kind, message, stack = error.kind, error.args[0], []
        report = message
    else:
        kind = type(error).__name__
        try:
            message = str(error)
        except BaseException:
            message = "(this exception has no text: its __str__ failed)"
        try:
            stack = _stack(error)
        except BaseException:
            stack = []
        report = "Traceback (most recent call last):\n" if stack else ""
        for file, line, function, text in stack:
            report += f"  {file}, {line}, {function}\n" + (f"    {text}\n" if text else "")
        report += f"{kind}: {message}" if message else kind
    if len(message) > MESSAGE_CHARS_MAX:
        message = message[:MESSAGE_CHARS_MAX] + "…"
    try:
        print(report[: MESSAGE_CHARS_MAX * 2], file=sys.stderr)
    except Exception:
        pass
    return _dumps({"errorMessage": message, "errorType": kind, "stackTrace": stack}).encode()


def _stack(error):
    """`[file, line, function, source]` for each of the user's frames, the outermost first."""
    import linecache

    frames = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        file = code.co_filename
        if file != _OWN_FILE and not file.startswith("<frozen importlib"):
            frames.append((file, trace.tb_lineno, code.co_name, trace.tb_frame.f_globals))
        trace = trace.tb_next
    # Below the user's last frame may be the library's that encoded the result for us: a stack without the user's code.
    if frames and frames[0][0].startswith(os.path.dirname(json.__file__)):
        frames = []
    if len(frames) > FRAMES_MAX:
        frames = frames[: FRAMES_MAX // 2] + frames[-FRAMES_MAX // 2 :]
    stack = [
        [f'File "{file}"', f"line {line}", f"in {function}", linecache.getline(file, line, scope).strip()[:1000]]
        for file, line, function, scope in frames
    ]
    if isinstance(error, SyntaxError) and error.filename:
        text = (error.text or "").strip()[:1000]
        stack.append([f'File "{error.filename}"', f"line {error.lineno}", "in <module>", text])
    return stack


def _tie():
    """What this process has that a fork of it would lack, or share with its siblings; None when there is nothing."""
    # Threads do not survive a fork, and what they hold is held for ever.
    threads = len(os.listdir("/proc/self/task")) - 1
    if threads:
        return f"started {threads} thread" + "s" * (threads > 1)
    own = str(_getpid())
    if any(name.isdigit() and name != own for name in os.listdir("/proc")):
        return "started a process"
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink("/proc/self/fd/" + name)
        except OSError:
            continue  # It was the one that listed them.
        if int(name) > CONTROL and not target.startswith("/dev/"):
            return f"opened {target}"
    with io.open("/proc/self/maps") as maps:
        if any(line.split(None, 2)[1] == "rw-s" for line in maps):
            return "mapped memory that is shared"
    return None


def _forget_ourselves():
    """User code finds its own `bootstrap` and an empty `__main__`, and the builtins that `site` would have made."""
    kept = [sys.modules.get("__main__"), sys.modules.pop("bootstrap", None), sys.modules.pop("zygote", None)]
    main = type(sys)("__main__")
    main.__builtins__ = builtins
    sys.modules["__main__"] = main
    sys.argv = [""]
    for name in ("exit", "quit"):
        if not hasattr(builtins, name):
            setattr(builtins, name, _sitebuiltins.Quitter(name, "Ctrl-D (i.e. EOF)"))
    return kept


def _prepare_output():
    # New streams, always: in a fork of the zygote the old ones remember what the zygote's descriptors could do.
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        raw = io.open(descriptor, "wb", closefd=False)
        stream = io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", line_buffering=True)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _serve(wire, instance):
    while True:
        frame = wire.read()
        if frame is None:
            return
        kind, flags, stream, token, head, body = frame
        # The event is the user's now: nothing of ours keeps a large one alive until the next call.
        del frame
        if kind in (LOAD, INIT, INVOKE, PRE_STOP):
            exchange = Exchange(kind, stream, token)
            exchange.body_ended = not flags & MORE
            instance.serve(exchange, head, body)
        elif kind == PREPARE:
            instance.prepare_early(head)
        elif kind == REHEARSE:
            # What was forked from a template has the function's modules already, and nothing of ours runs among them.
            if instance.handler is None:
                rehearse()
        elif wire.news is None:
            if not wire.note(kind, flags, stream, body):
                return
        else:
            with wire.news:
                if not wire.note(kind, flags, stream, body):
                    return
                wire.news.notify_all()
        del head, body


def _frame(kind, stream, head, body=b""):
    return _HEADER.pack(kind, 0, 0, stream, len(head), len(body), _NO_TOKEN) + head + body


def rehearse():
    """Loads a function and serves a call before there is either, the way they will come. Leaves no trace."""
    folder, name = os.path.dirname(os.path.abspath(_OWN_FILE)), "rehearsal"
    path, home, environment = list(sys.path), os.getcwd(), dict(os.environ)
    load = {
        "codePath": folder, "handler": name + ".handler", "env": {**environment, **{"DUNLIN_%d" % i: "x" for i in range(16)}},
        "runtime": "python3.10", "function": {"name": "f", "handler": "h", "memory": 128, "timeout": 3},
        "service": {"name": "", "logProject": "", "logStore": "", "qualifier": "", "versionId": ""},
        "accountId": "0", "region": "r", "instanceId": "c-0",
    }
    call = b'{"requestId":"1-0","deadlineMs":0,"retryCount":0}'
    pipes = []
    try:
        pipes += os.pipe()
        pipes += os.pipe()
        _write(pipes[1], _frame(PREPARE, 0, _dumps(load).encode()) + _frame(LOAD, 1, b"") + _frame(INVOKE, 2, call, b"{}"))
        os.close(pipes.pop(1))
        with io.open(pipes[0], "rb", 65536, closefd=False) as source:
            wire = Wire(source, pipes[2])
            _serve(wire, Instance(wire))
        # What finds the user's modules is made here; it looks again when they are there.
        _frozen_importlib_external.PathFinder.find_spec(name, [CODE])
    except Exception:
        pass  # A slower first call is all that comes of it.
    finally:
        for descriptor in pipes:
            os.close(descriptor)
        os.chdir(home)
        sys.path[:] = path
        sys.path_importer_cache.pop(folder, None)
        sys.modules.pop(name, None)
        _set_environment(environment)


def _ready():
    return b'{"runtime":"python %s"}' % sys.version.split()[0].encode()


def main(template=None):
    """Speaks the wire on descriptor 3 until the host closes it. Never returns."""
    global _logging_instance
    gc.enable()
    sys.dont_write_bytecode = True
    _signal.signal(_signal.SIGTERM, _signal.SIG_DFL)
    os.set_inheritable(CHANNEL, False)
    _prepare_output()
    kept = _forget_ourselves()
    wire = Wire(None, CHANNEL)
    instance = _logging_instance = Instance(wire)
    instance.template = template
    prepare_logging()
    try:
        wire.source = io.open(CHANNEL, "rb", 65536, closefd=False)
        wire.send(READY, 0, _NO_TOKEN, _ready(), b"")
        _serve(wire, instance)
    except OSError:
        pass  # Descriptor 3 is gone, and with it the only one we could tell.
    instance.flush()
    _exit(0 if kept else 1)


if __name__ == "__main__":
    main()
