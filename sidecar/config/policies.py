"""A policy document as people write it: shapes and words, no meaning yet (`compile` gives it one).

What a later stage brings is known by name and refused, never ignored: a limit that silently does nothing is the worst.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from sidecar.config.document import did_you_mean
from sidecar.config.models import Model
from sidecar.config.patterns import HeaderName, HeaderValue, Method, Name

MAX_UNITS: Final = 2**53 - 1


def _whole(value: Any) -> Any:
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
    return [value] if isinstance(value, str | int) else value


def _credential(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value not in _SCHEMES:
        raise ValueError(f"'{value}' is no place for a key; {did_you_mean(value, _SCHEMES)}, or {{header: X-Api-Key}}")
    return {value: True}


def _table_or_text(value: Any) -> str:
    return "<table>" if isinstance(value, dict | LookupDoc) else "<text>"


_SCHEMES: Final = ("bearer", "basic")
Units = Annotated[int, Field(ge=0, le=MAX_UNITS), BeforeValidator(_whole)]
Amount = Annotated[int, Field(ge=1, le=MAX_UNITS), BeforeValidator(_whole)]
AmountPerPeriod = Annotated[str, BeforeValidator(_spelled_out)]
Status = str | int

# One may be written for a list of one.
Names = Annotated[
    tuple[Name, ...], Field(min_length=1), BeforeValidator(_listed, json_schema_input_type=Name | tuple[Name, ...])
]
Methods = Annotated[
    tuple[Method, ...],
    Field(min_length=1),
    BeforeValidator(_listed, json_schema_input_type=Method | tuple[Method, ...]),
]
HeaderValues = Annotated[
    tuple[HeaderValue, ...],
    Field(min_length=1),
    BeforeValidator(_listed, json_schema_input_type=HeaderValue | tuple[HeaderValue, ...]),
]
Statuses = Annotated[
    tuple[Status, ...],
    Field(min_length=1),
    BeforeValidator(_listed, json_schema_input_type=Status | tuple[Status, ...]),
]

_ADAPTERS: Final = "usage read from AI answers (`usage:`) comes with a later version"
_BODIES: Final = "conditions on the body come with a later version"
_MONEY: Final = "prices, balances and wallets come with a later version"


class WhenDoc(Model):
    """Conditions that must all hold. `header` is of the request: name to value or values, `"*"` for any."""

    elsewhere: ClassVar = {"json_rpc_method": _BODIES, "json": _BODIES, "body": _BODIES}

    status: Statuses | None = None
    route: Names | None = None
    method: Methods | None = None
    header: Annotated[dict[HeaderName, HeaderValues], Field(min_length=1)] | None = None


class LookupDoc(Model):
    """Units from a table, by `method`, `route`, `region` or a request header (`header.X-Tier`)."""

    lookup: str
    table: Annotated[dict[str, Units], Field(min_length=1)]
    default: Units | None = None


class MeterDoc(Model):
    """`count: 1`, or a `value`: a name such as `response.bytes`, or a table."""

    elsewhere: ClassVar = {"usage": _ADAPTERS, "json": _BODIES}

    count: Amount | None = None
    value: (
        Annotated[Annotated[str, Tag("<text>")] | Annotated[LookupDoc, Tag("<table>")], Discriminator(_table_or_text)]
        | None
    ) = None
    when: WhenDoc = WhenDoc()


class CredentialDoc(Model):
    """Where a key is looked for: `bearer`, `basic`, `{header: X-Api-Key}` or `{query: api_key}`."""

    header: HeaderName | None = None
    query: Name | None = None
    bearer: bool = False
    basic: bool = False


class MatchDoc(Model):
    """`path` is a glob: `*` one segment, `**` any number. No `methods`: all of them."""

    path: str
    methods: Methods | None = None


class TimeoutsDoc(Model):
    """A route's own; what is left out is the upstream's. `total` 0 is no bound."""

    connect_ms: Amount | None = None
    first_byte_ms: Amount | None = None
    between_bytes_ms: Amount | None = None
    total_ms: Units | None = None


class RouteDoc(Model):
    """Which requests go where, and how their caller is known."""

    elsewhere: ClassVar = {"usage": _ADAPTERS}

    id: Name
    match: MatchDoc
    upstream: Name = "default"
    credentials: Annotated[
        tuple[Annotated[CredentialDoc, BeforeValidator(_credential, json_schema_input_type=str | CredentialDoc)], ...],
        Field(min_length=1),
    ] = (CredentialDoc(header="X-Api-Key"), CredentialDoc(bearer=True))
    keep_credential: bool = False
    unattributed: Literal["deny", "allow"] = "deny"
    identity_headers: bool = False
    feature: Name | None = None
    timeouts: TimeoutsDoc = TimeoutsDoc()
    max_body_bytes: Units = 0


class LimitDoc(Model):
    """One of `rate`, `quota`, `window` and `concurrency`, and for whom. The counter is found by `id` alone."""

    elsewhere: ClassVar = {"balance": _MONEY}

    id: Name
    rate: AmountPerPeriod | None = None
    burst: Amount | None = None
    quota: AmountPerPeriod | None = None
    anchor: Literal["subscription"] | None = None
    zone: str | None = None
    window: AmountPerPeriod | None = None
    fixed: bool | None = None
    concurrency: Amount | None = None
    expiry_us: Amount | None = None
    meter: Name | None = None
    reserve: Amount | None = None
    scope: Literal["key", "subject", "customer"] | None = None
    routes: Names | None = None
    over: Literal["deny", "allow"] = "deny"
    stage: Literal["enforce", "shadow"] = "enforce"
    on_store_failure: Literal["allow", "deny"] = "allow"


class PlanDoc(Model):
    """A named bundle of limits and features. `version` is what records say after the @; without it, a short hash."""

    elsewhere: ClassVar = {"prices": _MONEY, "price": _MONEY, "balance": _MONEY, "wallet": _MONEY, "currency": _MONEY}

    version: Annotated[Name, BeforeValidator(_as_text, json_schema_input_type=Name | int)] | None = None
    limits: tuple[LimitDoc, ...] = ()
    features: tuple[Name, ...] = ()


class PolicyDoc(Model):
    """One file. The files of a directory are merged; a name is defined once among them."""

    elsewhere: ClassVar = {"prices": _MONEY, "wallets": _MONEY, "balances": _MONEY, "grants": _MONEY}

    meters: dict[Name, MeterDoc] = Field(default_factory=dict)
    routes: tuple[RouteDoc, ...] = ()
    plans: dict[Name, PlanDoc] = Field(default_factory=dict)


def policy_schema() -> dict[str, Any]:
    """The JSON Schema of a policy document."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **PolicyDoc.model_json_schema()}
