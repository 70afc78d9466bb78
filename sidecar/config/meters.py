"""Meters in policy documents, their faults, and the rule of the core that each compiles to.

A meter counts, takes a value, or takes the usage that an AI answer reports. A meter that would always be 0, because
nothing reads its input, is refused: it would silently bill nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag

from sidecar.config.document import did_you_mean
from sidecar.config.models import Model
from sidecar.config.names import At, Names, unknown
from sidecar.config.patterns import HeaderName, Name
from sidecar.config.units import parse
from sidecar.config.values import (
    Amount,
    Globs,
    HeaderValues,
    Methods,
    Pointer,
    Scalars,
    Side,
    Statuses,
    Units,
    header_values,
)
from sidecar.config.values import Names as ListOfNames
from sidecar.core.errors import Fault
from sidecar.core.usage import (
    QUANTITIES,
    REQUESTS,
    Aggregate,
    Count,
    Json,
    JsonTest,
    Lookup,
    Measured,
    MeterRule,
    Scaled,
    Sum,
    Usage,
    Value,
    When,
)
from sidecar.core.usage.ai import ADAPTERS, KINDS, SUMS
from sidecar.core.usage.conditions import EXCEPT

HEADER_SOURCE: Final = re.compile(r"(request|response)\.header\.([A-Za-z0-9!#$%&'*+.^_`|~-]+)")
_DIMS: Final = ("method", "route", "region", "header.<name>", "model", "json_rpc_method")
_STATUS: Final = re.compile(r"([1-5])xx|([1-5][0-9][0-9])")
_ANY: Final = "*"
ADDITIVE: Final = frozenset({"sum", "count"})
UNIQUE_OF: Final = ("subject", "key_id", "route", "method", "model")
DAY_US: Final = 86_400_000_000
_AUTO: Final = "auto"
_VENDORS: Final = tuple(adapter for adapter in ADAPTERS if adapter != _AUTO)
# `json` is a name of pydantic's own, so it is an alias here, and a default that was valid once is not asked again.
_BY_ALIAS: Final = ConfigDict(revalidate_instances="never")


class WhenDoc(Model):
    """Conditions that must all hold. `"*"` is any value of a header or of a field of a JSON body.

    `header` is of the request. `model` is the one that an AI request names, `json_rpc_method` the method of each call
    of a batch; of both, a glob after `!` is an exception. `json` goes from a side to pointers (RFC 6901) to globs.
    """

    model_config = _BY_ALIAS

    status: Statuses | None = None
    route: ListOfNames | None = None
    method: Methods | None = None
    header: Annotated[dict[HeaderName, HeaderValues], Field(min_length=1)] | None = None
    model: Globs | None = None
    json_rpc_method: Globs | None = None
    json_: Annotated[
        dict[Side, Annotated[dict[Pointer, Scalars], Field(min_length=1)]] | None, Field(alias="json", min_length=1)
    ] = None


class LookupDoc(Model):
    """Units from a table: by `method`, `route`, `region`, `header.X-Tier`, the request's `model` or JSON-RPC method."""

    lookup: str
    table: Annotated[dict[str, Units], Field(min_length=1)]
    default: Units | None = None


class JsonDoc(Model):
    """A whole number in a JSON body, or with `length` how many items an array has; `default` where it is absent."""

    model_config = _BY_ALIAS

    json_: Annotated[Side, Field(alias="json")]
    pointer: Pointer
    length: bool = False
    default: Units | None = None


def _tag_of(value: Any) -> str:
    if isinstance(value, JsonDoc) or (isinstance(value, dict) and "json" in value):
        return "<json>"
    return "<table>" if isinstance(value, dict | LookupDoc) else "<text>"


class MeterDoc(Model):
    """`count: 1`, a `value` (`response.bytes`, a table, a field of a body), `usage` of an AI API, or a `sum` of meters.

    `times`: a table of factors. `aggregate`: how the units of a period become its quantity; `of` with `max` is the
    length of windows whose sums are compared, with `unique` a field of the record whose values are counted.
    """

    moved_fields: ClassVar = {"json": "write value: { json: response, pointer: /meta/rows }"}

    count: Amount | None = None
    value: (
        Annotated[
            Annotated[str, Tag("<text>")] | Annotated[LookupDoc, Tag("<table>")] | Annotated[JsonDoc, Tag("<json>")],
            Discriminator(_tag_of),
        ]
        | None
    ) = None
    usage: str | None = None
    sum: Annotated[dict[Name, Amount], Field(min_length=1)] | None = None
    times: LookupDoc | None = None
    when: WhenDoc = WhenDoc()
    aggregate: Literal["sum", "count", "max", "latest", "unique", "time_weighted"] = "sum"
    of: str | None = None


def faults_of(at: At, meter: MeterDoc, names: Names) -> Iterator[Fault]:
    """All faults of a meter."""
    given = [field for field in ("count", "value", "usage", "sum") if getattr(meter, field) is not None]
    if len(given) > 1:
        yield at.fault(f"has both {' and '.join(given[:2])}: keep one (`times` has factors)")
    if meter.usage is not None:
        yield from _usage_faults(at.at("usage"), meter.usage, names)
    if isinstance(meter.value, LookupDoc):
        yield from _lookup_faults(at, meter.value, names, "value")
    elif isinstance(meter.value, str) and meter.value not in QUANTITIES and not HEADER_SOURCE.fullmatch(meter.value):
        known = [*QUANTITIES, "request.header.<name>", "response.header.<name>"]
        usage = meter.value.removeprefix("usage.")
        hint = did_you_mean(meter.value, known) if usage == meter.value else f"write usage: {usage} instead"
        yield at.fault(f"unknown quantity '{meter.value}'; {hint}", "value")
    if meter.times is not None:
        yield from _lookup_faults(at, meter.times, names, "times")
        if meter.times.lookup == "json_rpc_method":
            what = "a batch has many methods: give them their units with value: { lookup: json_rpc_method, … }"
            yield at.fault(what, "times", "lookup")
    yield from _aggregate_faults(at, meter)
    yield from when_faults(at.at("when"), meter.when, names)


def sum_faults(meters: Mapping[str, tuple[At, MeterDoc]]) -> Iterator[Fault]:
    """Faults between meters: of sums."""
    known = {REQUESTS.id, *meters}
    for at, meter in meters.values():
        for name in meter.sum or ():
            yield from unknown(at, name, known, "sum", name)
            part = meters[name][1] if name in meters else MeterDoc()
            if part.sum is not None:
                yield at.fault(f"'{name}' is a sum itself: write its meters here, with their factors", "sum", name)
            elif part.aggregate not in ADDITIVE:
                yield at.fault(f"the units of '{name}' ({part.aggregate}) do not add up: leave it out", "sum", name)
        if meter.sum is not None and (meter.when != WhenDoc() or meter.times is not None):
            field = "times" if meter.times is not None else "when"
            yield at.fault("is of each of its meters: write it there", field)


def _aggregate_faults(at: At, meter: MeterDoc) -> Iterator[Fault]:
    kind, of = meter.aggregate, meter.of
    if kind == "unique":
        if of not in UNIQUE_OF:
            yield at.fault(f"{kind} values of what? {did_you_mean(of or '', UNIQUE_OF)}", "of" if of else "aggregate")
    elif of is not None and kind != "max":
        yield at.fault(f"means nothing with {kind}, only with max and unique: leave it out", "of")
    elif of is not None:
        try:
            length_us = parse(of, "_us")
        except ValueError as error:
            yield at.fault(str(error), "of")
            return
        if not 1_000_000 <= length_us <= DAY_US or DAY_US % length_us:
            yield at.fault(f"windows of {of} do not fill a day: write 1s, 1min, 5min, 1h or 24h", "of")


def when_faults(at: At, when: WhenDoc, names: Names) -> Iterator[Fault]:
    """All faults of conditions."""
    for index, status in enumerate(when.status or ()):
        if not _STATUS.fullmatch(str(status)):
            yield at.fault(f"'{status}' is not a status: write 2xx or 404", "status", index)
    for index, route in enumerate(when.route or ()):
        yield from unknown(at, route, names.routes, "route", index)


def _usage_faults(at: At, usage: str, names: Names) -> Iterator[Fault]:
    adapter, kind = _divided(usage)
    if adapter and adapter not in _VENDORS:
        yield at.fault(f"unknown AI API '{adapter}'; {did_you_mean(adapter, _VENDORS)}")
    elif kind not in (*KINDS, *SUMS):
        yield at.fault(f"unknown kind of usage '{kind}'; {did_you_mean(kind, (*KINDS, *SUMS))}")
    elif not names.adapters & ({adapter, _AUTO} if adapter else {*ADAPTERS}):
        yield at.fault(f"is read on no route: give one `usage: {adapter or _VENDORS[0]}`")


def _lookup_faults(at: At, lookup: LookupDoc, names: Names, field: str) -> Iterator[Fault]:
    dim, inside = lookup.lookup, (field, "lookup")
    table, has_default = lookup.table, lookup.default is not None
    if dim not in _DIMS and not re.fullmatch(r"header\..+", dim):
        yield at.fault(f"'{dim}' cannot be looked up; {did_you_mean(dim, _DIMS)}", *inside)
    elif dim == "route":
        for name in table:
            yield from unknown(at, name, names.routes, field, "table", name)
        missing = sorted(names.routes - set(table))
        if missing and not has_default:
            yield at.fault(f"has no entry for {', '.join(missing)}, and no default: add one", field, "table")
    elif dim == "region" and names.region not in table and not has_default:
        what = f"has no entry for '{names.region}', which is this sidecar's `region`, and no default: add one"
        yield at.fault(what, field, "table")
    elif dim in ("model", "json_rpc_method") and any(name.startswith(EXCEPT) for name in table):
        yield at.fault("makes no exceptions: what no other name matches is the default's", field, "table")
    elif dim != "region" and not has_default:
        yield at.fault("needs a default: a request can hold a value that is not in the table", field, "table")


def rule_of(name: str, meter: MeterDoc, region: str) -> MeterRule:
    """The rule, of a meter without faults. `region` is where this sidecar runs."""
    window_us = parse(meter.of, "_us") if meter.aggregate == "max" and meter.of is not None else 0
    of = meter.of or "" if meter.aggregate == "unique" else ""
    return MeterRule(name, _times(meter, region), when_of(meter.when), Aggregate(meter.aggregate, of, window_us))


def when_of(when: WhenDoc) -> When:
    """The conditions, of a document without faults."""
    return When(
        statuses=None if when.status is None else frozenset(code for text in when.status for code in _codes(str(text))),
        routes=None if when.route is None else frozenset(when.route),
        methods=None if when.method is None else frozenset(when.method),
        headers=header_values(when.header or {}),
        json_rpc=when.json_rpc_method or (),
        models=when.model or (),
        json=tuple(
            JsonTest(side, pointer, frozenset() if _ANY in values else frozenset(values))
            for side, fields in (when.json_ or {}).items()
            for pointer, values in fields.items()
        ),
    )


def _times(meter: MeterDoc, region: str) -> Value:
    if meter.sum is not None:
        return Sum(tuple(meter.sum.items()))
    value = _value(meter, region)
    if meter.times is None:
        return value
    factor = _lookup(meter.times, region)
    if isinstance(factor, Count):  # by region: the same for all requests
        factor = Lookup("route", {}, factor.units)
    return Scaled(value, factor)


def _value(meter: MeterDoc, region: str) -> Count | Lookup | Measured | Json | Usage:
    if meter.usage is not None:
        adapter, kind = _divided(meter.usage)
        return Usage(kind, adapter)
    if meter.value is None:
        return Count(1 if meter.count is None else meter.count)
    if isinstance(meter.value, str):
        match = HEADER_SOURCE.fullmatch(meter.value)
        return Measured(f"{match[1]}.header.{match[2].lower()}" if match else meter.value)
    if isinstance(meter.value, JsonDoc):
        return Json(meter.value.json_, meter.value.pointer, meter.value.length, meter.value.default)
    return _lookup(meter.value, region)


def _lookup(lookup: LookupDoc, region: str) -> Count | Lookup:
    default = lookup.default or 0
    if lookup.lookup == "region":
        return Count(lookup.table.get(region, default))
    dim = lookup.lookup.lower() if lookup.lookup.startswith("header.") else lookup.lookup
    return Lookup(dim, lookup.table, default)


def _divided(usage: str) -> tuple[str, str]:
    """`openai.input` as adapter and kind; without an adapter, ""."""
    adapter, _, kind = usage.rpartition(".")
    return adapter, kind


def _codes(status: str) -> range:
    first = int(status.replace("x", "0"))
    return range(first, first + (100 if status.endswith("xx") else 1))
