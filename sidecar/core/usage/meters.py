"""What one exchange consumed, in the units of each meter, and whether it is billable. Integers, never below zero.

A meter is a quantity (`QUANTITIES`, a constant, a table or a header) under conditions (`When`). It is compiled once per
route: what the route decides is decided then. A duration counts every started unit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple

from sidecar.core.http import Request
from sidecar.core.policy import Excluded, Facts, Meter

MAX_UNITS: Final = 2**53 - 1  # what Redis scripts and JSON readers count exactly

QUANTITIES: Final[dict[str, Callable[[Facts], int]]] = {
    "request.bytes": lambda facts: facts.request_bytes,
    "response.bytes": lambda facts: facts.response_bytes,
    "duration_ms": lambda facts: -(-facts.duration_us // 1_000),
    "duration_s": lambda facts: -(-facts.duration_us // 1_000_000),
}


class JsonTest(NamedTuple):
    """A field of a JSON body: `side` is request or response, `pointer` RFC 6901, no `values`: it is there."""

    side: str
    pointer: str
    values: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class When:
    """Conditions that all hold; None or () is no condition. `headers`: of the request, name and values (none: present).

    `json_rpc`: globs over the method of a JSON-RPC call; a batch is judged call by call.
    """

    statuses: frozenset[int] | None = None
    routes: frozenset[str] | None = None
    methods: frozenset[str] | None = None
    headers: tuple[tuple[bytes, frozenset[bytes]], ...] = ()
    json_rpc: tuple[str, ...] = ()
    json: tuple[JsonTest, ...] = ()


@dataclass(frozen=True, slots=True)
class Exclusion:
    """Exchanges that match `when`, `customers` and `test_keys` are recorded and not billed, for the reason `id`.

    With `retries_us`, those that repeat an `Idempotency-Key` of the same customer within that time of a billed one.
    """

    id: str
    when: When = When()
    customers: frozenset[str] = frozenset()
    test_keys: bool = False
    retries_us: int = 0

    def on(self, route_id: str) -> Excluded | None:
        """What it means on one route; None where it can never apply there."""
        if self.when.routes is not None and route_id not in self.when.routes:
            return None
        return Excluded(self.id, self.retries_us, frozenset(), lambda *_: False)


@dataclass(frozen=True, slots=True)
class Count:
    """A constant."""

    units: int = 1


@dataclass(frozen=True, slots=True)
class Lookup:
    """Units by `dim`: "method", "route", or the request's "header.<lower-case name>"; `default` for all others."""

    dim: str
    table: Mapping[str, int]
    default: int = 0


@dataclass(frozen=True, slots=True)
class Measured:
    """One of QUANTITIES, or a whole number in "request.header.<name>" or "response.header.<name>"."""

    source: str


@dataclass(frozen=True, slots=True)
class Json:
    """A whole number in a JSON body, or with `length` the number of an array's items. `default` where it is neither."""

    side: str
    pointer: str
    length: bool = False
    default: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """A kind of tokens read from an AI answer, such as input_uncached. `adapter` "" takes whichever read it."""

    kind: str
    adapter: str = ""


Value = Count | Lookup | Measured | Json | Usage


@dataclass(frozen=True, slots=True)
class MeterRule:
    """A meter as the policy says it."""

    id: str
    value: Value = Count()
    when: When = When()


# Where a policy says nothing else: a request is what the API answered, well or with the client's own fault.
REQUESTS: Final = MeterRule("requests", when=When(statuses=frozenset(range(200, 500))))


def meter_for(rule: MeterRule, route_id: str, usage: str = "") -> Meter | None:
    """The meter on one route, whose `usage` is whose AI answers come there; None where it can never apply there."""
    when = rule.when
    if (when.routes is not None and route_id not in when.routes) or not _readable(rule.value, usage):
        return None
    known, asks = _on_arrival(rule.value)
    conditions = {"method"} if when.methods is not None else set()
    conditions |= {"header"} if when.headers else set()
    looks = asks | conditions | ({"status"} if when.statuses is not None else set())
    units = _units(rule.value, route_id, _field_of_request) if known else _not_yet
    return Meter(
        id=rule.id,
        known=known,
        ask=_where(_request_tests(when, _field_of_request), units),
        asks=frozenset(asks | conditions),
        measure=_where(
            _status_tests(when) + _request_tests(when, _field_of_facts), _units(rule.value, route_id, _field_of_facts)
        ),
        needs=frozenset(looks if known and "header" not in looks else looks | {"exchange"}),
    )


def _readable(value: Value, usage: str) -> bool:
    """Tokens are read only where AI answers of that kind come."""
    if isinstance(value, Usage):
        return bool(usage) and (usage in {"auto", value.adapter} or not value.adapter)
    return not isinstance(value, Json)  # bodies are not read yet


def billing(plan: str, *, status: int, test: bool = False, outcome: str = "ok") -> tuple[bool, str]:
    """Whether an exchange is billable, and why. `plan` is the plan's id, "" for nobody's; `status` what was answered.

    What failed at the upstream (`upstream_…`) or was found open after a crash is not billed, and the outcome is the
    reason; what a client did not wait for (`client_gone`) was consumed all the same.
    """
    return _billing(plan, status >= 500, test, outcome)


_UNBILLED: Final = frozenset({"aborted", "crashed", "bad_upstream_answer"})


@lru_cache(maxsize=4096)
def _billing(plan: str, failed: bool, test: bool, outcome: str) -> tuple[bool, str]:
    reasons = (
        (not plan, "unattributed"),
        (test, "test_key"),
        (outcome in _UNBILLED or outcome.startswith("upstream_"), outcome),
        (failed, "upstream_5xx"),
    )
    return next(((False, reason) for holds, reason in reasons if holds), (True, f"plan:{plan}"))


# Tests and quantities read a request (on arrival) or the facts (afterwards); only header fields are found differently.
_Field = Callable[[Any, bytes], bytes | None]
_Test = Callable[[Any], bool]
_Units = Callable[[Any], Any]  # an integer, or on arrival None where it is not known yet


def _field_of_request(request: Request, name: bytes) -> bytes | None:
    return request.fields.get(name)


def _field_of_facts(facts: Facts, name: bytes) -> bytes | None:
    return facts.request_header(name)


def _not_yet(_: Any) -> None:
    """What only the answer tells: the limit says how much is held for it."""


def _on_arrival(value: Value) -> tuple[bool, set[str]]:
    """Whether the quantity is known when the request arrives, and what of the request it looks at."""
    if isinstance(value, Count):
        return True, set()
    if isinstance(value, Lookup):
        return True, {"header"} if value.dim.startswith("header.") else {value.dim} - {"route"}
    known = isinstance(value, Measured) and value.source.startswith("request.header.")
    return known, {"header"} if known else set()


def _units(value: Value, route_id: str, field: _Field) -> _Units:
    if isinstance(value, Count):
        units = value.units
        return lambda _: units
    if isinstance(value, Lookup):
        return _looked_up(value, route_id, field)
    assert isinstance(value, Measured)  # noqa: S101
    side, _, name = value.source.partition(".header.")
    if not name:
        return QUANTITIES[value.source]
    wanted = name.encode()
    if side == "request":
        return lambda exchange: _number(field(exchange, wanted))
    return lambda facts: _number(facts.response_header(wanted))


def _looked_up(value: Lookup, route_id: str, field: _Field) -> _Units:
    table, default = value.table, value.default
    if value.dim == "route":
        units = table.get(route_id, default)
        return lambda _: units
    if value.dim == "method":
        return lambda exchange: table.get(exchange.method, default)
    wanted = value.dim.removeprefix("header.").encode()
    by_bytes = {name.encode(): units for name, units in table.items()}
    return lambda exchange: by_bytes.get(field(exchange, wanted) or b"", default)


def _number(text: bytes | None) -> int:
    """A field's whole number, at most MAX_UNITS; what is none is 0."""
    return min(int(text), MAX_UNITS) if text is not None and len(text) < 20 and text.isdigit() else 0


def _status_tests(when: When) -> list[_Test]:
    statuses = when.statuses
    return [] if statuses is None else [lambda facts: facts.status in statuses]


def _request_tests(when: When, field: _Field) -> list[_Test]:
    methods = when.methods
    tests: list[_Test] = [] if methods is None else [lambda exchange: exchange.method in methods]
    return tests + [_header_test(name, values, field) for name, values in when.headers]


def _header_test(name: bytes, values: frozenset[bytes], field: _Field) -> _Test:
    if not values:
        return lambda exchange: field(exchange, name) is not None
    return lambda exchange: field(exchange, name) in values


def _where(tests: list[_Test], units: _Units) -> _Units:
    if not tests:
        return units
    return lambda exchange: units(exchange) if all(test(exchange) for test in tests) else 0
