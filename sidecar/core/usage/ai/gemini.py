"""Gemini's generateContent and streamGenerateContent.

The prompt includes cached tokens; thoughts and the prompts of tools are added to prompt and candidates. Each chunk of a
stream has running totals. A figure of 0 is omitted, as proto3 does, and derived from the total. Source: UsageMetadata
in ai.google.dev/api/generate-content.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sidecar.core.usage.ai.base import Vendor
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
    """Read a whole answer, or one chunk of a stream."""
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
    figures: dict[str, int] = {}
    for place in usage:
        if place in _FIGURES:
            number = whole(usage[place])
            if number is not None:
                figures[_FIGURES[place]] = number
        elif place in _LISTS:
            for part in members(usage, place):
                modality, number = part.get("modality"), whole(part.get("tokenCount"))
                if number is not None and type(modality) is str and modality in _MODALITIES:
                    name = f"{_LISTS[place]}_{_MODALITIES[modality]}"
                    figures[name] = figures.get(name, 0) + number
    return figures


def kinds(counts: Counts) -> dict[str, int]:
    """The figures as kinds that exclude each other; empty where the prompt is missing."""
    if "prompt" not in counts:
        return {}
    tools, thoughts = counts.get("tools", 0), counts.get("thoughts", 0)
    candidates = counts.get("candidates")
    if candidates is None:
        candidates = max(0, counts.get("total", 0) - counts["prompt"] - tools - thoughts)
    audio = ("audio_input", _beyond(counts, "prompt_audio", "cached_audio"))
    image = ("image_input", _beyond(counts, "prompt_image", "cached_image"))
    tokens = share(counts["prompt"], "input_uncached", (("cache_read", counts.get("cached")), audio, image))
    tokens["input_uncached"] += tools
    made = ("audio_output", counts.get("made_audio")), ("image_output", counts.get("made_image"))
    tokens |= share(candidates, "output", made)
    return tokens | ({"reasoning": thoughts} if "thoughts" in counts else {})


def _beyond(counts: Counts, name: str, cached: str) -> int | None:
    """The tokens of a modality that are not from the cache; None where the modality is missing."""
    return max(0, counts[name] - counts.get(cached, 0)) if name in counts else None


VENDOR: Final = Vendor(
    "gemini",
    read,
    kinds,
    endpoints=(":generateContent", ":streamGenerateContent", ":embedContent", ":batchEmbedContents"),
    streams=(":streamGenerateContent",),
    silent=(":embedContent", ":batchEmbedContents"),
    model_in_path=r"/([^/:]+):[A-Za-z]+$",
    request_members=("contents",),
    bounds=("max_output_tokens", "maxOutputTokens"),
    times=("candidateCount", "candidate_count"),
    settings=("generation_config", "generationConfig"),
    answer_members=("usageMetadata", "candidates"),
)
