"""The requests that a worker without Redis answers, checked: a wrong one changes nothing.

Any process that may open the socket may ask, so this is not against attackers. But a value of a wrong type would be in
the journal and the state, and each start would read it again. Workers have no pydantic in memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import orjson

from sidecar.core.limits import COUNT_MAX, KINDS, NEVER_US
from sidecar.core.limits.base import COUNT
from sidecar.core.price.decimals import AMOUNT_MAX

Json = dict[str, Any]
Check = Callable[[Any], bool]

LINE_BYTES: Final = 4 << 20
_TEXT_MAX: Final = 4_096
_CODES: Final = "|".join(sorted({kind.code for kind in KINDS.values() if kind.stored_as == COUNT}))
_COUNTER: Final = re.compile(rf"sc:\{{[!-~]+\}}:(?:{_CODES})=[!-~]+")  # names in it are escaped
_ID: Final = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}")


def _integer(low: int, high: int) -> Check:
    return lambda value: type(value) is int and low <= value <= high


def _matching(pattern: re.Pattern[str]) -> Check:
    return lambda value: type(value) is str and pattern.fullmatch(value) is not None


def _list(check: Check) -> Check:
    return lambda value: type(value) is list and all(map(check, value))


def _tuple(*checks: Check) -> Check:
    return lambda value: (
        type(value) is list
        and len(value) == len(checks)
        and all(check(each) for check, each in zip(checks, value, strict=True))
    )


def _text(value: Any) -> bool:
    return type(value) is str and 0 < len(value) <= _TEXT_MAX


def _any_text(value: Any) -> bool:
    return type(value) is str and len(value) <= _TEXT_MAX


def _units_by_limit(value: Any) -> bool:
    return type(value) is dict and all(_text(name) and _change(units) for name, units in value.items())


_whole: Final = _integer(-COUNT_MAX, COUNT_MAX)
_change: Final = _whole
_units: Final = _integer(0, COUNT_MAX)
_amount: Final = _integer(-AMOUNT_MAX, AMOUNT_MAX)
_time: Final = _integer(0, NEVER_US)  # µs since 1970; 0: never, or always
_moment: Final = _integer(1, NEVER_US)
_counter: Final = _matching(_COUNTER)
_grant: Final = _tuple(_text, _whole, _time, _time, _amount, _amount, _amount, _time, _time)
_wallet: Final = _tuple(_list(_grant), _amount, _integer(-(2**62), 2**62), _tuple(_time, _amount, _any_text))
_WHOSE: Final[dict[str, Check]] = {"customer": _text, "unit": _text}
_REQUESTS: Final[dict[str, dict[str, Check]]] = {
    "values": {"keys": _list(_counter)},
    "peek": {"checks": lambda value: type(value) is list},
    "set": {"sets": _list(_tuple(_counter, _units, _moment)), "exact": lambda value: type(value) is bool},
    "adjust": {
        "id": _matching(_ID),
        **dict.fromkeys(("key_id", "subject", "customer", "plan", "zone", "route"), _text),
        "anchor_us": _integer(-NEVER_US, NEVER_US),
        "at_us": _moment,
        "units": _units_by_limit,
    },
    "read": {**_WHOSE, "postings": _integer(0, NEVER_US)},
    "grant": {**_WHOSE, "grant": _grant},
    "void": {**_WHOSE, "grant": _text},
    "sweep": _WHOSE,
    "replace": {**_WHOSE, "last": _any_text, "wallet": _wallet},
}


def read_request(line: bytes) -> Json:
    """The request of a line of JSON. ValueError: the first fault, with its field."""
    request = orjson.loads(line)
    do = request.get("do") if type(request) is dict else None
    if type(do) is not str or do not in _REQUESTS:
        raise ValueError(f"do: is one of {', '.join(_REQUESTS)}")
    checks = _REQUESTS[do]
    if unknown := sorted(request.keys() - checks.keys() - {"do"}):
        raise ValueError(f"{do}.{unknown[0]}: is not known")
    for name, check in checks.items():
        if name not in request:
            raise ValueError(f"{do}.{name}: is missing")
        if not check(request[name]):
            raise ValueError(f"{do}.{name}: has a wrong value")
    return dict(request)
