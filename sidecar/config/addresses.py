"""Parse the addresses that operators write. An address that is not understood whole is refused, with an example."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any, Final, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from sidecar.core.http.path import NoNormalForm, normal_path
from sidecar.core.http.request import valid_host

# The scope of a wildcard address, and a host by which this machine reaches it.
_WILDCARDS: Final = {
    "": ("all addresses", "localhost"),
    "0.0.0.0": ("all IPv4 addresses", "127.0.0.1"),
    "::": ("all IPv6 addresses", "::1"),
}


class Address(NamedTuple):
    """A TCP address to listen on. Host "" is all addresses of both families; port 0 lets the system choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def scope(self) -> str:
        """The addresses that a wildcard stands for, in words; "" for a single address or a name."""
        return _WILDCARDS.get(self.host, ("", ""))[0]

    def url(self, scheme: str) -> str:
        """A URL that can be opened on this machine."""
        return f"{scheme}://{Address(_WILDCARDS.get(self.host, ('', self.host))[1], self.port)}"

    def overlaps(self, other: Address) -> bool:
        """Whether both have a port of an address in common. A name has only itself: it is not looked up here."""
        if not self.port or self.port != other.port:
            return False
        hosts = {self.host, other.host}
        if len(hosts) == 1 or "" in hosts:
            return True
        return not hosts.isdisjoint(_WILDCARDS) and _version(self.host) == _version(other.host)


class Url(NamedTuple):
    """An upstream's address. `base` is the path before every path of a client, without a last slash; "" for none.

    `socket` is the path of a Unix socket; then there is no host.
    """

    tls: bool
    host: str
    port: int
    base: str = ""
    socket: str = ""

    def __str__(self) -> str:
        if self.socket:
            return f"unix:{self.socket}"
        return f"{'https' if self.tls else 'http'}://{Address(self.host, self.port)}{self.base}"


class RedisEndpoint(NamedTuple):
    """`mode` is single, sentinel or cluster; `hosts` are the servers, or the sentinels that know `service`.

    `ssl` are redis-py's `ssl_…` arguments, by name.
    """

    mode: str
    tls: bool
    hosts: tuple[Address, ...]
    db: int = 0
    username: str | None = None
    password: str | None = None
    service: str = ""
    ssl: tuple[tuple[str, Any], ...] = ()


SOCKET_BYTES = 107  # of `sun_path`, with the byte that ends it (unix(7))
_REDIS_EXAMPLES = "redis://host:6379/0, rediss:// with TLS, redis+sentinel://a:26379,b:26379/service/0 or redis+cluster://a:6379,b:6379"


def parse_address(value: Any) -> Any:
    """`host:port`, `[v6]:port` or `:port` (all addresses). ValueError says what would be right."""
    if not isinstance(value, str):
        return value if isinstance(value, Address) else _refuse_address(value)
    host, colon, port = value.rpartition(":")
    if not colon or (":" in host and not host.startswith("[")):
        return _refuse_address(value)
    return Address(host.strip("[]"), _port(port, value))


def parse_addresses(value: Any) -> Any:
    """One address, several with commas as the environment has them, or a list, whose items are parsed later."""
    if isinstance(value, list | tuple):
        return value
    if not isinstance(value, str):
        return _refuse_address(value)
    return tuple(parse_address(part.strip()) for part in value.split(","))


def parse_url(value: Any) -> Any:
    """`http://host[:port][/base]`, `https://…` or `unix:/path`: no query, and no user, which `headers` are for."""
    if not isinstance(value, str):
        return value
    if value.startswith("unix:"):
        return _unix_url(value.removeprefix("unix:"))
    parts = _split(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(
            f"'{value}' is not an upstream's address: write http://host:port, https://host:port or unix:/path"
        )
    if parts.query or parts.fragment or parts.username is not None:
        right = f"{parts.scheme}://{parts.hostname}:port/base"
        raise ValueError(f"has more than an address and a base path: write {right}, no user, query or fragment")
    default = 443 if parts.scheme == "https" else 80
    return Url(parts.scheme == "https", parts.hostname, parts.port or default, _base(parts.path))


def _unix_url(path: str) -> Url:
    path = path.removeprefix("//")  # as in unix:///run/api.sock
    if not path.startswith("/") or len(path.encode()) > SOCKET_BYTES:
        raise ValueError(f"should be the whole path of a socket, of at most {SOCKET_BYTES} bytes: unix:/run/api.sock")
    return Url(tls=False, host="", port=0, socket=path)


def _base(path: str) -> str:
    try:
        normal = normal_path(path.encode()) if path else "/"
    except NoNormalForm as error:
        raise ValueError(f"has a base path that cannot be sent: {error}") from None
    if normal.rstrip("/") != path.rstrip("/"):
        raise ValueError(f"has a base path that is not in normal form: write '{normal.rstrip('/')}'")
    return normal.rstrip("/")


def parse_host(value: str) -> str:
    """A value of the Host field, in lower case; `preserve` and `upstream` are words of their own."""
    if not valid_host(value.encode()):
        raise ValueError("should be `preserve`, `upstream` or a host name with an optional port, as in api.example.com")
    return value.lower()


def parse_redis_url(value: str) -> RedisEndpoint:
    """A Redis URL, its mode in the scheme. ValueError never repeats the URL: it may hold a password."""
    scheme, _, rest = value.partition("://")
    base, _, mode = scheme.partition("+")
    if base not in ("redis", "rediss") or mode not in ("", "sentinel", "cluster") or not rest:
        raise ValueError(f"is not a Redis URL: write {_REDIS_EXAMPLES}")
    authority, _, path = rest.partition("/")
    user_info, _, hosts = authority.rpartition("@")
    username, _, password = user_info.partition(":")
    service, db = _path(path, mode)
    default = 26379 if mode == "sentinel" else 6379
    addresses = tuple(_redis_host(host, default) for host in hosts.split(","))
    if not mode and len(addresses) > 1:
        raise ValueError("names several hosts: say redis+sentinel:// or redis+cluster://")
    return RedisEndpoint(
        mode or "single", base == "rediss", addresses, db, unquote(username) or None, unquote(password) or None, service
    )


def _path(path: str, mode: str) -> tuple[str, int]:
    service, _, db = path.partition("/") if mode == "sentinel" else ("", "", path)
    if mode == "sentinel" and not service:
        raise ValueError("names no service: write redis+sentinel://a:26379,b:26379/service/0")
    if db and not (db.isascii() and db.isdigit()):
        raise ValueError(f"ends in '{db}', which is not a database number: write {_REDIS_EXAMPLES}")
    if mode == "cluster" and db not in ("", "0"):
        raise ValueError("names a database: a cluster has only 0")
    return service, int(db or 0)


def _redis_host(text: str, default: int) -> Address:
    parts = _split(f"//{text}")
    if not parts.hostname:
        raise ValueError(f"names no host: write {_REDIS_EXAMPLES}")
    return Address(parts.hostname, parts.port or default)


def _split(value: str) -> SplitResult:
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError as error:
        raise ValueError(f"is not an address: {error}") from None
    return parts


def _port(text: str, value: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 65_536):
        raise ValueError(f"'{value}' has no port from 0 to 65535: write 127.0.0.1:8080")
    return int(text)


def _version(host: str) -> int:
    """4 or 6; 0 for a name."""
    try:
        return ip_address(host.partition("%")[0]).version
    except ValueError:
        return 0


def _refuse_address(value: Any) -> Any:
    raise ValueError(f"'{value}' is not an address: write host:port, for example 127.0.0.1:8080")
