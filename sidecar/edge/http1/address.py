"""One address of an upstream: where it is, what its requests' heads get, its connections and its recent failures.

A connection is always in exactly one of an address's collections: `connecting` (from the decision to open it), `busy`,
`idle` or `closing`, which it leaves when the loop reports it as lost. The number of connections is the length of these
collections, so it cannot become wrong. `closing` does not count against `pool.size`: such a connection ends in the next
iteration of the loop, or is a tunnel whose last bytes are being sent.
"""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

from sidecar.core.http.forward import Field
from sidecar.edge.http1.heads import HeadOptions
from sidecar.ports import Caller

if TYPE_CHECKING:
    from sidecar.edge.http1.upstream import UpstreamLeg

UNIX: Final = "unix:"
PRESERVE: Final = "preserve"
UPSTREAM: Final = "upstream"
_NOTHING: Final[frozenset[bytes]] = frozenset()


class HeadSettings(NamedTuple):
    """The changes to the heads of requests that the settings of an upstream ask for.

    `host` is `preserve` (the client's), `upstream` (the address's own) or a name. `fields` replace those of the client,
    the lower-case names `removed` do not go up. `server_name`: for TLS, "" for that which follows from `host`.
    """

    host: str = PRESERVE
    fields: tuple[Field, ...] = ()
    removed: frozenset[bytes] = _NOTHING
    server_name: str = ""


class Address:
    """One server of the upstream: its address, connections and recent failures. ValueError: the URL is invalid.

    `origin` is the address in `urls` that this one is of: itself, or a name that was resolved to the address `ip`. It
    has the settings of both, `options` and `server_name`. `is_name`: it is to be resolved. `socket` is the path of a
    Unix socket, else "".
    """

    __slots__ = (
        "authority", "base", "busy", "closing", "connecting", "ejected_until", "ejections", "failures", "host", "idle",
        "ip", "is_name", "options", "origin", "port", "server_name", "socket", "tls", "url",
    )  # fmt: skip

    options: HeadOptions
    origin: Address

    def __init__(self, url: str, ip: str = "", origin: Address | None = None) -> None:
        self.url = url
        self.ip = ip
        self.origin = origin or self
        self.host = self.base = self.socket = self.server_name = ""
        self.port = 0
        self.tls = self.is_name = False
        self.authority = b"localhost"
        if url.startswith(UNIX):
            self.socket = url.removeprefix(UNIX)
        else:
            self._parse(url)
        self.connecting: dict[Caller, asyncio.Task[None]] = {}
        self.busy: set[UpstreamLeg] = set()
        self.idle: list[UpstreamLeg] = []  # the most recently used last
        self.closing: set[UpstreamLeg] = set()
        self.failures = 0
        self.ejections = 0
        self.ejected_until = 0.0

    def _parse(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"{url!r} is not http://host:port, https://host:port or unix:/path")
        self.tls = parts.scheme == "https"
        self.host = self.server_name = parts.hostname
        default = 443 if self.tls else 80
        self.port = parts.port or default
        name = f"[{self.host}]" if ":" in self.host else self.host
        self.authority = (name if self.port == default else f"{name}:{self.port}").encode()
        self.base = parts.path.rstrip("/")
        self.is_name = not self.ip and not _is_ip(self.host)

    @property
    def used(self) -> int:
        """Connections that count against `pool.size`."""
        return len(self.connecting) + len(self.busy) + len(self.idle)

    def host_field(self, settings: HeadSettings) -> bytes:
        """The Host field of requests to this address; b"" for the client's."""
        if settings.host == PRESERVE:
            return b""
        return self.authority if settings.host == UPSTREAM else settings.host.encode()

    def tls_name(self, settings: HeadSettings) -> str:
        """The name in SNI and in the certificate: it follows the Host field where the settings name one."""
        if settings.server_name:
            return settings.server_name
        if settings.host in {PRESERVE, UPSTREAM}:
            return self.host
        return urlsplit(f"//{settings.host}").hostname or self.host


def _is_ip(host: str) -> bool:
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def apply_settings(addresses: list[Address], settings: HeadSettings) -> None:
    """Give every address what its heads get. Addresses of which it is the same share one object, and so prepared heads.

    A request of HTTP/1.0 may have no Host: it gets the authority of the first address.
    """
    shared: dict[tuple[bytes, str], HeadOptions] = {}
    for address in addresses:
        key = (address.host_field(settings), address.base)
        options = shared.get(key)
        if options is None:
            options = shared[key] = HeadOptions(*key, addresses[0].authority, settings.fields, settings.removed)
        address.options = options
        address.server_name = address.tls_name(settings)
