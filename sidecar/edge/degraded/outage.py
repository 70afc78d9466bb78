"""The state of an outage: local counters, virtual times of rates, debts. Read from the outage file of a worker.

Reading ends at the first line that is torn or invalid; the lines before it are used. A torn last line is the normal
trace of a kill. Anything else is damage: the content of the following lines is unknown, so the shares count as used up,
and debts that may have been sent by then are given up.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from sidecar.core.decision.packed import unpack
from sidecar.core.limits import COUNT_MAX, Checks, current_key
from sidecar.core.limits.base import SLOTS

VERSION: Final = 2  # of the file; version 1 had the keys of version 0.1
log = logging.getLogger("sidecar.degraded")

Local = tuple[str, Any, int]  # kind (count, rate, wallet), value, expiry in µs


class Debt:
    """A charge of one exchange that the store lacks, and the settle with its `actual` units after it.

    `counted`: the store has the charge, only the settle is due. `sent_us`: when it was sent for the first time; 0: it
    certainly was not. `leaks_us[i]`: when the units of limit i have leaked, if it is a rate; empty without rates.
    """

    __slots__ = ("actual", "checks", "counted", "leaks_us", "local", "sent_us")

    def __init__(
        self,
        checks: Checks,
        *,
        counted: bool,
        actual: Sequence[int] | None = None,
        sent_us: int = 0,
        leaks_us: Sequence[int] = (),
    ) -> None:
        self.checks = checks
        self.counted = counted
        self.local = not counted  # charged to this worker's share
        self.actual = actual
        self.sent_us = sent_us
        self.leaks_us = list(leaks_us)


class Outage:
    """The state in an outage file. `sums` are debts past the cap, added up by the counters to charge."""

    def __init__(self, workers: int = 1, total_workers: int = 1) -> None:
        self.workers = workers
        self.total_workers = total_workers
        self.local: dict[str, Local] = {}
        self.leaks_us: dict[str, int] = {}
        self.debts: dict[bytes, Debt] = {}
        self.sums: dict[tuple[str, ...], Debt] = {}
        self.unknown_us = 0  # the use of shares until then is unknown; 0: all of it is known
        self.is_lent_unknown = False  # the amounts that wallets lent are unknown, until an outage ends
        self.damaged = 0  # damaged files since a worker last counted them
        self.damage = ""  # why the file, or its rest, cannot be read
        self.doubtful: list[Debt] = []  # debts that may have been sent, according to lines that cannot be read
        self._checks: dict[int, Checks] = {}

    def doubt(self, now_us: int) -> None:
        """The rest of the file is lost: count the shares as used up until now, and no debt as certainly unsent."""
        self.unknown_us, self.is_lent_unknown = now_us, True
        self.damaged += 1
        self.doubtful = [*(debt for debt in self.debts.values() if not debt.sent_us), *self.sums.values()]
        self.debts = {id_: debt for id_, debt in self.debts.items() if debt.sent_us}
        self.sums = {}

    def drop(self, now_us: int) -> None:
        """Remove the counters of windows that have ended, and times that are past."""
        self.local = {key: counter for key, counter in self.local.items() if counter[2] > now_us}
        self.leaks_us = {key: leaks_us for key, leaks_us in self.leaks_us.items() if leaks_us > now_us}

    def keep(self, checks: Checks, values: Sequence[Any], leaks_us: Sequence[int]) -> None:
        """Store the local counters of `checks` (None: the limit has no counter), and when its rates have leaked."""
        for index, value in enumerate(values):
            if value is not None:
                check = checks.entries[index]
                stored = check.kind.stored_as
                self.local[check.keys[0]] = stored, value, check.kind.local_expiry_us(check, value)
        for index, at_us in enumerate(leaks_us):
            if at_us:
                self.leaks_us[checks.keys[index][0]] = at_us

    def add_up(self, checks: Checks, leaks_us: Sequence[int], most: int) -> list[Checks]:
        """Add an exchange to the sums, by counter, or by wallet with the counters that it pays for.

        Returns the parts for which `sums` is full.
        """
        lost = []
        for together in _together(checks):
            part = checks.only(together)
            key = sum_key(part)
            leaks = [leaks_us[i] for i in together] if leaks_us else []
            known = self.sums.get(key)
            if known is not None:
                pairs = zip(known.checks.costs, part.costs, strict=True)
                known.checks = known.checks.with_costs([sum(pair) for pair in pairs])
                known.leaks_us = leaks or known.leaks_us
            elif len(self.sums) < most:
                self.sums[key] = Debt(part, counted=False, leaks_us=leaks)
            else:
                lost.append(part)
        return lost

    def play(self, line: list[Any]) -> None:
        """Apply one line of the file. Raises ValueError, TypeError, KeyError or IndexError if it is invalid."""
        _PLAYS[line[0]](self, *line[1:])

    def _head(self, version: int, workers: int, total_workers: int) -> None:
        if not 1 <= version <= VERSION:
            raise ValueError(f"version {version}")
        self.workers, self.total_workers = workers, total_workers

    def _number(self, number: int, packed: list[Any]) -> None:
        self._checks[number] = unpack(packed)

    def _admit(self, id_: str, number: int, values: list[Any], leaks_us: list[int], sent_us: int) -> None:
        checks = self._checks[number]
        self.keep(checks, values, leaks_us)
        self.debts[id_.encode()] = Debt(checks, counted=False, sent_us=sent_us, leaks_us=leaks_us)

    def _sum(self, number: int, leaks_us: list[int], values: list[Any]) -> None:
        checks = self._checks[number]
        self.keep(checks, values, leaks_us)
        self.add_up(checks, leaks_us, COUNT_MAX)

    def _owe(self, id_: str, number: int, actual: list[int], sent_us: int) -> None:
        self.debts[id_.encode()] = Debt(self._checks[number], counted=True, actual=actual, sent_us=sent_us)

    def _settle(self, id_: str, number: int, actual: list[int], leaks_us: list[int], values: list[Any]) -> None:
        self.keep(self._checks[number], values, leaks_us)
        debt = self.debts[id_.encode()]
        debt.actual, debt.leaks_us = actual, leaks_us

    def _sent(self, ids: list[str], at_us: int) -> None:
        for id_ in ids:
            self.debts[id_.encode()].sent_us = at_us

    def _remove(self, ids: list[str]) -> None:
        for id_ in ids:
            self.debts.pop(id_.encode(), None)

    def _remove_sum(self, keys: list[str]) -> None:
        self.sums.pop(tuple(keys), None)

    def _forget(self, keys: list[str]) -> None:
        for key in keys:
            self.local.pop(key, None)

    def _local(self, key: str, kind: str, value: Any, expire_us: int) -> None:
        self.local[key] = (kind, value, expire_us)

    def _leaks(self, key: str, leaks_us: int) -> None:
        self.leaks_us[key] = leaks_us

    def _unknown(self, until_us: int, is_lent_unknown: bool, damaged: int) -> None:
        self.unknown_us, self.is_lent_unknown, self.damaged = until_us, is_lent_unknown, damaged

    def _debt(
        self, id_: str, number: int, counted: bool, actual: list[int] | None, sent_us: int, leaks_us: list[int]
    ) -> None:
        self.debts[id_.encode()] = Debt(
            self._checks[number], counted=counted, actual=actual, sent_us=sent_us, leaks_us=leaks_us
        )

    def _whole_sum(self, number: int, leaks_us: list[int]) -> None:
        checks = self._checks[number]
        self.sums[sum_key(checks)] = Debt(checks, counted=False, leaks_us=leaks_us)


_PLAYS: Final[dict[str, Callable[..., None]]] = {
    "h": Outage._head, "c": Outage._number, "a": Outage._admit, "+": Outage._sum, "u": Outage._owe,
    "t": Outage._settle, "m": Outage._sent, "p": Outage._remove, "z": Outage._remove_sum, "f": Outage._forget,
    "l": Outage._local, "v": Outage._leaks, "d": Outage._debt, "s": Outage._whole_sum,
    "x": Outage._unknown,
}  # fmt: skip


def read(path: Path) -> Outage | None:
    """The state in the file, None if it does not exist. `damage` is set if more is lost than a torn last line."""
    outage = Outage()
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        outage.damage = str(error)
        return outage
    lines = [line for line in data.split(b"\n") if line]
    for at, line in enumerate(lines):
        try:
            outage.play(_parsed(line, is_head=not at))
        except (ValueError, TypeError, KeyError, IndexError) as error:
            reason = f"line {at + 1} cannot be read ({error})"
            log.warning("outage file %s: %s: the lines before it are used", path, reason)
            if not at or at + 1 < len(lines):
                outage.damage = reason
            break
    return outage if lines else None


def _parsed(line: bytes, *, is_head: bool) -> list[Any]:
    parsed: list[Any] = _with_current_keys(orjson.loads(line))
    if is_head and parsed[0] != "h":
        raise ValueError("the head is missing")
    return parsed


def _with_current_keys(value: Any) -> Any:
    """A copy with the current names of keys of version 0.1."""
    if isinstance(value, list):
        return [_with_current_keys(each) for each in value]
    return current_key(value) if isinstance(value, str) else value


def set_aside(path: Path, damage: str) -> None:
    """Link a damaged file to another name, for analysis. A later one of the same worker replaces it."""
    aside = path.with_name(path.name + ".damaged")
    log.error(
        "outage file %s: %s: shares count as used up, and debts may be lost; the file is saved as %s",
        path,
        damage,
        aside.name,
    )
    try:
        aside.unlink(missing_ok=True)
        aside.hardlink_to(path)
    except OSError as error:
        log.warning("outage file %s: cannot be saved: %s", aside, error.strerror)


def sum_key(checks: Checks) -> tuple[str, ...]:
    """The key of a sum: the names of all counters to charge."""
    return tuple(name for keys in checks.keys for name in keys)


def _together(checks: Checks) -> list[tuple[int, ...]]:
    """The indexes of limits that are charged together: a balance with the limits that it pays for, others one by one.

    Slots are left out: they are free before the store answers again.
    """
    entries = checks.entries
    return [
        (*[each for each, check in enumerate(entries) if check.payer == index], index)
        for index, check in enumerate(entries)
        if check.kind.stored_as != SLOTS and check.payer < 0
    ]
