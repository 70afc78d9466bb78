"""HTTP/1.1 on plain blocking sockets: quick enough for gibibytes, and as odd as a test wants it."""

from __future__ import annotations

import contextlib
import socket
import threading
import zlib


class Reader:
    """A message from a blocking socket; strict enough for what the sidecar itself writes."""

    def __init__(self, sock):
        self.file = sock.makefile("rb", buffering=1 << 18)

    def head(self):
        lines = []
        while (line := self.file.readline()) not in (b"\r\n", b""):
            lines.append(line.decode().rstrip("\r\n"))
        return lines[0], {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}

    def pieces(self, fields):
        if fields.get("transfer-encoding") == "chunked":
            while size := int(self.file.readline(), 16):
                yield self.file.read(size)
                assert self.file.read(2) == b"\r\n"
            assert self.file.readline() == b"\r\n"
            return
        left = int(fields.get("content-length", 0))
        while left:
            piece = self.file.read(min(left, 1 << 20))
            assert piece, f"the connection ended {left} bytes early"
            left -= len(piece)
            yield piece

    def body(self, fields):
        """Read the body. Returns its length and checksum."""
        total, checksum = 0, 0
        for piece in self.pieces(fields):
            total += len(piece)
            checksum = zlib.crc32(piece, checksum)
        return total, checksum


@contextlib.contextmanager
def origin(serve, wrap=lambda sock: sock):
    """A listening socket, one thread a connection; gives its URL.

    `serve(sock, reader, line, fields)` answers a request, and returns True to close. `wrap` may speak TLS first.
    """
    listening = socket.create_server(("127.0.0.1", 0))

    def connection(sock):
        with contextlib.suppress(OSError, AssertionError), wrap(sock) as spoken:
            reader = Reader(spoken)
            while True:
                try:
                    line, fields = reader.head()
                except IndexError:
                    return
                if serve(spoken, reader, line, fields):
                    return

    def accept():
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=connection, args=(listening.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
