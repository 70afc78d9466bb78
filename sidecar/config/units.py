"""Parse quantities with units to integers. A bare number is refused where a unit is needed.

"50ms" "10s" "5m" "1h" "1d"        durations, exactly convertible or refused
"8KiB" "64MiB" "1GB"               sizes: KiB is 1024 bytes, kB is 1000
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Final

DURATIONS_US: Final = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "min": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
}
SIZES_BYTES: Final = {
    "B": 1,
    "kB": 1_000,
    "MB": 1_000_000,
    "GB": 1_000_000_000,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
    "TiB": 1 << 40,
}

_DECIMAL: Final = ("kB", "MB", "GB", "min")  # read, and not written: KiB and m are

# Python names carry the unit; documents may leave it out and write it with the value: `timeout_ms` is `timeout: 50ms`.
SUFFIXES: Final[dict[str, tuple[dict[str, int], int, str]]] = {
    "_us": (DURATIONS_US, 1, "microseconds"),
    "_ms": (DURATIONS_US, 1_000, "milliseconds"),
    "_seconds": (DURATIONS_US, 1_000_000, "seconds"),
    "_bytes": (SIZES_BYTES, 1, "bytes"),
}

_PATTERN: Final = re.compile(r"([0-9][0-9_]*)(?:\.([0-9]+))?\s*([A-Za-z]+)")


class Unitless(str):
    """A bare number that was given where a unit is needed; a type of its own so that the fault can name it."""

    __slots__ = ()


@cache
def suffix_of(name: str) -> str | None:
    """The unit suffix of a field's name, longest first; None where the name has no unit."""
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)


def parse(text: str, suffix: str) -> int:
    """`text` in the unit of `suffix`. ValueError names a valid example."""
    table, unit, name = SUFFIXES[suffix]
    match = _PATTERN.fullmatch(text.strip())
    if match is None or match[3] not in table:
        raise ValueError(f"'{text}' is not a quantity with a unit: write {_example(table)}")
    whole, fraction, scale = match[1].replace("_", ""), match[2] or "", table[match[3]]
    amount, rest = divmod(int(whole + fraction) * scale, 10 ** len(fraction))
    value, remainder = divmod(amount, unit)
    if rest or remainder:
        raise ValueError(f"'{text}' is not a whole number of {name}")
    return int(value)


def text(value: int, suffix: str) -> str:
    """`value`, which is in the unit of `suffix`, in the largest unit that holds it whole: 75000 of `_ms` is 75s."""
    table, unit, _ = SUFFIXES[suffix]
    amount = value * unit
    scale, name = max((scale, name) for name, scale in table.items() if amount % scale == 0 and name not in _DECIMAL)
    return f"{amount // scale}{name}" if amount else "0"


def quantity(value: Any, suffix: str) -> Any:
    """A field's value before validation: texts with units become integers; integers are in the unit of the name."""
    table, _, name = SUFFIXES[suffix]
    if isinstance(value, Unitless):
        what = f"{value} of what? write {_example(table)}, or put the unit into the name: …{suffix}: {value}"
        raise ValueError(what)  # noqa: TRY004 - pydantic reports values, not types
    if isinstance(value, bool | float):
        raise ValueError(f"{value} is not a whole number of {name}: write {_example(table)}")  # noqa: TRY004 - as above
    if isinstance(value, str):
        return int(value) if value.isascii() and value.isdigit() else parse(value, suffix)
    return value


def _example(table: dict[str, int]) -> str:
    return "for example 50ms, 10s or 5m" if table is DURATIONS_US else "for example 8KiB or 64MiB"
