"""What a worker has in hand, in memory that outlives it: whoever comes after a killed worker gives it back.

A unit is taken off here before it is spent, so what is found here was never used; and the store takes one settle of a
lease and no second, so it goes back once at most. What cannot be kept here is lost to its window, as the bound says.
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from sidecar.core.counter import Checks
from sidecar.core.decision import Decision
from sidecar.core.decision.lease import spent
from sidecar.core.identity import Identity
from sidecar.core.policy import Limit

if TYPE_CHECKING:
    from collections.abc import Sequence

PLACES: Final = 511  # leases at once: of forty requests a second at least, so more than a worker can serve
ENTRY: Final = 2_048  # bytes of a place: what it takes to give back the lease there
HAND: Final = 8 * (PLACES + 1)  # bytes; the last place is for all who find none
BYTES: Final = HAND + ENTRY * PLACES

_NOBODY: Final = Identity("", "", "", "")


class Remain(NamedTuple):
    """What is left of a lease that was asked for at `sent_us`, and the `truth` that gives it back."""

    id: bytes
    checks: Checks
    sent_us: int
    truth: tuple[int, ...]


class Remains:
    """Requests in hand by place (`hand`), and beside them what they were leased by. `memory` is BYTES long, or zeros.

    One process at a time. Shared memory keeps what it holds when its process is killed, and nothing of it is on a disk.
    """

    def __init__(self, memory: mmap.mmap | bytearray | None = None) -> None:
        view = memoryview(mmap.mmap(-1, BYTES) if memory is None else memory)
        self.hand = view[:HAND].cast("q")
        self._entries = view[HAND:]
        self._free = [*reversed(range(PLACES))]  # the lowest first: fewer pages

    @classmethod
    def shared(cls, fd: int) -> Remains:
        """In the memory behind a descriptor, of BYTES. OSError, ValueError: it is none."""
        return cls(mmap.mmap(fd, BYTES))

    def place(self) -> int:
        """A place for one lease at a time, to be given back by `free`."""
        return self._free.pop() if self._free else PLACES

    def free(self, place: int) -> None:
        if place < PLACES:
            self._free.append(place)

    def write(self, place: int, id_: bytes, checks: Checks, lease: tuple[Sequence[int], Sequence[int], int]) -> None:
        """Say what the units at `place` are: of `checks` under `id_`; `lease`: costs of each, its reset_us, sent_us."""
        self.hand[place] = 0
        if place == PLACES:
            return
        limits = [(each.id, each.kind, each.amount, each.per, each.period_us, each.fixed) for each in checks.limits]
        asked = checks.costs, checks.marks, checks.keys, checks.starts_us, checks.ends_us
        entry = orjson.dumps((id_.decode(), lease, limits, asked)) + b"\n"
        if len(entry) <= ENTRY:
            self._entries[place * ENTRY : place * ENTRY + len(entry)] = entry
        else:
            self._entries[place * ENTRY : place * ENTRY + 1] = b"\n"

    def take(self, now_us: int) -> list[Remain]:
        """What is left of a predecessor's leases; from then on nothing is."""
        found = []
        for place, units in enumerate(self.hand):
            self.hand[place] = 0
            entry = bytes(self._entries[place * ENTRY : (place + 1) * ENTRY]).partition(b"\n")[0] if units > 0 else b""
            if entry:
                found.append(_read(orjson.loads(entry), units, now_us))
        return found


def _read(entry: Any, units: int, now_us: int) -> Remain:
    id_, (costs, reset_us, sent_us), limits, (leased, marks, keys, starts_us, ends_us) = entry
    checks = Checks(
        identity=_NOBODY,
        limits=tuple(
            Limit(limit, kind, amount, per=per, period_us=period_us, fixed=fixed)
            for limit, kind, amount, per, period_us, fixed in limits
        ),
        costs=tuple(leased),
        marks=marks,
        keys=tuple(map(tuple, keys)),
        windows=("",) * len(limits),
        starts_us=tuple(starts_us),
        ends_us=tuple(ends_us),
        until_us=0,
    )
    said = Decision(checks, sent_us, (), reset_us or (0,) * len(limits))
    return Remain(id_.encode(), checks, sent_us, spent(said, costs, units, now_us - sent_us))
