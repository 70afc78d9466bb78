"""The parts of a policy: routes and plans, and their limits. Values without behaviour, compiled once per load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from sidecar.core.http.cors import Cors
from sidecar.core.identity import Source
from sidecar.core.limits import Limit


class Timeouts(NamedTuple):
    """A route's own timeouts, ms; None: that of the upstream, `total_ms` 0: unbounded."""

    connect_ms: int | None = None
    first_byte_ms: int | None = None
    between_bytes_ms: int | None = None
    total_ms: int | None = None


INHERITED: Final = Timeouts()
NORMALISE: Final = "normalise"
PRESERVE: Final = "preserve"
REFUSE: Final = "refuse"
DEFAULT_SOURCES: Final = (Source("header", "X-Api-Key"), Source("bearer"))


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """Which requests, to which upstream, and how their caller is identified.

    `pattern` is a glob over the path's normal form; no `methods` means all. `host` is a name in lower case, or
    `*.example.com` for all names below it, "" for any; `headers` pairs names in lower case with the values of which the
    request has one, none for any value. `paths` says what happens to other spellings of a path than its normal form
    (paths.py). `unattributed` requests are denied (401), or allowed and recorded as such. `feature` is the feature that
    a caller's plan must have, "" for none. `max_body_bytes` 0: the listener's bound. A request is refused where a meter
    cannot read what it needs of the body; with `unread` allow it passes, and its meters count 0 or their default. With
    `half_close` deny a client that closes its side of the connection before its answer is complete has left. `cors`:
    which pages may call it from a browser.

    `reads` are the bodies that are inspected (request, response), at most `body_bytes` of each, and `holds` those that
    are buffered whole, as JSON; the policy computes both.
    `usage` is the vendor of the AI answers (openai, anthropic, gemini, auto; "": not an AI API). Until an answer has
    been read, its output counts as the request's bound or else `default_output` tokens, at most `ceiling`. When the
    client disconnects, the answer is read for up to `drain_ms` more. `models` pairs a glob over models with the feature
    that a plan must have for them.
    """

    id: str
    pattern: str = "/**"
    methods: frozenset[str] = frozenset()
    host: str = ""
    headers: tuple[tuple[bytes, frozenset[bytes]], ...] = ()
    upstream: str = "default"
    sources: tuple[Source, ...] = DEFAULT_SOURCES
    keep_credential: bool = False
    unattributed: str = "deny"  # deny | allow
    identity_headers: bool = False
    feature: str = ""
    timeouts: Timeouts = INHERITED
    max_body_bytes: int = 0
    unread: str = "deny"  # deny | allow
    half_close: str = "deny"  # deny | allow
    paths: str = NORMALISE  # normalise | preserve | refuse
    cors: Cors | None = None
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
    """A named bundle of limits and features. `label` is its name in records: the id and the version, as in `pro@3`.

    `show_usage`: the limits that a client sees at the usage path: all, own (without the customer's) or off.
    """

    id: str
    label: str
    limits: tuple[Limit, ...] = ()
    features: frozenset[str] = frozenset()
    show_usage: str = "all"


NOWHERE: Final = Route("")  # the route of requests that no route matches


class Hashes(NamedTuple):
    """SHA-256 in hex: of the documents of a policy by their file names, and of the terms of its plans by label.

    `given`: the labels whose version is written in a document; that of the others is a hash of their content.
    """

    files: Mapping[str, str]
    plans: Mapping[str, str]
    given: tuple[str, ...] = ()


NO_HASHES: Final = Hashes({}, {})
