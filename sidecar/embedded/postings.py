"""Carries the ledgers of wallets in memory to the stream, as edge/redis/postings.py does for those on Redis.

The position in each ledger is saved with the state. After a kill it is older than the records, which are then written
again under the same ids.
"""

from __future__ import annotations

from typing import Any

from sidecar.core.decision.wallet_charges import PLACES
from sidecar.core.limits.keys import beside_wallet
from sidecar.core.price.book import Posted
from sidecar.core.price.wallet import Grant
from sidecar.core.record.postings import WalletPosting, wallet_posting
from sidecar.edge.posting_writer import write_postings
from sidecar.embedded.state import EmbeddedState
from sidecar.ports import Clock, Journal

BATCH = 500  # postings of one wallet and tick
RETRY_TICKS = 5


class EmbeddedPostings:
    """Call `tick` about five times a second. `written` counts records; `unread` are wallets that are to be read."""

    def __init__(self, state: EmbeddedState, journal: Journal, clock: Clock) -> None:
        self.written = self.unreadable = 0
        self._state = state
        self._journal = journal
        self._clock = clock
        self._ticks = 0
        self._due: dict[str, int] = {}
        self._writing: set[str] = set()

    @property
    def unread(self) -> int:
        """Wallets whose ledgers are to be read."""
        return len(self._due) + len(self._writing)

    def touch(self, key: str) -> None:
        """The wallet at `key` has changed, or may have."""
        self._due[key] = 0

    def touch_all(self) -> None:
        """Read the ledgers of all wallets: after a start."""
        for key in self._state.counters.state:
            if "}:wallet:" in key:
                self.touch(key)

    def tick(self) -> None:
        """Write what is new in the ledgers that are due."""
        self._ticks += 1
        for key, due in list(self._due.items()):
            if due <= self._ticks and key not in self._writing:
                del self._due[key]
                self._read(key)

    def end(self) -> None:
        """There is no other reader."""

    def _read(self, key: str) -> None:
        new = self._new(key)
        if not new:
            return
        if len(new) == BATCH:
            self._due[key] = 0
        granted: dict[bytes, Grant] = self._state.counters.peek(beside_wallet(key, "granted")) or {}
        records = [record for number, row in new if (record := _record_of(key, number, row, granted)) is not None]
        self._write(key, new[-1][0], records)

    def _new(self, key: str) -> list[tuple[int, Any]]:
        """The oldest postings that are not on the stream, at most BATCH: number and values."""
        ledger: dict[int, Any] = self._state.counters.peek(beside_wallet(key, "ledger")) or {}
        last = self._state.posted.get(key, 0)
        new: list[tuple[int, Any]] = []
        for number in reversed(ledger):
            if number <= last:
                break
            new.append((number, ledger[number]))
        return new[::-1][:BATCH]

    def _write(self, key: str, last: int, records: list[WalletPosting]) -> None:
        if not records:
            self._state.posted[key] = last
            return
        self._writing.add(key)

        def done(written: int) -> None:
            self.written += written
            self._writing.discard(key)
            if written == len(records):
                self._state.posted[key] = last
            else:
                self._due[key] = self._ticks + RETRY_TICKS

        write_postings(self._journal, records, self._clock.now_us(), done)


def _record_of(key: str, number: int, row: Any, granted: dict[bytes, Grant]) -> WalletPosting | None:
    posted = Posted(f"{number // PLACES}-{number % PLACES}", *row)
    given = granted.get(posted.id.encode())
    return wallet_posting(key, posted, given if posted.kind == "grant" else None, _time_us(posted, given))


def _time_us(posted: Posted, given: Grant | None) -> int:
    """A time that a replay repeats: what it makes expire has the time of the exchange that it replays."""
    if given is None or posted.kind == "void":
        return posted.at_ms * 1000
    return given.made_us if posted.kind == "grant" else given.expires_us
