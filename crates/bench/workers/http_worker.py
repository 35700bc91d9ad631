"""A worker that answers HTTP itself, as lean as Python allows: what a platform is compared with."""

import selectors
import socket
import sys

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\n"


def handler(event, context):
    return "hello"


def main():
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", int(sys.argv[1])))
    listener.listen(128)
    watched = selectors.EpollSelector()
    watched.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in watched.select():
            if key.fileobj is listener:
                connection, _ = listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                watched.register(connection, selectors.EVENT_READ)
                continue
            connection = key.fileobj
            try:
                request = connection.recv(65536)
            except OSError:
                request = b""
            if request.endswith(b"\r\n\r\n"):
                connection.sendall(ANSWER + handler(request, None).encode())
            elif not request:
                watched.unregister(connection)
                connection.close()


main()
