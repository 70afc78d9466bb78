"""The requests that a worker without Redis answers, checked: a wrong one changes nothing.

Any process that may open the socket may ask, so this is not against attackers. But a value of a wrong type would be in
the journal and the state, and each start would read it again.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from sidecar.core.limits import COUNT_MAX, KINDS, NEVER_US
from sidecar.core.limits.base import COUNT
from sidecar.core.price.decimals import AMOUNT_MAX

Json = dict[str, Any]

LINE_BYTES: Final = 4 << 20  # ten thousand counters have 1 MB
_CODES: Final = "|".join(sorted({kind.code for kind in KINDS.values() if kind.stored_as == COUNT}))
_COUNTER: Final = re.compile(rf"sc:\{{[!-~]+\}}:(?:{_CODES})=[!-~]+")

Text = Annotated[str, Field(min_length=1, max_length=4096)]
Time = Annotated[int, Field(ge=0, le=NEVER_US)]  # µs since 1970; 0: never, or always
Amount = Annotated[int, Field(ge=-AMOUNT_MAX, le=AMOUNT_MAX)]
Units = Annotated[int, Field(ge=0, le=COUNT_MAX)]
Grant = tuple[Text, int, Time, Time, Amount, Amount, Amount, Time, Time]


def _counter(key: str) -> str:
    if _COUNTER.fullmatch(key) is None:
        raise ValueError("is not the key of a counter")
    return key


Counter = Annotated[str, AfterValidator(_counter)]  # names in it are escaped: three characters for a byte


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Values(_Request):
    do: Literal["values"]
    keys: list[Counter]


class _Peek(_Request):
    do: Literal["peek"]
    checks: list[Any]


class _Set(_Request):
    do: Literal["set"]
    sets: list[tuple[Counter, Units, Annotated[Time, Field(gt=0)]]]
    exact: bool


class _Adjust(_Request):
    do: Literal["adjust"]
    id: Annotated[str, Field(pattern=r"^[0-9A-HJKMNP-TV-Z]{26}$")]
    key_id: Text
    subject: Text
    customer: Text
    plan: Text
    zone: Text
    anchor_us: Annotated[int, Field(ge=-NEVER_US, le=NEVER_US)]
    route: Text
    at_us: Annotated[Time, Field(gt=0)]
    units: dict[Text, Annotated[int, Field(ge=-COUNT_MAX, le=COUNT_MAX)]]


class _OfWallet(_Request):
    customer: Text
    unit: Text


class _Read(_OfWallet):
    do: Literal["read"]
    postings: Annotated[int, Field(ge=0)]


class _Grant(_OfWallet):
    do: Literal["grant"]
    grant: Grant


class _Void(_OfWallet):
    do: Literal["void"]
    grant: Text


class _ExpireGrants(_OfWallet):
    do: Literal["sweep"]


class _Replace(_OfWallet):
    do: Literal["replace"]
    last: str
    wallet: tuple[list[Grant], Amount, int, tuple[Time, Amount, str]]


_REQUESTS: Final[TypeAdapter[Any]] = TypeAdapter(
    Annotated[
        _Values | _Peek | _Set | _Adjust | _Read | _Grant | _Void | _ExpireGrants | _Replace, Field(discriminator="do")
    ]
)


def read_request(line: bytes) -> Json:
    """The request of a line of JSON. ValueError: the first fault, with its field."""
    try:
        request: Json = _REQUESTS.validate_json(line).model_dump()
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise ValueError(f"{where + ': ' if where else ''}{fault['msg']}") from None
    return request
