"""Compares the counters of the store with the sums of their records, for `sidecar counters rebuild` and `drift`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import click

from sidecar.core.billing.open_counters import OpenCounter
from sidecar.core.errors import SinkError
from sidecar.core.identity import KeyRecord
from sidecar.edge.files import write_atomic
from sidecar.edge.redis.counter_values import CounterValues
from sidecar.edge.redis.endpoint import connected
from sidecar.embedded.access import open_state
from sidecar.embedded.counters import EmbeddedCounterValues
from sidecar.keys.registers import open_keys
from sidecar.ledger.connection import open_ledger
from sidecar.ledger.counting import Counted, Scope, count
from sidecar.loading.documents import load_policies

if TYPE_CHECKING:
    from sidecar.config.settings import Settings

T = TypeVar("T")
AnyValues = CounterValues | EmbeddedCounterValues
TIMEOUT_S: Final = 5.0
_METRIC_MODE: Final = 0o644  # node exporter is another user
COLUMNS: Final = ("limit", "customer", "scope", "window", "counter", "records", "difference")


class Difference(NamedTuple):
    """A counter whose units are not those of its records."""

    counter: OpenCounter
    units: int
    records: int

    @property
    def difference(self) -> int:
        """The units by which the counter is too high; negative: too low."""
        return self.units - self.records

    def as_row(self) -> dict[str, Any]:
        """The figures by the names of COLUMNS."""
        counter = self.counter
        return {
            "limit": counter.limit,
            "customer": counter.customer,
            "scope": f"{counter.scope} {counter.holder}",
            "window": counter.window,
            "counter": self.units,
            "records": self.records,
            "difference": self.difference,
        }


class Comparison(NamedTuple):
    """The sums of the records, and the counters that differ from them, by size. `faults`: of the ledger's files."""

    counted: Counted
    differences: list[Difference]
    faults: tuple[str, ...]


def run_on_counters(settings: Settings, work: Callable[[AnyValues], Awaitable[T]]) -> T:
    """The result of `work` on the counters: in Redis, or of this node. StoreError, SinkError: they do not answer."""

    async def run() -> T:
        if settings.redis is None:
            async with open_state(settings.journal.dir, lambda: load_policies(settings).policy) as ask:
                return await work(EmbeddedCounterValues(ask))
        async with connected(settings.redis.endpoint, TIMEOUT_S) as client:
            return await work(CounterValues(client))

    return asyncio.run(run())


def compare(settings: Settings, scope: Scope) -> Comparison:
    """Compare all open counters of `scope`. SinkError: there is no ledger."""
    policy, keys = load_policies(settings).policy, _registered(settings)
    now_us = run_on_counters(settings, lambda counters: counters.now_us())
    options = settings.ledger
    with open_ledger(options.dir, f"{options.memory_bytes}B", options.threads) as rows:
        counted = count(rows.engine, settings.journal.dir, policy, keys, now_us, scope)
    names = [counter.key for counter, _ in counted.units]
    values = run_on_counters(settings, lambda counters: counters.read(names))
    rows_ = [Difference(*each, records) for each, records in _pairs(counted, values) if each[1] != records]
    rows_.sort(key=lambda each: (-abs(each.difference), each.counter.key))
    return Comparison(counted, rows_, rows.faults)


def _pairs(counted: Counted, values: Sequence[int]) -> list[tuple[tuple[OpenCounter, int], int]]:
    return [((counter, value), records) for (counter, records), value in zip(counted.units, values, strict=True)]


def _registered(settings: Settings) -> list[KeyRecord]:
    has_register = settings.keys.redis or settings.keys.file is not None
    return open_keys(settings).register.records() if has_register else []


def report_notes(comparison: Comparison) -> None:
    """Report on standard error what limits the comparison."""
    counted = comparison.counted
    for fault in comparison.faults:
        click.echo(f"sidecar: {fault}", err=True)
    if counted.pending:
        one = counted.pending == 1
        records = "1 record of the journal is" if one else f"{counted.pending} records of the journal are"
        click.echo(f"{records} not in the ledger yet; {'it counts' if one else 'they count'} too", err=True)
    for limit, customer in counted.skipped.items():
        what = f"the limit {limit} has windows of the customer's own, and no key of {customer} is registered"
        click.echo(f"warning: not computed: {what}", err=True)
    if counted.unknown:
        changes = "1 correction or void" if counted.unknown == 1 else f"{counted.unknown} corrections or voids"
        click.echo(f"warning: {changes} without an original", err=True)


def write_metrics(path: Path, comparison: Comparison, now_us: int) -> None:
    """Write a text file for node exporter, atomically. SinkError: it cannot be written."""
    sums: dict[tuple[str, str], int] = {}
    for each in comparison.differences:
        label = each.counter.limit, each.counter.customer
        sums[label] = sums.get(label, 0) + each.difference
    lines = [
        "# HELP sidecar_counters_drift_units Units of counters less those of their records, in open windows.",
        "# TYPE sidecar_counters_drift_units gauge",
        *[
            f'sidecar_counters_drift_units{{limit="{_label(limit)}",customer="{_label(customer)}"}} {units}'
            for (limit, customer), units in sorted(sums.items())
        ],
        "# HELP sidecar_counters_drift_compared Counters that were compared with their records.",
        "# TYPE sidecar_counters_drift_compared gauge",
        f"sidecar_counters_drift_compared {len(comparison.counted.units)}",
        "# HELP sidecar_counters_drift_timestamp_seconds When they were compared, since 1970.",
        "# TYPE sidecar_counters_drift_timestamp_seconds gauge",
        f"sidecar_counters_drift_timestamp_seconds {now_us // 1_000_000}",
    ]
    try:
        write_atomic(path, ("\n".join(lines) + "\n").encode(), _METRIC_MODE)
    except OSError as error:
        raise SinkError(f"{path}: cannot be written: {error.strerror}") from None


def _label(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
