"""Gemini's generateContent and streamGenerateContent.

The prompt contains what was cached; thoughts and the prompts of tools come on top of prompt and candidates.
Each chunk of a stream carries running totals. A figure of 0 is left out of the answer, as proto3 does; what a total
tells is read from it. Source: UsageMetadata in ai.google.dev/api/generate-content.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sidecar.core.usage.ai.kinds import Counts, share, whole
from sidecar.core.usage.ai.seen import Seen, member, members

_FIGURES: Final = {
    "promptTokenCount": "prompt",
    "cachedContentTokenCount": "cached",
    "toolUsePromptTokenCount": "tools",
    "candidatesTokenCount": "candidates",
    "thoughtsTokenCount": "thoughts",
    "totalTokenCount": "total",
}

# Lists of {modality, tokenCount}, and the modalities that are kinds of their own.
_LISTS: Final = {"promptTokensDetails": "prompt", "cacheTokensDetails": "cached", "candidatesTokensDetails": "made"}
_MODALITIES: Final = {"AUDIO": "audio", "IMAGE": "image", "VIDEO": "image"}


def read(event: Mapping[str, Any], seen: Seen) -> None:
    """Take what a whole answer, or one chunk of a stream, says."""
    for candidate in members(event, "candidates"):
        for part in members(member(candidate, "content"), "parts"):
            seen.say(part.get("text"))
        if candidate.get("finishReason"):
            seen.finished = True
    if member(event, "promptFeedback").get("blockReason"):
        seen.finished = True
    usage = member(event, "usageMetadata")
    seen.name(event.get("modelVersion"), usage.get("serviceTier") or usage.get("trafficType"))
    seen.add(counts(usage))


def counts(usage: Mapping[str, Any]) -> dict[str, int]:
    """The figures of a usageMetadata object; those of a modality under names such as prompt_audio."""
    found: dict[str, int] = {}
    for place in usage:
        if place in _FIGURES:
            number = whole(usage[place])
            if number is not None:
                found[_FIGURES[place]] = number
        elif place in _LISTS:
            for part in members(usage, place):
                modality, number = part.get("modality"), whole(part.get("tokenCount"))
                if number is not None and type(modality) is str and modality in _MODALITIES:
                    name = f"{_LISTS[place]}_{_MODALITIES[modality]}"
                    found[name] = found.get(name, 0) + number
    return found


def kinds(counts: Counts) -> dict[str, int]:
    """The figures as kinds that exclude each other; none where not even the prompt was told."""
    if "prompt" not in counts:
        return {}
    tools, thoughts = counts.get("tools", 0), counts.get("thoughts", 0)
    candidates = counts.get("candidates")
    if candidates is None:
        candidates = max(0, counts.get("total", 0) - counts["prompt"] - tools - thoughts)
    heard = ("audio_input", _beyond(counts, "prompt_audio", "cached_audio"))
    shown = ("image_input", _beyond(counts, "prompt_image", "cached_image"))
    found = share(counts["prompt"], "input_uncached", (("cache_read", counts.get("cached")), heard, shown))
    found["input_uncached"] += tools
    made = ("audio_output", counts.get("made_audio")), ("image_output", counts.get("made_image"))
    found |= share(candidates, "output", made)
    return found | ({"reasoning": thoughts} if "thoughts" in counts else {})


def _beyond(counts: Counts, name: str, cached: str) -> int | None:
    """What of a modality did not come from the cache; None where the modality was not told of."""
    return max(0, counts[name] - counts.get(cached, 0)) if name in counts else None
