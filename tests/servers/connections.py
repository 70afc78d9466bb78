"""The end of a test server's connections, which asyncio leaves to their clients."""

from __future__ import annotations

import asyncio
from typing import Any


async def abort_connections(port: int) -> None:
    """Abort what a server on `port` still has open in this loop.

    Closing a server leaves its connections; those in a TLS handshake or closing last for up to a minute more, and so
    does one whose handler was cancelled before its first step. What is open when the loop closes is reported by a
    later test, in which it is collected.
    """
    loop: Any = asyncio.get_running_loop()
    # asyncio's own loop knows its transports by descriptor; uvloop does not, and closes them with itself.
    for transport in [*getattr(loop, "_transports", {}).values()]:
        name = transport.get_extra_info("sockname")
        if isinstance(name, tuple) and name[1] == port:
            transport.abort()
    await asyncio.sleep(0)  # connections are closed in the next turn
