"""Disks that fail in the ways disks do."""

import errno
import os
import threading

from sidecar.edge.journal import Disk


class FailingDisk(Disk):
    """Fails while told to: `room` bytes are left (None: no end), or `short` are taken at once; `syncs_fail` times."""

    def __init__(self):
        self.room = None
        self.short = None
        self.syncs_fail = 0
        self.creates_fail = self.new_file_has_room = False
        self.synced = []
        self.may_sync = threading.Event()
        self.may_sync.set()

    def create(self, path):
        if self.new_file_has_room:
            self.room = None
        if self.creates_fail:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().create(path)

    def write(self, fd, data):
        taken = min(len(data), *(bound for bound in (self.room, self.short) if bound is not None), len(data))
        if taken == 0 and data:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self.room is not None:
            self.room -= taken
        return super().write(fd, data[:taken])

    def sync(self, fd):
        self.may_sync.wait(10)
        if self.syncs_fail:
            self.syncs_fail -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().sync(fd)
        self.synced.append(threading.current_thread())


class NoCut(FailingDisk):
    """Cannot shorten a file either, so that half a frame stays at its end."""

    def cut(self, fd, size):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
