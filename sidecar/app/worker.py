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
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from sidecar.app.key_store import KeyStore
from sidecar.app.policy_states import applied, refused
from sidecar.app.reload import Reload
from sidecar.app.stats import worker_stats
from sidecar.app.stores import CounterStore
from sidecar.app.upstreams import Upstreams
from sidecar.app.wallet_postings import WalletPostings
from sidecar.app.worker_options import client_timeouts, gateway_options, head_limits, journal_options
from sidecar.control.probe import Figures
from sidecar.core.http.problem import Problem
from sidecar.core.policy import Policy
from sidecar.core.record import Ids
from sidecar.core.words import counted
from sidecar.edge.clock import SystemClock
from sidecar.edge.http1.listener import Listener
from sidecar.edge.journal import Journal, Report, take_unsettled
from sidecar.edge.ticks import ticks
from sidecar.embedded.folders import leave_states, was_embedded
from sidecar.embedded.lifecycle import Embedded
from sidecar.gateway import Ports, WorkerContext, serve
from sidecar.listening.accepting import Acceptor, Clients
from sidecar.listening.descriptors import max_connections
from sidecar.listening.handshakes import Handshakes
from sidecar.listening.sockets import Listeners
from sidecar.loading import header_secrets
from sidecar.loading.certificates import ServerContext
from sidecar.loading.snapshot import policy_of
from sidecar.supervisor.link import Link

if TYPE_CHECKING:
    from sidecar.config.settings import Settings

SPARE_FOLDERS = 99  # one for each supervisor that was killed while its streams are still being finished
ORPHANS_S = 5  # between two looks for journals whose worker no longer exists
WHEEL_S = 0.1  # one wheel for all deadlines: timeouts are exact to a tenth of a second
GC_OBJECTS = 50_000  # exchanges make no cycles: at its default of 700 the collector takes 7 % of the CPU for nothing
log = logging.getLogger("sidecar.worker")


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
        self.figures = Figures()
        ids = Ids(secrets.randbits(60))
        mint = partial(_mint, ids, self.clock)
        self._index = index
        options = journal_options(settings, index)
        self.journal = Journal(options._replace(worker=link.start.get("journal", options.worker)), self.clock)
        self.counters = CounterStore(settings, self.clock, mint, index, self.journal.note)
        self.postings = WalletPostings(settings, self.counters, self.journal, self.clock, ids)
        self.keys = KeyStore(settings, self.clock, self.figures, self.counters)
        self.embedded = (
            Embedded(self.counters.embedded, self.journal, self.clock, settings.journal.state_seconds)
            if settings.redis is None
            else None
        )
        pem = header_secrets.given(link.start, settings)
        self.tls = ServerContext(settings.tls, pem) if settings.tls is not None else None
        if self.tls is not None:
            Handshakes(self.figures.count, self.clock.mono_us).watch(self.tls.context)
        self.upstreams = Upstreams(settings, pem)
        stores = self.counters
        ports = Ports(
            self.clock,
            self.keys.port,
            stores.port,
            self.journal,
            self.figures,
            stores.retries,
            stores.alerts,
            stores.peeks,
            stores.flush,
        )
        gateway = gateway_options(settings)
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
        self.acceptor = Acceptor(Clients(self._client, self._handshake, connected, most, self.listener.idle))
        self.reload = Reload(self, pem)
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
        self.state_policy(self.context.policies.policy)
        self.postings.start(self._index, lambda: self.context.policies.policy.has_balances)
        self.link.on_refused = self._state_refused
        self._listen()
        wheel = asyncio.get_running_loop().create_task(self._turn(), name="wheel")
        orphans = asyncio.get_running_loop().create_task(self._settle_orphans(), name="orphans")
        gc.collect()
        gc.freeze()  # what was built until here lives as long as the process
        gc.set_threshold(GC_OBJECTS, 20, 100)
        self.link.on_stats = partial(worker_stats, self)
        self.link.reloads = self.reload
        if self.link.missed_commit:  # what was read before may be older
            await self.reload.commit()
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

    def state_policy(self, policy: Policy) -> None:
        """Record that `policy` is applied. One worker does it for the node, before it serves a request by it."""
        if self._index == 0:
            for statement in applied(policy):
                self.journal.state(statement)

    def _state_refused(self, faults: list[str]) -> None:
        """Record that an edit of the policy was refused."""
        if self._index == 0:
            self.journal.state(refused(self.context.policies.policy, faults))

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
        if self.tls is None:
            return {}
        return {
            "ssl": self.tls.context,
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
            if turns % 2 == 0:
                self.postings.tick()
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
                log.warning(
                    "journals of workers that no longer exist cannot be read: %s; trying again in %d s",
                    error,
                    ORPHANS_S,
                )
            else:
                self.counters.settle_again(taken, self.context.policies.policy)
            await asyncio.sleep(ORPHANS_S)

    def _tell_whether_it_records(self) -> None:
        """Where the journal takes nothing and `on_full: reject`, each request is answered 503: not ready."""
        if self.journal.accepting():
            self.link.ready(self._listening)
        else:
            self.link.not_ready("the journal takes no more records: its disk or journal.cap is full")

    def _checkpoint(self, *, final: bool = False) -> None:
        """Say that we are metering, traffic or not, and how far: an outage must not look like no usage."""
        context = self.context
        policy, totals = context.policies.policy.version, context.totals.units
        self.journal.checkpoint(context.open.number, policy, self.counters.degraded_s, totals, final=final)

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
            log.warning("drain: not all outage debts reached Redis: keep journal.dir, the next start sends them")
        if not await self.link.within_drain(self.postings.finish()):
            log.warning("drain: not all postings of wallets are in the journal: the next start writes them")

    async def _finish(self, joining: list[asyncio.Task[Any]]) -> None:
        """Serve whom the kernel let in, and wait until every answer has been sent."""
        await asyncio.gather(*joining, return_exceptions=True)  # a handshake that fails is the client's
        await self.listener.gone()
        await self.context.open.idle.wait()

    async def _close(self) -> None:
        await self.upstreams.aclose()
        await self.counters.aclose()
        await self.keys.aclose()
        if self.embedded is not None:
            await self.embedded.aclose(is_orphan=self.link.is_orphan)
        self.journal.summarise_denials()
        self._checkpoint(final=True)
        await self.journal.aclose(settled=self.counters.all_settled)


async def run_worker(settings: Settings, index: int, link: Link, fds: Descriptors) -> None:
    """Run worker `index` until `link` says to drain. PolicyError, SinkError, OSError: it cannot start."""
    await Worker(settings, index, link, fds).run()


def _log_what_was_left(report: Report) -> None:
    fields = {"epoch": report.epoch} | {
        name: number for name in ("torn_bytes", "corrupt", "corrupt_bytes") if (number := getattr(report, name))
    }
    if report.crashed:
        what = f"a worker was killed: {counted(report.crashed, 'exchange')} closed as crashed, not billed"
    else:
        what = "the journal held bytes that are not entries"
    log.warning(what, extra={"fields": fields})


def _mint(ids: Ids, clock: SystemClock) -> bytes:
    return ids.mint(clock.now_us() // 1000)
