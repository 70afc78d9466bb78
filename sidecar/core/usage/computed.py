"""The change of meters that are computed of corrected ones: of a `sum` of meters, and of a meter with `times`.

The record states units, and not the exchange that they were measured of. A computed meter is therefore changed only
where the definition of the policy gives what the record has: then the policy is the one that the record was made by, as
far as that meter goes. A factor by route or method is in the record. Any other is the one that the record shows.

    record       {"tokens": 100, "weighted": 300, "work": 310, "requests": 1}
    weighted     tokens times 3, by model          work    the sum of weighted and requests times 10
    correction   tokens -20, so weighted -60, so work -60
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from sidecar.core.usage.policy_source import PolicySource
from sidecar.core.usage.quantities import clamped
from sidecar.core.usage.rules import MeterRule, Scaled, Sum

Units = Mapping[str, int]
UNREADABLE: Final = "the policies cannot be read (`sidecar check` says why)"
_NO_METER: Final = "the policy has no such meter any more"
_NO_FACTOR: Final = "the record does not show which factor of its table applied"


class Computed(NamedTuple):
    """The `units` of computed meters, without zeros; and why meters of the record are `left` as they are."""

    units: dict[str, int]
    left: dict[str, str]


def computed_changes(policy: PolicySource | None, data: Mapping[str, Any], usage: Units, changes: Units) -> Computed:
    """The changes of other meters of a record that follow from `changes`, which an operator names.

    `data` is of the usage record, `usage` its units with all earlier changes. Without a policy nothing is computed.
    """
    others = [meter for meter in data["usage"] if meter not in changes]
    if policy is None:
        return Computed({}, dict.fromkeys(others, UNREADABLE))
    rules = policy.rules
    label = data.get("plan", "")
    units: dict[str, int] = {}
    left = {meter: _NO_METER for meter in others if meter not in rules}
    known = [rules[meter] for meter in others if meter in rules]
    for kind in (Scaled, Sum):  # a sum may have parts with a factor, and no sums
        for rule in known:
            all_changes = {**changes, **units}
            if not isinstance(rule.value, kind) or not (parts := _changed_parts(rule, rules, all_changes)):
                continue
            if label not in policy.hashes.plans:
                left[rule.id] = f"its plan {label} is not in the policy any more"
                continue
            value = _value(rule, parts[0], data)
            if isinstance(value, str):
                left[rule.id] = value
            elif change := value(_sum(usage, all_changes)) - value(usage):
                units[rule.id] = change
    return Computed(units, left)


def is_measured(policy: PolicySource | None, meter: str) -> bool:
    """Whether the policy has the meter, and it is not computed of others."""
    return policy is not None and meter in policy.rules and not isinstance(policy.rules[meter].value, Scaled | Sum)


class _Value(NamedTuple):
    """A definition as numbers: the sum of units times their factors; with `is_count` at most 1."""

    factors: tuple[tuple[str, int], ...]
    is_count: bool

    def __call__(self, usage: Units) -> int:
        units = clamped(sum(usage.get(meter, 0) * factor for meter, factor in self.factors))
        return min(units, 1) if self.is_count else units


def _changed_parts(rule: MeterRule, rules: Mapping[str, MeterRule], changes: Units) -> list[str]:
    """The meters that it is computed of, as far as they change."""
    if isinstance(rule.value, Sum):
        return [meter for meter, _ in rule.value.parts if meter in changes]
    return [meter for meter in changes if meter in rules and _is_factored(rules[meter], rule)]


def _is_factored(part: MeterRule, rule: MeterRule) -> bool:
    """Whether `rule` is `part` times a factor: the same quantity under the same conditions."""
    assert isinstance(rule.value, Scaled)  # noqa: S101 - see `_changed_parts`
    return part.value == rule.value.value and part.when == rule.when and part.aggregate.kind != "count"


def _value(rule: MeterRule, part: str, data: Mapping[str, Any]) -> _Value | str:
    """The definition, of which the record's units are an example; or why it is unknown."""
    usage: Units = data["usage"]
    is_count = rule.aggregate.kind == "count"
    if isinstance(rule.value, Sum):
        value = _Value(rule.value.parts, is_count)
    else:
        assert isinstance(rule.value, Scaled)  # noqa: S101 - see `computed_changes`
        factor = _factor(rule.value, usage[rule.id], usage[part], data)
        if factor is None:
            return _NO_FACTOR
        value = _Value(((part, factor),), is_count)
    if value(usage) != usage[rule.id]:
        return f"the record has {usage[rule.id]}, where the policy computes {value(usage)}"
    return value


def _factor(scaled: Scaled, units: int, part: int, data: Mapping[str, Any]) -> int | None:
    """The factor that the record states, or that its `units`, of `part` units, show; None: it is unknown."""
    times = scaled.times
    if times.dim in ("route", "method"):
        return times.table.get(data.get(times.dim, ""), times.default)
    if not part or units % part or units // part not in {*times.table.values(), times.default}:
        return None
    return units // part


def _sum(usage: Units, changes: Units) -> dict[str, int]:
    return {meter: usage.get(meter, 0) + changes.get(meter, 0) for meter in {*usage, *changes}}
