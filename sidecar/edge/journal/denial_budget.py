"""Which denials get a record of their own, and the counts of those that do not, for summaries.

A denial costs its client nothing, so a client decides how many there are. Each gets a record while there are few: so
many a second in all, and for one customer, limit and reason. The others are counted here, and `take` gives the counts
as summaries: every denial is in exactly one record. Records and summaries together hold at most `share_bytes` of the
segments on disk. When that much is used, counts wait here until segments were freed.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from sidecar.core.record.events import DenialSummary, Denied

KEYS_MAX: Final = 4_096  # counts kept at once; denials of further customers are counted together, without a customer
_RECORDS_PERCENT: Final = 80  # of the share: the rest is for summaries


class DenialOptions(NamedTuple):
    """Of one worker: records a second in all, and for one customer, limit and reason; seconds between summaries."""

    share_bytes: int = 400 << 20
    per_second: int = 1_000
    per_limit: int = 100
    summary_seconds: int = 10


class DenialBudget:
    """Asked once for each denial, and once a second by `tick`.

    `total` denials of this process: `recorded` and `summarised` are written, `waiting` are counted here alone.
    """

    def __init__(self, options: DenialOptions) -> None:
        self.recorded = self.summarised = self.waiting = 0
        self._options = options
        self._left = options.per_second
        self._seen: dict[Denied, int] = {}  # records of this second
        self._counts: dict[Denied, list[int]] = {}  # number, first at µs, last at µs
        self._seconds = 0  # since the last summaries
        self._unplaced_bytes = 0  # written since the last tick
        self._placed: dict[int, int] = {}  # segment number → bytes of denials in it
        self.retained_bytes = 0  # all of these: what denials take of the segments on disk

    @property
    def total(self) -> int:
        """All denials of this process."""
        return self.recorded + self.summarised + self.waiting

    def admits(self, denied: Denied) -> bool:
        """Whether this denial gets a record of its own."""
        seen = self._seen.get(denied, 0)
        if self._left <= 0 or seen >= self._options.per_limit or self._is_used(_RECORDS_PERCENT):
            return False
        self._seen[denied] = seen + 1
        self._left -= 1
        return True

    def count(self, denied: Denied, now_us: int) -> None:
        """Keep it for a summary."""
        self.waiting += 1
        counts = self._counts
        entry = counts.get(denied)
        if entry is None:
            if len(counts) >= KEYS_MAX:
                denied = denied._replace(customer="", plan="")
                entry = counts.get(denied)
            if entry is None:
                entry = counts[denied] = [0, now_us, now_us]
        entry[0] += 1
        entry[2] = now_us

    def wrote(self, size_bytes: int) -> None:
        """A record of a denial, or a summary, was written."""
        self._unplaced_bytes += size_bytes
        self.retained_bytes += size_bytes

    def tick(self, oldest_segment: int, segment: int) -> None:
        """A second is over. `segment` is written to now; those before `oldest_segment` were freed."""
        self._left = self._options.per_second
        self._seen.clear()
        self._seconds += 1
        if self._unplaced_bytes:
            self._placed[segment] = self._placed.get(segment, 0) + self._unplaced_bytes
            self._unplaced_bytes = 0
        for number in [number for number in self._placed if number < oldest_segment]:
            self.retained_bytes -= self._placed.pop(number)

    def is_due(self) -> bool:
        """Whether summaries are to be written now."""
        return bool(self._counts) and self._seconds >= self._options.summary_seconds and not self._is_used(100)

    def take(self) -> list[DenialSummary]:
        """The counts since the last call, to be written now."""
        taken = [DenialSummary(denied, *entry) for denied, entry in self._counts.items()]
        self._counts.clear()
        self.summarised += self.waiting
        self.waiting = self._seconds = 0
        return taken

    def _is_used(self, percent: int) -> bool:
        return self.retained_bytes * 100 >= self._options.share_bytes * percent
