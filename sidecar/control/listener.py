"""The control listener: /livez, /readyz, /metrics, /status. It is read-only, and not reachable for clients of the API.

Each request queries the node; nothing is cached. /livez queries nothing: it answers as long as the supervisor runs.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

import orjson
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder

from sidecar.control.metrics import collect
from sidecar.control.stats import Node, NodeView

NODE = web.AppKey("node", Node)
IDLE_S = 20.0  # a connection without a whole request: idle, in half a head, or sending blank lines
log = logging.getLogger("sidecar.control")


def _is_ours(record: logging.LogRecord) -> bool:
    """False for a malformed request: its client gets a 400, and must not be able to fill the log with tracebacks."""
    return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)


log.addFilter(_is_ours)


class _ViewCollector:
    """A collector over one view of the node, for one scrape."""

    def __init__(self, view: NodeView) -> None:
        self._view = view

    def collect(self) -> Iterator[Metric]:
        return collect(self._view)


def application(node: Node) -> web.Application:
    """Build the control application over `node`."""
    app = web.Application()
    app[NODE] = node
    for path, handler in (("/livez", livez), ("/readyz", readyz), ("/metrics", metrics), ("/status", status)):
        app.router.add_get(path, handler)
    return app


async def livez(_request: web.Request) -> web.Response:
    """200 as long as the supervisor's event loop runs."""
    return _json(200, {"status": "alive"})


async def readyz(request: web.Request) -> web.Response:
    """200 when every worker accepts, can record and has reached its store once; 503 with the reasons otherwise."""
    view = await request.app[NODE].view()
    reasons = view.reasons()
    body: dict[str, Any] = {"status": "not ready" if reasons else "ready", "reasons": reasons}
    if degraded := view.degraded():
        body["degraded"] = degraded
    return _json(503 if reasons else 200, body)


async def metrics(request: web.Request) -> web.Response:
    """Everything in docs/metrics.md, in the format that the scraper accepts."""
    body, content_type = scrape(await request.app[NODE].view(), request.headers.get("Accept", ""))
    return web.Response(body=body, headers={"Content-Type": content_type})


def scrape(view: NodeView, accept: str) -> tuple[bytes, str]:
    """One exposition of `view`, and its content type, as `accept` prefers."""
    registry = CollectorRegistry()
    registry.register(_ViewCollector(view))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


async def status(request: web.Request) -> web.Response:
    """The whole view of the node as JSON, for people and for the command line."""
    view = await request.app[NODE].view()
    return _json(200, {"ready": not view.reasons(), "reasons": view.reasons()} | asdict(view))


def _json(code: int, body: dict[str, Any]) -> web.Response:
    return web.Response(
        status=code,
        body=orjson.dumps(body, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE),
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


async def serve(node: Node, sockets: Iterable[socket.socket], *, idle_s: float = IDLE_S) -> web.AppRunner:
    """Accept from these sockets, which listen; the runner to clean up, which closes them.

    A connection is closed `idle_s` after it began or was last answered if no whole request has come since.
    """
    runner = web.AppRunner(
        application(node), access_log=None, handle_signals=False, keepalive_timeout=idle_s, logger=log
    )
    await runner.setup()
    for each in sockets:
        await web.SockSite(runner, each).start()
    return runner
