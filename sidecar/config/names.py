"""What a policy may refer to, and where each thing stands, so that a wrong name is told at its line with the right one.

Only names and what can be known of them: whether a reference is sensible is for those who ask.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sidecar.config.document import Document, Loc, did_you_mean
from sidecar.core.errors import Fault


class At(NamedTuple):
    """Where a definition stands."""

    document: Document
    loc: Loc

    def fault(self, what: str, *inside: str | int) -> Fault:
        """`what` is wrong here, or at a field inside."""
        return self.document.fault((*self.loc, *inside), what)

    def at(self, *inside: str | int) -> At:
        """The place of a field inside."""
        return At(self.document, (*self.loc, *inside))

    def __str__(self) -> str:
        file, line = self.document.place(self.loc)
        return f"{file}:{line}"


class Names(NamedTuple):
    """What a policy may refer to.

    `sized` are the meters that count bytes, so that an amount may be written `10GiB`; `adapters` what the routes read
    AI usage with; `wallets` whether there is a store that holds balances.
    """

    upstreams: frozenset[str]
    region: str
    wallets: bool
    routes: frozenset[str]
    meters: frozenset[str]
    sized: frozenset[str]
    plans: frozenset[str]
    features: frozenset[str]
    adapters: frozenset[str]


def unknown(at: At, name: str, known: Iterable[str], *inside: str | int) -> Iterator[Fault]:
    """A fault where `name` is none of `known`."""
    known = list(known)
    if name not in known:
        yield at.fault(f"'{name}' is not defined; {did_you_mean(name, known)}", *inside)
