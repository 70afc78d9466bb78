"""Whole numbers as digits in ASCII, from tables: decimal three digits at a time, and Crockford's base 32.

The bytes are those of `%d`; a figure of a record or of a header costs a third of what that takes.
"""

from __future__ import annotations

from typing import Final

_PLAIN: Final = [b"%d" % n for n in range(1000)]
_THREE: Final = [b"%03d" % n for n in range(1000)]
BASE32: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
BASE32_PAIRS: Final = [(high + low).encode() for high in BASE32 for low in BASE32]


def decimal(n: int) -> bytes:
    """`n` as `%d` writes it."""
    if 0 <= n < 1000:
        return _PLAIN[n]
    if 1000 <= n < 1_000_000:
        return _PLAIN[n // 1000] + _THREE[n % 1000]
    if 1_000_000 <= n < 1_000_000_000:
        return _PLAIN[n // 1_000_000] + _THREE[n // 1000 % 1000] + _THREE[n % 1000]
    return b"%d" % n


def six(n: int) -> bytes:
    """`n` as `%06d` writes it; 0 <= n < 1,000,000."""
    return _THREE[n // 1000] + _THREE[n % 1000]


def eighteen(n: int) -> bytes:
    """`n` as `%018d` writes it; n >= 0."""
    if n < 1_000_000_000:
        return b"000000000" + _THREE[n // 1_000_000] + _THREE[n // 1000 % 1000] + _THREE[n % 1000]
    return b"%018d" % n
