"""The supervisor: starts the children, starts them again when they die, and ends them in order. It serves no traffic.

What it may never do: let one child's crash loop touch another, put a policy into force that it has not validated, or
leave while a child of its own still runs. Drain order: workers first (they write records), then the shipper.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sidecar.app.child import EXIT_WRONG
from sidecar.app.children import Child, Json, cpu_and_memory
from sidecar.control.stats import ChildView, NodeView, PolicyView, Totals
from sidecar.core.errors import PolicyError

PAUSES_SECONDS = (0.1, 0.2, 0.5, 1, 2, 5, 10)  # between a death and the next start; the last one repeats
STEADY_SECONDS = 10  # a child that lived so long starts from the first pause again
BEAT_SECONDS = 2
LOOK_SECONDS = 1
MISSED_BEATS = 15  # then a child that was ready once is stuck for good, and is killed
RELOAD_SECONDS = 30
GRACE_SECONDS = 5  # beyond the drain, for the last flush
HURRY_SECONDS = 2
log = logging.getLogger("sidecar.supervisor")


class Role(NamedTuple):
    """What to start and keep: `command` gets `--fd N` appended; roles of a lower `stage` are drained first.

    `needs` names the dependencies that must have answered the child once before it counts as ready. `keeps` are
    descriptors that each who fills the role is handed, so that it finds what the one before it had.
    """

    name: str
    command: Sequence[str]
    stage: int = 0
    needs: tuple[str, ...] = ()
    keeps: tuple[int, ...] = ()


@dataclass(slots=True, eq=False)
class Post:
    """A role and who fills it at the moment."""

    role: Role
    child: Child | None = None
    restarts: int = 0
    last_words: str = "starting"


@dataclass(slots=True)
class Setup:
    """What the supervisor is to run. `load` validates policies and keys, keeps them for the children, says the version.

    `announce` is called once for each line that an operator wants to see: what listens where.
    """

    version: str
    roles: Sequence[Role]
    start: Json
    drain_seconds: int
    load: Callable[[], str] = str
    announce: Callable[[str], None] = lambda _line: None
    form: str = ""  # of the data path: compiled or pure
    scheme: str = "http"
    now_us: Callable[[], int] = lambda: time.time_ns() // 1000


class Supervisor:
    """Runs a node until it is told to stop. `view` is what the control listener shows."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.posts = [Post(role) for role in setup.roles]
        self.policy = PolicyView()
        self.started_us = setup.now_us()
        self.stopping = asyncio.Event()
        self.hurried = asyncio.Event()
        self.wrong = False
        self._left = Totals()
        self._reloading = asyncio.Lock()
        self._announced = False

    async def run(self) -> int:
        """Start, keep, drain; the exit status: 0 drained, 1 a child had to be killed, 2 it could never start."""
        async with asyncio.TaskGroup() as tasks:
            keepers = {post: tasks.create_task(self._keep(post)) for post in self.posts}
            beat = tasks.create_task(self._beat())
            await self.stopping.wait()
            clean = True
            for stage in sorted({post.role.stage for post in self.posts}):
                clean &= await self._drain([(post, keepers[post]) for post in self.posts if post.role.stage == stage])
            beat.cancel()
        if self.wrong:
            return EXIT_WRONG
        return 0 if clean else 1

    def listen_to_signals(self, tasks: asyncio.TaskGroup) -> Callable[[], None]:
        """SIGTERM and SIGINT drain, a second one hurries; SIGHUP calls what is returned: reload, in `tasks`."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)

        def reload() -> None:
            tasks.create_task(self.reload())

        loop.add_signal_handler(signal.SIGHUP, reload)
        return reload

    def stop(self) -> None:
        """Drain; called again: hurry."""
        if not self.stopping.is_set():
            log.info("draining", extra={"fields": {"seconds": self.setup.drain_seconds}})
            self.stopping.set()
            return
        log.warning("hurrying: what is under way is cut, the journal keeps it")
        self.hurried.set()
        for child in self._living():
            child.tell({"do": "hurry"})

    async def load(self) -> None:
        """Validate policies and keys before anything starts. PolicyError: what is wrong with them."""
        now_us = self.setup.now_us()
        self.policy = PolicyView(await asyncio.to_thread(self.setup.load), loaded_us=now_us, tried_us=now_us)

    async def reload(self) -> PolicyView:
        """Validate policies and keys; where they are right, tell every worker to take them. One at a time."""
        async with self._reloading:
            self.policy.tried_us = self.setup.now_us()
            try:
                version = await asyncio.to_thread(self.setup.load)
            except PolicyError as error:
                return self._refused([str(fault) for fault in error.faults])
            except OSError as error:  # the copies could not be written
                return self._refused([str(error)])
            asked = await asyncio.gather(*(child.ask("reload", RELOAD_SECONDS) for child in self._living()))
            # Only now: what is told to be in force is looked for in the answers.
            self.policy.version, self.policy.loaded_us, self.policy.faults = version, self.policy.tried_us, []
            faults = [fault for answer in asked if answer for fault in answer["reload"]["faults"]]
            if faults:
                return self._refused(faults)
            log.info("policies loaded", extra={"fields": {"version": self.policy.version}})
            return self.policy

    async def view(self) -> NodeView:
        """Ask every child for its figures, within a bound."""
        await asyncio.gather(*(child.look(LOOK_SECONDS) for child in self._living()))
        return NodeView(
            version=self.setup.version,
            started_us=self.started_us,
            draining=self.stopping.is_set(),
            children=[_shown(post) for post in self.posts],
            policy=self.policy,
            totals=self._left.plus(child.standing.stats for child in self._living()),
            form=self.setup.form,
        )

    def _refused(self, faults: list[str]) -> PolicyView:
        self.policy.faults = faults
        self.policy.failed_reloads += 1
        for fault in faults:
            log.error("policies refused, the old ones stay: %s", fault)
        return self.policy

    async def _keep(self, post: Post) -> None:
        deaths = 0
        loop = asyncio.get_running_loop()
        while not self.stopping.is_set():
            born = loop.time()
            try:
                status = await self._live(post)
            except OSError as error:  # no process, no descriptor: tried again like any other death
                log.error("%s cannot be started: %s", post.role.name, error)  # noqa: TRY400 - the reason, not our stack
                status = 1
            if self.stopping.is_set():
                return
            if status == EXIT_WRONG and not self._announced:
                self.wrong = True
                self.stop()
                return
            deaths = 0 if loop.time() - born > STEADY_SECONDS else deaths + 1
            pause = PAUSES_SECONDS[min(deaths, len(PAUSES_SECONDS)) - 1] if deaths else PAUSES_SECONDS[0]
            post.restarts += 1
            post.last_words = f"ended with {_status(status)}, is started again"
            log.error("%s %s", post.role.name, post.last_words, extra={"fields": {"pause_seconds": pause}})
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), pause)

    async def _live(self, post: Post) -> int:
        start = self.setup.start | {"drain_seconds": self.setup.drain_seconds}
        child = await Child.spawn(post.role.name, post.role.command, start, post.role.keeps)
        child.standing.needs = set(post.role.needs)
        child.heard = self._heard
        post.child = child
        try:
            return await child.gone()
        finally:
            self._left.add(child.standing.stats)
            post.child = None

    def _heard(self, child: Child, message: Json) -> None:
        log.log(
            logging.WARNING if "not_ready" in message or "away" in message else logging.INFO,
            "%s says %s",
            child.name,
            " ".join(f"{key} {value}".strip() for key, value in message.items()),
        )
        serving = [post.child for post in self.posts if post.role.stage == 0]
        if self._announced or any(child is None or child.standing.not_ready for child in serving):
            return
        self._announced = True
        for where in sorted({child.standing.listening for child in serving if child} - {""}):
            self.setup.announce(f"listening on {self.setup.scheme}://{where}")

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            children = self._living()
            answered = await asyncio.gather(*(child.look(LOOK_SECONDS) for child in children))
            for child, alive in zip(children, answered, strict=True):
                child.standing.missed = 0 if alive else child.standing.missed + 1
                if child.standing.missed >= MISSED_BEATS and child.standing.served:
                    log.error("%s does not answer any more: killed", child.name)
                    child.kill()

    async def _drain(self, posts: Sequence[tuple[Post, asyncio.Task[None]]]) -> bool:
        """Drain the posts of one stage; False where a child had to be killed."""
        for post, _ in posts:
            if post.child:
                post.child.tell({"do": "drain", "seconds": self.setup.drain_seconds})
                if self.hurried.is_set():
                    post.child.tell({"do": "hurry"})
        keepers = [keeper for _, keeper in posts]
        if await self._ended(keepers, self.setup.drain_seconds + GRACE_SECONDS):
            return True
        for post, keeper in posts:
            if post.child and not keeper.done():
                log.error("%s did not end in time: killed; its journal keeps what it knew", post.role.name)
                post.child.kill()
        await asyncio.gather(*keepers)
        return False

    async def _ended(self, keepers: Iterable[asyncio.Task[None]], seconds: float) -> bool:
        everyone = asyncio.gather(*keepers)
        hurry = asyncio.get_running_loop().create_task(self.hurried.wait())
        either: set[asyncio.Future[Any]] = {everyone, hurry}
        await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if hurry.done():
            await asyncio.wait({everyone}, timeout=HURRY_SECONDS)
        hurry.cancel()
        return everyone.done()

    def _living(self) -> list[Child]:
        return [post.child for post in self.posts if post.child]


def _shown(post: Post) -> ChildView:
    child = post.child
    if child is None:
        return ChildView(post.role.name, 0, ready=False, reasons=[post.last_words], away={}, restarts=post.restarts)
    standing, reasons = child.standing, child.standing.reasons()
    cpu_us, rss_bytes = cpu_and_memory(child.process.pid)
    return ChildView(
        name=post.role.name,
        pid=child.process.pid,
        ready=not reasons,
        reasons=reasons,
        away=standing.away,
        restarts=post.restarts,
        stats=standing.stats,
        listening=standing.listening,
        cpu_us=cpu_us,
        rss_bytes=rss_bytes,
    )


def _status(status: int) -> str:
    if status < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-status).name
    return f"exit status {status}"
