"""The compiled policy: what the hot path reads. Built once per load, never changed, swapped in whole.

Which route a request takes does not depend on the order of a file: the most specific pattern wins, and two that could
tie are refused on load (`ties`). What can be known per plan and route is worked out here, once, not per request.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Final, NamedTuple, Protocol

from sidecar.core.http import Request
from sidecar.core.identity import Source
from sidecar.core.price import Price

CACHED_PATHS: Final = 16_384  # per policy; a scan of made-up paths costs a clear, never memory
ANY: Final = "*"
REST: Final = "**"

_NOT_EMPTY: Final = "/[^/]+"
_ANY_NUMBER: Final = "(?:/[^/]*)*"
_LEFTMOST: Final = "(?>(?:/[^/]*)*?{0}(?=/|$))"


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `amount` units of a meter per window, for a scope. Its counters are found by `id`, never by definition.

    rate:        GCRA; `per` units in each `period_us`, at most `amount` (the burst) at once.
    window:      `amount` units in `period_us`; sliding (two counters, weighted) unless `fixed`.
    quota:       `amount` units per `calendar` unit (hour, day, week, month, year), in `zone` (IANA name, or
                 "customer" for the identity's own), from the 1st, or from the identity's anchor where `anchored`.
    concurrency: `amount` exchanges at once; a slot that nobody gives back expires after `period_us`.
    priced:      counts `meter` in the window of a quota and never denies (`amount` 0): what the count adds to the
                 charge of `price` is taken from the next balance of the same `unit` in the list.
    balance:     a customer's wallet in `unit`, in nano-units (`amount` 0); pays for the priced limits before it. What
                 nobody settles goes back after `period_us`.

    `reserve` units are held while the meter's quantity is not known yet (bytes, durations, tokens). `alerts`: percents
    of the amount whose passing is told. `offline` nano-units pass in all while a balance's store is away. `link` is
    where a client raises the limit.
    """

    id: str
    kind: str
    amount: int
    meter: str = "requests"
    scope: str = "key"  # key | subject | customer
    per: int = 0
    period_us: int = 0
    calendar: str = ""
    zone: str = "UTC"
    anchored: bool = False
    fixed: bool = False
    over: str = "deny"  # deny | allow
    stage: str = "enforce"  # shadow | soft (decides and warns) | enforce
    on_store_failure: str = "allow"  # allow (within the local share) | deny
    routes: frozenset[str] = frozenset()  # empty: every route
    reserve: int = 1
    unit: str = ""
    price: Price | None = None
    alerts: tuple[int, ...] = ()
    offline: int = 0
    link: str = ""


class Facts(Protocol):
    """What is known of an exchange when it has ended. Sizes are of bodies, unframed; header names are lower case."""

    @property
    def status(self) -> int: ...
    @property
    def method(self) -> str: ...
    @property
    def request_bytes(self) -> int: ...
    @property
    def response_bytes(self) -> int: ...
    @property
    def duration_us(self) -> int: ...
    def request_header(self, name: bytes) -> bytes | None: ...
    def response_header(self, name: bytes) -> bytes | None: ...


@dataclass(frozen=True, slots=True, eq=False)
class Meter:
    """Turns an exchange on one route into a quantity.

    `ask(request)` is the quantity where it is `known` on arrival (if the exchange turns out to count at all), else 1
    where the meter applies and 0 where not; it looks at `asks` (method, header). `measure(facts)` is the truth, and
    looks at `needs` (status, method, exchange). Both are integers >= 0.
    """

    id: str
    known: bool
    ask: Callable[[Request | None], int]
    asks: frozenset[str]
    measure: Callable[[Facts], int]
    needs: frozenset[str]


class Timeouts(NamedTuple):
    """A route's own timeouts, ms; None leaves the upstream's, `total_ms` 0 is no bound."""

    connect_ms: int | None = None
    first_byte_ms: int | None = None
    between_bytes_ms: int | None = None
    total_ms: int | None = None


INHERITED: Final = Timeouts()
DEFAULT_SOURCES: Final = (Source("header", "X-Api-Key"), Source("bearer"))


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """Which requests, to which upstream, and how their caller is known.

    `pattern` is a glob over the path's normal form; no `methods` means all. `unattributed` requests are denied (401),
    or allowed and recorded as such. `feature` is what a plan must have for its callers to pass, "" for nothing.
    `max_body_bytes` 0 leaves the listener's bound.
    """

    id: str
    pattern: str = "/**"
    methods: frozenset[str] = frozenset()
    upstream: str = "default"
    sources: tuple[Source, ...] = DEFAULT_SOURCES
    keep_credential: bool = False
    unattributed: str = "deny"  # deny | allow
    identity_headers: bool = False
    feature: str = ""
    timeouts: Timeouts = INHERITED
    max_body_bytes: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A named bundle of limits and features. `label` is what records say: the id and the version, as in `pro@3`."""

    id: str
    label: str
    limits: tuple[Limit, ...] = ()
    features: frozenset[str] = frozenset()


NOWHERE: Final = Route("")  # where a request is that no route matches


class Terms:
    """The limits and meters that apply to the requests of one plan on one route. Compared by object.

    `fixed_costs[i]` units are asked of `limits[i]` by every request, or it is None and `costs(request)` says. `plan`
    is the plan's label, "" without one; `entitled` is False where the route asks for a feature that the plan lacks.
    """

    __slots__ = (
        "_asks",
        "_by_method",
        "_each",
        "_counted",
        "_measured",
        "_per_method",
        "_truths",
        "_zeros",
        "entitled",
        "fixed_costs",
        "limits",
        "meters",
        "plan",
        "route",
    )

    def __init__(self, plan: Plan, route: Route, meters: Sequence[Meter]) -> None:
        by_id = {meter.id: meter for meter in meters}
        self.plan = plan.label
        self.route = route
        self.entitled = not route.feature or route.feature in plan.features
        self.meters = tuple(meters)
        self.limits = tuple(limit for limit in plan.limits if _applies(limit, route, by_id))
        self._counted = tuple("" if limit.kind == "concurrency" else limit.meter for limit in self.limits)
        self._zeros = (0,) * len(self.limits)  # what a slot counts: "" is no meter
        self._asks = tuple(_ask(limit, by_id) for limit in self.limits)
        asks = frozenset().union(*(by_id[meter].asks for meter in self._counted if meter))
        needs = frozenset().union(*(meter.needs for meter in meters))
        self.fixed_costs: tuple[int, ...] | None = None if asks else tuple(ask(None) for ask in self._asks)
        self._by_method: dict[str, tuple[int, ...]] | None = {} if asks == {"method"} else None
        self._measured: dict[int | tuple[int, str], dict[str, int]] = {}
        self._each = tuple((meter.id, meter.measure) for meter in meters if "exchange" in meter.needs)
        self._per_method = "method" in needs
        self._truths: dict[int, tuple[int, ...]] = {}

    def costs(self, request: Request) -> tuple[int, ...]:
        """The units that `request` asks of each of `limits`. Tuples of method-dependent costs are shared."""
        if self.fixed_costs is not None:
            return self.fixed_costs
        if self._by_method is None:
            return tuple([ask(request) for ask in self._asks])
        found = self._by_method.get(request.method)
        if found is None:
            found = self._by_method[request.method] = tuple([ask(request) for ask in self._asks])
        return found

    def measure(self, facts: Facts) -> dict[str, int]:
        """What the exchange used, by meter id; a 0 is stated. Shared between exchanges: never change it."""
        key = (facts.status, facts.method) if self._per_method else facts.status
        usage = self._measured.get(key)
        if usage is None:
            usage = self._measured[key] = {meter.id: meter.measure(facts) for meter in self.meters}
            self._truths[id(usage)] = self._truth(usage)  # the memo keeps it alive, so its id is its own
        if self._each:
            usage = usage.copy()
            for name, measure in self._each:
                usage[name] = measure(facts)
        return usage

    def truth(self, usage: dict[str, int]) -> tuple[int, ...]:
        """What `measure` found, by limit: settle where it is unlike the costs. A slot is given back, so it is 0."""
        found = self._truths.get(id(usage))
        return self._truth(usage) if found is None else found

    def _truth(self, usage: dict[str, int]) -> tuple[int, ...]:
        return tuple(map(usage.get, self._counted, self._zeros))


class Policy:
    """Routes, plans and meters of one load. `version` is a short hash of the content."""

    __slots__ = ("_only", "_paths", "_room", "_terms", "_tries", "plans", "routes", "version")

    def __init__(
        self, version: str, routes: Iterable[Route], plans: Iterable[Plan], meters: Callable[[Route], Sequence[Meter]]
    ) -> None:
        """`meters(route)` yields the meters that can apply on a route."""
        self.version = version
        self.routes = tuple(sorted(routes, key=specificity, reverse=True))
        self.plans = {plan.id: plan for plan in plans}
        measured = {route.id: meters(route) for route in self.routes}
        nobody = Plan("", "")
        self._terms = {
            route.id: {plan.id: Terms(plan, route, measured[route.id]) for plan in (nobody, *self.plans.values())}
            for route in self.routes
        }
        self._tries = tuple((regex(route.pattern), route) for route in self.routes)
        first = self.routes[0] if self.routes else None
        # The least specific of all patterns comes first only where it is alone.
        self._only = first if first and first.pattern == "/**" and not first.methods else None
        self._paths: dict[str, dict[str, Route | None]] = {}
        self._room = CACHED_PATHS

    def match(self, method: str, path: str) -> Route | None:
        """The most specific route for a path in its normal form, or None (404)."""
        if self._only is not None:
            return self._only
        try:
            return self._paths[method][path]
        except KeyError:
            return self._match(method, path)

    def terms(self, plan_id: str, route: Route) -> Terms | None:
        """What holds for a plan on a route. "" is the terms of unattributed requests; None: no such plan, so deny."""
        return self._terms[route.id].get(plan_id)

    def _match(self, method: str, path: str) -> Route | None:
        found = next(
            (route for form, route in self._tries if (not route.methods or method in route.methods) and form(path)),
            None,
        )
        if self._room == 0:
            self._paths.clear()
            self._room = CACHED_PATHS
        self._room -= 1
        self._paths.setdefault(method, {})[path] = found
        return found


def segments(pattern: str) -> tuple[str, ...]:
    """A pattern's segments: `/a/*/**` is ("a", "*", "**"); a last slash is an empty last segment."""
    return tuple(pattern[1:].split("/"))


def regex(pattern: str) -> Callable[[str], re.Match[str] | None]:
    """Matches whole paths: `*` is one segment that is not empty, `**` any number of any, none included.

    What stands between two `**` is looked for leftmost and never again (an atomic group), so no path takes more than
    linear time.
    """
    if pattern == f"/{REST}":
        return re.compile("(?s:.*)").fullmatch
    pieces = "/".join(("", *segments(pattern))).split(f"/{REST}")
    first, *between = [re.sub("/[*](?=/|$)", _NOT_EMPTY, re.sub("[^/*]+", _escaped, piece)) for piece in pieces]
    if not between:
        return re.compile(first).fullmatch
    *between, last = between
    return re.compile(f"{first}{''.join(map(_LEFTMOST.format, between))}{_ANY_NUMBER}{last}").fullmatch


def specificity(route: Route) -> tuple[tuple[int, ...], bool]:
    """Greater is more specific. From the left, a literal beats `*`, that the end, that `**`; then methods beat none."""
    ranks = tuple({ANY: 2, REST: 0}.get(segment, 3) for segment in segments(route.pattern))
    return (*ranks, 1), bool(route.methods)


def _escaped(found: re.Match[str]) -> str:
    return re.escape(found[0])


def ties(routes: Iterable[Route]) -> list[tuple[Route, Route]]:
    """Pairs that are equally specific though some request matches both: the policy does not say which one wins."""
    return [
        (one, other)
        for one, other in combinations(routes, 2)
        if specificity(one) == specificity(other)
        and (one.methods & other.methods or not one.methods)
        and _meet(segments(one.pattern), segments(other.pattern))
    ]


@lru_cache(maxsize=4096)
def _meet(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether some path matches both patterns."""
    if not one or not other:
        return all(segment == REST for segment in one + other)
    if one[0] == REST:
        return _meet(one[1:], other) or _meet(one, other[1:])
    if other[0] == REST:
        return _meet(other, one)
    return (one[0] == other[0] or ANY in (one[0], other[0])) and _meet(one[1:], other[1:])


def _applies(limit: Limit, route: Route, meters: Mapping[str, Meter]) -> bool:
    if limit.routes and route.id not in limit.routes:
        return False
    return limit.kind == "concurrency" or limit.meter in meters


def _ask(limit: Limit, meters: Mapping[str, Meter]) -> Callable[[Request | None], int]:
    if limit.kind == "concurrency":
        return lambda _: 1
    meter = meters[limit.meter]
    if meter.known:
        return meter.ask
    reserve = limit.reserve
    return lambda request: reserve * meter.ask(request)
