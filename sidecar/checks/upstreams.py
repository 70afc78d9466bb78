"""The part of `sidecar check` on upstreams: a list and warnings, neither of which shows the value of a header."""

from __future__ import annotations

import asyncio
import os
import ssl
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from sidecar.config.addresses import Url
from sidecar.config.settings import Settings
from sidecar.config.upstreams import Upstream

CONNECT_SECONDS: Final = 3


def report(settings: Settings) -> list[dict[str, Any]]:
    """Each upstream: its addresses, the Host that it gets, the names of the headers that it gets or does not get."""
    return [
        {
            "id": name,
            "urls": [str(url) for url in upstream.urls],
            "host": upstream.host or "preserve",
            "sets": list(upstream.headers),
            "removes": list(upstream.remove_headers),
        }
        for name, upstream in settings.upstreams.items()
    ]


def warnings(settings: Settings) -> list[str]:
    """Settings that are valid and rarely meant."""
    verified = [
        name
        for name, upstream in settings.upstreams.items()
        if upstream.tls.verify and upstream.tls.ca is None and any(url.tls for url in upstream.urls)
    ]
    lines = [line for name, upstream in settings.upstreams.items() for line in _warnings_of(name, upstream)]
    if verified and not system_authorities():
        lines.append(
            f"upstreams {', '.join(verified)}: this machine has no certificates of authorities, so https fails: "
            "install the package ca-certificates, or set `tls.ca`"
        )
    return lines


async def unreachable(settings: Settings) -> list[str]:
    """The addresses that take no connection now: they may be back by the time of a request."""
    places = [
        (("upstreams", name, "urls", index), url)
        for name, upstream in settings.upstreams.items()
        for index, url in enumerate(upstream.urls)
    ]
    causes = await asyncio.gather(*[_connection_fault(url) for _, url in places])
    return [
        str(settings.fault(loc, f"{url} takes no connection ({cause}): start it, or correct the address"))
        for (loc, url), cause in zip(places, causes, strict=True)
        if cause
    ]


async def _connection_fault(url: Url) -> str:
    """Why `url` takes no connection; "" if it does. Nothing is sent."""
    connecting = asyncio.open_unix_connection(url.socket) if url.socket else asyncio.open_connection(url.host, url.port)
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await connecting
    except TimeoutError:
        return f"no answer within {CONNECT_SECONDS} s"
    except OSError as error:
        return os.strerror(error.errno).lower() if error.errno and error.errno > 0 else str(error)
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return ""


def _warnings_of(name: str, upstream: Upstream) -> list[str]:
    lines = []
    named = [str(url) for url in upstream.urls if url.tls and not _is_ip(url.host)]
    if upstream.host is None and named:
        lines.append(
            f"upstream {name}: {named[0]} gets the Host field of the client, which most APIs behind https refuse: set "
            "`host: upstream`, or `host: preserve` if that is meant"
        )
    plain = [str(url) for url in upstream.urls if not url.tls and not _is_local(url.host)]
    if plain and any(text.sources for text in upstream.headers.values()):
        lines.append(f"upstream {name}: the secrets in its headers go to {plain[0]} in clear: use https")
    return lines


def system_authorities() -> bool:
    """Whether this machine has authorities that an https server's certificate can be verified with."""
    folder = Path(ssl.get_default_verify_paths().capath or "/nonexistent")
    loaded = ssl.create_default_context().cert_store_stats()["x509_ca"]
    return loaded > 0 or (folder.is_dir() and any(folder.iterdir()))


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _is_local(host: str) -> bool:
    """Whether what is sent there does not leave this machine, or a private network."""
    if _is_ip(host):
        return ip_address(host).is_private
    return host == "localhost" or "." not in host
