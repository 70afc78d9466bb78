"""Anthropic's messages. The input excludes its cache, both the tokens read from it and those written to it.

A stream reports the input at its start and running totals of all figures in `message_delta`, so a later figure replaces
an earlier one; thinking is part of the output. Source: the types of Anthropic's own clients, and
docs.anthropic.com/en/api/messages-streaming.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sidecar.core.usage.ai.base import Vendor
from sidecar.core.usage.ai.kinds import Counts, share, whole
from sidecar.core.usage.ai.seen import Path, Seen, at, member, members

_TEXTS: Final = ("text", "thinking", "partial_json")
_PLACES: Final[dict[str, Path]] = {
    "input": ("input_tokens",),
    "read": ("cache_read_input_tokens",),
    "written": ("cache_creation_input_tokens",),
    "written_long": ("cache_creation", "ephemeral_1h_input_tokens"),
    "output": ("output_tokens",),
    "thinking": ("output_tokens_details", "thinking_tokens"),
}


def read(event: Mapping[str, Any], seen: Seen) -> None:
    """Read a whole message, or one event of a stream."""
    delta = member(event, "delta")
    _count_text(delta, seen)
    if event.get("type") == "content_block_delta":
        return
    if event.get("stop_reason") or delta.get("stop_reason") or event.get("type") == "message_stop":
        seen.finished = True
    message = member(event, "message") or event
    for block in members(message, "content"):
        _count_text(block, seen)
    usage = member(event, "usage") or member(message, "usage")
    seen.name(message.get("model"), usage.get("service_tier"))
    seen.add(counts(usage))


def _count_text(block: Mapping[str, Any], seen: Seen) -> None:
    for name in _TEXTS:
        if name in block:
            seen.say(block[name])


def counts(usage: Mapping[str, Any]) -> dict[str, int]:
    """The figures of a usage object."""
    return {name: number for name, place in _PLACES.items() if (number := whole(at(usage, place))) is not None}


def kinds(counts: Counts) -> dict[str, int]:
    """The figures as kinds that exclude each other; a side without a figure has none."""
    tokens: dict[str, int] = {}
    if "input" in counts:
        tokens["input_uncached"] = counts["input"]
        if "read" in counts:
            tokens["cache_read"] = counts["read"]
        if "written" in counts:
            tokens |= share(counts["written"], "cache_write", [("cache_write_long", counts.get("written_long"))])
    if "output" in counts:
        tokens |= share(counts["output"], "output", [("reasoning", counts.get("thinking"))])
    return tokens


VENDOR: Final = Vendor(
    "anthropic",
    read,
    kinds,
    endpoints=("/v1/messages", ":rawPredict", ":streamRawPredict"),
    streams=(":streamRawPredict",),
    request_members=("anthropic_version", "stop_sequences", "system", "thinking"),
    bounds=("max_tokens",),
    answer_types=(
        "message", "message_start", "message_delta", "message_stop", "content_block_start", "content_block_delta",
        "content_block_stop", "ping",
    ),
    usage_members=("input_tokens",),  # OpenAI's responses have these as well, beside a total
)  # fmt: skip
