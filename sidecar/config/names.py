"""The names that a policy may refer to, and their locations, so that a fault has a line and a similar name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from sidecar.config.document import Document, Loc, did_you_mean
from sidecar.core.errors import Fault

if TYPE_CHECKING:
    from sidecar.config.wallet_units import Units


class At(NamedTuple):
    """The location of a definition."""

    document: Document
    loc: Loc

    def fault(self, what: str, *inside: str | int) -> Fault:
        """The fault `what` here, or at a field inside."""
        return self.document.fault((*self.loc, *inside), what)

    def at(self, *inside: str | int) -> At:
        """The location of a field inside."""
        return At(self.document, (*self.loc, *inside))

    def __str__(self) -> str:
        file, line = self.document.position(self.loc)
        return f"{file}:{line}"


class Names(NamedTuple):
    """The names that a policy may refer to.

    `gauges` are the meters whose units do not add up, with their aggregate; `sized` those that count bytes, so that an
    amount may be written `10GiB`; `adapters` are the AI vendors whose usage the routes read; `currencies` are those of
    the plans; `units` have a scale of their own.
    """

    upstreams: frozenset[str]
    region: str
    routes: frozenset[str]
    meters: frozenset[str]
    gauges: Mapping[str, str]
    sized: frozenset[str]
    plans: frozenset[str]
    features: frozenset[str]
    adapters: frozenset[str]
    currencies: Mapping[str, str]
    units: Units


def unknown(at: At, name: str, known: Iterable[str], *inside: str | int) -> Iterator[Fault]:
    """A fault where `name` is not among `known`."""
    known = list(known)
    if name not in known:
        yield at.fault(f"'{name}' is not defined; {did_you_mean(name, known)}", *inside)
