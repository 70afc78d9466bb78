"""The definitions of meters and conditions in a policy, as values without behaviour.

A meter is a quantity (a constant, a table, a measure, a number in a body, tokens; times a factor, or a sum of others)
under conditions that must all hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

MAX_UNITS: Final = 2**53 - 1  # what Redis scripts and JSON readers count exactly


class JsonTest(NamedTuple):
    """A field of a JSON body: `side` is request or response, `pointer` RFC 6901, `values` globs over its text.

    Without `values`: the field is present.
    """

    side: str
    pointer: str
    values: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class When:
    """Conditions that must all hold; None or (): not given. `headers`: request fields and values (empty: present).

    `json_rpc`: globs over the method of a JSON-RPC call, applied to each call of a batch. `models`: globs over the
    requested model. In both, a glob after `!` is an exception, so that all others can have their own price.
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
    """Units by `dim`; `default` for all others, and where the dimension is unknown.

    By "method", "route", or the request's "header.<lower-case name>" the table is exact. By "model" (the
    requested one) and "json_rpc_method" (each call of a batch separately, then summed) its names are globs: an exact
    name wins, then the glob with the most letters.
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
    """A whole number in a JSON body, or with `length` the number of an array's items.

    `default` where it is absent; None counts 0, and a request whose value cannot be read is refused (`Meter.unread`).
    """

    side: str
    pointer: str
    length: bool = False
    default: int | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """A kind of tokens read from an AI answer, such as input_uncached. `adapter` "": of any vendor."""

    kind: str
    adapter: str = ""


@dataclass(frozen=True, slots=True)
class Scaled:
    """A quantity times a factor from a table, such as bytes by region. The table is not by JSON-RPC method."""

    value: Count | Lookup | Measured | Json | Usage
    times: Lookup


@dataclass(frozen=True, slots=True)
class Sum:
    """Other meters by id, each times a whole number. Those that do not apply on a route count 0 there."""

    parts: tuple[tuple[str, int], ...]


Value = Count | Lookup | Measured | Json | Usage | Scaled | Sum


class Aggregate(NamedTuple):
    """How the units of many exchanges become the quantity of a period.

    sum; count (each exchange with units counts 1, also in its record); max (of `window_us` > 0: of the sums of windows
    of that length); latest; unique (how many values of the record's field `of`); time_weighted (the average of the
    value over the period, in which each value holds until the next one). All but the first two need all records of the
    period, so they are computed from the ledger.
    """

    kind: str = "sum"
    of: str = ""
    window_us: int = 0

    @property
    def is_additive(self) -> bool:
        """Whether the units of the records add up to the quantity, so that a counter can limit it."""
        return self.kind in {"sum", "count"}


SUMMED: Final = Aggregate()


@dataclass(frozen=True, slots=True)
class MeterRule:
    """A meter as the policy defines it."""

    id: str
    value: Value = Count()
    when: When = ALWAYS
    aggregate: Aggregate = SUMMED


# The default definition: a request that the API answered, successfully or with an error of the client.
REQUESTS: Final = MeterRule("requests", when=When(statuses=frozenset(range(200, 500))))
