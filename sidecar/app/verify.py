"""Says whether a set of records is whole: each number there, none twice, each as its schema says; and what they sum to.

Pure, and the same for a journal, a file and a topic. It takes records in any order, and needs about 100 bytes of memory
for each; it never stops at a bad one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson

EXAMPLES = 20  # of each kind that are kept; all are counted
_NOBODY = "sidecar.unattributed.v1"
_HIGHEST = 1 << 36  # a larger number is a fault of the record, and no reason for 8 GB of bitmap

Check = Callable[[dict[str, Any]], str | None]


@dataclass(slots=True)
class Numbers:
    """The numbers seen from one source, one bit each."""

    count: int = 0
    first: int = 0
    last: int = 0
    repeated: int = 0
    seen: bytearray = field(default_factory=bytearray, repr=False)

    def add(self, number: int) -> bool:
        """False where the number was there already."""
        place, bit = number >> 3, 1 << (number & 7)
        if place >= len(self.seen):
            self.seen.extend(bytes(max(place + 1 - len(self.seen), len(self.seen))))
        elif self.seen[place] & bit:
            self.repeated += 1
            return False
        self.seen[place] |= bit
        self.count += 1
        self.first = min(self.first or number, number)
        self.last = max(self.last, number)
        return True

    @property
    def missing(self) -> int:
        """How many between the first and the last are not there."""
        return self.last - self.first + 1 - self.count

    def gaps(self) -> list[tuple[int, int]]:
        """The first gaps, as (from, to), both missing."""
        found: list[tuple[int, int]] = []
        number = self.first
        while number <= self.last and len(found) < EXAMPLES and self.missing:
            if self.seen[number >> 3] & 1 << (number & 7):
                number += 1
                continue
            start = number
            while not self.seen[number >> 3] & 1 << (number & 7):
                number += 1
            found.append((start, number - 1))
        return found


@dataclass(slots=True)
class Report:
    """What was found. `totals` are of billable records, in meter units, by (customer, meter)."""

    records: int = 0
    sources: dict[str, Numbers] = field(default_factory=dict)
    duplicates: int = 0
    duplicate_ids: list[str] = field(default_factory=list)
    faults: int = 0
    fault_examples: list[str] = field(default_factory=list)
    totals: Counter[tuple[str, str]] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    not_billable: int = 0

    @property
    def missing(self) -> int:
        """Numbers that are missing, over all sources."""
        return sum(numbers.missing for numbers in self.sources.values())

    @property
    def whole(self) -> bool:
        """Nothing missing, nothing twice, nothing wrong."""
        return not (self.missing or self.duplicates or self.faults)

    def fault(self, what: str) -> None:
        """Count a fault, and keep it while there are few."""
        self.faults += 1
        if self.faults <= EXAMPLES:
            self.fault_examples.append(what)


def verify(bodies: Iterable[bytes], check: Check | None = None) -> Report:
    """Look at every record (its JSON). `check` gives what is wrong with one by its schema, or None."""
    verifier = Verifier(check)
    for body in bodies:
        verifier.add(body)
    return verifier.report


class Verifier:
    """The same one record at a time, for what arrives asynchronously. A copy of a record adds nothing to the totals."""

    def __init__(self, check: Check | None = None) -> None:
        self.report = Report()
        self._check = check
        self._ids: set[tuple[str, str]] = set()

    def add(self, body: bytes) -> None:
        """Look at one record."""
        report = self.report
        report.records += 1
        try:
            record = orjson.loads(body)
            source, id_, number = str(record["source"]), str(record["id"]), int(record["sequence"])
            data = record.get("data") or {}
            used = data.get("usage", {})
            customer = str(data["customer"]) if used and record.get("type") != _NOBODY else ""
            usage = [(customer, meter, int(amount)) for meter, amount in used.items()]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            report.fault(f"record {report.records}: {type(error).__name__}: {error}: {body[:80]!r}")
            return
        if not 0 < number < _HIGHEST:
            report.fault(f"record {id_}: sequence {number} cannot be")
            return
        if self._is_copy(source, id_, number):
            return
        self._sum(record, data, usage)
        if self._check is not None and (wrong := self._check(record)):
            report.fault(f"record {id_}: {wrong}")

    def _is_copy(self, source: str, id_: str, number: int) -> bool:
        """The same number of a source twice, or the same id: either would be billed twice."""
        report = self.report
        new = report.sources.setdefault(source, Numbers()).add(number)
        known = (source, id_) in self._ids
        self._ids.add((source, id_))
        if new and not known:
            return False
        report.duplicates += 1
        if report.duplicates <= EXAMPLES:
            report.duplicate_ids.append(f"{source} {number} {id_}")
        return True

    def _sum(self, record: dict[str, Any], data: dict[str, Any], usage: list[tuple[str, str, int]]) -> None:
        self.report.kinds[str(record.get("type", ""))] += 1
        if data.get("billable", True) is False:
            self.report.not_billable += 1
            return
        for customer, meter, amount in usage:
            self.report.totals[customer, meter] += amount
