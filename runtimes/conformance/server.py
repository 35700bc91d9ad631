"""A small HTTP server for the cases of custom runtimes: a case's `bootstrap` that begins with `#!server` goes below it.

It calls `invoke`, `initialize`, `pre_stop` and `request`, where the case defines them, as `f(handler, body)`.
"""

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def body(self):
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def reply(self, status, body=b"", headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle_any(self):
        names = {"/invoke": "invoke", "/initialize": "initialize", "/pre-stop": "pre_stop"}
        known = self.headers.get("x-fc-control-path") in names
        function = globals().get(names.get(self.path, "request") if known else "request")
        body = self.body()
        if function is None:
            self.reply(404, b"no such function in this case")
        else:
            function(self, body)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = handle_any


def serve():
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["FC_CUSTOM_LISTEN_PORT"])), Handler).serve_forever()
