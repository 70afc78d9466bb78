"""One worker: every edge is built here, introduced to the gateway, started in order, and stopped in the other order.

Start: journal (and what a killed predecessor left open), keys, counters, upstreams, then the port. Stop: the port,
the exchanges under way, what is owed to the counters, the journal. A store that is away delays a start by half a
second, and a stop by no more than the drain.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import secrets
import socket
import ssl
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, cast

from sidecar.app.children import Link
from sidecar.app.house import House, Manner, Ports
from sidecar.app.probe import Figures
from sidecar.app.snapshot import policy_of
from sidecar.app.stats import worker_stats
from sidecar.app.stores import CounterStore, KeyStore
from sidecar.app.upstreams import Upstreams
from sidecar.control.stats import WorkerStats
from sidecar.core.http.request import HeadLimits
from sidecar.core.identity import Identity
from sidecar.core.policy import Policy
from sidecar.core.record import Ids
from sidecar.edge.clock import SystemClock
from sidecar.edge.journal import Journal, JournalOptions
from sidecar.edge.listener import Listener, Timeouts
from sidecar.gateway import serve

if TYPE_CHECKING:
    from sidecar.config.sections import Http
    from sidecar.config.settings import Settings

WHEEL_S = 0.1  # one wheel for all deadlines: timeouts are exact to a tenth of a second
BACKLOG = 4096
GC_OBJECTS = 50_000  # exchanges make no cycles: at its default of 700 the collector takes 7 % of the CPU for nothing
log = logging.getLogger("sidecar.worker")


class Worker:
    """The parts of one worker, and their life."""

    def __init__(self, settings: Settings, index: int, link: Link, hand: int = -1) -> None:
        self.settings = settings
        self._hand = hand
        self.link = link
        self.clock = SystemClock()
        self._reloading = asyncio.Lock()
        self.figures = Figures()
        ids = Ids(secrets.randbits(60))
        mint = partial(_mint, ids, self.clock)
        self.journal = Journal(journal_options(settings, index), self.clock)
        self.keys = KeyStore(settings, self.clock, self.figures)
        self.counters = CounterStore(settings, self.clock, mint)
        self.upstreams = Upstreams(settings)
        stores = self.counters
        ports = Ports(
            self.clock, self.keys.port, stores.port, self.journal, self.figures, stores.retries, stores.alerts
        )
        self.house = House(ports, policy_of(settings), self.upstreams.of, ids.mint, _manner(settings))
        self.listener = Listener(
            partial(serve, self.house),
            limits=head_limits(settings.http, self.house.policy),
            timeouts=client_timeouts(settings.http),
            max_body_bytes=settings.http.body_max_bytes or 1 << 62,
            refused=lambda problem: self.figures.answered("", problem.status, 0),
        )

    async def run(self) -> None:
        """Serve until the supervisor says to drain; then finish what is under way, and close."""
        report = self.journal.start()
        if report.crashed or report.torn_bytes or report.corrupt:
            log.warning("the journal of a killed predecessor: %s", report)
        self.counters.start(self._hand)
        self.keys.start()
        await self.counters.reached()  # else the first requests are let through alone while Redis would answer
        server = await self._bind()
        wheel = asyncio.get_running_loop().create_task(self._turn(), name="wheel")
        gc.collect()
        gc.freeze()  # what was built until here lives as long as the process
        gc.set_threshold(GC_OBJECTS, 20, 100)
        self.link.on_stats = self.stats
        self.link.on_reload = self.reload
        told = asyncio.get_running_loop().create_task(self.link.draining.wait(), name="draining")
        try:
            await asyncio.wait({told, wheel}, return_when=asyncio.FIRST_COMPLETED)
            if wheel.done():
                wheel.result()  # raises: a worker without deadlines is to be started again, not to serve on
            await self._drain(server)
        finally:
            told.cancel()
            wheel.cancel()
            await self._close()

    def _client(self) -> asyncio.Protocol:
        return cast(
            "asyncio.Protocol", self.listener()
        )  # one by its methods: no base class, so that it can be compiled

    async def _bind(self) -> asyncio.Server:
        listen = self.settings.listen
        server = await asyncio.get_running_loop().create_server(
            self._client, listen.host, listen.port, reuse_port=True, backlog=BACKLOG, ssl=server_tls(self.settings)
        )
        host, port = server.sockets[0].getsockname()[:2]
        self.link.ready(f"{host}:{port}")
        return server

    async def _turn(self) -> None:
        """The wheel: deadlines ten times a second, stores once, a checkpoint every few."""
        loop = asyncio.get_running_loop()
        turns = 0
        while True:
            now = loop.time()
            self.listener.sweep(now)
            self.upstreams.sweep(now)
            self.house.sweep()
            self.counters.sweep()
            if turns % 10 == 0:
                self.counters.tick(self.link)
            if turns % (10 * self.settings.checkpoint_seconds) == 0:
                self._checkpoint()
            turns += 1
            await asyncio.sleep(WHEEL_S)

    def _checkpoint(self) -> None:
        """Say that we are metering, traffic or not, and how far: an outage must not look like no usage."""
        totals = self.house.totals.units
        self.journal.checkpoint(self.house.inflight, self.house.policy.version, self.counters.degraded_s, totals)

    async def _drain(self, server: asyncio.Server) -> None:
        """Fail no accepted request (I12): what is under way is finished, and only then is anything cut."""
        came = last_in(server)
        server.close()
        self.house.draining = True
        self.listener.drain()
        if not await self.link.within_drain(self._finish(came)):
            log.warning("%d exchanges are cut: drain_seconds are over", self.house.inflight)
            self.listener.abort()
            self.house.abort()
        if not await self.link.within_drain(self.counters.settle_up()):
            log.warning(
                "Redis was not told all that it is owed: what was let through while it was away is in the records"
            )

    async def _finish(self, came: list[socket.socket]) -> None:
        """Serve whom the kernel let in, and wait until every answer has been sent."""
        loop, tls = asyncio.get_running_loop(), server_tls(self.settings)
        joining = [loop.connect_accepted_socket(self._client, each, ssl=tls) for each in came]
        await asyncio.gather(*joining, return_exceptions=True)  # a handshake that fails is the client's
        await self.listener.gone()
        await self.house.idle.wait()

    async def _close(self) -> None:
        self._checkpoint()
        await self.upstreams.aclose()
        await self.counters.aclose()
        await self.keys.aclose()
        await self.journal.aclose()

    async def reload(self) -> str:
        """Swap policy and keys in whole. PolicyError: a file is wrong, and nothing changes.

        They are read in a thread, which may take seconds of many plans and keys, and by one reload at a time, so that
        what was read last stays.
        """
        async with self._reloading:
            policy, keys = await asyncio.to_thread(self._read)
            self.keys.put_in_force(keys)
            self.house.put_in_force(policy)
            self.counters.recall()
            self.listener.limits = head_limits(self.settings.http, policy)
            return policy.version

    def _read(self) -> tuple[Policy, dict[bytes, Identity]]:
        return policy_of(self.settings), self.keys.read()

    def stats(self) -> WorkerStats:
        """The figures of this moment."""
        return worker_stats(self)


def last_in(server: asyncio.Server) -> list[socket.socket]:
    """The connections that wait in the kernel: their clients are connected, and closing the port would reset them."""
    found: list[socket.socket] = []
    for listening in server.sockets:
        with socket.socket(fileno=os.dup(listening.fileno())) as door, suppress(BlockingIOError):
            door.setblocking(False)
            door.listen(0)  # the next to come are not let in: they try again, and are refused
            while True:
                found.append(door.accept()[0])
                found[-1].setblocking(False)
    return found


async def run_worker(settings: Settings, index: int, link: Link, hand: int = -1) -> None:
    """Run worker `index` until `link` says to drain. PolicyError, SinkError, OSError: it cannot start.

    `hand` is the descriptor of memory in which the one before it kept what it had leased; -1: there is none.
    """
    await Worker(settings, index, link, hand).run()


def journal_options(settings: Settings, index: int) -> JournalOptions:
    """Worker `index`'s part of the node's journal: the cap is shared out, so that no worker can fill it alone."""
    journal = settings.journal
    return JournalOptions(
        directory=journal.dir,
        worker=str(index),
        source=f"//sidecar/{settings.region}/{settings.node}/{index}",
        durability=journal.durability,
        interval_us=journal.interval_ms * 1000,
        segment_bytes=journal.segment_bytes,
        cap_bytes=journal.cap_bytes // settings.workers,
        on_full=journal.on_full,
    )


def _manner(settings: Settings) -> Manner:
    pepper = settings.keys.pepper
    return Manner(
        node=settings.node,
        pepper=pepper.get_secret_value().encode() if pepper is not None else b"",
        trusted=tuple(settings.trusted_proxies),
        limit_headers=settings.ratelimit_headers,
        x_limit_headers=settings.x_ratelimit_headers,
    )


def head_limits(http: Http, policy: Policy) -> HeadLimits:
    """The bounds of a head; the headers that carry credentials can never be named hop-by-hop."""
    carriers = frozenset(source.field for route in policy.routes for source in route.sources if source.field)
    return HeadLimits(http.head_bytes, http.target_bytes, http.field_bytes, http.fields, http.underscores, carriers)


def client_timeouts(http: Http) -> Timeouts:
    """Milliseconds become the loop's seconds."""
    return Timeouts(
        head_s=http.head_timeout_ms / 1000,
        idle_s=http.idle_timeout_ms / 1000,
        body_grace_s=http.body_grace_ms / 1000,
        body_min_bytes_per_s=http.body_bytes_per_second,
        stalled_s=http.idle_timeout_ms / 1000,
    )


def server_tls(settings: Settings) -> ssl.SSLContext | None:
    """The listener's TLS: HTTP/1.1 only, so that nobody negotiates what is not spoken here."""
    if settings.tls is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(settings.tls.cert, settings.tls.key)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _mint(ids: Ids, clock: SystemClock) -> bytes:
    return ids.mint(clock.now_us() // 1000)
