"""`cors` of routes in policy documents: which pages may call a route from a browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Final

from pydantic import Field

from sidecar.config.models import Model
from sidecar.config.names import At
from sidecar.config.values import HeaderNames, Origins
from sidecar.core.errors import Fault
from sidecar.core.http.cors import ANY_ORIGIN, Cors
from sidecar.core.identity import Source

MAX_AGE_S: Final = 86_400
_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
_DEFAULT_PORTS: Final = (("https://", ":443"), ("http://", ":80"))


class CorsDoc(Model):
    """`origins`: those of the pages, as browsers write them, or `*` for all. `headers`: the fields that pages may set.

    Without `headers` they may set any; the fields that carry the key are always among them. `credentials`: pages may
    send cookies. `max_age`: how long a browser remembers the answer to a preflight.
    """

    origins: Origins
    headers: HeaderNames | None = None
    credentials: bool = False
    max_age_seconds: Annotated[int, Field(ge=0, le=MAX_AGE_S)] = 600


def faults_of(at: At, cors: CorsDoc) -> Iterator[Fault]:
    """All faults of the `cors` of a route; `at` is that of the route."""
    for index, origin in enumerate(cors.origins):
        what = _origin_fault(origin)
        if what:
            yield at.fault(f"'{origin}' {what}", "cors", "origins", index)
    if ANY_ORIGIN in cors.origins and len(cors.origins) > 1:
        yield at.fault("has `*` beside other origins: `*` alone is every origin", "cors", "origins")
    if ANY_ORIGIN in cors.origins and cors.credentials:
        what = "is not possible with every origin: browsers refuse `*` for requests with cookies; name the origins"
        yield at.fault(what, "cors", "credentials")


def _origin_fault(origin: str) -> str:
    """The reason why no browser sends this Origin; "" where one may."""
    if origin == ANY_ORIGIN:
        return ""
    if origin == "null":
        return "is sent by pages of any site (sandboxed frames, files): name the origins of your own"
    if "*" in origin:
        return "has a star inside: name each origin, or `*` for every origin"
    usual = origin.rstrip("/").lower()
    for scheme, port in _DEFAULT_PORTS:
        if usual.startswith(scheme):
            usual = usual.removesuffix(port)
    if not _ORIGIN.fullmatch(usual):
        return (
            "is not an origin: write the scheme, the host and a port that is not the default, as in https://app.example"
        )
    return "" if usual == origin else f"is not as browsers write it: write '{usual}'"


def cors_of(doc: CorsDoc, sources: tuple[Source, ...]) -> Cors:
    """The rule of a route, of a document without faults. `sources` are where it looks for the key."""
    headers = dict.fromkeys(doc.headers or ())
    if headers:
        known = {name.lower() for name in headers}
        headers |= dict.fromkeys(
            source.name.decode() for source in sources if source.field.decode() not in known | {""}
        )
    return Cors(frozenset(doc.origins), tuple(headers), doc.credentials, doc.max_age_seconds)
