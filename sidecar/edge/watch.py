"""Notices that a file, or a file of a directory, was changed, replaced, added or removed, and says so once it is quiet.

Polling, because inotify sees neither a network file system nor what a ConfigMap's `..data` link begins to point to; a
look is one `stat` a file, of what links resolve to. A missing file is a state like any other, never an error: what to
do about it is the callback's to decide.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from pathlib import Path

INTERVAL_S = 1.0
MAX_FILES = 1_000  # of one directory: more are not looked at

Seen = tuple[tuple[str, int, int, int, int], ...]
"""Name, device, inode, size and ctime in ns (which also moves where a copy keeps its mtime); zeros for nothing."""


class Watch:
    """Calls `changed()` in the running loop, at most once per change and never while files still move.

    A change is reported after it has stood still for one `interval_s`, so between one and two of them after it was
    made. Directories are not entered below their own files; names that begin with a dot are not looked at.
    """

    def __init__(self, paths: Iterable[Path], changed: Callable[[], None], interval_s: float = INTERVAL_S) -> None:
        self._paths = tuple(paths)
        self._changed = changed
        self._interval_s = interval_s
        self._known: Seen = ()
        self._last: Seen = ()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Take what is there now as known, and look again every interval."""
        self._known = self._last = snapshot(self._paths)
        self._again()

    def stop(self) -> None:
        """Look no more. May be called twice, also from within `changed`."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _again(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._interval_s, self._tick)

    def _tick(self) -> None:
        seen = snapshot(self._paths)
        quiet, self._last = seen == self._last, seen
        self._again()  # before the callback, so that one that fails does not end the watch
        if quiet and seen != self._known:
            self._known = seen
            self._changed()


def snapshot(paths: Iterable[Path]) -> Seen:
    """The state of the files at `paths`. Two equal results mean that nothing was changed in between."""
    return tuple(_stat(name) for path in paths for name in _names(path))


def _names(path: Path) -> list[str]:
    try:
        inside = sorted(entry for entry in os.listdir(path) if entry[0] != ".")  # noqa: PTH208 - a Path for each costs ten times as much
    except OSError:  # a file, or nothing
        return [str(path)]
    return [f"{path}/{entry}" for entry in inside[:MAX_FILES]]


def _stat(name: str) -> tuple[str, int, int, int, int]:
    try:
        stat = os.stat(name)  # noqa: PTH116 - as above; follows links, so a swapped target has another inode
    except OSError:
        return name, 0, 0, 0, 0
    return name, stat.st_dev, stat.st_ino, stat.st_size, stat.st_ctime_ns
