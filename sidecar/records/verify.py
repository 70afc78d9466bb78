"""Verifies that a set of records is whole (each number once, each record valid by its schema), and sums them up.

A record is known by its `id` alone: a known id is a copy and is not summed. `source` and `sequence` only find gaps; a
number that comes again under another id is another record of a second producer: summed, and reported as a fault.

The same for a journal, a file and a topic. It takes records in any order, in bounded memory (seen.py), and never stops
at a bad one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson

from sidecar.records.seen import EXAMPLES, Ids, Numbers

_NOBODY = "sidecar.unattributed.v1"
# Their ids are made of their content: two producers may report the same, and a killed one is repeated by another.
_REPEATABLE = frozenset(f"sidecar.{kind}.v1" for kind in ("alert", "posting", "correction", "void"))
_CHECKPOINT = "sidecar.checkpoint.v1"
_HIGHEST = 1 << 36  # a larger number is a fault of the record

Check = Callable[[dict[str, Any]], str | None]


@dataclass(slots=True)
class Report:
    """The result. `totals` are of billable records, in meter units, by (customer, meter)."""

    records: int = 0
    sources: dict[str, Numbers] = field(default_factory=dict)
    duplicates: int = 0
    duplicate_ids: list[str] = field(default_factory=list)
    reused: int = 0  # numbers of a source that came again under another id
    reused_examples: list[str] = field(default_factory=list)
    faults: int = 0
    fault_examples: list[str] = field(default_factory=list)
    totals: Counter[tuple[str, str]] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    not_billable: int = 0
    may_begin_late: bool = False  # retention or shipping removed what was before each source's first number

    @property
    def missing(self) -> int:
        """Numbers that are missing after each source's first, over all sources."""
        return sum(numbers.missing for numbers in self.sources.values())

    @property
    def before(self) -> int:
        """Numbers that are missing before each source's first, over all sources."""
        return sum(numbers.before for numbers in self.sources.values())

    @property
    def whole(self) -> bool:
        """Nothing missing, nothing twice, no source used by two producers, nothing wrong."""
        begins = self.may_begin_late or not self.before
        return begins and not (self.missing or self.duplicates or self.reused or self.faults)

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
    verifier.close()
    return verifier.report


class Verifier:
    """The same one record at a time, for what arrives asynchronously. A copy of a record adds nothing to the totals."""

    def __init__(self, check: Check | None = None) -> None:
        self.report = Report()
        self._check = check
        self._ids = Ids()

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
        kind = str(record.get("type"))
        if self._is_copy(source, id_, number, kind):
            return
        if kind == _CHECKPOINT:
            self._claim(source, data)
        self._sum(record, data, usage)
        if self._check is not None and (wrong := self._check(record)):
            report.fault(f"record {id_}: {wrong}")

    def close(self) -> None:
        """Remove what was kept on disk; the report stays."""
        self._ids.close()

    def _is_copy(self, source: str, id_: str, number: int, kind: str) -> bool:
        """Whether the id was seen before: then it would be billed twice. Notes the number, and a number used again."""
        report = self.report
        numbers = report.sources.get(source)
        if numbers is None:
            numbers = report.sources[source] = Numbers()
        is_new_number = numbers.add(number)
        if not self._ids.add(id_):
            if is_new_number and kind in _REPEATABLE:
                return True
            report.duplicates += 1
            if report.duplicates <= EXAMPLES:
                report.duplicate_ids.append(f"{source} {number} {id_}")
            return True
        if not is_new_number:
            report.reused += 1
            if report.reused <= EXAMPLES:
                report.reused_examples.append(f"{source} {number} {id_}")
        return False

    def _claim(self, source: str, data: dict[str, Any]) -> None:
        """Note the highest number that a checkpoint reports as written; impossible values are left to the schema."""
        highest = data.get("highest")
        claimed = highest.get("records") if type(highest) is dict else 0
        if type(claimed) is int and claimed < _HIGHEST:
            numbers = self.report.sources[source]
            numbers.claimed = max(numbers.claimed, claimed)

    def _sum(self, record: dict[str, Any], data: dict[str, Any], usage: list[tuple[str, str, int]]) -> None:
        self.report.kinds[str(record.get("type", ""))] += 1
        if data.get("billable", True) is False:
            self.report.not_billable += 1
            return
        for customer, meter, amount in usage:
            self.report.totals[customer, meter] += amount
