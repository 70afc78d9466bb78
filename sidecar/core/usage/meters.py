"""Compile meters: the usage of one exchange in the units of each meter, integers from 0 to MAX_UNITS.

A meter is compiled once per route, so that decisions by route cost nothing per request, and a meter that reads no body
costs no parsing. A duration counts every started unit. Where a body does not yield the quantity, the rule's default is
used (0 without one), and `Meter.missing` returns True.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from sidecar.core.policy import Arriving, Meter, Tap
from sidecar.core.usage.conditions import (
    BodyTest,
    Field,
    Test,
    body_tests,
    chosen,
    field_of_facts,
    field_of_request,
    head_inputs,
    head_tests,
    headers_of,
    judge,
    sides,
    status_tests,
)
from sidecar.core.usage.quantities import (
    HEADER_DIM,
    REQUEST_HEADER,
    RPC,
    SIDES,
    Units,
    clamped,
    on_arrival,
    scaled,
    tokens_of,
    units_of,
)
from sidecar.core.usage.rules import Count, Json, Lookup, Measured, MeterRule, Scaled, Sum, Usage, Value


def meters_for(rules: Iterable[MeterRule], route_id: str, usage: str = "") -> list[Meter]:
    """The meters that can apply on one route, in the order of their rules. ValueError: an invalid pointer."""
    rules = list(rules)
    simple = {rule.id: meter_for(rule, route_id, usage) for rule in rules if not isinstance(rule.value, Sum)}
    made = [simple[rule.id] if rule.id in simple else _sum(rule, simple) for rule in rules]
    return [meter for meter in made if meter is not None]


def meter_for(rule: MeterRule, route_id: str, usage: str = "") -> Meter | None:
    """The meter on one route, whose `usage` is the AI vendor of its answers; None where it can never apply there.

    ValueError: an invalid pointer.
    """
    when = rule.when
    assert not isinstance(rule.value, Sum)  # noqa: S101 - `meters_for` makes it of others
    if (when.routes is not None and route_id not in when.routes) or not _readable(rule.value, usage):
        return None
    meter = _meter(rule, route_id)
    return meter if rule.aggregate.kind != "count" else _counting(meter)


def _meter(rule: MeterRule, route_id: str) -> Meter:
    when = rule.when
    if read := sides(when) | SIDES[type(rule.value)](rule.value):
        return _inside(rule, route_id, read)
    known, asks = on_arrival(rule.value)
    inputs = asks | head_inputs(when) | ({"status"} if when.statuses is not None else set())
    units = units_of(rule.value, route_id, field_of_request) if known else _not_yet
    return Meter(
        id=rule.id,
        known=known,
        ask=_where(head_tests(when, field_of_request), units),
        asks=frozenset(asks | head_inputs(when)),
        measure=_where(
            status_tests(when) + head_tests(when, field_of_facts), units_of(rule.value, route_id, field_of_facts)
        ),
        needs=frozenset(inputs if known and "header" not in inputs else inputs | {"exchange"}),
        headers=frozenset(_headers(rule)),
    )


def _counting(meter: Meter) -> Meter:
    """The same, where each exchange with units counts 1."""
    ask, measure = meter.ask, meter.measure
    return replace(
        meter,
        ask=lambda request: None if (units := ask(request)) is None else min(units, 1),
        measure=lambda facts: min(measure(facts), 1),
    )


def _sum(rule: MeterRule, meters: Mapping[str, Meter | None]) -> Meter | None:
    """A sum of other meters on one route; None where none of them applies."""
    assert isinstance(rule.value, Sum)  # noqa: S101 - see `meters_for`
    parts = [(meter, times) for name, times in rule.value.parts if (meter := meters[name]) is not None]
    if not parts:
        return None
    each = [meter for meter, _ in parts]
    missing = [meter.missing for meter in each if meter.missing is not None]
    unread = list(dict.fromkeys([meter.unread for meter in each if meter.unread is not None]))
    total = Meter(
        id=rule.id,
        known=all(meter.known for meter in each),
        ask=_total([(meter.ask, meter.asks, times) for meter, times in parts]),
        asks=frozenset().union(*(meter.asks for meter in each)),
        measure=_total([(meter.measure, frozenset(), times) for meter, times in parts]),
        needs=frozenset().union(*(meter.needs for meter in each)),
        reads=frozenset().union(*(meter.reads for meter in each)),
        missing=(lambda facts: any(lacks(facts) for lacks in missing)) if missing else None,
        holds=frozenset().union(*(meter.holds for meter in each)),
        headers=frozenset().union(*(meter.headers for meter in each)),
        unread=(lambda arriving: any(lacks(arriving) for lacks in unread)) if unread else None,
    )
    return total if rule.aggregate.kind != "count" else _counting(total)


def _total(parts: Sequence[tuple[Units, frozenset[str], int]]) -> Units:
    """The sum; None where a part is unknown (yet). A part that reads no body takes the request of an `Arriving`."""

    def total(exchange: Any) -> int | None:
        sum_ = 0
        for units, asks, times in parts:
            plain = isinstance(exchange, Arriving) and "body" not in asks
            part = units(exchange.request if plain else exchange)
            if part is None:
                return None
            sum_ += part * times
        return clamped(sum_)

    return total


def _values(value: Value) -> tuple[Value, ...]:
    """A quantity, and the factor that it is multiplied by."""
    return (value.value, value.times) if isinstance(value, Scaled) else (value,)


def _readable(value: Value, usage: str) -> bool:
    """Tokens are read only on routes with AI answers of that vendor."""
    value = _values(value)[0]
    return not isinstance(value, Usage) or bool(usage and (usage == "auto" or value.adapter in {"", usage}))


def _headers(rule: MeterRule) -> set[bytes]:
    """The header fields of the request that it reads, by lower-case name."""
    names = headers_of(rule.when)
    for value in _values(rule.value):
        if isinstance(value, Lookup) and value.dim.startswith(HEADER_DIM):
            names.add(value.dim.removeprefix(HEADER_DIM).encode())
        elif isinstance(value, Measured) and value.source.startswith(REQUEST_HEADER):
            names.add(value.source.removeprefix(REQUEST_HEADER).encode())
    return names


def _where(tests: list[Test], units: Units) -> Units:
    if not tests:
        return units
    return lambda exchange: units(exchange) if all(test(exchange) for test in tests) else 0


def _not_yet(_: Any) -> None:
    """A quantity of the answer: the limit defines how many units are held for it."""


# --- Meters that read bodies -----------------------------------------------------------------------------------------


def _measure(tests: list[Test], inside: list[BodyTest], units: Units) -> Units:
    """Units under conditions of the head and of bodies; None: unknown (yet)."""
    if not inside:
        return _where(tests, units)

    def measure(exchange: Any) -> Any:
        applies = judge(inside, exchange.tap)
        return units(exchange) if applies else 0 if applies is False else None

    return _where(tests, measure)


def _inside(rule: MeterRule, route_id: str, read: set[str]) -> Meter:
    when, value = rule.when, rule.value
    known, asks = on_arrival(value)
    asks |= head_inputs(when) | ({"body"} if "request" in read else set())
    before = _measure(
        head_tests(when, field_of_request),
        body_tests(when, arriving=True),
        _by_calls(rule, route_id, field_of_request, lambda value: _early(value, route_id)),
    )
    after = _measure(
        status_tests(when) + head_tests(when, field_of_facts),
        body_tests(when, arriving=False),
        _by_calls(rule, route_id, field_of_facts, lambda value: units_of(value, route_id, field_of_facts)),
    )
    default = _default(value)
    return Meter(
        id=rule.id,
        known=known,
        ask=_or_else(default if known else None, before),
        asks=frozenset(asks),
        measure=_or_else(default, after),
        needs=frozenset(asks | {"body", "exchange"} | ({"status"} if when.statuses is not None else set())),
        reads=frozenset(read),
        missing=lambda facts: after(facts) is None,
        holds=frozenset(sides(when) if isinstance(_values(value)[0], Usage) else read),
        unread=_unread(rule) if "request" in read else None,
        headers=frozenset(_headers(rule)),
    )


def _default(value: Value) -> int:
    """The units where a body does not yield them."""
    if isinstance(value, Scaled):
        return clamped(_default(value.value) * value.times.default)
    return clamped((value.default or 0) if isinstance(value, Lookup | Json) else 0)


def _unread(rule: MeterRule) -> Callable[[Arriving], bool] | None:
    """A test whether the request's body lacks what the rule needs; None where the rule has a default for that.

    The default of a table by `json_rpc_method` is that of one call, not that of a body with an unknown number of calls.
    """
    when, value = rule.when, _values(rule.value)[0]
    if (isinstance(value, Json) and value.default is not None) or (isinstance(value, Lookup) and value.dim == "model"):
        return None
    head, tests = head_tests(when, field_of_request), body_tests(when, arriving=True)
    certain = body_tests(replace(when, models=()), arriving=True)
    lacks = _lacks(rule)
    if lacks == [_lacks_usage] and not head and not tests:
        return _is_usage_unread

    def unread(arriving: Arriving) -> bool:
        tap = arriving.tap
        if tap is None or not all(test(arriving) for test in head) or judge(tests, tap) is False:
            return False
        return judge(certain, tap) is None or any(lack(tap) for lack in lacks)

    return unread


def _is_usage_unread(arriving: Arriving) -> bool:
    """`Meter.unread` of all meters of tokens without conditions; one function for all, so that it is called once."""
    return arriving.tap is not None and arriving.tap.lacks_usage


def _lacks_usage(tap: Tap) -> bool:
    return tap.lacks_usage


def _lacks(rule: MeterRule) -> list[Callable[[Tap], bool]]:
    """Tests for parts of a request's body that the rule needs, beside values that its conditions compare."""
    when, value = rule.when, _values(rule.value)[0]
    if isinstance(value, Usage):  # the answer names the model
        return [_lacks_usage]
    tests: list[Callable[[Tap], bool]] = []
    if when.json_rpc or (isinstance(value, Lookup) and value.dim == RPC):
        tests.append(lambda tap: tap.lacks_calls)
    if when.models:
        tests.append(lambda tap: tap.lacks_model)
    if isinstance(value, Json) and value.side == "request":
        side, pointer, length = value.side, value.pointer, value.length
        tests.append(lambda tap: tap.lacks_number(side, pointer, length))
    return tests


def _or_else(default: int | None, measure: Units) -> Units:
    return lambda exchange: default if (units := measure(exchange)) is None else units


def _early(value: Value, route_id: str) -> Units:
    """The quantity on arrival, as far as it is known or can be estimated."""
    if isinstance(value, Usage):
        estimate = tokens_of(value)
        return lambda arriving: estimate(arriving) or None  # 0 would be admitted by an exhausted limit
    if isinstance(value, Scaled):
        return scaled(_early(value.value, route_id), units_of(value.times, route_id, field_of_request))
    return units_of(value, route_id, field_of_request) if on_arrival(value)[0] else _not_yet


def _by_calls(rule: MeterRule, route_id: str, field: Field, units: Callable[[Value], Units]) -> Units:
    """The units of all calls. A factor of a table by call is of the exchange, and multiplies their sum."""
    value = rule.value
    if isinstance(value, Scaled) and isinstance(value.value, Lookup) and value.value.dim == RPC:
        return scaled(_counted(rule, units(value.value)), units_of(value.times, route_id, field))
    return _counted(rule, units(value))


def _counted(rule: MeterRule, units: Units) -> Units:
    """Constants and look-ups count for each JSON-RPC call that matches, a quantity of the exchange once if any does."""
    value, globs = _values(rule.value)[0], rule.when.json_rpc
    by_call = isinstance(value, Lookup) and value.dim == RPC  # then `units` takes a call's method
    each = isinstance(value, Count | Lookup)
    if not by_call and not globs:
        return units
    matches = chosen(globs)

    def count(exchange: Any) -> int | None:
        calls = exchange.tap.calls if exchange.tap is not None else None
        if calls is None:
            return None
        total = 0
        for method, times in _tally(calls if calls or globs else _NO_CALL):
            if not globs or (method and matches(method)):
                total += times * units(method) if by_call else times
        if by_call:
            return clamped(total)
        one: int | None = units(exchange) if total else 0
        return one if one is None or not each else clamped(one * total)

    return count


def _tally(calls: Sequence[str]) -> Iterable[tuple[str, int]]:
    """The methods with their numbers of calls: a batch often repeats few methods."""
    return ((calls[0], 1),) if len(calls) == 1 else Counter(calls).items()


_NO_CALL: Final = ("",)  # a request without JSON-RPC calls counts once, as a method that is not in the table
