"""Corrections and voids: records that change the usage of an earlier one, which itself never changes.

A change states what is added to the usage of its original, below 0 or above, and belongs to the original's period. The
original and all its changes together are the usage that is billed. A void takes back all of it; its id is made of the
original's, so a second one is a copy of the first.

    original    01M8…  {"tokens": 812}
    correction         {"tokens": -12}    causationid 01M8…
    void               {"tokens": -800}   causationid 01M8…: nothing is left, and no further change is possible
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from sidecar.core.errors import SidecarError
from sidecar.core.limits import COUNT_MAX, id_us
from sidecar.core.record.ids import derived_id
from sidecar.core.record.text import whole_record
from sidecar.core.usage import PolicySource
from sidecar.core.usage.computed import Computed, computed_changes, is_measured

Json = dict[str, Any]
CORRECTION: Final = "correction"
VOID: Final = "void"
NONE_COMPUTED: Final = Computed({}, {})
CHANGES: Final = (f"sidecar.{CORRECTION}.v1", f"sidecar.{VOID}.v1")
_USAGE: Final = "sidecar.usage.v1"
_NOT_CHANGED: Final = {
    "sidecar.unattributed.v1": "has no customer, so nothing of it is billed",
    "sidecar.denial.v1": "is a denial: it used nothing",
    **dict.fromkeys(CHANGES, "is itself a change: name the record that it changes, {causationid}"),
}


class History(NamedTuple):
    """A record and all its corrections and voids, each once, as their JSON."""

    record: Json
    changes: tuple[Json, ...] = ()

    @property
    def is_void(self) -> bool:
        """Whether a void takes back all of it."""
        return any(change["type"] == CHANGES[1] for change in self.changes)

    @property
    def delta(self) -> dict[str, int]:
        """The units that its changes add to its usage, by meter."""
        return _sum(change["data"]["usage"] for change in self.changes)

    @property
    def usage(self) -> dict[str, int]:
        """Its usage with all changes, by meter."""
        return _sum((self.record["data"]["usage"], self.delta))


class Change(NamedTuple):
    """A change of `original` (a usage record's JSON): `usage` and `usage_lines` are added to its own.

    `is_recorded`: the history has it already. `computed` is the part of `usage` that nobody has named, and the meters
    that could not be computed.
    """

    kind: str
    id: bytes
    original: Json
    usage: dict[str, int]
    usage_lines: list[Json]
    reason: str
    actor: str
    is_recorded: bool = False
    computed: Computed = NONE_COMPUTED

    @property
    def customer(self) -> str:
        """The customer of the original, and the record's partition key."""
        return str(self.original["data"]["customer"])

    @property
    def period_time(self) -> str:
        """The time that decides to which period both belong, RFC 3339."""
        return str(self.original["data"].get("period_time") or self.original["time"])

    def render(self, time_us: int, source: str, sequence: int) -> bytes:
        """The record of the change."""
        data = self.original["data"]
        envelope = {
            "id": self.id.decode(),
            "subject": str(self.original.get("subject") or self.customer),
            "partitionkey": self.customer,
            "causationid": str(self.original["id"]),
        }
        account = {"account": data["account"]} if "account" in data else {}
        lines = {"usage_lines": self.usage_lines} if self.usage_lines else {}
        billable = {"billable": data["billable"]} if "billable" in data else {}
        return whole_record(
            self.kind,
            envelope,
            (time_us, source, sequence),
            {
                "customer": self.customer,
                **account,
                "key_id": data["key_id"],
                "usage": self.usage,
                **lines,
                **billable,
                "period_time": self.period_time,
                "reason": self.reason,
                "actor": self.actor,
            },
        )


def void_of(history: History, reason: str, actor: str) -> Change:
    """The void of all that the record and its corrections say. SidecarError: it is not a record that can be void."""
    _check_is_usage(history.record)
    id_ = str(history.record["id"])
    for earlier in history.changes:
        if earlier["type"] == CHANGES[1]:
            usage, lines = dict(earlier["data"]["usage"]), list(earlier["data"].get("usage_lines", ()))
            return Change(VOID, _derived(VOID, id_), history.record, usage, lines, reason, actor, is_recorded=True)
    usage = {meter: -units for meter, units in history.usage.items()}
    lines = _void_lines(history)
    return Change(VOID, _derived(VOID, id_), history.record, usage, lines, reason, actor)


def correction_of(
    history: History, units: Mapping[str, int], key: str, reason: str, actor: str, policy: PolicySource | None = None
) -> Change:
    """The correction that adds `units` by meter, once for a `key`, and to meters that `policy` computes of them.

    SidecarError: why it is not possible. A repetition has the named units of the recorded one; its computed units may
    differ from those that the policy would give today.
    """
    record = history.record
    _check_is_usage(record)
    original_id = str(record["id"])
    id_ = _derived(f"{CORRECTION} {key}", original_id)
    for earlier in history.changes:
        if earlier["id"] == id_.decode():
            computed = Computed(_computed_then(original_id, earlier["data"]["usage"], units, policy), {})
            usage = dict(earlier["data"]["usage"])
            return Change(CORRECTION, id_, record, usage, [], reason, actor, is_recorded=True, computed=computed)
    if history.is_void:
        raise SidecarError(f"record {original_id} is void: nothing of it is billed any more")
    known = record["data"]["usage"]
    if unknown := sorted(units.keys() - known.keys()):
        raise SidecarError(f"record {original_id} has no meter '{unknown[0]}'; it has {', '.join(sorted(known))}")
    computed = computed_changes(policy, record["data"], history.usage, units)
    usage = {**units, **computed.units}
    _check_bounds(history, usage)
    return Change(CORRECTION, id_, record, usage, [], reason, actor, computed=computed)


def _computed_then(
    original_id: str, recorded: Mapping[str, int], units: Mapping[str, int], policy: PolicySource | None
) -> dict[str, int]:
    """The units of a recorded correction whose meters are not in `units`. SidecarError: it is another correction.

    It is another if it adds something else to a named meter, or adds to a meter that cannot have been computed.
    """
    others = {meter: number for meter, number in recorded.items() if meter not in units}
    is_same = all(recorded.get(meter) == number for meter, number in units.items())
    if not is_same or any(is_measured(policy, meter) for meter in others):
        raise SidecarError(
            f"a correction of {original_id} with this --id exists, and adds {_text(recorded)}: choose another --id"
        )
    return others


def _check_bounds(history: History, units: Mapping[str, int]) -> None:
    original_id = history.record["id"]
    for meter, left in _sum((history.usage, units)).items():
        if left > COUNT_MAX:
            raise SidecarError(f"record {original_id} would have {left} {meter}: a counter holds at most {COUNT_MAX}")
        if left < 0:
            raise SidecarError(
                f"record {original_id} has {history.usage[meter]} {meter}: this correction would leave {left}"
            )


def _check_is_usage(record: Json) -> None:
    if record["type"] != _USAGE:
        reason = _NOT_CHANGED.get(record["type"], "has no usage").format_map(record)
        raise SidecarError(f"record {record['id']} {reason}")


def _derived(key: str, original_id: str) -> bytes:
    return derived_id(f"{key} of {original_id}", id_us(original_id.encode()))


def _void_lines(history: History) -> list[Json]:
    """The original's lines, negated. A correction has no lines: its units of meters that lines have are on the first.

    So lines and usage of the void add up as those of the original do.
    """
    lines = [_negated(line) for line in history.record["data"].get("usage_lines", ())]
    in_lines = {meter for line in lines for meter in line.get("usage", ())}
    for meter, units in history.delta.items():
        if meter in in_lines:
            first = lines[0].setdefault("usage", {})
            first[meter] = first.get(meter, 0) - units
    return lines


def _negated(line: Json) -> Json:
    counts = {name: line[name] for name in ("kinds", "usage") if name in line}
    return line | {name: {each: -units for each, units in units_by.items()} for name, units_by in counts.items()}


def _sum(usages: Any) -> dict[str, int]:
    total: dict[str, int] = {}
    for usage in usages:
        for meter, units in usage.items():
            total[meter] = total.get(meter, 0) + units
    return total


def _text(usage: Mapping[str, int]) -> str:
    return ", ".join(f"{meter} {units:+}" for meter, units in usage.items())
