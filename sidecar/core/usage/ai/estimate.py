"""Estimates for missing figures: before the answer, and where an answer does not report them.

Four bytes of text are a token, rounded up. An estimate never replaces a figure of the vendor, not even a 0. A figure
from before the end of the answer can be too small, and is raised to the text seen since.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sidecar.core.usage.ai.kinds import OUTPUT, with_sums
from sidecar.core.usage.ai.request import AiRequest

BYTES_PER_TOKEN: Final = 4

NOTHING: Final[Mapping[str, int]] = {"input_uncached": 0, "output": 0}
"""The usage of a refused request: vendors do not bill it."""


def tokens(size: int) -> int:
    """The estimated tokens of `size` bytes of text."""
    return -(-size // BYTES_PER_TOKEN)


def estimates(request: AiRequest, *, default_output: int, ceiling: int) -> dict[str, int]:
    """The tokens to reserve, by kind, with both sums.

    The output is the bound of the request, else `default_output`, and at most `ceiling`.
    """
    output = default_output if request.max_output is None else request.max_output
    return with_sums({"input_uncached": tokens(request.input_bytes), "output": min(output, ceiling)})


def completed(
    kinds: Mapping[str, int], request: AiRequest, *, text_bytes: int, final: bool
) -> tuple[dict[str, int], str]:
    """The kinds with missing ones estimated, with both sums, and their quality.

    `text_bytes`: bytes of the model's text, as far as seen. `final`: the kinds are those of the whole answer.
    """
    filled = dict(kinds)
    if "input_uncached" not in kinds:
        filled["input_uncached"] = tokens(request.input_bytes)
    reported = sum([units for kind, units in kinds.items() if kind in OUTPUT])
    guess = tokens(text_bytes) if request.max_output is None else min(tokens(text_bytes), request.max_output)
    if "output" not in kinds or (guess > reported and not final):
        filled["output"] = kinds.get("output", 0) + max(0, guess - reported)
    if filled != kinds:
        return with_sums(filled), "estimated"
    return with_sums(filled), "provider_reported" if final else "partial"
