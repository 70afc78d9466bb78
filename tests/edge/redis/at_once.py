"""`Commands` on one socket of a real Redis, answered before `send` returns."""

import socket

import hiredis

from sidecar.edge.redis.wire import server_error


class Blocking:
    """`Commands` on one socket that answers before `send` returns."""

    def __init__(self, port):
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._reader = hiredis.Reader(replyError=server_error, notEnoughData=...)
        self.sent = []

    def send(self, slot_key, packed, done):
        self.sent.append(packed)
        done(self.call(packed))

    def call(self, packed):
        self._socket.sendall(packed)
        while (reply := self._reader.gets()) is ...:
            self._reader.feed(self._socket.recv(65_536))
        return reply

    def close(self):
        self._socket.close()


class AtOnce(Blocking):
    """The same, which also notes the slot of each command. While `lost` is set, that is the answer."""

    def __init__(self, port):
        super().__init__(port)
        self.lost = None

    def send(self, slot_key, packed, done):
        self.sent.append((slot_key, packed))
        done(self.lost or self.call(packed))
