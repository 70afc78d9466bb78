"""What a policy says of meters and of what is not billed: values, without behaviour but their meaning on one route.

A meter is a quantity (a constant, a table, a measure, a number of a body, tokens) under conditions that all hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

MAX_UNITS: Final = 2**53 - 1  # what Redis scripts and JSON readers count exactly


class JsonTest(NamedTuple):
    """A field of a JSON body: `side` is request or response, `pointer` RFC 6901, `values` globs over its text.

    Without `values`: it is there.
    """

    side: str
    pointer: str
    values: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class When:
    """Conditions that all hold; None or () is no condition. `headers`: of the request, name and values (none: present).

    `json_rpc`: globs over the method of a JSON-RPC call; a batch is judged call by call. `models`: globs over the
    model that was asked for. Of both, a glob after `!` is an exception, so that every other one can have its price.
    """

    statuses: frozenset[int] | None = None
    routes: frozenset[str] | None = None
    methods: frozenset[str] | None = None
    headers: tuple[tuple[bytes, frozenset[bytes]], ...] = ()
    json_rpc: tuple[str, ...] = ()
    json: tuple[JsonTest, ...] = ()
    models: tuple[str, ...] = ()


ALWAYS: Final = When()


@dataclass(frozen=True, slots=True)
class Count:
    """A constant; under `When.json_rpc` for each call that matches."""

    units: int = 1


@dataclass(frozen=True, slots=True)
class Lookup:
    """Units by `dim`; `default` for all others, and where the dimension is not known.

    By "method", "route", or the request's "header.<lower-case name>" the table is exact. By "model" (the one asked
    for) and "json_rpc_method" (each call of a batch by itself, and all are added) its names are globs, of which an
    exact name wins, then the one with the most letters.
    """

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
    when: When = ALWAYS


# Where a policy says nothing else: a request is what the API answered, well or with the client's own fault.
REQUESTS: Final = MeterRule("requests", when=When(statuses=frozenset(range(200, 500))))
