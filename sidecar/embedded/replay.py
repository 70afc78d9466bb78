"""Restores the stores of a node without Redis: the rows of its last saved state, then the journal from there on.

The journal is the source of truth: an OPEN entry reserves again, and a record settles again, in their order, by the
same rule and at their recorded times. So a counter equals the sum of its records to the unit, and a balance to the
last digit.

Rows are of different instants: each slice has the journal's position at its instant. Earlier entries are in the rows:

    slice          written 7.1.900, settled 7.1.900      a quota is at 3
    OPEN   7.1.800 (before)  its reservation is in the 3; its record at 7.1.950 settles it
    OPEN   7.1.940 (behind)  is reserved again: 4; it has no record, so the start closes it as crashed: 3
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from sidecar.core.errors import StateError
from sidecar.core.limits import marks_stem_beside
from sidecar.core.policy import Policy
from sidecar.core.record.frame import CLOSE, NOTE, OPEN, Frame, Position
from sidecar.edge.journal.replay import frames_after, has_gap
from sidecar.edge.memory.state_file import Followed, Slice, read_slices
from sidecar.embedded.state import EmbeddedState

log = logging.getLogger("sidecar.state")
_UNREADABLE = (ValueError, LookupError, TypeError, AttributeError)


class Report(NamedTuple):
    """The result of a start. `is_new`: there was no state yet, so nothing is replayed."""

    is_new: bool
    rows: int
    replayed: int
    faults: tuple[str, ...]


class Replay:
    """One start. `opened` are the OPEN entries (JSON) without a record, by id; `end` is behind the last entry."""

    def __init__(self, state: EmbeddedState, policy: Policy) -> None:
        self._state = state
        self._settlements = state.use(policy)
        self._slices: list[Slice] = []
        self._place: dict[str, int] = {}  # of a customer, by its marks: the slice that holds its rows
        self._attempts: dict[bytes, bytes] = {}  # first attempts: id → digest
        self._unproven: set[bytes] = set()  # of those that a note tells of, without a record yet
        self.opened: dict[bytes, bytes] = {}
        self.end = Position(0, 0, 0)
        self._replayed = 0
        self._is_following = False

    def run(self, folder: Path, now_us: int) -> Report:
        """Restore everything. StateError: no file is whole, a row cannot be read, or a newer version wrote here."""
        self._slices, faults = read_slices(folder)
        for fault in faults:
            log.error("%s: the previous state is used, with a longer replay", fault)
        if not self._slices:
            return Report(True, 0, 0, tuple(faults))
        rows = sum(self._restore(index, each, now_us) for index, each in enumerate(self._slices))
        first = self._slices[0]
        start = min(first.written, first.settled)
        if has_gap(folder, start):
            faults.append(f"{folder}: entries behind {start} are gone: counters may be too low")
            log.error("%s", faults[-1])
        self.end = self._replay_from(folder, start)
        for id_ in self._unproven:  # it was refused, or did not come so far as to be billed
            self._state.retries.drop(self._attempts[id_], id_)
        return Report(False, rows, self._replayed, tuple(faults))

    @property
    def followed(self) -> tuple[Followed, ...]:
        """Whom the state had followed: other workers that were still finishing when it was saved."""
        return self._slices[0].followed if self._slices else ()

    def follow(self, folder: Path, position: Position) -> Position:
        """Count what a worker that still finishes has written behind `position`; where that ends."""
        self._is_following = True
        return self._replay_from(folder, position)

    def _replay_from(self, folder: Path, position: Position) -> Position:
        for end, frame in frames_after(folder, position):
            position = end
            try:
                self._replay(end, frame)
            except _UNREADABLE as error:
                log.error("%s: the entry before %s cannot be read, and is not in the counters: %r", folder, end, error)  # noqa: TRY400
        return position

    def release(self, now_us: int) -> None:
        """Give back what entries without a record reserved: their exchanges ended with their process."""
        for id_, body in self.opened.items():
            checks = self._settlements.reserved(orjson.loads(body))
            if checks is not None:
                self._state.counters.replay_settle(id_, checks, (0,) * len(checks.costs), now_us)
        self.opened.clear()

    def _restore(self, index: int, each: Slice, now_us: int) -> int:
        for row in each.rows:
            kind, key = row[0], row[1]
            if kind == "open":
                self.opened[key.encode()] = row[3].encode()
                continue
            try:
                self._state.restore(row, now_us)
            except _UNREADABLE as error:
                raise StateError(f"the state has a row that cannot be read: {str(row)[:80]}: {error!r}") from None
            if kind == "retry":
                self._attempts[row[3].encode()] = bytes.fromhex(key)
            elif kind not in ("alert", "adjusted"):
                self._place[marks_stem_beside(key)] = index
        return len(each.rows)

    def _slice_of(self, marks: str) -> Slice:
        """The slice of the customer with these marks; one without rows had nothing when the first slice was written."""
        return self._slices[self._place.get(marks, 0)]

    def _replay(self, end: Position, frame: Frame) -> None:
        if frame.type == OPEN:
            self._open(end, frame)
        elif frame.type == CLOSE:
            self._close(end, frame)
        elif frame.type == NOTE:
            self._note(end, orjson.loads(frame.body))

    def _open(self, end: Position, frame: Frame) -> None:
        if frame.id in self.opened:  # written again after a failed sync, or part of the state
            return
        self.opened[frame.id] = frame.body
        before = orjson.loads(frame.body)
        checks = self._settlements.reserved(before)
        if checks is not None and (self._is_following or end > self._slice_of(checks.marks).written):
            self._state.counters.replay_reserve(frame.id, checks, before["time_us"])

    def _close(self, end: Position, frame: Frame) -> None:
        data = orjson.loads(frame.body)["data"]
        self._prove(frame.id, is_billed=data["billable"])
        body = self.opened.pop(frame.id, None)
        if body is None:
            return
        closed_us = orjson.loads(body)["time_us"] + data["duration_us"]
        settlement = self._settlements.read(frame.id, body, frame.body, closed_us)
        if settlement is None:
            return
        checks, each = settlement.checks, self._slice_of(settlement.checks.marks)
        known = end <= each.settled or (end.epoch == each.written.epoch and frame.sequence <= each.highest)
        if known and not self._is_following:
            return
        actual = (0,) * len(checks.costs) if data["outcome"] == "crashed" else settlement.actual
        self._state.counters.replay_settle(frame.id, checks, actual, closed_us)
        self._replayed += 1

    def _prove(self, id_: bytes, *, is_billed: bool) -> None:
        digest = self._attempts.get(id_)
        self._unproven.discard(id_)
        if digest is not None and not is_billed:
            self._state.retries.drop(digest, id_)

    def _note(self, end: Position, note: dict[str, Any]) -> None:
        id_ = self._state.replay(note, lambda marks: self._is_following or end > self._slice_of(marks).written)
        if id_:
            self._attempts[id_] = bytes.fromhex(note["retry"][0])
            self._unproven.add(id_)
