"""The leases of a worker in memory that outlives its process: the successor of a killed worker gives their units back.

A unit is subtracted here before it is spent, so the units in the table were never used. The store applies one settle of
a lease and ignores a second, so they are given back at most once. A lease that does not fit into its place is lost for
its window if the worker is killed; the bound that `sidecar check` prints includes it.

Example: a lease of 20 units of a quota, each with cost 1, is in place 3. After 15 requests `units[3]` is 5. The worker
is killed; its successor claims the orphaned lease, settles it with 15 units, and the counter falls by 5.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import orjson

from sidecar.core.decision import Decision
from sidecar.core.decision.lease import spent
from sidecar.core.identity import Identity
from sidecar.core.limits import KINDS, Check, Checks, Limit, checks_of
from sidecar.core.window import Window

PLACES: Final = 511  # leases at once: each has 40 requests a second or more, so a worker cannot serve that many
ENTRY: Final = 2_048  # bytes of a place: the description of its lease
UNITS_BYTES: Final = 8 * (PLACES + 1)  # the last place is shared by all leases beyond PLACES
BYTES: Final = UNITS_BYTES + ENTRY * PLACES

_NOBODY: Final = Identity("", "", "", "")


class OrphanedLease(NamedTuple):
    """A lease of a killed worker, requested at `sent_us`; `actual` are the units to settle it with."""

    id: bytes
    checks: Checks
    sent_us: int
    actual: tuple[int, ...]


class SharedLeaseTable:
    """Leased requests that are not spent yet, by place (`units`), and the description of each place's lease.

    `memory` has BYTES bytes; without it the table has zeros of its own. One process uses it at a time. Shared memory
    keeps its contents when the process is killed; nothing is on disk.
    """

    def __init__(self, memory: mmap.mmap | bytearray | None = None) -> None:
        view = memoryview(mmap.mmap(-1, BYTES) if memory is None else memory)
        self.units = view[:UNITS_BYTES].cast("q")
        self._entries = view[UNITS_BYTES:]
        self._free = [*reversed(range(PLACES))]  # the lowest first: fewer pages

    @classmethod
    def shared(cls, fd: int) -> SharedLeaseTable:
        """The table in the memory behind a descriptor. OSError, ValueError: it is not memory of BYTES bytes."""
        return cls(mmap.mmap(fd, BYTES))

    def place(self) -> int:
        """A place for one lease at a time, to be given back by `free`."""
        return self._free.pop() if self._free else PLACES

    def free(self, place: int) -> None:
        if place < PLACES:
            self._free.append(place)

    def write(self, place: int, id_: bytes, checks: Checks, lease: tuple[Sequence[int], Sequence[int], int]) -> None:
        """Describe the units at `place`: of `checks` under `id_`; `lease`: costs of each, its reset_us, sent_us."""
        self.units[place] = 0
        if place == PLACES:
            return
        limits = [(each.id, each.kind, each.amount, each.per, each.period_us, each.fixed) for each in checks.limits]
        windows = [check.window for check in checks.entries]
        starts_us, ends_us = [each.start_us for each in windows], [each.end_us for each in windows]
        question = checks.costs, checks.marks, checks.keys, starts_us, ends_us
        entry = orjson.dumps((id_.decode(), lease, limits, question)) + b"\n"
        if len(entry) <= ENTRY:
            self._entries[place * ENTRY : place * ENTRY + len(entry)] = entry
        else:
            self._entries[place * ENTRY : place * ENTRY + 1] = b"\n"

    def claim_orphans(self, now_us: int) -> list[OrphanedLease]:
        """The unspent leases of a predecessor, removed from the table."""
        orphans = []
        for place, units in enumerate(self.units):
            self.units[place] = 0
            entry = bytes(self._entries[place * ENTRY : (place + 1) * ENTRY]).partition(b"\n")[0] if units > 0 else b""
            if entry:
                orphans.append(_read(orjson.loads(entry), units, now_us))
        return orphans


def _read(entry: Any, units: int, now_us: int) -> OrphanedLease:
    id_, (costs, reset_us, sent_us), limits, (leased, marks, keys, starts_us, ends_us) = entry
    entries = []
    for (name, kind, amount, per, period_us, fixed), cost, names, start_us, end_us in zip(
        limits, leased, keys, starts_us, ends_us, strict=True
    ):
        limit = Limit(name, kind, amount, per=per, period_us=period_us, fixed=fixed)
        entries.append(Check(limit, KINDS[kind], cost, tuple(names), Window("", start_us, end_us)))
    checks = checks_of(entries, _NOBODY, marks)
    granted = Decision(checks, sent_us, (), reset_us or (0,) * len(limits))
    return OrphanedLease(id_.encode(), checks, sent_us, spent(granted, costs, units, now_us - sent_us))
