"""Amounts as people write them, and as the product counts them: decimal text and integer nano-units.

1 unit is 10^9 nano-units: "12.5" is 12,500,000,000. Neither direction loses a digit or adds one.
"""

from __future__ import annotations

import re

from sidecar.core.price.rating import NANOS_MAX

DIGITS = 9
NANO = 10**DIGITS
_DECIMAL = re.compile(r"([0-9]{1,16})(?:\.([0-9]+))?")


def nanos_of(text: str) -> int:
    """A decimal amount, zero or more, in nano-units. ValueError: it is not one, is too fine, or above `NANOS_MAX`."""
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise ValueError(f"'{text}' is not an amount: write digits, and a point where needed, as in 50 or 12.50")
    fraction = (match[2] or "").rstrip("0")
    if len(fraction) > DIGITS:
        raise ValueError(f"'{text}' is finer than a nano-unit: write at most {DIGITS} digits after the point")
    nanos = int(match[1] + fraction.ljust(DIGITS, "0"))
    if nanos > NANOS_MAX:
        raise ValueError(f"'{text}' is out of range: write at most {decimal_of(NANOS_MAX)}, which every store counts")
    return nanos


def decimal_of(nanos: int, places: int = 0) -> str:
    """Nano-units as a decimal with at least `places` digits after the point: 2500000000 is 2.5, or 2.50 with 2."""
    whole, rest = divmod(abs(nanos), NANO)
    digits = f"{rest:0{DIGITS}}"
    fraction = digits[:places] + digits[places:].rstrip("0")
    return f"{'-' * (nanos < 0)}{whole}{'.' * bool(fraction)}{fraction}"
