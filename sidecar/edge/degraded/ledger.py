"""The outage file of a worker: its local counters and debts while the store does not answer.

Each change is a line, appended before the answer that depends on it, so that the successor of a killed worker continues
from the same state. Lines are appended only while there are debts. A file that has grown is replaced by a snapshot.

A debt is sent only after the file says so durably: the "m" line is synced before the first send, so a debt without an
"m" line was certainly never sent. If the line cannot be written, the file is removed before the send. All other lines
are not synced: a power failure may lose them. Then the store never gets their charges, but no debt is charged twice.

After a failed or short write nothing is appended until a whole new file is written, which is tried once a second.

    ["h", 2, workers, total_workers]                  head
    ["c", 7, checks]                                  7 refers to these checks from here on (core/decision/packed.py)
    ["a", id, 7, [41, null], [leaks_us], sent_us]     an admitted exchange, and the local counters after it
    ["u", id, 7, [3], sent_us]                        a settle that is due: the store has the reservation
    ["t", id, 7, [3], [leaks_us], [39, null]]         the actual units of an admitted exchange
    ["+", 7, [leaks_us], [42, null]]                  an admitted exchange that is part of a sum
    ["m", [id, ...], at_us]                           sent from this time on; 0: the store certainly has not taken them
    ["p", [id, ...]]  ["z", [key, ...]]               debts that are paid or given up; a sum that became a debt
    ["f", [key, ...]]                                 removed wallets
    ["x", until_us, lent, files]                      after a damaged file: shares used until then are unknown
    ["l", key, kind, value, expire_us]  ["v", key, leaks_us]  ["d", id, 7, ...]  ["s", 7, ...]    of a snapshot:
                                                      a counter, a rate's time, a debt, a sum

Worked example: a share of 42, one exchange admitted, charged and settled.

    ["a", "01J…", 7, [41], [], 0]     admitted: 41 left. A successor would charge 1 unit and continue at 41
    ["m", ["01J…"], 1760000000000000] the charge will be sent. A successor repeats it for 150 s, then gives it up
    ["p", ["01J…"]]                   the store has it. A successor has nothing to send
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from sidecar.core.decision.packed import pack
from sidecar.core.limits import Checks
from sidecar.edge.degraded.outage import VERSION, Debt, Outage, read, set_aside, sum_key
from sidecar.edge.files import sync_folder, write_all, write_atomic

GROWN_BYTES: Final = 4 << 20  # a file larger than this, and than four times its snapshot, is replaced by a snapshot
REST_BYTES: Final = 64 << 10  # the same bound while there are no debts
_NAME: Final = "outage.{}.jsonl"
log = logging.getLogger("sidecar.degraded")

Values = list[Any]


def outage_file(journal: Path, index: int) -> Path:
    """The path of worker `index`'s file, beside the journals."""
    return journal / _NAME.format(index)


def outage_files(journal: Path) -> dict[int, Path]:
    """All existing files, by worker."""
    paths = {path.name.split(".")[1]: path for path in journal.glob(_NAME.format("*"))}
    return {int(index): path for index, path in paths.items() if index.isdecimal()}


class Ledger:
    """The file of one worker, opened by the first line. Without `path` nothing is written.

    `workers` are those of this node, `total_workers` those of all nodes, among which limits are divided.
    """

    def __init__(self, path: Path | None = None, workers: int = 1, total_workers: int = 1) -> None:
        self._path = path
        self._head = ["h", VERSION, workers, total_workers]
        self.total_workers = total_workers
        self._fd = -1
        self._numbers: dict[Checks, int] = {}
        self._bytes = self._short_bytes = 0
        self._short_owes = False
        self.damaged = 0  # damaged files at the start
        self._broken = False  # the file lacks lines or has a torn one
        self._named = False  # the file's name is durable
        self.outage = Outage(workers, total_workers)  # the state in the file, without the debts: `Debts` has them

    def adopt(self, now_us: int) -> Outage | None:
        """The state that the previous process left, or None. The file is rewritten, a damaged one set aside before."""
        if self._path is None or (previous := read(self._path)) is None:
            return None
        if previous.damage:
            set_aside(self._path, previous.damage)
            previous.doubt(now_us)
        outage = self.outage
        outage.local, outage.leaks_us = previous.local, previous.leaks_us
        outage.unknown_us, outage.is_lent_unknown = previous.unknown_us, previous.is_lent_unknown
        self.damaged = previous.damaged
        self.shorten(previous.debts, previous.sums)
        return previous

    # Lines.

    def admit(self, id_: bytes, checks: Checks, debt: Debt, values: Values) -> None:
        self.outage.keep(checks, values, debt.leaks_us)
        self._write(checks, ["a", id_.decode(), None, values, debt.leaks_us, debt.sent_us])

    def add_up(self, checks: Checks, leaks_us: Sequence[int], values: Values) -> None:
        self.outage.keep(checks, values, leaks_us)
        self._write(checks, ["+", None, leaks_us, values])

    def owe(self, id_: bytes, debt: Debt) -> None:
        self._write(debt.checks, ["u", id_.decode(), None, debt.actual, debt.sent_us])

    def settle(self, id_: bytes, debt: Debt, values: Values) -> None:
        self.outage.keep(debt.checks, values, debt.leaks_us)
        self._write(debt.checks, ["t", id_.decode(), None, debt.actual, debt.leaks_us, values])

    def sent(self, ids: Sequence[bytes], at_us: int) -> bool:
        """Write durably that `ids` are sent; False: a successor could take them for unsent, so do not send them."""
        if self._path is None:
            return True
        self._append([["m", [id_.decode() for id_ in ids], at_us]])
        return (not self._broken and self._sync()) or self._remove()

    def unsent(self, ids: Sequence[bytes]) -> None:
        """The store certainly has not taken them."""
        self._append([["m", [id_.decode() for id_ in ids], 0]])

    def remove(self, ids: Sequence[bytes]) -> None:
        """They are paid or given up."""
        self._append([["p", [id_.decode() for id_ in ids]]])

    def take_sum(self, id_: bytes, debt: Debt) -> None:
        """A sum has become the debt `id_`."""
        if self._path is not None:
            self._append([*self._numbered(debt.checks, _debt_line(id_, debt)), ["z", sum_key(debt.checks)]])

    def forget(self, keys: Sequence[str]) -> None:
        for key in keys:
            self.outage.local.pop(key, None)
        self._append([["f", keys]])

    def know_lent(self) -> None:
        """An outage is over, so the amounts that wallets lend in the next one will be known."""
        self.outage.is_lent_unknown = False
        self._append([self._unknown_line()])

    # The file.

    def tend(self, debts: dict[bytes, Debt], sums: dict[tuple[str, ...], Debt], now_us: int) -> None:
        """Replace a file that has grown, or to which a write failed. Call it about once a second."""
        if self._broken:
            if self.shorten(debts, sums):
                log.warning("outage file %s: can be written again", self._path)
            return
        if self._fd < 0:
            return
        if debts or sums:
            most = max(GROWN_BYTES, 4 * self._short_bytes)
        else:
            most = max(REST_BYTES, 4 * self._short_bytes * (not self._short_owes))
        if self._bytes > most:
            self.outage.drop(now_us)
            self.shorten(debts, sums)

    def shorten(self, debts: dict[bytes, Debt], sums: dict[tuple[str, ...], Debt]) -> bool:
        """Replace the file by a snapshot; False: it cannot be written."""
        try:
            self.rewrite(debts, sums)
        except OSError as error:
            self._fail(error)
            return False
        return True

    def rewrite(self, debts: dict[bytes, Debt], sums: dict[tuple[str, ...], Debt]) -> None:
        """The same, durably. Raises OSError; the file is then the old one or the new one, complete."""
        assert self._path is not None  # noqa: S101 - without a path nothing is rewritten
        self.close()
        self._numbers.clear()
        lines: list[Any] = [self._head]
        if self.outage.unknown_us:
            lines.append(self._unknown_line())
        lines += [["l", key, *counter] for key, counter in self.outage.local.items()]
        lines += [["v", key, leaks_us] for key, leaks_us in self.outage.leaks_us.items()]
        for id_, debt in debts.items():
            lines += self._numbered(debt.checks, _debt_line(id_, debt))
        for debt in sums.values():
            lines += self._numbered(debt.checks, ["s", None, debt.leaks_us])
        data = b"".join(orjson.dumps(line) + b"\n" for line in lines)
        write_atomic(self._path, data)
        self._bytes = self._short_bytes = len(data)
        self._short_owes = bool(debts or sums)
        self._broken, self._named = False, True

    def _unknown_line(self) -> list[Any]:
        return ["x", self.outage.unknown_us, self.outage.is_lent_unknown, self.outage.damaged]

    def _write(self, checks: Checks, line: list[Any]) -> None:
        if self._path is not None:
            self._append(self._numbered(checks, line))

    def _numbered(self, checks: Checks, line: list[Any]) -> list[Any]:
        """The line with its checks' number in place of None; before it the "c" line of a new number."""
        number = self._numbers.get(checks)
        definition = []
        if number is None:
            number = self._numbers[checks] = len(self._numbers)
            definition = [["c", number, pack(checks)]]
        line[line.index(None)] = number
        return [*definition, line]

    def _append(self, lines: Iterable[Any]) -> None:
        if self._path is None or self._broken:
            return
        data = b"".join(orjson.dumps(line) + b"\n" for line in lines)
        try:
            if self._fd < 0:
                self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
                if not self._bytes and not os.fstat(self._fd).st_size:
                    data = orjson.dumps(self._head) + b"\n" + data
            write_all(self._fd, data)
            self._bytes += len(data)
        except OSError as error:
            self._fail(error)

    def _sync(self) -> bool:
        assert self._path is not None  # noqa: S101 - an open file has one
        try:
            os.fdatasync(self._fd)
            if not self._named:
                sync_folder(self._path.parent)
                self._named = True
        except OSError as error:
            self._fail(error)
        return not self._broken

    def _remove(self) -> bool:
        """Remove the file that cannot be written, durably: a successor would take its sent debts for unsent."""
        assert self._path is not None  # noqa: S101 - a broken file has one
        try:
            self._path.unlink(missing_ok=True)
            sync_folder(self._path.parent)
        except FileNotFoundError:
            return True  # the folder is missing too
        except OSError:
            return False  # the file remains, so the debts must remain unsent
        return True

    def _fail(self, error: OSError) -> None:
        """The worker continues; only its successor after a kill would lack shares and debts."""
        if not self._broken:
            reason = error.strerror or error
            log.warning(
                "outage file %s: cannot be written (%s): if this worker is killed now, its shares and debts are lost:"
                " check the disk of journal.dir",
                self._path,
                reason,
            )
        self.close()
        self._broken = True

    def close(self) -> None:
        """Close the file; its content stays."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _debt_line(id_: bytes, debt: Debt) -> list[Any]:
    return ["d", id_.decode(), None, debt.counted, debt.actual, debt.sent_us, debt.leaks_us]
