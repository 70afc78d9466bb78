"""The interface of meters and exclusions: their input on arrival and after the exchange, and their answers.

Each is compiled for one route, so that decisions which depend on the route alone cost nothing per request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from sidecar.core.http import Request
from sidecar.core.identity import Identity


class Tap(Protocol):
    """Values read from an exchange's bodies, where its route needs them. `side` is "request" or "response".

    `calls` are the methods of the request's JSON-RPC calls, one for each call of a batch, "" for an item that is not a
    call; () where the body has no calls, None where they are unknown: too large, cut, not JSON, too many calls. `model`
    is the model that the request names, "" where unknown.
    """

    @property
    def calls(self) -> Sequence[str] | None: ...
    @property
    def model(self) -> str: ...
    @property
    def lacks_calls(self) -> bool:
        """Whether the calls are unknown, or servers would read them differently."""

    @property
    def lacks_model(self) -> bool:
        """Whether the request may name a model, and it is unknown which."""

    @property
    def lacks_usage(self) -> bool:
        """Whether the request to a model cannot be read, for another reason than its length."""

    def known(self, side: str, pointer: str = "") -> bool:
        """Whether the value at a pointer is known; a known absence counts."""

    def lacks_number(self, side: str, pointer: str, length: bool) -> bool:
        """Whether there may be a value at a pointer although `number` returns None."""

    def number(self, side: str, pointer: str, length: bool) -> int | None:
        """The whole number from 0 to 2^53 - 1 at an RFC 6901 pointer, with `length` the count of an array's items."""

    def text(self, side: str, pointer: str) -> str | None:
        """The scalar at a pointer as text; an array is "[]" and an object "{}". None: absent or unknown."""

    def tokens(self, kind: str, adapter: str) -> int | None:
        """Tokens of a kind: those of the answer once it has ended, an estimate before. None: it reports none of them.

        With an `adapter` other than "", only an answer of that vendor counts.
        """


class Facts(Protocol):
    """Facts of an exchange that has ended. Sizes are of bodies without framing; header names are lower case."""

    @property
    def status(self) -> int: ...
    @property
    def method(self) -> str: ...
    @property
    def bytes_in(self) -> int: ...
    @property
    def bytes_out(self) -> int: ...
    @property
    def duration_us(self) -> int: ...
    @property
    def tap(self) -> Tap | None: ...
    def request_header(self, name: bytes) -> bytes | None: ...
    def response_header(self, name: bytes) -> bytes | None: ...


class Arriving(NamedTuple):
    """A request on arrival together with the values read from its body: the input of meters that read bodies."""

    request: Request
    tap: Tap | None

    @property
    def method(self) -> str:
        """The request's method."""
        return self.request.method

    @property
    def fields(self) -> Mapping[bytes, bytes]:
        """The request's header fields by lower-case name."""
        return self.request.fields


@dataclass(frozen=True, slots=True, eq=False)
class Meter:
    """Turns an exchange on one route into a quantity.

    `ask(request)` is the quantity where it is `known` on arrival (provided that the exchange counts at all), else an
    estimate, 0 where the meter does not apply, or None where there is no basis for an estimate. It reads `asks`
    (method, header, body); with body its argument is an `Arriving`. `measure(facts)` is the actual quantity, and reads
    `needs` (status, method, body, exchange). Quantities are integers >= 0. `reads` are the bodies that it reads
    (request, response), `holds` those that are read as JSON and so have to be buffered whole. `missing(facts)`: the
    bodies did not yield the quantity, so a default is used. `headers` are the names, in lower case, of the request's
    fields that it reads. `unread(arriving)`: the request's body does not yield what the meter needs, and there is no
    default for it.
    """

    id: str
    known: bool
    ask: Callable[[Request | Arriving | None], int | None]
    asks: frozenset[str]
    measure: Callable[[Facts], int]
    needs: frozenset[str]
    reads: frozenset[str] = frozenset()
    missing: Callable[[Facts], bool] | None = None
    holds: frozenset[str] = frozenset()
    headers: frozenset[bytes] = frozenset()
    unread: Callable[[Arriving], bool] | None = None


class Excluded(NamedTuple):
    """An exclusion on one route: an exchange that it `matches` is recorded, not billed and not charged; reason `id`.

    With `retries_us` > 0 it is for requests that repeat an Idempotency-Key within that time. `headers`: as in `Meter`.
    """

    id: str
    retries_us: int
    reads: frozenset[str]
    matches: Callable[[Facts, Identity | None], bool]
    headers: frozenset[bytes] = frozenset()


class Exclusion(Protocol):
    """A rule of a policy for exchanges that are not billed."""

    @property
    def id(self) -> str: ...
    def on(self, route_id: str) -> Excluded | None:
        """The rule on one route; None where it can never apply there."""
