"""The client of a connection: its address, whose that is, and the progress of its answer."""

from __future__ import annotations

import asyncio
import socket
import sys
from functools import lru_cache
from ipaddress import ip_address


def address_of(transport: asyncio.BaseTransport) -> str:
    """The client's address; "" where it has none. On a socket for both families, that of an IPv4 client is IPv4.

    RFC 4291 §2.5.5.2.
    """
    peer = transport.get_extra_info("peername")
    if not isinstance(peer, tuple):
        return ""
    address: str = peer[0]
    return address.removeprefix("::ffff:") if "." in address else address


@lru_cache(maxsize=4096)
def client_of(peer: str) -> str | bytes:
    """Whose address that is: an IPv4 address is a client, and the /64 of an IPv6 address, which a subscriber has."""
    return ip_address(peer).packed[:8] if ":" in peer else peer


def acknowledged_bytes(transport: asyncio.BaseTransport) -> int:
    """How much of all that was sent the client's machine acknowledged (`tcpi_bytes_acked` of linux/tcp.h).

    -1: the socket is closed, and the transport has not said so yet.
    """
    sock = transport.get_extra_info("socket")
    if sock is None:
        return -1
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 128)
    return int.from_bytes(info[120:128], sys.byteorder)
