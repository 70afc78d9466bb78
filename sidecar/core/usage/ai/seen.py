"""What has been seen of an answer so far, in a few numbers: nothing of the answer itself is kept.

A figure that comes later replaces one that came before, as vendors send running totals; None replaces nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

MAX_NAME: Final = 128  # characters of a model's or a tier's name that go into records

Path = tuple[str, ...]


class Seen:
    """One answer, as far as it came. `counts` are the vendor's figures, `text` the bytes of what the model said.

    `ending`: "" (none was named), incomplete or error. `finished`: the model said that it had stopped.
    `final`: `counts` are of the whole answer. `unread`: bytes that may have been its words, and were not understood.
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
        """Take figures; those that come with the end of the answer, or after it, are final."""
        if counts:
            self.counts.update(counts)
            self.final = self.finished

    def finish(self) -> None:
        """The answer is all there: what was told is final."""
        self.finished = True
        self.final = bool(self.counts)

    def say(self, text: Any) -> None:
        """Count a text; what is none counts nothing."""
        if type(text) is str:
            self.text += len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))

    def name(self, model: Any, tier: Any = None) -> None:
        """Take the names that dims get, where they are names."""
        self.model = named(model) or self.model
        self.tier = named(tier) or self.tier


def named(value: Any) -> str:
    """A name that can stand in a record: at most MAX_NAME characters of it; "" for what is none."""
    if type(value) is not str:
        return ""
    name = value[:MAX_NAME]
    return name if name.isascii() else name.encode("utf-8", "replace").decode()


def member(value: Any, name: str) -> Mapping[str, Any]:
    """A member that is an object; an empty one where it is not there, or `value` is no object."""
    found = value.get(name) if type(value) is dict else None
    return found if type(found) is dict else {}


def members(value: Any, name: str) -> Iterable[Mapping[str, Any]]:
    """The objects in a member that is an array."""
    found = value.get(name) if type(value) is dict else None
    return [item for item in found if type(item) is dict] if type(found) is list else ()


def at(value: Any, path: Path) -> Any:
    """What stands at a path of names; None where nothing does."""
    for name in path:
        value = value.get(name) if type(value) is dict else None
    return value
