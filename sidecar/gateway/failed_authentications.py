"""How many unknown keys a client may present: some a second, so that guessing keys costs the store of keys little.

Only requests whose key this worker does not know come here. A failure takes the client's share of a second
(1 / `per_second`); a client that has none left waits until it has. Failures that were looked up at the same time may be
more than its share, and the next ones wait as much longer, so the average is kept.

Example, 3 a second: failures at 0.0, 0.1 and 0.2 s take the time until 1.0 s. At 0.3 s the client has to wait until
the share of one failure is free again, at 0.33 s.

A client is an IPv4 address, or the /64 of an IPv6 address, since a subscriber has all addresses of one. The table holds
CLIENTS of them; the one whose last failure is oldest makes room.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from typing import Final

from sidecar.core.http.request import Request
from sidecar.ports import Clock

CLIENTS: Final = 10_000
LONGEST_WAIT_US: Final = 60_000_000
_SECOND_US: Final = 1_000_000


class FailedAuthentications:
    """The failures of each client. `per_second` 0: any number. `trusts(address)`: whether that is a proxy of ours."""

    def __init__(self, clock: Clock, per_second: int, trusts: Callable[[str], bool]) -> None:
        self._clock = clock
        self._share_us = _SECOND_US // per_second if per_second else 0
        self._trusts = trusts
        self._taken_until_us: dict[bytes, int] = {}  # by client; in the order of their last failures

    def wait_s(self, request: Request, peer: str) -> int:
        """Whole seconds until this client may present another unknown key; 0: it may now."""
        if not self._taken_until_us:
            return 0
        taken_until_us = self._taken_until_us.get(self._client(request, peer), 0)
        wait_us = taken_until_us + self._share_us - _SECOND_US - self._clock.mono_us()
        return -(-wait_us // _SECOND_US) if wait_us > 0 else 0

    def add(self, request: Request, peer: str) -> None:
        """The client presented an unknown key."""
        if not self._share_us:
            return
        client, taken, now_us = self._client(request, peer), self._taken_until_us, self._clock.mono_us()
        until_us = max(taken.pop(client, 0), now_us) + self._share_us
        taken[client] = min(until_us, now_us + _SECOND_US + LONGEST_WAIT_US - self._share_us)
        if len(taken) > CLIENTS:
            del taken[next(iter(taken))]

    def _client(self, request: Request, peer: str) -> bytes:
        """The peer; behind proxies that are trusted, the last address of X-Forwarded-For that is not trusted.

        The addresses before it were sent by the client, who can write any there.
        """
        address = peer
        if self._trusts(peer):
            for hop in reversed(_forwarded_for(request)):
                if _network(hop) is None:
                    break
                address = hop
                if not self._trusts(hop):
                    break
        return _network(address) or b""


def _forwarded_for(request: Request) -> list[str]:
    pairs = zip(request.names, request.headers, strict=True)
    text = b",".join([value for name, (_, value) in pairs if name == b"x-forwarded-for"]).decode("latin-1")
    return [_without_port(hop.strip()) for hop in text.split(",")]


def _without_port(hop: str) -> str:
    """Some proxies write `192.0.2.1:5678` and `[2001:db8::1]:5678`."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop


def _network(address: str) -> bytes | None:
    """The bytes by which a client is known; None: it is not an IP address."""
    try:
        ip = ip_address(address)
    except ValueError:
        return None
    if isinstance(ip, IPv6Address):
        return ip.packed[:8] if ip.ipv4_mapped is None else ip.ipv4_mapped.packed
    return ip.packed
