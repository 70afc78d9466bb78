"""What meters and exclusions may look at, and how the policy asks them: on arrival, and when the exchange has ended.

They are compiled for one route each, so that what the route decides costs no request anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from sidecar.core.http import Request
from sidecar.core.identity import Identity


class Tap(Protocol):
    """What was read of an exchange's bodies, where its route asks for it. `side` is "request" or "response".

    `calls` are the methods of the request's JSON-RPC calls, one for each call of a batch, "" for what is no call; ()
    where the body holds none, and None where that is not known: too large, cut, no JSON, too many calls. `model` is
    what the request asked for, "" where that is not known.
    """

    @property
    def calls(self) -> Sequence[str] | None: ...
    @property
    def model(self) -> str: ...
    def known(self, side: str) -> bool:
        """Whether that body is known whole, as JSON or as empty: what is not found in it is not there."""

    def number(self, side: str, pointer: str, length: bool) -> int | None:
        """The whole number from 0 to 2^53 - 1 at an RFC 6901 pointer, with `length` the count of an array's items."""

    def text(self, side: str, pointer: str) -> str | None:
        """The scalar at a pointer as text; an array is "[]" and an object "{}". None: not there, or not known."""

    def tokens(self, kind: str, adapter: str) -> int | None:
        """Tokens of a kind: read, once the answer has ended; before that, estimated. None: it did not speak of them.

        An `adapter` other than "" is the only one whose reading counts.
        """


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
    @property
    def tap(self) -> Tap | None: ...
    def request_header(self, name: bytes) -> bytes | None: ...
    def response_header(self, name: bytes) -> bytes | None: ...


class Arriving(NamedTuple):
    """A request on arrival together with what was read of its body, as meters that look at bodies are asked."""

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

    `ask(request)` is the quantity where it is `known` on arrival (if the exchange turns out to count at all), else an
    estimate, 0 where the meter does not apply, or None where there is nothing to estimate from. It looks at `asks`
    (method, header, body); with body it is asked of an `Arriving`. `measure(facts)` is the truth, and looks at `needs`
    (status, method, body, exchange). Quantities are integers >= 0. `reads` says which bodies (request, response), and
    `missing(facts)` whether they failed to yield what was measured, so that a default stands for it; `holds`, which of
    them are looked into as JSON, so that they have to be held whole.
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


class Excluded(NamedTuple):
    """An exclusion on one route: what `holds` for is recorded, not billed and not charged, for the reason `id`.

    With `retries_us` > 0 it is for those alone that repeat an Idempotency-Key within that time.
    """

    id: str
    retries_us: int
    reads: frozenset[str]
    holds: Callable[[Facts, Identity | None], bool]


class Exclusion(Protocol):
    """What a policy says of exchanges that are not billed."""

    @property
    def id(self) -> str: ...
    def on(self, route_id: str) -> Excluded | None:
        """What it means on one route; None where it can never apply there."""
