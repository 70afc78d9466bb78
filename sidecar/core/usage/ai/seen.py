"""The state of reading an answer, in a few numbers: no part of the answer itself is retained.

A later figure replaces an earlier one, as vendors send running totals; None replaces nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

MAX_NAME: Final = 128  # characters of a model's or a tier's name that go into records

Path = tuple[str, ...]


class Seen:
    """One answer up to now. `counts` are the vendor's figures, `text` the bytes of the model's text.

    `ending`: "" (not reported), incomplete or error. `finished`: the model reported that it had stopped.
    `final`: `counts` are of the whole answer. `unread`: bytes that may be text of the model, and were not understood.
    """

    __slots__ = ("adapter", "counts", "ending", "final", "finished", "model", "text", "tier", "unread")

    def __init__(self, adapter: str) -> None:
        self.adapter = adapter
        self.counts: dict[str, int] = {}
        self.ending = ""
        self.finished = False
        self.final = False
        self.model = ""
        self.text = 0
        self.tier = ""
        self.unread = 0

    def add(self, counts: Mapping[str, int]) -> None:
        """Add figures; those at the end of the answer, or after it, are final."""
        if counts:
            self.counts.update(counts)
            self.final = self.finished

    def finish(self) -> None:
        """The answer is complete: its figures are final."""
        self.finished = True
        self.final = bool(self.counts)

    def say(self, text: Any) -> None:
        """Count the bytes of a text; other values count nothing."""
        if type(text) is str:
            self.text += len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))

    def name(self, model: Any, tier: Any = None) -> None:
        """Set the names for dims, where they are names."""
        self.model = named(model) or self.model
        self.tier = named(tier) or self.tier


def named(value: Any) -> str:
    """A name fit for a record: the printable ones of its first MAX_NAME characters; "" where it is not a text.

    PostgreSQL's jsonb refuses NUL, and terminals obey control characters.
    """
    if type(value) is not str:
        return ""
    name = value[:MAX_NAME]
    return name if name.isprintable() else "".join(filter(str.isprintable, name.encode("utf-8", "replace").decode()))


def member(value: Any, name: str) -> Mapping[str, Any]:
    """A member that is an object; an empty one where it is absent, or `value` is not an object."""
    item = value.get(name) if type(value) is dict else None
    return item if type(item) is dict else {}


def members(value: Any, name: str) -> Iterable[Mapping[str, Any]]:
    """The objects in a member that is an array."""
    items = value.get(name) if type(value) is dict else None
    return [item for item in items if type(item) is dict] if type(items) is list else ()


def at(value: Any, path: Path) -> Any:
    """The value at a path of names; None where it is absent."""
    for name in path:
        value = value.get(name) if type(value) is dict else None
    return value
