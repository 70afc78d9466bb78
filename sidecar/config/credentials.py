"""`credentials` of routes in policy documents: where the API key of a request is looked for, in order.

A preset is where the libraries of one vendor put a key, so that they need no change but the address and the key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field

from sidecar.config.document import did_you_mean
from sidecar.config.models import Model
from sidecar.config.names import At
from sidecar.config.patterns import HeaderName, Name
from sidecar.core.errors import Fault
from sidecar.core.identity import Source

Preset = Literal["openai", "azure", "anthropic", "gemini"]
_SCHEMES: Final = ("bearer", "basic")
# Libraries send `azure_ad_token` and Anthropic's `auth_token` as bearer; Gemini's examples for curl have `?key=`.
PRESETS: Final[Mapping[str, tuple[Any, ...]]] = {
    "openai": ("bearer",),
    "azure": ({"header": "Api-Key"}, "bearer"),
    "anthropic": ({"header": "X-Api-Key"}, "bearer"),
    "gemini": ({"header": "X-Goog-Api-Key"}, {"query": "key"}),
}


def _place(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value in PRESETS:
        raise ValueError(f"'{value}' is a list of places: write `credentials: {value}`, or the places themselves")
    if value not in _SCHEMES:
        raise ValueError(f"unknown place of a key '{value}'; {did_you_mean(value, _SCHEMES)}, or {{header: X-Api-Key}}")
    return {value: True}


def _preset(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value not in PRESETS:
        raise ValueError(f"unknown preset '{value}'; {did_you_mean(value, PRESETS)}, or a list as in [bearer]")
    return PRESETS[value]


class CredentialDoc(Model):
    """Where the API key is: `bearer`, `basic`, `{header: X-Api-Key}` or `{query: api_key}`."""

    header: HeaderName | None = None
    query: Name | None = None
    bearer: bool = False
    basic: bool = False


_Place = Annotated[CredentialDoc, BeforeValidator(_place, json_schema_input_type=str | CredentialDoc)]
Credentials = Annotated[
    tuple[_Place, ...],
    Field(min_length=1),
    BeforeValidator(_preset, json_schema_input_type=Preset | tuple[_Place, ...]),
]
DEFAULT: Final = (CredentialDoc(header="X-Api-Key"), CredentialDoc(bearer=True))


def faults_of(at: At, credentials: tuple[CredentialDoc, ...]) -> Iterator[Fault]:
    """All faults of the `credentials` of a route; `at` is that of the route."""
    for index, credential in enumerate(credentials):
        if sum(map(bool, (credential.header, credential.query, credential.bearer, credential.basic))) != 1:
            yield at.fault("names one place: header, query, bearer or basic", "credentials", index)


def source_of(credential: CredentialDoc) -> Source:
    """The source, of a document without faults."""
    if credential.header is not None:
        return Source("header", credential.header)
    if credential.query is not None:
        return Source("query", credential.query)
    return Source("bearer" if credential.bearer else "basic")
