"""OpenAI's answers: chat and legacy completions, responses, embeddings, and other answers with a `usage` of that shape.

Its totals include their parts: the prompt includes cached and audio tokens, the completion includes reasoning. A stream
of completions reports its usage only on request (`stream_options.include_usage`), in a last chunk without choices.
Source: the types of OpenAI's own clients, and platform.openai.com/docs/api-reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sidecar.core.usage.ai.base import Vendor
from sidecar.core.usage.ai.kinds import Counts, share, whole
from sidecar.core.usage.ai.seen import Path, Seen, at, member, members

_IN: Final = ("prompt_tokens_details", "input_tokens_details", "input_token_details")
_OUT: Final = ("completion_tokens_details", "output_tokens_details", "output_token_details")


def _within(details: tuple[str, ...], *names: str) -> tuple[Path, ...]:
    return tuple((outer, *names) for outer in details)


# The figure's name here and its places in the APIs; the first place with a number counts. Compatible servers have their
# own names for the cache: `prompt_cache_hit_tokens` is DeepSeek's, a bare `cached_tokens` Moonshot's.
_PLACES: Final[dict[str, tuple[Path, ...]]] = {
    "prompt": (("prompt_tokens",), ("input_tokens",)),
    "completion": (("completion_tokens",), ("output_tokens",)),
    "total": (("total_tokens",),),
    "cached": (*_within(_IN, "cached_tokens"), ("prompt_cache_hit_tokens",), ("cached_tokens",)),
    "written": _within(_IN, "cache_write_tokens"),
    "written_long": _within(_IN, "cache_write_tokens_details", "ttl_12h_tokens"),
    "audio_in": _within(_IN, "audio_tokens"),
    "image_in": _within(_IN, "image_tokens"),
    "reasoning": _within(_OUT, "reasoning_tokens"),
    "audio_out": _within(_OUT, "audio_tokens"),
    "image_out": _within(_OUT, "image_tokens"),
}

# The members of a choice with text; "text" is of legacy completions, the reasonings are compatible servers'.
_TEXTS: Final = frozenset({"content", "refusal", "text", "reasoning_content", "reasoning"})
_NESTED: Final[dict[str, Path]] = {"tool_calls": ("function", "arguments"), "audio": ("transcript",)}
_ENDINGS: Final = {"completed": "", "incomplete": "incomplete", "failed": "error", "cancelled": "error"}


def read(event: Mapping[str, Any], seen: Seen) -> None:
    """Read a whole answer, or one event of a stream."""
    choices = event.get("choices")
    if choices:
        _read_choices(event, seen)
    elif "type" in event and event["type"] != "response.audio.delta":
        seen.say(event.get("delta"))
    if "response" in event:
        return _read_response(member(event, "response"), seen)
    if event.get("object") == "response":
        return _read_response(event, seen)
    usage = event.get("usage")
    if usage is not None or not seen.model:
        seen.name(event.get("model"), event.get("service_tier"))
    if type(usage) is dict:
        seen.finished = seen.finished or not choices
        seen.add(counts(usage))
    return None


def _read_choices(event: Mapping[str, Any], seen: Seen) -> None:
    for choice in members(event, "choices"):
        message = member(choice, "delta") or member(choice, "message") or choice
        for name in message:
            if name in _TEXTS:
                seen.say(message[name])
            elif name in _NESTED:
                for part in members(message, name) or (member(message, name),):
                    seen.say(at(part, _NESTED[name]))
        if choice.get("finish_reason"):
            seen.finished = True


def _read_response(response: Mapping[str, Any], seen: Seen) -> None:
    """An object of the Responses API, whole or as in events at the begin and at the end."""
    seen.name(response.get("model"), response.get("service_tier"))
    status = response.get("status")
    if type(status) is str and status in _ENDINGS:
        seen.finished = True
        seen.ending = _ENDINGS[status]
    usage = response.get("usage")
    if type(usage) is dict:
        seen.add(counts(usage))


def counts(usage: Mapping[str, Any]) -> dict[str, int]:
    """The figures of a usage object."""
    figures: dict[str, int] = {}
    for name, places in _PLACES.items():
        for place in places:
            figure = whole(at(usage, place))
            if figure is not None:
                figures[name] = figure
                break
    return figures


def kinds(counts: Counts) -> dict[str, int]:
    """The figures as kinds that exclude each other; a side without a figure has none."""
    prompt, completion, total = counts.get("prompt"), counts.get("completion"), counts.get("total")
    if prompt is not None and total is not None:  # embeddings give no completion; xAI adds the reasoning on top of it
        completion = max(completion or 0, total - prompt)
    written, long = counts.get("written"), counts.get("written_long")
    if written is not None and long is not None:
        written = max(0, written - long)
    tokens: dict[str, int] = {}
    if prompt is not None:
        parts = ("cache_read", counts.get("cached")), ("cache_write", written), ("cache_write_long", long)
        media = ("audio_input", counts.get("audio_in")), ("image_input", counts.get("image_in"))
        tokens |= share(prompt, "input_uncached", parts + media)
    if completion is not None:
        made = ("audio_output", counts.get("audio_out")), ("image_output", counts.get("image_out"))
        tokens |= share(completion, "output", (("reasoning", counts.get("reasoning")), *made))
    return tokens


VENDOR: Final = Vendor(
    "openai",
    read,
    kinds,
    endpoints=("/completions", "/responses", "/embeddings"),
    silent=("/embeddings",),
    model_in_path=r"/deployments/([^/]+)/",  # Azure's
    request_members=("input", "max_completion_tokens", "prompt", "response_format", "stream_options"),
    bounds=("max_tokens", "max_completion_tokens", "max_output_tokens"),
    times=("n", "best_of"),
    answer_members=("choices", "object"),
    answer_types=("response.",),
    usage_members=("prompt_tokens", "total_tokens"),
)
