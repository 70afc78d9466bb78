"""Open a connection to an address of an upstream, and say why one could not be opened."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable
from typing import Final, cast

from sidecar.core.errors import UpstreamError, UpstreamReason
from sidecar.edge.http1.address import Address
from sidecar.edge.http1.upstream import UpstreamLeg

# This node lacks descriptors or memory: not a failure of the address, and other addresses would fail too.
_OURS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


async def connect(address: Address, make_leg: Callable[[], UpstreamLeg], tls: ssl.SSLContext | None) -> UpstreamLeg:
    """A new connection, with the protocol that `make_leg` made. Raises what the system and TLS raise."""
    loop = asyncio.get_running_loop()

    def protocol() -> asyncio.BaseProtocol:  # one by its methods: no base class, so that it can be compiled
        return cast("asyncio.BaseProtocol", make_leg())

    if address.socket:
        _, made = await loop.create_unix_connection(protocol, address.socket)
    else:
        _, made = await loop.create_connection(
            protocol,
            address.ip or address.host,
            address.port,
            ssl=tls if address.tls else None,
            server_hostname=address.origin.server_name if address.tls else None,
        )
    return cast("UpstreamLeg", made)


def connect_error(name: str, error: Exception) -> UpstreamError:
    """Why no connection to the upstream `name` was made, for its client: without an address."""
    if isinstance(error, OSError) and error.errno in _OURS:
        detail = f"this node cannot open a connection to upstream {name!r} ({error.strerror})"
        return UpstreamError(UpstreamReason.SATURATED, detail)
    if isinstance(error, TimeoutError):
        detail = f"upstream {name!r} did not accept a connection in `timeouts.connect`"
        return UpstreamError(UpstreamReason.CONNECT_TIMEOUT, detail)
    if isinstance(error, ssl.SSLCertVerificationError):
        detail = f"the certificate of upstream {name!r} is not trusted ({error.verify_message}); see `tls.ca`"
    elif isinstance(error, ssl.SSLError):
        detail = f"upstream {name!r} could not agree with us on TLS ({error.reason})"
    elif isinstance(error, socket.gaierror):
        detail = f"the host of upstream {name!r} is unknown ({error.strerror})"
    elif isinstance(error, FileNotFoundError):
        detail = f"upstream {name!r} has no socket: it is not running"
    elif isinstance(error, OSError):
        detail = f"upstream {name!r} refused the connection"
    else:
        detail = f"upstream {name!r} cannot be connected to ({error})"
    return UpstreamError(UpstreamReason.REFUSED, detail)
