"""The contents of a store in memory, in parts, each of whole customers: a part can be copied between two requests.

One part is as consistent as the whole: no step of the rule ever touches two customers.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any, Final

from sidecar.core.limits import Checks, marks_stem_beside

PARTS: Final = 1024
_MASK: Final = PARTS - 1


class State(MutableMapping[str, Any]):
    """Key → stored value. `parts[i]` is a dictionary; which one holds a customer is this process's own affair."""

    __slots__ = ("parts",)

    def __init__(self) -> None:
        self.parts: list[dict[str, Any]] = [{} for _ in range(PARTS)]

    def of(self, checks: Checks) -> dict[str, Any]:
        """The part that holds all that `checks` ask of."""
        return self.parts[hash(checks.marks) & _MASK]

    def part(self, key: str) -> dict[str, Any]:
        """The part that holds a key."""
        return self.parts[hash(marks_stem_beside(key)) & _MASK]

    def __getitem__(self, key: str) -> Any:
        return self.part(key)[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.part(key)[key] = value

    def __delitem__(self, key: str) -> None:
        del self.part(key)[key]

    def __iter__(self) -> Iterator[str]:
        for part in self.parts:
            yield from part

    def __len__(self) -> int:
        return sum(map(len, self.parts))
