"""What a policy is made of: limits, routes and plans. Values, and nothing that acts.

They are compiled once per load. What is said here in units is an integer, and what is said in time names its unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from sidecar.core.identity import Source
from sidecar.core.price import Price


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
    where a client raises the limit. `exact`: the store is asked for every request, none of it is leased.
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
    exact: bool = False


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

    `reads` says which bodies are looked at (request, response), at most `body_bytes` of each, and `holds` which of them
    are held whole, as JSON; the policy works both out.
    `usage` is whose AI answers come here (openai, anthropic, gemini, auto; "" nobody's): until one has been read, its
    output counts as what the request allows or else `default_output` tokens, at most `ceiling`; after its client left
    it is read on for `drain_ms`. `models` pairs a glob over models with the feature that a plan must have for them.
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
    usage: str = ""
    default_output: int = 1024
    ceiling: int = 65_536
    body_bytes: int = 1 << 20
    models: tuple[tuple[str, str], ...] = ()
    drain_ms: int = 30_000
    reads: frozenset[str] = frozenset()
    holds: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A named bundle of limits and features. `label` is what records say: the id and the version, as in `pro@3`."""

    id: str
    label: str
    limits: tuple[Limit, ...] = ()
    features: frozenset[str] = frozenset()


NOWHERE: Final = Route("")  # where a request is that no route matches
