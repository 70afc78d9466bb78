"""One worker: every edge is built here, introduced to the gateway, started in order, and stopped in the other order.

Start: journal (and what a killed predecessor left open), keys, counters, upstreams, then the port. Stop: the port,
the exchanges under way, the outstanding settles, the journal. A store that is away delays a start by half a
second, and a stop by no more than the drain.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import secrets
import ssl
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from sidecar.app.key_store import KeyStore
from sidecar.app.stats import worker_stats
from sidecar.app.stores import CounterStore
from sidecar.app.upstreams import Secrets, Upstreams
from sidecar.control.probe import Figures
from sidecar.core.http.forward import HOP_BY_HOP
from sidecar.core.http.problem import Problem
from sidecar.core.http.request import HeadLimits
from sidecar.core.identity import Identity
from sidecar.core.policy import Policy
from sidecar.core.record import Ids
from sidecar.core.words import counted
from sidecar.edge.clock import SystemClock
from sidecar.edge.http1.listener import Listener, Timeouts
from sidecar.edge.journal import DenialOptions, Journal, JournalOptions, Report, take_unsettled
from sidecar.edge.ticks import ticks
from sidecar.embedded.folders import leave_states, was_embedded
from sidecar.embedded.lifecycle import Embedded
from sidecar.gateway import GatewayOptions, Ports, WorkerContext, serve
from sidecar.listening.accepting import Acceptor, Clients
from sidecar.listening.descriptors import max_connections
from sidecar.listening.handshakes import Handshakes
from sidecar.listening.sockets import Listeners
from sidecar.loading import certificates, header_secrets
from sidecar.loading.certificates import ServerContext, server_context
from sidecar.loading.snapshot import policy_of
from sidecar.loading.snapshot import staged as staged_path
from sidecar.ports import Upstream
from sidecar.supervisor.link import Json, Link

if TYPE_CHECKING:
    from sidecar.config.sections import Http
    from sidecar.config.settings import Settings

SPARE_FOLDERS = 99  # one for each supervisor that was killed while its streams are still being finished
ORPHANS_S = 5  # between two looks for journals whose worker no longer exists
WHEEL_S = 0.1  # one wheel for all deadlines: timeouts are exact to a tenth of a second
GC_OBJECTS = 50_000  # exchanges make no cycles: at its default of 700 the collector takes 7 % of the CPU for nothing
log = logging.getLogger("sidecar.worker")


class Prepared(NamedTuple):
    """All that a reload swaps in: built before anything is changed. `upstreams` by the id of their route."""

    policy: Policy
    keys: dict[bytes, Identity]
    upstreams: dict[str, Upstream]
    limits: HeadLimits
    renewed: Renewed | None


class Renewed(NamedTuple):
    """All that is made of certificates and secrets, where one of them has changed."""

    pem: certificates.Pem
    server: ssl.SSLContext | None
    upstreams: dict[str, Secrets]


class Descriptors(NamedTuple):
    """The descriptors that a worker inherits: its own listening sockets, and those of the other workers.

    `lease_fd`: shared memory with the previous worker's leases, or -1.
    """

    listen: Sequence[int] = ()
    others: Sequence[int] = ()
    lease_fd: int = -1


class Worker:
    """The parts of one worker, and their life."""

    def __init__(self, settings: Settings, index: int, link: Link, fds: Descriptors) -> None:
        self.settings = settings
        self._lease_fd = fds.lease_fd
        self._listening = ""
        self.late_us = 0  # by which the checks of deadlines ran late
        self.link = link
        self.clock = SystemClock()
        self._reloading = asyncio.Lock()
        self._prepared: Prepared | None = None
        self.figures = Figures()
        ids = Ids(secrets.randbits(60))
        mint = partial(_mint, ids, self.clock)
        self._index = index
        options = journal_options(settings, index)
        self.journal = Journal(options._replace(worker=link.start.get("journal", options.worker)), self.clock)
        self.counters = CounterStore(settings, self.clock, mint, index, self.journal.note)
        self.keys = KeyStore(settings, self.clock, self.figures, self.counters)
        self.embedded = (
            Embedded(self.counters.embedded, self.journal, self.clock, settings.journal.state_seconds)
            if settings.redis is None
            else None
        )
        self._pem = header_secrets.given(link.start, settings)
        self._tls = ServerContext(settings.tls, self._pem) if settings.tls is not None else None
        if self._tls is not None:
            Handshakes(self.figures.count, self.clock.mono_us).watch(self._tls.context)
        self.upstreams = Upstreams(settings, self._pem)
        stores = self.counters
        ports = Ports(
            self.clock,
            self.keys.port,
            stores.port,
            self.journal,
            self.figures,
            stores.retries,
            stores.alerts,
            stores.flush,
        )
        gateway = _gateway_options(settings)
        self.context = WorkerContext(ports, policy_of(settings.policies), self.upstreams.of, ids.mint, gateway)
        self.counters.on_port = partial(setattr, self.context, "counters")
        self.listener = Listener(
            partial(serve, self.context),
            limits=head_limits(settings, self.context.policies.policy),
            timeouts=client_timeouts(settings.http),
            max_body_bytes=settings.http.body_max_bytes or 1 << 62,
            pseudonym=gateway.pseudonym,
            refused=self._refused,
        )
        connected, most = self.listener.connections, max_connections(settings)
        self.acceptor = Acceptor(Clients(self._client, self._handshake, connected, most))
        self._listeners = Listeners(fds.listen, fds.others, self.acceptor)

    def _refused(self, problem: Problem) -> None:
        """The head of a request was refused: there is no exchange."""
        self.figures.answered("", problem.status, 0)
        self.context.refusals.head(problem)

    async def run(self) -> None:
        """Serve until the supervisor says to drain; then finish what is under way, and close."""
        if self.embedded is not None:
            await self.embedded.begin()
        report = self.journal.start()
        if report.crashed or report.torn_bytes or report.corrupt:
            _log_what_was_left(report)
        self.link.pass_on({"journal": self.journal.folder})  # so that a successor finds what we leave open
        self.context.totals.add(report.usage)  # those records are of this epoch, as its checkpoints are
        if self.embedded is not None:
            await self.embedded.start(self.context.policies.policy)
        else:
            self._leave_embedded()
        self.counters.start(self._lease_fd)
        self.keys.start()
        await self.counters.reached()  # else the first requests are let through alone while Redis would answer
        self.counters.settle_again(self.journal.take_ended(), self.context.policies.policy)
        self._listen()
        wheel = asyncio.get_running_loop().create_task(self._turn(), name="wheel")
        orphans = asyncio.get_running_loop().create_task(self._settle_orphans(), name="orphans")
        gc.collect()
        gc.freeze()  # what was built until here lives as long as the process
        gc.set_threshold(GC_OBJECTS, 20, 100)
        self.link.on_stats = partial(worker_stats, self)
        self.link.reloads = self
        if self.link.missed_commit:  # what was read before may be older
            await self.commit()
        draining = asyncio.get_running_loop().create_task(self.link.draining.wait(), name="draining")
        try:
            await asyncio.wait({draining, wheel}, return_when=asyncio.FIRST_COMPLETED)
            if wheel.done():
                wheel.result()  # raises: a worker without deadlines is to be started again, not to serve on
            await self._drain()
        finally:
            draining.cancel()
            wheel.cancel()
            orphans.cancel()
            await self._close()

    def _leave_embedded(self) -> None:
        """The first start with Redis: what the node counted by itself stays out of the counters on Redis."""
        directory = self.settings.journal.dir
        if self._index == 0 and was_embedded(directory):
            self.journal.take_ended()
            take_unsettled(directory, {self.journal.folder})
            self.journal.note_settled()
            self.journal.note_settled()  # marks what the first call saw
            leave_states(directory)

    def _client(self) -> asyncio.Protocol:
        return cast(
            "asyncio.Protocol", self.listener()
        )  # one by its methods: no base class, so that it can be compiled

    def _listen(self) -> None:
        self.link.on_cover = lambda fds, on: self._listeners.cover(fds, on=on)
        self._listening = self._listeners.open()
        self.link.ready(self._listening)

    def _handshake(self) -> dict[str, Any]:
        """How the loop is to speak TLS with clients. A handshake has as long as a head."""
        if self._tls is None:
            return {}
        return {
            "ssl": self._tls.context,
            "ssl_handshake_timeout": self.settings.http.head_timeout_ms / 1000,
        }

    async def _turn(self) -> None:
        """The wheel: deadlines ten times a second, stores once, a checkpoint every few."""
        turns = 0
        async for now, late_s in ticks(WHEEL_S, asyncio.get_running_loop().time):
            self.listener.check_deadlines(now, late_s)
            self.acceptor.check(now)
            self.upstreams.check_deadlines(now, late_s)
            self.context.open.end_overdue(round(late_s * 1_000_000))
            self.late_us += round(late_s * 1_000_000)
            self.counters.adjust_leases()
            if turns % 5 == 0:
                self.counters.extend([*self.listener.exchanges(), *self.context.open.detached])
            if turns % 10 == 0:
                self.counters.tick(self.link, self.context.policies.policy)
                if self.counters.settled():
                    self.journal.note_settled()
                if self.embedded is not None and not self.link.is_orphan:
                    self.embedded.tick()
                self._tell_whether_it_records()
            if turns % (10 * self.settings.checkpoint_seconds) == 0:
                self._checkpoint()
            turns += 1

    async def _settle_orphans(self) -> None:
        """Worker 0 settles what the workers left that no longer exist, once the shipper has closed their journals."""
        if self._index or self.settings.redis is None:
            return
        living = {str(index) for index in range(self.settings.workers)} | {self.journal.folder}
        while True:
            try:
                taken = await asyncio.to_thread(take_unsettled, self.settings.journal.dir, living)
            except OSError as error:
                log.warning("the journals of workers that no longer exist cannot be read: %s", error)
            else:
                self.counters.settle_again(taken, self.context.policies.policy)
            await asyncio.sleep(ORPHANS_S)

    def _tell_whether_it_records(self) -> None:
        """Where the journal takes nothing and `on_full: reject`, each request is answered 503: not ready."""
        if self.journal.accepting():
            self.link.ready(self._listening)
        else:
            self.link.not_ready("the journal takes no more records: its disk or journal.cap is full")

    def _checkpoint(self) -> None:
        """Say that we are metering, traffic or not, and how far: an outage must not look like no usage."""
        totals = self.context.totals.units
        self.journal.checkpoint(
            self.context.open.number, self.context.policies.policy.version, self.counters.degraded_s, totals
        )

    async def _drain(self) -> None:
        """Fail no accepted request (I12): what is under way is finished, and only then is anything cut."""
        self.link.closed("draining")
        joining = self._listeners.close(for_good=self.link.node_ends)
        self.listener.drain()
        if not await self.link.within_drain(self._finish(joining)):
            log.warning("drain_seconds are over: %s cut", counted(self.context.open.number, "exchange"))
            self.listener.abort()
            self.context.open.abort()
        if not await self.link.within_drain(self.counters.settle_up()):
            log.warning("drain: not all outage debts reached Redis; the journal has them")

    async def _finish(self, joining: list[asyncio.Task[Any]]) -> None:
        """Serve whom the kernel let in, and wait until every answer has been sent."""
        await asyncio.gather(*joining, return_exceptions=True)  # a handshake that fails is the client's
        await self.listener.gone()
        await self.context.open.idle.wait()

    async def _close(self) -> None:
        self.journal.summarise_denials()
        self._checkpoint()
        await self.upstreams.aclose()
        await self.counters.aclose()
        await self.keys.aclose()
        if self.embedded is not None:
            await self.embedded.aclose(is_orphan=self.link.is_orphan)
        await self.journal.aclose(settled=self.counters.all_settled)

    async def prepare(self, staged: Json) -> str:
        """Build all that the staged policy, keys and certificates need. PolicyError: a file is wrong.

        They are read in a thread, which may take seconds of many plans and keys, and by one reload at a time, so that
        what was read last stays.
        """
        async with self._reloading:
            self.discard()
            self._prepared = await self._build(staged.get("pem"), staged=True)
            return self._prepared.policy.version

    async def commit(self) -> str:
        """Swap in what was prepared, or else what is current: whole, or (PolicyError, OSError) not at all."""
        async with self._reloading:
            prepared = self._prepared or await self._build(self.link.start.get("pem"), staged=False)
            self.discard()
            self.keys.swap_in(prepared.keys)
            self.context.policies.swap_in(prepared.policy, prepared.upstreams)
            self.listener.limits = prepared.limits
            if prepared.renewed is not None:
                self._renew(prepared.renewed)
            self.counters.recall()
            if self.embedded is not None:
                self.embedded.policy_changed()
            return prepared.policy.version

    def discard(self) -> None:
        """Forget what was prepared."""
        self._prepared = None

    async def _build(self, pem: certificates.Pem | None, *, staged: bool) -> Prepared:
        policy, keys = await asyncio.to_thread(self._read, staged=staged)
        upstreams = {route.id: self.upstreams.of(route) for route in policy.routes}
        renewed = None
        if pem is not None and pem != self._pem:
            tls = self.settings.tls
            server = server_context(tls, pem) if tls is not None else None
            renewed = Renewed(pem, server, self.upstreams.secrets(pem))
        return Prepared(policy, keys, upstreams, head_limits(self.settings, policy), renewed)

    def _renew(self, renewed: Renewed) -> None:
        """Present and trust the new certificates, and send the new secrets; open connections stay as they are."""
        if self._tls is not None and renewed.server is not None:
            self._tls.swap(renewed.server)
        self.upstreams.swap_in(renewed.upstreams)
        self.keys.reconnect()
        changed = sorted(path for path, text in renewed.pem.items() if self._pem.get(path) != text)
        self._pem = renewed.pem
        log.info("certificates and secrets renewed: %s", ", ".join(changed))

    def _read(self, *, staged: bool) -> tuple[Policy, dict[bytes, Identity]]:
        policies, keys = self.settings.policies, self.settings.keys.file
        if staged:
            policies, keys = staged_path(policies), keys and staged_path(keys)
        return policy_of(policies), self.keys.read(keys)


async def run_worker(settings: Settings, index: int, link: Link, fds: Descriptors) -> None:
    """Run worker `index` until `link` says to drain. PolicyError, SinkError, OSError: it cannot start."""
    await Worker(settings, index, link, fds).run()


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
        spares=SPARE_FOLDERS,
        denials=DenialOptions(
            share_bytes=journal.cap_bytes // settings.workers * journal.denials.share_percent // 100,
            per_second=_shared_out(journal.denials.per_second, settings.workers),
            per_limit=_shared_out(journal.denials.per_limit, settings.workers),
            summary_seconds=journal.denials.summary_seconds,
        ),
    )


def _log_what_was_left(report: Report) -> None:
    fields = {"epoch": report.epoch} | {
        name: number for name in ("torn_bytes", "corrupt", "corrupt_bytes") if (number := getattr(report, name))
    }
    if report.crashed:
        what = f"a worker was killed: {counted(report.crashed, 'exchange')} closed as crashed, not billed"
    else:
        what = "the journal held bytes that are not entries"
    log.warning(what, extra={"fields": fields})


def _shared_out(number: int, workers: int) -> int:
    """A worker's part, rounded up: of a few, each has one."""
    return -(-number // workers)


def _gateway_options(settings: Settings) -> GatewayOptions:
    pepper = settings.keys.pepper
    return GatewayOptions(
        node=settings.node,
        pepper=pepper.get_secret_value().encode() if pepper is not None else b"",
        trusted=tuple(settings.trusted_proxies),
        limit_headers=settings.ratelimit_headers,
        x_limit_headers=settings.x_ratelimit_headers,
        failures_per_second=_shared_out(settings.keys.failures_per_second, settings.workers),
    )


def head_limits(settings: Settings, policy: Policy) -> HeadLimits:
    """The bounds of a head; the headers that the policy reads mean the same to the upstream, or are refused.

    A client cannot get past a header that an upstream is given, by its twin with underscores.
    """
    http = settings.http
    # `Connection: upgrade` is how that field is to be named.
    protected = policy.carriers | (policy.headers - HOP_BY_HOP)
    given = {name.lower().encode() for upstream in settings.upstreams.values() for name in upstream.headers}
    return HeadLimits(
        http.head_bytes,
        http.target_bytes,
        http.field_bytes,
        http.fields,
        http.underscores,
        protected=protected | given,
        once=policy.headers,
    )


def client_timeouts(http: Http) -> Timeouts:
    """Milliseconds become the loop's seconds."""
    return Timeouts(
        head_s=http.head_timeout_ms / 1000,
        idle_s=http.idle_timeout_ms / 1000,
        body_grace_s=http.body_grace_ms / 1000,
        body_min_bytes_per_s=http.body_bytes_per_second,
        stalled_s=http.idle_timeout_ms / 1000,
    )


def _mint(ids: Ids, clock: SystemClock) -> bytes:
    return ids.mint(clock.now_us() // 1000)
