"""What one exchange consumed, in the units of each meter. Integers, never below zero, never above MAX_UNITS.

A meter is compiled once per route: what the route decides is decided then, and a meter that looks at no body pays for
none. A duration counts every started unit. Where a body does not yield what is measured, the rule's default stands for
it (0 where it has none), and `Meter.missing` says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from sidecar.core.policy import Facts, Meter, glob
from sidecar.core.usage.body import steps
from sidecar.core.usage.conditions import (
    BodyTest,
    Field,
    Test,
    body_tests,
    chosen,
    field_of_facts,
    field_of_request,
    head_tests,
    judge,
    looks,
    sides,
    status_tests,
)
from sidecar.core.usage.rules import MAX_UNITS, Count, Json, Lookup, Measured, MeterRule, Usage, Value

QUANTITIES: Final[dict[str, Callable[[Facts], int]]] = {
    "request.bytes": lambda facts: facts.request_bytes,
    "response.bytes": lambda facts: facts.response_bytes,
    "duration_ms": lambda facts: -(-facts.duration_us // 1_000),
    "duration_s": lambda facts: -(-facts.duration_us // 1_000_000),
}
RPC: Final = "json_rpc_method"

Units = Callable[[Any], Any]  # an integer, or None: not known (yet)


def meter_for(rule: MeterRule, route_id: str, usage: str = "") -> Meter | None:
    """The meter on one route, whose `usage` is whose AI answers come there; None where it can never apply there.

    ValueError: a pointer that is none.
    """
    when = rule.when
    if (when.routes is not None and route_id not in when.routes) or not _readable(rule.value, usage):
        return None
    if read := sides(when) | _SIDES[type(rule.value)](rule.value):
        return _inside(rule, route_id, read)
    known, asks = _on_arrival(rule.value)
    seen = asks | looks(when) | ({"status"} if when.statuses is not None else set())
    units = _units(rule.value, route_id, field_of_request) if known else _not_yet
    return Meter(
        id=rule.id,
        known=known,
        ask=_where(head_tests(when, field_of_request), units),
        asks=frozenset(asks | looks(when)),
        measure=_where(
            status_tests(when) + head_tests(when, field_of_facts), _units(rule.value, route_id, field_of_facts)
        ),
        needs=frozenset(seen if known and "header" not in seen else seen | {"exchange"}),
    )


def _readable(value: Value, usage: str) -> bool:
    """Tokens are read only where AI answers of that kind come."""
    return not isinstance(value, Usage) or bool(usage and (usage == "auto" or value.adapter in {"", usage}))


def _where(tests: list[Test], units: Units) -> Units:
    if not tests:
        return units
    return lambda exchange: units(exchange) if all(test(exchange) for test in tests) else 0


def _not_yet(_: Any) -> None:
    """What only the answer tells: the limit says how much is held for it."""


# --- Quantities ------------------------------------------------------------------------------------------------------

_SIDES: Final[dict[type, Callable[[Any], set[str]]]] = {
    Count: lambda _: set(),
    Measured: lambda _: set(),
    Lookup: lambda value: {"request"} if value.dim in {RPC, "model"} else set(),
    Json: lambda value: {value.side},
    Usage: lambda _: {"request", "response"},
}


def _on_arrival(value: Value) -> tuple[bool, set[str]]:
    """Whether the quantity is known when the request arrives, and what of the request's head it looks at."""
    if isinstance(value, Count):
        return True, set()
    if isinstance(value, Lookup):
        return True, {"header"} if value.dim.startswith("header.") else {value.dim} & {"method"}
    if isinstance(value, Measured):
        known = value.source.startswith("request.header.")
        return known, {"header"} if known else set()
    return isinstance(value, Json) and value.side == "request", set()


def _units(value: Value, route_id: str, field: Field) -> Units:
    if isinstance(value, Count):
        units = _clamped(value.units)
        return lambda _: units
    if isinstance(value, Lookup):
        return _looked_up(value, route_id, field)
    if isinstance(value, Measured):
        return _measured(value, field)
    return _number_in(value) if isinstance(value, Json) else _tokens(value)


def _looked_up(value: Lookup, route_id: str, field: Field) -> Units:
    table = {name: _clamped(units) for name, units in value.table.items()}
    default = _clamped(value.default)
    if value.dim == "route":
        units = table.get(route_id, default)
        return lambda _: units
    if value.dim == "method":
        return lambda exchange: table.get(exchange.method, default)
    if value.dim == RPC:
        return _by_name(table, default)
    if value.dim == "model":
        of = _by_name(table, default)
        return lambda exchange: of(exchange.tap.model) if exchange.tap is not None and exchange.tap.model else None
    wanted = value.dim.removeprefix("header.").encode()
    by_bytes = {name.encode(): units for name, units in table.items()}
    return lambda exchange: by_bytes.get(field(exchange, wanted) or b"", default)


def _measured(value: Measured, field: Field) -> Units:
    side, _, name = value.source.partition(".header.")
    if not name:
        return QUANTITIES[value.source]
    wanted = name.encode()
    if side == "request":
        return lambda exchange: _number(field(exchange, wanted))
    return lambda facts: _number(facts.response_header(wanted))


def _number_in(value: Json) -> Units:
    side, pointer, length = value.side, value.pointer, value.length
    steps(pointer)  # refuses what is no pointer
    return lambda exchange: None if exchange.tap is None else exchange.tap.number(side, pointer, length)


def _tokens(value: Usage) -> Units:
    """What the answer does not speak of was not used. Whether it was read at all, the reading's quality says."""
    kind, adapter = value.kind, value.adapter
    return lambda facts: None if facts.tap is None else _clamped(facts.tap.tokens(kind, adapter) or 0)


def _by_name(table: Mapping[str, int], default: int) -> Callable[[str], int]:
    """The units of an exact name, else of the glob with the most letters that matches it."""
    globs = sorted((name for name in table if "*" in name), key=lambda name: (len(name), name), reverse=True)
    loose = [(glob(name), table[name]) for name in globs]
    if not loose:
        return lambda name: table.get(name, default)

    def units(name: str) -> int:
        found = table.get(name)
        return next((units for matches, units in loose if matches(name)), default) if found is None else found

    return units


def _number(text: bytes | None) -> int:
    """A field's whole number, at most MAX_UNITS; what is none is 0."""
    return min(int(text), MAX_UNITS) if text is not None and len(text) < 20 and text.isdigit() else 0


def _clamped(units: int) -> int:
    return max(0, min(units, MAX_UNITS))


# --- Meters that look at bodies --------------------------------------------------------------------------------------


def _look(tests: list[Test], inside: list[BodyTest], units: Units) -> Units:
    """A meter on one occasion, under conditions of the head and of bodies; None: it is not known (yet)."""
    if not inside:
        return _where(tests, units)

    def look(exchange: Any) -> Any:
        holds = judge(inside, exchange.tap)
        return units(exchange) if holds else 0 if holds is False else None

    return _where(tests, look)


def _inside(rule: MeterRule, route_id: str, read: set[str]) -> Meter:
    when, value = rule.when, rule.value
    known, asks = _on_arrival(value)
    asks |= looks(when) | ({"body"} if "request" in read else set())
    before = _look(
        head_tests(when, field_of_request), body_tests(when, arriving=True), _counted(rule, _early(value, route_id))
    )
    after = _look(
        status_tests(when) + head_tests(when, field_of_facts),
        body_tests(when, arriving=False),
        _counted(rule, _units(value, route_id, field_of_facts)),
    )
    default = _clamped(value.default if isinstance(value, Lookup | Json) else 0)
    return Meter(
        id=rule.id,
        known=known,
        ask=_or_else(default if known else None, before),
        asks=frozenset(asks),
        measure=_or_else(default, after),
        needs=frozenset(asks | {"body", "exchange"} | ({"status"} if when.statuses is not None else set())),
        reads=frozenset(read),
        missing=lambda facts: after(facts) is None,
        holds=frozenset(sides(when) if isinstance(value, Usage) else read),
    )


def _or_else(default: int | None, look: Units) -> Units:
    return lambda exchange: default if (units := look(exchange)) is None else units


def _early(value: Value, route_id: str) -> Units:
    """What is known of the quantity on arrival."""
    if isinstance(value, Usage):
        estimate = _tokens(value)
        return lambda arriving: estimate(arriving) or None  # one of 0 would let pass where nothing is left
    return _units(value, route_id, field_of_request) if _on_arrival(value)[0] else _not_yet


def _counted(rule: MeterRule, units: Units) -> Units:
    """Constants and look-ups count for each JSON-RPC call that matches, a quantity of the exchange once if any does."""
    value, globs = rule.value, rule.when.json_rpc
    by_call = isinstance(value, Lookup) and value.dim == RPC  # then `units` takes a call's method
    each = isinstance(value, Count | Lookup)
    if not by_call and not globs:
        return units
    matches = chosen(globs)

    def count(exchange: Any) -> int | None:
        calls = exchange.tap.calls if exchange.tap is not None else None
        if calls is None:
            return None
        found = 0
        for method, times in _tally(calls if calls or globs else _NO_CALL):
            if not globs or (method and matches(method)):
                found += times * units(method) if by_call else times
        if by_call:
            return _clamped(found)
        one: int | None = units(exchange) if found else 0
        return one if one is None or not each else _clamped(one * found)

    return count


def _tally(calls: Sequence[str]) -> Iterable[tuple[str, int]]:
    """How often each method comes: a batch names few of them many times."""
    return ((calls[0], 1),) if len(calls) == 1 else Counter(calls).items()


_NO_CALL: Final = ("",)  # a request that is no JSON-RPC call counts once, as whatever is not in the table
