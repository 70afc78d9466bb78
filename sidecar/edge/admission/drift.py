"""Drift: units by which counters may differ from the records, by limit, since charges or settles were given up.

Nothing is corrected here, and no bill changes, since the bill is computed from records. Each exchange is logged with
its customer, up to LINES_A_SECOND; the metric has only the limit, so that its size is bounded by the policy.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from sidecar.core.limits import Checks
from sidecar.ports import Clock

LINES_A_SECOND: Final = 10
LIMITS: Final = 1_000  # counted by name; more are counted together under OTHERS
OTHERS: Final = "others"
log = logging.getLogger("sidecar.drift")


class Drift:
    """`units`: the units by which counters may be wrong, by limit id. `exchanges`: the number that was given up."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._second = self._lines = 0
        self.units: dict[str, int] = {}
        self.exchanges = 0

    def count(self, id_: bytes, checks: Checks, actual: Sequence[int]) -> None:
        """The store may not have replaced `checks.costs[i]` by `actual[i]` units, or may have done so twice.

        If both are the same, it may lack all of them.
        """
        self.exchanges += 1
        off: dict[str, int] = {}
        for check, units in zip(checks.entries, actual, strict=True):
            if check.kind.is_metered and (apart := abs(units - check.cost) or units):
                off[check.limit.id] = apart
        for name, apart in off.items():
            counted = name if name in self.units or len(self.units) < LIMITS else OTHERS
            self.units[counted] = self.units.get(counted, 0) + apart
        self._log_drift(id_, checks, off)

    def _log_drift(self, id_: bytes, checks: Checks, off: dict[str, int]) -> None:
        second = self._clock.mono_us() // 1_000_000
        self._lines = self._lines + 1 if second == self._second else 1
        self._second = second
        if self._lines <= LINES_A_SECOND:
            log.warning(
                "counters: gave up the settle of an exchange of customer %s: its counters may be wrong by %s; "
                "its record and the bill are right",
                checks.customer,
                off or "nothing",
                extra={"request": id_.decode(), "fields": {"customer": checks.customer, "off": off}},
            )
