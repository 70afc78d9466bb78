"""All vendors by name, and the detection of the vendor from an answer where it is not configured.

A new vendor is a module of its own and a line here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sidecar.core.usage.ai import anthropic, gemini, openai
from sidecar.core.usage.ai.base import Vendor
from sidecar.core.usage.ai.seen import Seen, member

AUTO: Final = "auto"

# Where two could be meant, the first by `usage`, and the last by members of a request or an answer: compatible servers
# send OpenAI's.
_VENDORS: Final[tuple[Vendor, ...]] = (openai.VENDOR, anthropic.VENDOR, gemini.VENDOR)
VENDORS: Final = {vendor.name: vendor for vendor in _VENDORS}

_ANSWER_MEMBERS: Final = {name: vendor.name for vendor in _VENDORS[::-1] for name in vendor.answer_members}
_ANSWER_TYPES: Final = {name: vendor.name for vendor in _VENDORS for name in vendor.answer_types}
_USAGE_MEMBERS: Final = {name: vendor.name for vendor in _VENDORS for name in vendor.usage_members}


def read(value: Mapping[str, Any], seen: Seen) -> None:
    """Read an answer or an event. The first that identifies its vendor determines that of all."""
    vendor = VENDORS.get(seen.adapter)
    if vendor is None:
        seen.adapter = adapter_of(value)
        vendor = VENDORS.get(seen.adapter)
    if value.get("error") or value.get("type") == "error":
        seen.ending = "error"
    if vendor is not None:
        vendor.read(value, seen)


def adapter_of(event: Mapping[str, Any]) -> str:
    """The vendor of an answer or an event by its shape; AUTO where that is not yet known."""
    for name, adapter in _ANSWER_MEMBERS.items():
        if name in event:
            return adapter
    kind = event.get("type")
    if type(kind) is str:
        adapter = _ANSWER_TYPES.get(kind) or _ANSWER_TYPES.get(kind[: kind.find(".") + 1], "")
        if adapter:
            return adapter
    usage = member(event, "usage")
    return next((adapter for name, adapter in _USAGE_MEMBERS.items() if name in usage), AUTO)
