"""The types of values in policy documents: whole numbers, names, lists, decimal amounts as text.

Nothing is rounded or guessed: a value that is ambiguous, or would lose a digit, is refused with a valid example.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from sidecar.config import units
from sidecar.config.patterns import (
    CUSTOMER,
    DECIMAL,
    GLOB,
    LINK,
    POINTER,
    ROUTE_HOST,
    UNIT,
    HeaderName,
    HeaderValue,
    Method,
    Name,
)
from sidecar.core.usage import MAX_UNITS


def whole(value: Any) -> Any:
    """Scaled integers only: a fraction that was rounded is a bill that drifts from its limit."""
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError(f"{value} is not a whole number; for fractions count in tenths: 15 for 1.5, and limits alike")
    return value


def _as_text(value: Any) -> Any:
    return str(value) if type(value) is int else value


def _spelled_out(value: Any) -> Any:
    if isinstance(value, int | float):
        raise ValueError(f"{value} per what? write for example {value}/s, or {value}/month for a quota")  # noqa: TRY004 - pydantic reports values, not types
    return value


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str | int | float) else value


def _exact(value: Any) -> Any:
    """YAML reads 0.1 as a binary fraction that is not a tenth: an amount with a point is text."""
    if isinstance(value, float):
        plain = f"{Decimal(repr(value)):f}"
        raise ValueError(f'{plain} has been rounded by YAML already: write "{plain}" in quotes')  # noqa: TRY004 - pydantic reports values, not types
    return _as_text(value)


def _sized(value: Any) -> Any:
    """A number of bytes may be written as a size."""
    return units.parse(value, "_bytes") if isinstance(value, str) else whole(value)


def _scalar(value: Any) -> Any:
    """A value of a JSON body, as its text there."""
    return str(value).lower() if isinstance(value, bool) else _exact(value)


Units = Annotated[int, Field(ge=0, le=MAX_UNITS), BeforeValidator(whole)]
Amount = Annotated[int, Field(ge=1, le=MAX_UNITS), BeforeValidator(whole)]
AmountPerPeriod = Annotated[str, BeforeValidator(_spelled_out)]
Quantity = Annotated[int, Field(ge=1, le=MAX_UNITS), BeforeValidator(_sized, json_schema_input_type=int | str)]
Percent = Annotated[int, Field(ge=1, le=100), BeforeValidator(whole)]
Decimals = Annotated[str, StringConstraints(pattern=DECIMAL), BeforeValidator(_exact, json_schema_input_type=str | int)]
Version = Annotated[Name, BeforeValidator(_as_text, json_schema_input_type=Name | int)]
Status = str | int
Unit = Annotated[str, StringConstraints(pattern=UNIT)]
Link = Annotated[str, StringConstraints(pattern=LINK)]
Customer = Annotated[str, StringConstraints(pattern=CUSTOMER)]
Pointer = Annotated[str, StringConstraints(pattern=POINTER)]
RouteHost = Annotated[str, StringConstraints(pattern=ROUTE_HOST)]
Glob = Annotated[str, StringConstraints(pattern=GLOB)]
Scalar = Annotated[
    str, StringConstraints(max_length=256), BeforeValidator(_scalar, json_schema_input_type=str | int | bool)
]
Side = Literal["request", "response"]
Calendar = Literal["hour", "day", "week", "month", "year"]


def _or_one(kind: Any) -> BeforeValidator:
    """One may be written for a list of one."""
    return BeforeValidator(_listed, json_schema_input_type=kind | tuple[kind, ...])


_NOT_EMPTY: Final = Field(min_length=1)
Names = Annotated[tuple[Name, ...], _NOT_EMPTY, _or_one(Name)]
Methods = Annotated[tuple[Method, ...], _NOT_EMPTY, _or_one(Method)]
HeaderNames = Annotated[tuple[HeaderName, ...], _NOT_EMPTY, _or_one(HeaderName)]
Origins = Annotated[tuple[str, ...], _NOT_EMPTY, _or_one(str)]
HeaderValues = Annotated[tuple[HeaderValue, ...], _NOT_EMPTY, _or_one(HeaderValue)]
Statuses = Annotated[tuple[Status, ...], _NOT_EMPTY, _or_one(Status)]
Globs = Annotated[tuple[Glob, ...], _NOT_EMPTY, _or_one(Glob)]
Scalars = Annotated[tuple[Scalar, ...], _NOT_EMPTY, _or_one(Scalar)]
Customers = Annotated[tuple[Customer, ...], _NOT_EMPTY, _or_one(Customer)]
Percents = Annotated[tuple[Percent, ...], Field(min_length=1, max_length=8), _or_one(Percent)]


def header_values(headers: Mapping[str, Iterable[str]]) -> tuple[tuple[bytes, frozenset[bytes]], ...]:
    """Header conditions as the core compares them: names in lower case, no value for any of them."""
    return tuple(
        (name.lower().encode(), frozenset() if "*" in values else frozenset(value.encode() for value in values))
        for name, values in headers.items()
    )
