"""What stands in for figures that are not there: before the answer, and where an answer does not tell them.

Four bytes of text are a token, rounded up. A figure that the vendor gave is never replaced by an estimate, least of all
a 0; one that was given before the end can be too small, and is raised to what was seen since.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sidecar.core.usage.ai.asked import Asked
from sidecar.core.usage.ai.kinds import OUTPUT, with_sums

BYTES_PER_TOKEN: Final = 4

NOTHING: Final[Mapping[str, int]] = {"input_uncached": 0, "output": 0}
"""What a request used that was refused: vendors bill none of it."""


def tokens(size: int) -> int:
    """About how many tokens `size` bytes of text are."""
    return -(-size // BYTES_PER_TOKEN)


def estimates(asked: Asked, *, default_output: int, ceiling: int) -> dict[str, int]:
    """What to reserve, in tokens by kind, with both sums.

    The output is what the request allows, else `default_output`, and at most `ceiling`.
    """
    output = default_output if asked.max_output is None else asked.max_output
    return with_sums({"input_uncached": tokens(asked.input_bytes), "output": min(output, ceiling)})


def completed(kinds: Mapping[str, int], asked: Asked, *, said: int, final: bool) -> tuple[dict[str, int], str]:
    """The kinds with what is missing of them, with both sums, and their quality.

    `said`: bytes that the model said, as far as they were seen. `final`: the kinds are of the whole answer.
    """
    filled = dict(kinds)
    if "input_uncached" not in kinds:
        filled["input_uncached"] = tokens(asked.input_bytes)
    told = sum(kinds.get(kind, 0) for kind in OUTPUT)
    guess = tokens(said) if asked.max_output is None else min(tokens(said), asked.max_output)
    if "output" not in kinds or (guess > told and not final):
        filled["output"] = kinds.get("output", 0) + max(0, guess - told)
    if filled != kinds:
        return with_sums(filled), "estimated"
    return with_sums(filled), "provider_reported" if final else "partial"
