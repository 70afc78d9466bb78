"""Amounts as people write them and as the product counts them: decimal text, and integers in a unit's scale.

The scale of a unit is its number of `digits` after the point, 0 to 9. An amount is a whole number of 10^-digits of the
unit: "12.5" is 12,500,000,000 with 9 digits, 1,250 with 2, and refused with 0. No conversion rounds.
"""

from __future__ import annotations

import re
from typing import Final

DIGITS: Final = 9  # of a unit that no policy gives a scale; and the most that a unit has
AMOUNT_MAX: Final = 2**51  # a charge, a grant, a debt: sums of three stay exact in a Lua double
_DECIMAL: Final = re.compile(r"([0-9]{1,16})(?:\.([0-9]+))?")


def amount_of(text: str, digits: int) -> int:
    """A decimal, zero or more, as an amount. ValueError: it is not one, is too fine, or is above `AMOUNT_MAX`."""
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise ValueError(f"'{text}' is not an amount: write digits, and a point where needed, as in 50 or 12.50")
    fraction = (match[2] or "").rstrip("0")
    if len(fraction) > digits:
        what = f"at most {digits} digit{'s' * (digits != 1)}" if digits else "no digits"
        raise ValueError(f"'{text}' is finer than its unit counts: write {what} after the point")
    amount = int(match[1] + fraction.ljust(digits, "0"))
    if amount > AMOUNT_MAX:
        fewer = ", or give its unit fewer digits, under units in a policy" if digits else ""
        raise ValueError(f"'{text}' is out of range: write at most {decimal_of(AMOUNT_MAX, digits)}{fewer}")
    return amount


def decimal_of(amount: int, digits: int, places: int = 0) -> str:
    """An amount as a decimal with at least `places` of its digits: 250 is 2.5 with 2 digits, or 2.50 with 2 places."""
    whole, rest = divmod(abs(amount), 10**digits)
    fraction = str(rest).zfill(digits) if digits else ""
    fraction = fraction[:places] + fraction[places:].rstrip("0")
    return f"{'-' * (amount < 0)}{whole}{'.' * bool(fraction)}{fraction}"
