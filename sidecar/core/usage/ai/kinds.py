"""The kinds of tokens. They exclude each other: no token is in two kinds, and the kinds of a side add up to its sum.

Vendors disagree on what contains what, so each vendor's module divides its own totals with `share`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

INPUT: Final = ("input_uncached", "cache_read", "cache_write", "cache_write_long", "audio_input", "image_input")
OUTPUT: Final = ("output", "reasoning", "audio_output", "image_output")

KINDS: Final = INPUT + OUTPUT
"""Every kind, in tokens. `cache_write_long` is what a cache keeps for an hour or longer, `image_input` pictures and
video; `input_uncached` and `output` are what no other kind of their side names."""

SUMS: Final[dict[str, tuple[str, ...]]] = {"input": INPUT, "output_total": OUTPUT}
"""The two sums that are given beside the kinds, and what each adds up."""

MOST: Final = 2**48 - 1  # tokens; a larger figure is a fault, and sums of ours stay exact in Redis and JSON

Counts = Mapping[str, int]  # a vendor's own figures, under the names that its module gives them


def whole(value: Any) -> int | None:
    """A vendor's figure; None where it is not a whole number between 0 and MOST. 0 is a figure."""
    return value if type(value) is int and 0 <= value <= MOST else None


def share(total: int, rest: str, parts: Iterable[tuple[str, int | None]]) -> dict[str, int]:
    """Divide `total` into its parts, in their order, and a `rest`. A part that was not told of (None) has no kind.

    Parts that are more than the total, together, are cut: the sum is what the vendor bills.
    """
    kinds: dict[str, int] = {}
    for kind, part in parts:
        if part is not None:
            kinds[kind] = min(part, total)
            total -= kinds[kind]
    return {rest: total, **kinds}


def with_sums(kinds: Mapping[str, int]) -> dict[str, int]:
    """The kinds and both sums."""
    return {**kinds, **{name: sum(kinds.get(kind, 0) for kind in side) for name, side in SUMS.items()}}
