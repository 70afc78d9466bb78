"""Whose answer it is: the vendors' readers by name, and what tells one answer from another where nobody has said."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from sidecar.core.usage.ai import anthropic, gemini, openai
from sidecar.core.usage.ai.kinds import Counts
from sidecar.core.usage.ai.seen import Seen, member

AUTO: Final = "auto"


class Vendor(NamedTuple):
    """`read` takes an answer or an event of one; `kinds` divides the figures that it found."""

    read: Callable[[Mapping[str, Any], Seen], None]
    kinds: Callable[[Counts], dict[str, int]]


VENDORS: Final = {
    "openai": Vendor(openai.read, openai.kinds),
    "anthropic": Vendor(anthropic.read, anthropic.kinds),
    "gemini": Vendor(gemini.read, gemini.kinds),
}

# Members of an answer that only one vendor's have.
_MEMBERS: Final = {"usageMetadata": "gemini", "candidates": "gemini", "choices": "openai", "object": "openai"}


def read(value: Mapping[str, Any], seen: Seen) -> None:
    """Take what an answer or an event says; from the first that tells whose it is, all are that vendor's."""
    vendor = VENDORS.get(seen.adapter)
    if vendor is None:
        seen.adapter = adapter_of(value)
        vendor = VENDORS.get(seen.adapter)
    if value.get("error") or value.get("type") == "error":
        seen.ending = "error"
    if vendor is not None:
        vendor.read(value, seen)


def adapter_of(event: Mapping[str, Any]) -> str:
    """The vendor whose shape an answer or an event has; AUTO where that is not told yet."""
    for name, adapter in _MEMBERS.items():
        if name in event:
            return adapter
    kind = event.get("type")
    if type(kind) is str and kind in anthropic.TYPES:
        return "anthropic"
    usage = member(event, "usage")
    if "prompt_tokens" in usage or "total_tokens" in usage or (type(kind) is str and kind.startswith("response.")):
        return "openai"
    return "anthropic" if "input_tokens" in usage else AUTO
