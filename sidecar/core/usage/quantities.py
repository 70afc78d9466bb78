"""The quantities that meters count: of an exchange, a header, a table, a body or an AI answer, in whole units."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from sidecar.core.policy import Facts, glob, model_key
from sidecar.core.usage.body import steps
from sidecar.core.usage.conditions import Field
from sidecar.core.usage.rules import MAX_UNITS, Count, Json, Lookup, Measured, Scaled, Usage, Value

QUANTITIES: Final[dict[str, Callable[[Facts], int]]] = {
    "request.bytes": lambda facts: facts.bytes_in,
    "response.bytes": lambda facts: facts.bytes_out,
    "duration_ms": lambda facts: -(-facts.duration_us // 1_000),
    "duration_s": lambda facts: -(-facts.duration_us // 1_000_000),
}
RPC: Final = "json_rpc_method"
HEADER_DIM: Final = "header."
REQUEST_HEADER: Final = "request.header."

Units = Callable[[Any], Any]  # an integer, or None: unknown (yet)

# The bodies of an exchange that a value reads.
SIDES: Final[dict[type, Callable[[Any], set[str]]]] = {
    Count: lambda _: set(),
    Measured: lambda _: set(),
    Lookup: lambda value: {"request"} if value.dim in {RPC, "model"} else set(),
    Json: lambda value: {value.side},
    Usage: lambda _: {"request", "response"},
    Scaled: lambda value: SIDES[type(value.value)](value.value) | SIDES[Lookup](value.times),
}


def on_arrival(value: Value) -> tuple[bool, set[str]]:
    """Whether the quantity is known when the request arrives, and what of the request's head it depends on."""
    if isinstance(value, Count):
        return True, set()
    if isinstance(value, Scaled):
        known, asks = on_arrival(value.value)
        return known, asks | on_arrival(value.times)[1]
    if isinstance(value, Lookup):
        return True, {"header"} if value.dim.startswith(HEADER_DIM) else {value.dim} & {"method"}
    if isinstance(value, Measured):
        known = value.source.startswith(REQUEST_HEADER)
        return known, {"header"} if known else set()
    return isinstance(value, Json) and value.side == "request", set()


def units_of(value: Value, route_id: str, field: Field) -> Units:
    """The quantity of an exchange on one route; `field` reads a header of its request."""
    if isinstance(value, Count):
        units = clamped(value.units)
        return lambda _: units
    if isinstance(value, Lookup):
        return _looked_up(value, route_id, field)
    if isinstance(value, Measured):
        return _measured(value, field)
    if isinstance(value, Scaled):
        return scaled(units_of(value.value, route_id, field), _looked_up(value.times, route_id, field))
    if isinstance(value, Json):
        return _number_in(value)
    assert isinstance(value, Usage)  # noqa: S101 - a Sum is made of meters
    return tokens_of(value)


def scaled(units: Units, factor: Units) -> Units:
    """Units times a factor; None where one of them is unknown (yet)."""

    def product(exchange: Any) -> int | None:
        one, other = units(exchange), factor(exchange)
        return None if one is None or other is None else clamped(one * other)

    return product


def _looked_up(value: Lookup, route_id: str, field: Field) -> Units:
    table = {name: clamped(units) for name, units in value.table.items()}
    default = clamped(value.default)
    if value.dim == "route":
        units = table.get(route_id, default)
        return lambda _: units
    if value.dim == "method":
        return lambda exchange: table.get(exchange.method, default)
    if value.dim == RPC:
        return _by_name(table, default)
    if value.dim == "model":
        of = _by_name({model_key(name): units for name, units in table.items()}, default)
        return lambda exchange: (
            of(model_key(exchange.tap.model)) if exchange.tap is not None and exchange.tap.model else None
        )
    wanted = value.dim.removeprefix(HEADER_DIM).encode()
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
    steps(pointer)  # raises for an invalid pointer
    return lambda exchange: None if exchange.tap is None else exchange.tap.number(side, pointer, length)


def tokens_of(value: Usage) -> Units:
    """Kinds that the answer does not report were not used. `Reading.quality` states whether it was read at all."""
    kind, adapter = value.kind, value.adapter
    return lambda facts: None if facts.tap is None else clamped(facts.tap.tokens(kind, adapter) or 0)


def _by_name(table: Mapping[str, int], default: int) -> Callable[[str], int]:
    """The units of an exact name, else of the glob with the most letters that matches it."""
    globs = sorted((name for name in table if "*" in name), key=lambda name: (len(name), name), reverse=True)
    loose = [(glob(name), table[name]) for name in globs]
    if not loose:
        return lambda name: table.get(name, default)

    def units(name: str) -> int:
        exact = table.get(name)
        return next((units for matches, units in loose if matches(name)), default) if exact is None else exact

    return units


def _number(text: bytes | None) -> int:
    """A field's whole number, at most MAX_UNITS; other values count as 0. Leading zeros do not count as digits."""
    if text is None or not text.isdigit():
        return 0
    digits = text.lstrip(b"0")
    return MAX_UNITS if len(digits) > 16 else min(int(digits or b"0"), MAX_UNITS)


def clamped(units: int) -> int:
    """Within 0 and MAX_UNITS."""
    return max(0, min(units, MAX_UNITS))
