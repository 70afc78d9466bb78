"""The kinds of tokens. They exclude each other: no token is in two kinds, and the kinds of a side add up to its sum.

Vendors disagree on what contains what, so each vendor's module divides its own totals with `share`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

INPUT: Final = ("input_uncached", "cache_read", "cache_write", "cache_write_long", "audio_input", "image_input")
OUTPUT: Final = ("output", "reasoning", "audio_output", "image_output")

KINDS: Final = INPUT + OUTPUT
"""Every kind, in tokens. `cache_write_long` are cached for an hour or longer, `image_input` are pictures and video;
`input_uncached` and `output` are the rest of their side."""

SUMS: Final[dict[str, tuple[str, ...]]] = {"input": INPUT, "output_total": OUTPUT}
"""The two sums that are reported beside the kinds, and the kinds of each."""

_SUM_OF: Final = {kind: name for name, side in SUMS.items() for kind in side}

MOST: Final = 2**48 - 1  # tokens; a larger figure is a fault, and sums of ours stay exact in Redis and JSON

Counts = Mapping[str, int]  # a vendor's own figures, by the names of its module


def whole(value: Any) -> int | None:
    """A vendor's figure; None where it is not a whole number between 0 and MOST. 0 is a figure."""
    return value if type(value) is int and 0 <= value <= MOST else None


def share(total: int, rest: str, parts: Iterable[tuple[str, int | None]]) -> dict[str, int]:
    """Divide `total` into its parts, in their order, and a `rest`. A missing part (None) has no kind.

    Parts that exceed the total, together, are cut: the vendor bills the total.
    """
    kinds: dict[str, int] = {}
    for kind, part in parts:
        if part is not None:
            kinds[kind] = min(part, total)
            total -= kinds[kind]
    return {rest: total, **kinds}


def with_sums(kinds: Mapping[str, int]) -> dict[str, int]:
    """The kinds and both sums."""
    sums = dict.fromkeys(SUMS, 0)
    for kind, units in kinds.items():
        sums[_SUM_OF[kind]] += units
    return {**kinds, **sums}
