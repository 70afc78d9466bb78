"""The counts and the state of the shipper: each change of the state is one line of the log."""

from __future__ import annotations

import logging

from sidecar.core.errors import LostStretchError

log = logging.getLogger(__name__)


class Figures:
    """Plain integers that a collector reads at scrape, and the state, which is logged where it changes."""

    __slots__ = (
        "_unfreed", "failures", "faults", "last_error", "losses", "lost_bytes", "quarantined", "shipped", "state",
    )  # fmt: skip

    def __init__(self) -> None:
        self.shipped = 0  # entries committed
        self.quarantined = 0  # entries put aside
        self.failures = 0  # commits and openings that failed and were tried again
        self.lost_bytes = 0  # of the journals: shipped before, and gone since, with what was behind them
        self.losses: dict[str, str] = {}  # the last such loss, by worker
        self.faults: dict[str, str] = {}  # why a worker's journal cannot be read, by worker
        self.last_error = ""  # "" while all is well
        self.state = "starting"  # starting | shipping | failing | stopped
        self._unfreed = ""  # why segments could not be deleted, the last time

    def note_loss(self, worker: str, lost: LostStretchError) -> None:
        """Count it once: the position stays, and each opening of the sink finds the same."""
        if self.losses.get(worker) != str(lost):
            self.losses[worker] = str(lost)
            self.lost_bytes += lost.lost_bytes
            log.error("worker %s: %s", worker, lost)

    def note_unfreed(self, worker: str, reason: str) -> None:
        """Log it once: shipping goes on, and the journal's cap has an alarm of its own."""
        if reason != self._unfreed:
            self._unfreed = reason
            log.error("worker %s: segments that were shipped cannot be deleted: %s", worker, reason)

    def count(self, entries: int) -> None:
        """So many entries were committed."""
        self.shipped += entries
        self.last_error = ""
        self.turn("shipping", logging.INFO, self._resumed("records are being shipped"))

    def quiet(self) -> None:
        """There is nothing to ship."""
        self.last_error = ""
        self.turn("shipping", logging.INFO, self._resumed("the sink is open"))

    def _resumed(self, message: str) -> str:
        return f"the sink answers again, {message}" if self.state == "failing" else message

    def fail(self, error: Exception) -> None:
        """A commit or an opening failed, and is tried again."""
        self.failures += 1
        self.last_error = str(error) or type(error).__name__
        self.turn("failing", logging.ERROR, f"records wait in the journal: {self.last_error}")

    def turn(self, state: str, level: int, message: str) -> None:
        """Log on a change of state, never per try: an outage of a day is two lines."""
        if self.state != state:
            self.state = state
            log.log(level, "shipper %s: %s", state, message)
