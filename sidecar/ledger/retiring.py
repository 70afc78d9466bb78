"""Retires a source whose machine does not return: an operator gives up what may be missing of it.

The retirement is a record, and an audit says who did it and why. The answer states what may be missing.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import orjson

from sidecar.core.billing.sealing import DENIALS
from sidecar.core.errors import SidecarError
from sidecar.core.instants import instant
from sidecar.core.record.statements import Audit, SourceState
from sidecar.core.words import counted
from sidecar.edge.ledger.engine import Engine
from sidecar.ledger.facts import Proven, numbers_by_source, source_facts

QUIET_US: Final = 600_000_000  # a source that has recorded within this time is alive
_LAST: Final = """
    SELECT max(time_us), arg_max(data, sequence) FILTER (kind = 'checkpoint')
    FROM ledger WHERE "first" AND source = ?"""


class Retirement(NamedTuple):
    """A source to retire. `highest`: its highest numbers that are here, by stream. `may_be_missing`: in words.

    `is_recorded`: it was retired before.
    """

    source: str
    highest: dict[str, int]
    may_be_missing: list[str]
    is_recorded: bool

    def statements(self, reason: str, actor: str, version: str) -> list[SourceState | Audit]:
        """The records that retire it."""
        after = {"highest": self.highest, "may_be_missing": self.may_be_missing}
        return [
            SourceState("retired", self.source, version, highest=self.highest, reason=reason, actor=actor),
            Audit("ledger.retire", actor, f"source/{self.source}", "cli", "done", reason=reason, after=after),
        ]


def retirement(engine: Engine, source: str, now_us: int, proven: Proven, *, force: bool = False) -> Retirement:
    """The retirement of `source`, which is not recorded yet. SidecarError: it cannot be retired.

    `force`: retire it although it seems alive.
    """
    if source.endswith(DENIALS):
        raise SidecarError(f"{source}: name the source itself, {source.removesuffix(DENIALS)}: its denials go with it")
    facts = {each.source: each for each in source_facts(engine, now_us, proven)}
    if source not in facts:
        raise SidecarError(
            f"{source}: no record of it is here, and none names it; `sidecar ledger seal --period 2026-11` lists all "
            "sources and what is missing of each"
        )
    known, numbers = facts[source], numbers_by_source(engine, proven)
    is_recorded = any(end.is_retired for end in known.ends)
    last_us, data = engine.run(_LAST, [source])[0]
    if last_us is not None and now_us - last_us < QUIET_US and not (force or is_recorded):
        raise SidecarError(
            f"{source}: its last record is of {instant(last_us)}, so it is alive: stop it, and retire it only if its "
            "machine does not return (--force retires it all the same)"
        )
    denials = numbers.get(source + DENIALS)
    highest = {"records": known.numbers.last, "denials": denials.numbers.last if denials is not None else 0}
    checkpoint: dict[str, Any] = orjson.loads(data) if data else {}
    gaps = known.numbers.missing(known.numbers.last)
    return Retirement(source, highest, _may_be_missing(gaps, checkpoint, highest), is_recorded)


def _may_be_missing(gaps: list[tuple[int, int]], checkpoint: dict[str, Any], highest: dict[str, int]) -> list[str]:
    missing = [f"numbers {start} to {end}" for start, end in gaps]
    missing.append(f"all after number {highest['records']}")
    stated = checkpoint.get("highest", {}).get("denials", 0)
    least = f", up to {stated} at least" if stated > highest["denials"] else ""
    missing.append(f"denials after number {highest['denials']}{least}")
    if not checkpoint:
        return [*missing, "exchanges that were open: no checkpoint says how many"]
    if number := checkpoint.get("open_exchanges", 0):
        missing.append(f"{counted(number, 'exchange')} that the last checkpoint says were open")
    if backlog_bytes := checkpoint.get("backlog_bytes", 0):
        missing.append(f"{backlog_bytes} bytes that the last checkpoint says were on its disk")
    return missing
