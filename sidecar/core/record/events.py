"""Records as CloudEvents 1.0 in structured JSON: one billable statement per exchange, never changed once written.

Nothing of a credential, a query string, a header, a body or an address can get in, because nothing here reads one.
fields.py is the table of all fields, and docs/record.md has it for readers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import orjson

from sidecar.core.instants import instant
from sidecar.core.record.fields import Facts, crashed_data, fields_of, read_data
from sidecar.core.record.text import whole_record
from sidecar.core.usage.billing import billing

WITHHELD: Final = "withheld"
INTERNAL_ERROR: Final = "internal_error"  # an exception of our own: a step raised
SHORT_PATH: Final = 2048  # characters
TOTAL_MAX: Final = 2**63 - 1  # larger sums, of meters that do not add up, stay at it: JSON's readers have 64 bits
_OPEN_BEGIN: Final = b'{"time_us":'


class Denied(NamedTuple):
    """The properties of denials that are counted together. `reason`: the slug of the problem that was answered."""

    customer: str
    plan: str
    limit: str
    reason: str
    status: int


class DenialSummary(NamedTuple):
    """How many denials of one kind have no record of their own, and when the first and the last of them were (µs)."""

    denied: Denied
    number: int
    first_us: int
    last_us: int


class Checkpoint(NamedTuple):
    """The state of a producer, recorded every few seconds, traffic or not; the fields are those of the table.

    `highest` number and `totals` (units by meter) are of this epoch, the checkpoint itself not counted in.
    `oldest_open_us` is 0 where nothing is open, or it is not known.
    """

    highest: Mapping[str, int]
    totals: Mapping[str, int]
    open_exchanges: int = 0
    backlog_bytes: int = 0
    unrecorded: int = 0
    degraded_s: int = 0
    policy: str = ""
    denials: int = 0
    oldest_open_us: int = 0
    final: bool = False


def usage_record(facts: Facts, time_us: int, source: str, sequence: int) -> bytes:
    """The record of an exchange: kind `usage`, or `unattributed` where nobody is known. `time_us`: since the epoch."""
    return facts.templates.record(facts, source).render(facts, time_us, sequence)


def open_entry(facts: Facts, time_us: int) -> bytes:
    """The facts known just before the upstream sees the exchange: enough to close it as crashed after a kill."""
    return facts.templates.open(facts).render(facts, time_us)


def arrived_us(opened: bytes) -> int:
    """When the exchange of an OPEN entry arrived (µs since 1970): it was reserved then or later."""
    start = len(_OPEN_BEGIN)
    if not opened.startswith(_OPEN_BEGIN):
        return int(orjson.loads(opened)["time_us"])
    return int(opened[start : opened.index(b",", start)])


def denial_record(facts: Facts, time_us: int, source: str, sequence: int) -> bytes:
    """The record of a request that a limit refused: it consumed nothing."""
    return whole_record("denial", _envelope(facts), (time_us, source, sequence), read_data(facts, fields_of("denial")))


def denial_summary_record(summary: DenialSummary, id_: bytes, time_us: int, source: str, sequence: int) -> bytes:
    """The record of denials that have none of their own. Without a customer: of several, `source` is the key."""
    denied, number, first_us, last_us = summary
    envelope = {"id": id_.decode()}
    if denied.customer:
        envelope["subject"] = denied.customer
    envelope["partitionkey"] = denied.customer or source
    data = {**denied._asdict(), "count": number, "first": instant(first_us), "last": instant(last_us)}
    return whole_record("denial-summary", envelope, (time_us, source, sequence), data)


def checkpoint_record(checkpoint: Checkpoint, id_: bytes, time_us: int, source: str, sequence: int) -> bytes:
    """The record of a checkpoint of the producer `source`."""
    totals = {meter: min(units, TOTAL_MAX) for meter, units in checkpoint.totals.items()}
    data = checkpoint._asdict() | {"highest": dict(checkpoint.highest), "totals": totals}
    oldest_us = data.pop("oldest_open_us")
    if oldest_us:
        data["oldest_open"] = instant(oldest_us)
    if not checkpoint.final:
        del data["final"]
    return whole_record("checkpoint", {"id": id_.decode(), "partitionkey": source}, (time_us, source, sequence), data)


def crashed_record(opened: bytes, id_: bytes, time_us: int, source: str, sequence: int) -> bytes:
    """The record of an exchange that was found open after a crash: `opened` is what `open_entry` made.

    Its usage is what was reserved, since that was enforced; whether the upstream did the work, nobody knows.
    """
    known = orjson.loads(opened)
    kind = "usage" if "customer" in known else "unattributed"
    envelope = {"id": id_.decode()}
    if kind == "usage":
        envelope |= {"subject": known["subject"], "partitionkey": known["customer"]}
    if "traceparent" in known:
        envelope["traceparent"] = known["traceparent"]
    known["billable"], known["billable_reason"] = billing(known["plan"], status=0, outcome="aborted")
    known["duration_us"] = max(0, time_us - known["time_us"])
    known["period_time"] = instant(known.get("at_us", known["time_us"]))  # in the windows that were reserved in
    return whole_record(kind, envelope, (time_us, source, sequence), crashed_data(kind, known))


def short_record(facts: Facts, time_us: int, source: str, sequence: int) -> bytes:
    """The record of an exchange whose own cannot be made or is too long: path cut, without dims, lines and decision.

    It needs nothing that is cached for its caller, and nothing of the request but its head.
    """
    kind = "unattributed" if facts.identity is None else "usage"
    shortened: dict[str, Any] = {
        "path": facts.path[:SHORT_PATH].encode("utf-8", "backslashreplace").decode(),
        "dims": {},
    }
    envelope = _envelope(facts)
    envelope.pop("traceparent", None)
    left_out = {"decision", "usage_lines", *shortened}
    data = read_data(facts, [field for field in fields_of(kind) if field.name not in left_out]) | shortened
    return whole_record(kind, envelope, (time_us, source, sequence), data)


def withheld_record(record: bytes) -> bytes:
    """The record of an exchange that could not be written in time: its answer was cut, so nothing is billed.

    Its usage stays what was measured: the upstream did the work.
    """
    event = orjson.loads(record)
    event["data"] |= {"billable": False, "billable_reason": WITHHELD, "outcome": WITHHELD}
    return orjson.dumps(event)


class Totals:
    """Units by meter of all records of this process so far, for its checkpoints."""

    __slots__ = ("units",)

    def __init__(self) -> None:
        self.units: dict[str, int] = {}

    def add(self, usage: dict[str, int]) -> None:
        """Count what one record says."""
        units = self.units
        for meter, amount in usage.items():
            units[meter] = units.get(meter, 0) + amount


def _envelope(facts: Facts) -> dict[str, str]:
    """The attributes of an exchange's record that say whose it is. None is empty: CloudEvents forbids it."""
    identity, envelope = facts.identity, {"id": facts.id.decode()}
    if identity is not None:
        envelope |= {"subject": identity.subject or identity.customer, "partitionkey": identity.customer}
    if facts.traceparent:
        envelope["traceparent"] = facts.traceparent
    return envelope
