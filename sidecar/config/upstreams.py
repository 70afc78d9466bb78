"""Upstreams in the settings: where an API is, as whom it is asked, and what each request to it gets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, StringConstraints, ValidationInfo

from sidecar.config.addresses import Url, parse_host, parse_url
from sidecar.config.document import Loc
from sidecar.config.models import Model
from sidecar.config.patterns import HOST_NAME, HeaderName
from sidecar.config.secret_text import SecretText, parse_secret_text
from sidecar.config.sections import ClientTls, NotNegative, Positive, listed

# Fields that belong to the connection, to the framing of the body, or to the sidecar.
_NEVER_SET: Final = {
    "host": "write `host: upstream` or a name beside `urls`",
    **dict.fromkeys(
        ("content-length", "transfer-encoding", "connection", "keep-alive", "proxy-connection", "te", "trailer",
         "upgrade", "expect", "http2-settings"),
        "it belongs to the connection and to the body",
    ),
    **dict.fromkeys(("via", "x-request-id"), "the sidecar sets it for each request"),
    "accept-encoding": "answers that are read have to be in a coding that the sidecar asked for",
}  # fmt: skip


def _secret_text(value: Any, info: ValidationInfo) -> Any:
    return parse_secret_text(value, (info.context or {}).get("base"))


UpstreamUrl = Annotated[
    Url, BeforeValidator(parse_url, json_schema_input_type=str), PlainSerializer(str, return_type=str)
]
HeaderText = Annotated[
    SecretText,
    BeforeValidator(_secret_text, json_schema_input_type=str | int),
    PlainSerializer(str, return_type=str),
]
Host = Annotated[str, AfterValidator(parse_host)]


class Timeouts(Model):
    """Timeouts of one exchange with an upstream."""

    connect_ms: Positive = 2_000
    """Time to connect."""
    first_byte_ms: Positive = 60_000
    """Time from the end of the request to the first byte of the answer."""
    between_bytes_ms: Positive = 60_000
    """The longest pause within an answer."""
    total_ms: NotNegative = 0
    """Time of the whole exchange; 0: unbounded (streams). Example: `5m`"""


class Pool(Model):
    """The connections to an upstream."""

    size: Annotated[int, Field(ge=1, le=65_536)] = 256
    """Connections to each address, per worker."""
    share_percent: Annotated[int, Field(ge=1, le=100)] = 80
    """The largest share of `size` that the exchanges of one customer use."""
    idle_ms: Positive = 4_000
    """How long an unused connection stays open: less than the 5 s of common servers."""


class UpstreamTls(ClientTls):
    """Which servers are trusted, under which name, and our own certificate."""

    server_name: Annotated[str, StringConstraints(pattern=HOST_NAME)] | None = None
    """The name in SNI and in the certificate, where it is not that of `host`. Example: `api.example.com`"""


class Upstream(Model):
    """A named API behind the sidecar (docs/upstreams.md)."""

    urls: Annotated[
        tuple[UpstreamUrl, ...],
        Field(min_length=1),
        BeforeValidator(listed, json_schema_input_type=UpstreamUrl | tuple[UpstreamUrl, ...]),
    ]
    """One or several equivalent addresses, without a path. Example: `http://127.0.0.1:9000`"""
    host: Host | None = None
    """The Host field that it gets: `preserve` (the client's, the default), `upstream` (the address's own) or a name.
    Example: `upstream`"""
    headers: dict[HeaderName, HeaderText] = Field(default_factory=dict)
    """Fields that replace those of the client; values may refer to `${VARIABLE}` or `${file:PATH}`. Example: `{
    Authorization: "Bearer ${API_KEY}" }`"""
    remove_headers: Annotated[
        tuple[HeaderName, ...], BeforeValidator(listed, json_schema_input_type=HeaderName | tuple[HeaderName, ...])
    ] = ()
    """Fields of the client that do not go to this upstream. Example: `[Cookie]`"""
    timeouts: Timeouts = Timeouts()
    pool: Pool = Pool()
    tls: UpstreamTls = UpstreamTls()


def faults_of(upstreams: Mapping[str, Upstream]) -> Iterator[tuple[Loc, str]]:
    """Faults of values that are each valid by themselves, with their place in the settings."""
    for name, upstream in upstreams.items():
        seen = dict[str, str]()
        places: list[tuple[Loc, str]] = [
            *((("headers", header), header) for header in upstream.headers),
            *((("remove_headers", index), header) for index, header in enumerate(upstream.remove_headers)),
        ]
        for loc, header in places:
            key = header.lower()
            if key in _NEVER_SET:
                yield ("upstreams", name, *loc), f"{header} cannot be set or removed: {_NEVER_SET[key]}"
            elif key in seen:
                yield ("upstreams", name, *loc), f"{header} is named twice (as {seen[key]}): keep one"
            seen[key] = header
