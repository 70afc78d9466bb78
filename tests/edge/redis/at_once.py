"""`Commands` on one socket of a real Redis, answered before `send` returns. While `lost` is set, that is answered."""

import socket

import hiredis

from sidecar.edge.redis.wire import server_error


class AtOnce:
    def __init__(self, port):
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._reader = hiredis.Reader(replyError=server_error, notEnoughData=...)
        self.sent = []
        self.lost = None

    def send(self, slot_key, packed, done):
        self.sent.append((slot_key, packed))
        done(self.lost or self._reply(packed))

    def _reply(self, packed):
        self._socket.sendall(packed)
        while (reply := self._reader.gets()) is ...:
            self._reader.feed(self._socket.recv(65_536))
        return reply

    def close(self):
        self._socket.close()
