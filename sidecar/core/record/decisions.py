"""How a record states its decision, and an OPEN entry what was reserved.

The text of a decision is the same for all exchanges that were decided by the same checks in the same mode, but for one
number of each limit. So it is made once, with a slot for each number, and kept with the checks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from operator import sub
from typing import Final

from sidecar.core.decision import Decision
from sidecar.core.digits import decimal
from sidecar.core.limits import Check, Checks
from sidecar.core.limits.checks import Derived
from sidecar.core.record.text import json

SLOT: Final = b"\xff"  # stands for a value in text; no UTF-8 holds it

# The text between the numbers; the limits' amounts; a function from remaining units to the numbers, where they are not
# just `amount - remaining`.
Template = tuple[tuple[bytes, ...], tuple[int, ...], Callable[[Sequence[int]], tuple[int, ...]] | None]


def decision_text(decision: Decision) -> bytes:
    """A decision as JSON: the limits that were checked, with what is used of each or left of a balance."""
    checks, entries = decision.checks, decision.checks.entries
    mode = "shadow" if decision.shadowed and decision.mode == "exact" else decision.mode
    known: dict[str, object] = {"mode": mode}
    if not decision.allowed:
        known["violated"] = entries[decision.violated].limit.id
    if decision.shadowed:
        known["shadowed"] = [entries[index].limit.id for index in decision.shadowed]
    if decision.unknown:  # the counters were not read
        return json(known | {"limits": []})
    texts, amounts, numbers = _limits_template(checks)
    parts = [json(known)[:-1], b',"limits":[', texts[0]]
    used = map(sub, amounts, decision.remaining) if numbers is None else numbers(decision.remaining)
    for number, text in zip(used, texts[1:], strict=True):
        parts += [decimal(number), text]
    return b"".join([*parts, b"]}"])


def allowed_template(checks: Checks, mode: str) -> Template:
    """The text of an allowed, unshadowed decision, as the last member of a record, up to the record's end."""
    templates = _DECISIONS.of(checks)
    template = templates.get(mode)
    if template is None:
        texts, amounts, numbers = _limits_template(checks)
        begin = b',"decision":{"mode":' + json(mode) + b',"limits":['
        ended = (*texts[:-1], texts[-1] + b"]}}}")
        template = templates[mode] = (begin + ended[0], *ended[1:]), amounts, numbers
    return template


def _limits_template(checks: Checks) -> Template:
    items = [check.kind.record_item(check) for check in checks.entries]
    text = b",".join([_members(item) for item in items if item])
    shown = [(index, check) for index, check in enumerate(checks.entries) if items[index]]
    amounts = tuple([check.limit.amount for check in checks.entries])
    # Most limits state what is used of them; then no kind has to be asked for each number.
    are_used = all([check.kind.record_figure(check.limit, 1) == check.limit.amount - 1 for check in checks.entries])  # noqa: C419
    return tuple(text.split(SLOT)), amounts, None if all(items) and are_used else partial(_numbers, shown)


def _members(item: Sequence[tuple[str, str | int | None]]) -> bytes:
    """A limit's members in a decision, with a slot for the one that is a number of the exchange's own."""
    members = [json(name) + b":" + (SLOT if value is None else json(value)) for name, value in item]
    return b"{" + b",".join(members) + b"}"


def _numbers(shown: list[tuple[int, Check]], remaining: Sequence[int]) -> tuple[int, ...]:
    """The figures of the limits that have an item, each with its place among all."""
    return tuple([check.kind.record_figure(check.limit, remaining[index]) for index, check in shown])


def reserved_text(checks: Checks | None, meters: tuple[str, ...], time_us: int) -> bytes:
    """The members of an OPEN entry that say what is reserved by an exchange that arrived at `time_us`.

    `reserved`: units by meter, 0 of each of `meters` that no limit counts. `costs`: units by limit id, for limits that
    hold less than another of their meter. `at_us`: an instant in the windows that counted it, where `time_us` is not.
    """
    if checks is None:
        return _nothing_reserved(meters)
    texts = _RESERVED.of(checks)
    text = texts.get(meters)
    if text is None:
        text = texts[meters] = _reserved(checks, meters)
    return text if checks.covers(time_us) else text + b',"at_us":%d' % checks.from_us


@lru_cache(maxsize=1024)
def _nothing_reserved(meters: tuple[str, ...]) -> bytes:
    return _reserved(None, meters)


def _reserved(checks: Checks | None, meters: tuple[str, ...]) -> bytes:
    units = dict.fromkeys(meters, 0)
    counted = [check for check in checks.entries if check.kind.is_metered] if checks is not None else []
    for check in counted:
        units[check.limit.meter] = max(check.cost, units.get(check.limit.meter, 0))
    own = {check.limit.id: check.cost for check in counted if check.cost != units[check.limit.meter]}
    return b'"reserved":' + json(units) + (b',"costs":' + json(own) if own else b"")


def _no_texts(_checks: Checks) -> dict[tuple[str, ...], bytes]:
    return {}


def _no_templates(_checks: Checks) -> dict[str, Template]:
    return {}


_RESERVED: Final = Derived(_no_texts, by_costs=True)  # what is reserved, by the caller's meters
_DECISIONS: Final = Derived(_no_templates, by_costs=False)  # by mode
