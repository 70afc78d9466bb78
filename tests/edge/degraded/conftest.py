"""A disk that is full, fails, or loses power."""

import errno
import os
from pathlib import Path

import pytest


@pytest.fixture
def disk(monkeypatch):
    """A disk that can be full, fail, or keep only what was synced."""
    disk = Disk(monkeypatch)
    yield disk
    disk.full = disk.fixed = False


class Disk:
    full = False  # writes are short
    fixed = False  # no file can be removed or replaced
    syncs = 0

    def __init__(self, monkeypatch):
        self.durable = {}
        write, sync, unlink, move = os.write, os.fdatasync, Path.unlink, Path.replace

        def short_write(fd, data):
            return write(fd, data[: len(data) // 2] if self.full else data)

        def noted_sync(fd):
            sync(fd)
            self.syncs += 1
            path = Path(f"/proc/self/fd/{fd}").readlink()
            self.durable[path] = path.read_bytes()

        def fail_if_fixed(call):
            def wrapped(*args, **how):
                if self.fixed:
                    raise OSError(errno.EROFS, "read-only")
                return call(*args, **how)

            return wrapped

        monkeypatch.setattr(os, "write", short_write)
        monkeypatch.setattr(os, "fdatasync", noted_sync)
        monkeypatch.setattr(Path, "unlink", fail_if_fixed(unlink))
        monkeypatch.setattr(Path, "replace", fail_if_fixed(move))

    def cut_power(self, path):
        """Leave what is sure to be there: without a sync, not even the name."""
        if path in self.durable:
            path.write_bytes(self.durable[path])
        else:
            path.unlink(missing_ok=True)
