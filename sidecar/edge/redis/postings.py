"""Carries the ledgers of wallets on Redis to the stream: each posting becomes a record in this worker's journal.

A posting is written by the script that changes the wallet, so the ledger is complete whoever is killed. A worker reads
the ledgers of the wallets that it charges, and those that others left unread (unread_wallets.py). It claims a ledger,
writes the new postings into its journal, and only then moves the position in the wallet. If it is killed in between,
another reader writes the same records again, under the same ids, and consumers drop the copies.

    the ledger of acme: 1-0 grant, 2-0 reserve x, 3-0 settle x          the wallet's field `posted`: 1-0
    worker 0 gets 2-0 and 3-0, and writes one record, of the settle; then it confirms 3-0, and there is nothing new
    worker 1 asked meanwhile: another reader has it, so it asks again a second later
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from sidecar.core.errors import StoreError, StoreReason
from sidecar.core.limits.keys import beside_wallet
from sidecar.core.record.postings import WalletPosting, wallet_posting
from sidecar.edge.posting_writer import write_postings
from sidecar.edge.redis.scripts import Script
from sidecar.edge.redis.unread_wallets import UNREAD, note_command, remove_command, token
from sidecar.edge.redis.wallet import given_of, posted_of
from sidecar.edge.redis.wire import bulks, ignore
from sidecar.ports import Clock, Commands, Journal

CLAIM_MS: Final = 5_000
BATCH: Final = 200  # postings of one call: a fraction of a millisecond of Redis
AT_ONCE: Final = 32  # ledgers that are read at the same time
IDLE_TICKS: Final = 10  # two seconds
RETRY_TICKS: Final = 5  # a second, where another reader has a ledger, or Redis or the journal fails
_TAKEN, _READ = 0, 1
_SCRIPT: Final = Script("wallet_unread.lua")
_log = logging.getLogger("sidecar.postings")


class RedisPostings:
    """Call `tick` about five times a second. `reader` is unique among all workers. While `is_away()`, nothing is sent.

    `written` counts records, `unreadable` postings that are not ours and are passed over.
    """

    def __init__(
        self, commands: Commands, journal: Journal, clock: Clock, reader: str, is_away: Callable[[], bool]
    ) -> None:
        self.written = self.unreadable = 0
        self._send = commands.send
        self._journal = journal
        self._clock = clock
        self._reader = reader
        self._is_away = is_away
        self._ticks = 0
        self._due: dict[str, int] = {}  # the keys of wallets to read → the tick from which on
        self._reading: set[str] = set()
        self._notes: dict[str, tuple[str, int]] = {}  # wallets that are noted as unread → token, tick of the last touch
        self._ending = False  # ledgers that another reader has are left to it

    @property
    def unread(self) -> int:
        """Wallets whose ledgers are to be read."""
        return len(self._due) + len(self._reading)

    def touch(self, key: str) -> None:
        """The wallet at `key` is about to change, or may have changed."""
        self._due[key] = 0
        note, _ = self._notes.get(key, ("", 0))
        if not note:
            note = token(self._clock.now_us(), self._reader)
            self._send(UNREAD, note_command(key, note), partial(self._noted, key))
        self._notes[key] = note, self._ticks

    def tick(self) -> None:
        """Ask for the new postings of the ledgers that are due."""
        self._ticks += 1
        if self._is_away():
            return
        if self._ending or self._ticks % IDLE_TICKS == 0:
            self._remove_notes()
        for key, due in list(self._due.items()):
            if len(self._reading) >= AT_ONCE:
                return
            if due <= self._ticks and key not in self._reading:
                del self._due[key]
                self._reading.add(key)
                self._ask(key, "")

    def _noted(self, key: str, reply: Any) -> None:
        if type(reply) is StoreError:
            self._notes.pop(key, None)

    def _remove_notes(self) -> None:
        """Remove the notes of ledgers that are read; one that is in use keeps its note."""
        for key, (note, tick) in list(self._notes.items()):
            is_idle = self._ending or tick + IDLE_TICKS <= self._ticks
            if is_idle and key not in self._due and key not in self._reading:
                del self._notes[key]
                self._send(UNREAD, remove_command(key, note), ignore)

    def end(self) -> None:
        """From now on a ledger that another reader has is not asked for again."""
        self._ending = True

    def _ask(self, key: str, done: str) -> None:
        keys = key, beside_wallet(key, "ledger"), beside_wallet(key, "granted")
        packed = b"*10\r\n%b%b" % (_SCRIPT.words, bulks(3, *keys, self._reader, CLAIM_MS, BATCH, done))
        self._send(key, packed, partial(self._answered, key, packed))

    def _answered(self, key: str, packed: bytes, reply: Any) -> None:
        if type(reply) is StoreError:
            if reply.reason is StoreReason.NO_SCRIPT and packed:
                self._send(key, _SCRIPT.in_full(packed), partial(self._answered, key, b""))
                return
            self._later(key)
        elif reply[0] == _TAKEN:
            self._reading.discard(key) if self._ending else self._later(key)
        elif reply[0] == _READ:
            self._reading.discard(key)
        else:
            _, rows, given = reply
            self._write(key, rows[-1][0].decode(), self._records(key, rows, given))

    def _later(self, key: str) -> None:
        self._reading.discard(key)
        self._due.setdefault(key, self._ticks + RETRY_TICKS)

    def _records(self, key: str, rows: Sequence[Any], given: Sequence[bytes]) -> list[WalletPosting]:
        records: list[WalletPosting] = []
        for (place, flat), figures in zip(rows, given, strict=True):
            try:
                fields = {name.decode(): value.decode() for name, value in zip(flat[::2], flat[1::2], strict=True)}
                posted = posted_of(place, fields)
                grant = given_of(posted.id, figures.decode()) if figures else None
                record = wallet_posting(key, posted, grant, posted.at_ms * 1000)
            except (KeyError, ValueError) as error:
                self.unreadable += 1
                _log.error("%s: posting %s cannot be read, and is not on the stream: %r", key, place.decode(), error)
                continue
            if record is not None:
                records.append(record)
        return records

    def _write(self, key: str, last: str, records: list[WalletPosting]) -> None:
        """Write the records; once all of them are in the journal, go on after `last`."""
        if not records:
            self._ask(key, last)
            return

        def done(written: int) -> None:
            self.written += written
            if written == len(records):
                self._ask(key, last)
            else:
                self._later(key)

        write_postings(self._journal, records, self._clock.now_us(), done)
