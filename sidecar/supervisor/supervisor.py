"""The supervisor: starts the children, restarts them when they die, and ends them in order. It serves no traffic.

It must never let one child's crash loop affect another, apply a policy that it has not validated, or exit while one of
its children still runs. Drain order: workers first (they write records), then the shipper.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sidecar.control.stats import NodeView, Totals
from sidecar.supervisor.child import EXIT_STATE, EXIT_WRONG
from sidecar.supervisor.children import Child, describe
from sidecar.supervisor.covering import Cover
from sidecar.supervisor.link import Json
from sidecar.supervisor.node_reload import NodeReload
from sidecar.supervisor.roles import ChildSlot, Setup, child_view, status_text

PAUSES_SECONDS = (0.1, 0.2, 0.5, 1, 2, 5, 10)  # between a death and the restart; the last one repeats
STEADY_SECONDS = 10  # after so long a life the pauses begin anew
BEAT_SECONDS = 2
STATS_SECONDS = 1
MISSED_BEATS = 15  # then a child that was ready before is considered stuck, and is killed
GRACE_SECONDS = 5  # beyond the drain, for the last flush
ABORT_SECONDS = 2
log = logging.getLogger("sidecar.supervisor")


class Supervisor:
    """Runs a node until it is asked to stop. `view` is what the control listener shows."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.slots = [ChildSlot(role) for role in setup.roles]
        self.started_us = setup.now_us()
        self.stopping = asyncio.Event()
        self.aborting = asyncio.Event()
        self.wrong = False
        self._left = Totals()
        self.reloads = NodeReload(setup, self._living)
        self._announced = False
        self._cover = Cover()

    async def load(self) -> None:
        """Load policies and keys, while the processes of the children import their code. PolicyError: what is wrong."""
        for slot in self.slots:
            with contextlib.suppress(OSError):  # `run` tries again, and reports it
                slot.spare = await _spawned(slot)
        await self.reloads.load()

    async def dismiss(self) -> None:
        """End the processes that were not started, since the node does not run."""
        for slot in self.slots:
            if slot.spare is not None:
                slot.spare.kill()
                await slot.spare.gone()
                slot.spare = None

    async def run(self) -> int:
        """Start, keep, drain; the exit status.

        0: drained, and all is shipped; 1: a child had to be killed, or records are left; 2: it could never start.
        """
        async with asyncio.TaskGroup() as tasks:
            keepers = {slot: tasks.create_task(self._keep(slot)) for slot in self.slots}
            beat = tasks.create_task(self._beat())
            await self.stopping.wait()
            clean = True
            for stage in sorted({slot.role.stage for slot in self.slots}):
                clean &= await self._drain([(slot, keepers[slot]) for slot in self.slots if slot.role.stage == stage])
            beat.cancel()
        if self.wrong:
            return EXIT_WRONG
        return 0 if not await self._left_behind() and clean else 1

    async def _left_behind(self) -> bool:
        """Whether records are left in the journal, which is logged with the remedy."""
        backlog = await asyncio.to_thread(self.setup.backlog)
        if not backlog.oldest_us:
            return False
        log.error(
            "%d bytes of the journal are not shipped, the oldest record is %d s old: restart, or run `sidecar ship`",
            *(backlog.bytes, backlog.oldest_us // 1_000_000),
        )
        return True

    def listen_to_signals(self, tasks: asyncio.TaskGroup) -> Callable[[], None]:
        """SIGTERM and SIGINT drain, a second one aborts; SIGHUP reloads in `tasks`. Returns that reload."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)

        def reload() -> None:
            tasks.create_task(self.reloads.reload())

        loop.add_signal_handler(signal.SIGHUP, reload)
        return reload

    def stop(self) -> None:
        """Drain; if it is called again, abort requests in flight."""
        if not self.stopping.is_set():
            log.info("draining", extra={"fields": {"seconds": self.setup.drain_seconds}})
            self.stopping.set()
            return
        log.warning("second signal: aborting in-flight requests; they are in the journal")
        self.aborting.set()
        for child in self._living():
            child.send({"do": "abort"})

    async def view(self) -> NodeView:
        """Ask every child for its figures, within a bound."""
        measured = asyncio.to_thread(self.setup.backlog)
        backlog, _ = await asyncio.gather(measured, self._refresh_stats())
        return NodeView(
            version=self.setup.version,
            started_us=self.started_us,
            draining=self.stopping.is_set(),
            children=[child_view(slot) for slot in self.slots],
            policy=self.reloads.policy,
            totals=self._left.plus(child.status.stats for child in self._living()),
            form=self.setup.build_variant,
            certificates=dict(self.setup.expiries()),
            own={
                "gauges": {"journal_backlog_bytes": backlog.bytes},
                "ages_us": {"journal_oldest": backlog.oldest_us},
            },
        )

    async def _keep(self, slot: ChildSlot) -> None:
        deaths = 0
        loop = asyncio.get_running_loop()
        while True:
            born = loop.time()
            try:
                status = await self._live(slot)
            except OSError as error:  # no process, no descriptor: retried like any other death
                log.error("%s cannot be started: %s", slot.role.name, error)  # noqa: TRY400 - the reason, not our stack
                status = 1
            if self._is_over(slot, status):
                return
            if status == EXIT_STATE or (status == EXIT_WRONG and not self._announced):
                log.error(
                    "%s cannot start with this configuration: the node ends. Its error is in the line before",
                    slot.role.name,
                )
                self.wrong = True
                self.stop()
                return
            deaths = 0 if loop.time() - born > STEADY_SECONDS else deaths + 1
            pause = PAUSES_SECONDS[min(deaths, len(PAUSES_SECONDS)) - 1] if deaths else PAUSES_SECONDS[0]
            slot.restarts += 1
            slot.last_status = f"ended with {status_text(status)}, is restarted"
            log.error("%s %s", slot.role.name, slot.last_status, extra={"fields": {"pause_seconds": pause}})
            await self._pause(slot, pause)
            if self._is_over(slot, status):
                return

    def _is_over(self, slot: ChildSlot, status: int) -> bool:
        """Whether a child that ended with `status` is not restarted."""
        if not slot.role.completes:
            return self.stopping.is_set()
        if not slot.draining.is_set():
            return False
        return status == 0 or self.aborting.is_set() or asyncio.get_running_loop().time() >= slot.drain_until

    async def _pause(self, slot: ChildSlot, seconds: float) -> None:
        """Wait before a restart, at most until the drain begins; during a drain only briefly."""
        if slot.draining.is_set():
            await asyncio.sleep(PAUSES_SECONDS[0])
            return
        until = slot.draining if slot.role.completes else self.stopping
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(until.wait(), seconds)

    async def _live(self, slot: ChildSlot) -> int:
        start = self.setup.start | {"drain_seconds": self.setup.drain_seconds} | slot.passed_on
        child, slot.spare = slot.spare or await _spawned(slot), None
        child.start(start)
        child.status.needs = set(slot.role.needs)
        child.on_report = self._on_report
        slot.child = child
        if slot.draining.is_set():
            self._send_drain(slot)
        try:
            return await child.gone()
        finally:
            self._left.add(child.status.stats)
            slot.passed_on |= child.status.passed_on
            slot.child = None
            self._update_cover()

    def _send_drain(self, slot: ChildSlot) -> None:
        if slot.child is None:
            return
        seconds = max(0, round(slot.drain_until - asyncio.get_running_loop().time()))
        slot.child.send({"do": "drain", "seconds": seconds})
        if self.aborting.is_set():
            slot.child.send({"do": "abort"})

    def _on_report(self, child: Child, message: Json) -> None:
        level, text = describe(message)
        log.log(level, "%s: %s", child.name, text)
        self._update_cover()
        serving = [slot.child for slot in self.slots if slot.role.stage == 0]
        if self._announced or any(child is None or child.status.not_ready for child in serving):
            return
        self._announced = True
        for where in self.setup.listening:
            self.setup.announce(f"listening on {where}")

    async def _refresh_stats(self) -> None:
        await asyncio.gather(*(child.refresh_stats(STATS_SECONDS) for child in self._living()))

    def _update_cover(self) -> None:
        if not self.stopping.is_set():
            self._cover.update([(slot.role.listens, slot.child) for slot in self.slots if slot.role.stage == 0])

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            children = self._living()
            answered = await asyncio.gather(*(child.refresh_stats(STATS_SECONDS) for child in children))
            for child, alive in zip(children, answered, strict=True):
                child.status.missed = 0 if alive else child.status.missed + 1
                self._update_cover()
                if child.status.missed >= MISSED_BEATS and child.status.served:
                    log.error("%s no longer answers: killing it, to start it again", child.name)
                    child.kill()

    async def _drain(self, slots: Sequence[tuple[ChildSlot, asyncio.Task[None]]]) -> bool:
        """Drain the slots of one stage; False if a child had to be killed."""
        for slot, _ in slots:
            slot.drain_until = asyncio.get_running_loop().time() + self.setup.drain_seconds
            slot.draining.set()
            self._send_drain(slot)
        keepers = [keeper for _, keeper in slots]
        if await self._ended(keepers, self.setup.drain_seconds + GRACE_SECONDS):
            return True
        for slot, keeper in slots:
            if slot.child and not keeper.done():
                log.error("%s did not end in time: killed; its open requests are in the journal", slot.role.name)
                slot.child.kill()
        await asyncio.gather(*keepers)
        return False

    async def _ended(self, keepers: Iterable[asyncio.Task[None]], seconds: float) -> bool:
        everyone = asyncio.gather(*keepers)
        abort = asyncio.get_running_loop().create_task(self.aborting.wait())
        either: set[asyncio.Future[Any]] = {everyone, abort}
        await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if abort.done():
            await asyncio.wait({everyone}, timeout=ABORT_SECONDS)
        abort.cancel()
        return everyone.done()

    def _living(self) -> list[Child]:
        return [slot.child for slot in self.slots if slot.child]


async def _spawned(slot: ChildSlot) -> Child:
    return await Child.spawn(slot.role.name, slot.role.command, slot.role.keeps)
