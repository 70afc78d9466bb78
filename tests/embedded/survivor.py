"""A gateway on paper with a real journal and the memory of a node without Redis, which can be killed at any moment."""

import asyncio
import random
from dataclasses import replace

from sidecar.core.errors import UpstreamError, UpstreamReason
from sidecar.core.identity import Identity
from sidecar.core.policy import Limit
from sidecar.core.price import Price
from sidecar.core.price.wallet import Grant
from sidecar.edge.clock import SystemClock
from sidecar.edge.journal import Journal, JournalOptions
from sidecar.embedded.lifecycle import Embedded, WorkerLog
from sidecar.embedded.replay import Replay
from sidecar.embedded.saver import Saver
from sidecar.embedded.state import EmbeddedState
from sidecar.ports import Clock
from sidecar.testing import HandClock
from tests.gateway.scene import SLOTS, Scene
from tests.stage import ANN, quota

EGRESS = Limit("egress", "quota", 1_000_000, meter="egress_bytes", calendar="month", reserve=500)
SMALL = replace(EGRESS, id="small", reserve=7)  # the same meter, held otherwise
RATE = Limit("rate", "rate", 1_000, meter="egress_bytes", per=50, period_us=1_000_000, reserve=20)
SLIDING = Limit("sliding", "window", 100_000, meter="egress_bytes", period_us=60_000_000, scope="subject")
CREDIT = (
    Limit("credit.bytes", "priced", 0, meter="egress_bytes", calendar="day", scope="customer", unit="usd", reserve=99,
          price=Price("per_unit", 1001, 7)),
    Limit("credit", "balance", 0, meter="", scope="customer", unit="usd", period_us=600_000_000, over="allow"),
)  # fmt: skip
LIMITS = quota(1_000), EGRESS, SMALL, RATE, SLIDING, replace(SLOTS, amount=64), *CREDIT
CUSTOMERS = 40
WHOSE = {"customer": "cust-ann", "unit": "usd"}


class Ticking(Clock):
    """Time passes with each look at it, so that a save is made of many slices."""

    def __init__(self, clock):
        self.now_us = clock.now_us
        self._mono_us = 0

    def mono_us(self):
        self._mono_us += 7
        return self._mono_us


class Node(Scene):
    """One life of it; `next_life` is what a start after a kill makes of the same folder."""

    def __init__(self, folder, clock=None, durability="os", limits=LIMITS, version=""):
        super().__init__(*limits)
        self.folder, self.durability, self.limits, self.version = folder, durability, limits, version
        self.clock = clock or HandClock()
        options = JournalOptions(folder, "0", "//sidecar/t/n/0", durability, spares=2, version=version)
        self.journal = Journal(options, self.clock)
        self.state = EmbeddedState(self.clock, self.journal.note)
        self.saver = Saver(self.state, WorkerLog(self.journal), Ticking(self.clock), 0)
        context = self.context
        context.clock, context.journal = self.clock, self.journal
        context.counters, context.retries, context.alerts = self.state.counters, self.state.retries, self.state.alerts
        self.open = []
        for number in range(CUSTOMERS):
            self.keys.register(f"key{number}", Identity(f"k{number}", f"s{number}", f"c{number}", "free"))

    async def start(self):
        self.context.totals.add(self.journal.start().usage)
        replay = Replay(self.state, self.context.policies.policy)
        self.report = replay.run(self.journal.path, self.clock.now_us())
        self.left = dict(replay.opened)
        replay.release(self.clock.now_us())
        assert await self.saver.save(rest=0)
        return self

    async def begin(self, key="ann"):
        calls = len(self.upstream.calls)
        exchange = self.ask(key=key)
        async with asyncio.timeout(10):
            while not exchange.ended and len(self.upstream.calls) == calls:
                await asyncio.sleep(0)
        if not exchange.ended:
            self.open.append((exchange, self.call))

    async def end(self, chance):
        exchange, call = self.open.pop(chance.randrange(len(self.open)))
        self.exchange = exchange
        match chance.choice(("ok", "ok", "5xx", "refused", "gone")):
            case "ok":
                call.connect().respond(200, b"x" * chance.randrange(3_000))
            case "5xx":
                call.connect().respond(503, b"x" * 40)
            case "refused":
                call.fail(UpstreamError(UpstreamReason.REFUSED, "x"))
            case "gone":
                call.connect().begin(200, (b"Content-Length", b"900"))
                call.send_body(b"123")
                exchange.on_client_gone()
        await self.rest()

    async def grant(self, name, amount, **more):
        return await self.change(do="grant", grant=Grant(name, 0, 0, 0, amount, amount)._replace(**more))

    async def change(self, **request):
        done = asyncio.get_running_loop().create_future()
        self.state.change(WHOSE | request, done.set_result, lambda: done.set_result(None))
        return await asyncio.wait_for(done, 10)

    async def adjust(self, **units):
        """Give back or add units of limits, as a correction of a record of this month."""
        id_ = self.context.mint(self.clock.now_us() // 1000).decode()
        await self.change(**adjustment(id_, self.clock.now_us(), units))

    async def rest(self):
        """Until all that was put is written, and with `always` synced."""
        written = self.journal.here().written
        while self.journal.here().settled < written:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0)

    async def next_life(self):
        """What `kill -9` leaves is on the disk; nothing else of this life is used."""
        self.journal._folder.release()
        for timer in self.journal._timers.values():
            timer.cancel()
        return await Node(self.folder, self.clock, self.durability, self.limits, self.version).start()

    def released(self):
        """What the next life should hold: this one's, without what open exchanges have reserved."""
        for exchange, _ in self.open:
            zeros = (0,) * len(exchange.checks.costs)
            self.state.counters.settle(exchange.id, exchange.checks, zeros)
        self.open.clear()
        return counted(self.state)

    def left_of(self, limit):
        (index,) = [index for index, each in enumerate(self.limits) if each.id == limit]
        return self.limits[index].amount - sum(
            value for key, value in self.state.counters.state.items() if f"={limit}:" in key
        )


def adjustment(id_, at_us, units):
    """The request for what a correction of ann's usage adds, by limit."""
    who = {"key_id": ANN.key_id, "subject": ANN.subject, "customer": ANN.customer, "plan": ANN.plan}
    return {
        "do": "adjust",
        "id": id_,
        **who,
        "zone": "UTC",
        "anchor_us": 0,
        "route": "api",
        "at_us": at_us,
        "units": units,
    }


def counted(state):
    """All that is held, but for marks and slots; of a ledger what was posted, not when."""
    found = {}
    for key, value in state.counters.state.items():
        kind = key.split(":")[2]
        if kind == "ids" or value == {} or (isinstance(value, dict) and isinstance(next(iter(value.values())), int)):
            continue
        if kind == "wallet":
            found[key] = value._replace(grants=tuple(sorted(value.grants)))  # they are in no order
        else:
            found[key] = list(value.values()) if kind == "ledger" else value
    return found


async def lived(node, chance, steps):
    """Random traffic, with saves that run beside it."""
    saving = None
    for number in range(steps):
        node.clock.turn(chance.randrange(1, 400_000))
        steps_ = ("begin", "end", "grant", "void", "save", "adjust", "set")
        match chance.choices(steps_, (8, 7, 1, 0.5, 1, 1, 0.5))[0]:
            case "begin":
                await node.begin(chance.choice(("ann", f"key{chance.randrange(CUSTOMERS)}")))
            case "end" if node.open:
                await node.end(chance)
            case "grant":
                await node.grant(f"g{number}", chance.randrange(1, 10**6), priority=chance.randrange(3))
            case "void":
                await node.change(do="void", grant=f"g{chance.randrange(number + 1)}")
            case "adjust":
                few = -chance.randrange(1, 4)
                await node.adjust(monthly=few, egress=50 * few, **{"credit.bytes": 9 * few, "credit": 0})
            case "set":
                counts = {key: units for key, units in node.state.counters.state.items() if "=monthly:" in key}
                ends_us = node.clock.now_us() + 40 * 86_400_000_000
                sets = [(key, units + chance.randrange(-3, 3), ends_us) for key, units in counts.items()]
                await node.change(do="set", sets=sets[:5], exact=chance.random() < 0.5)
            case "save" if saving is None or saving.done():
                saving = asyncio.get_running_loop().create_task(node.saver.save(rest=0))
        if chance.random() < 0.3:
            await asyncio.sleep(0)
    if saving is not None and chance.random() < 0.5:
        saving.cancel()
    if saving is not None:
        await asyncio.wait({saving})


def dice(seed):
    return random.Random(seed)


async def lives(folder):
    node = Node(folder, HandClock(SystemClock().now_us()))  # as that of a command
    node.embedded = Embedded(node.state, node.journal, node.clock, 10)
    await node.embedded.begin()
    node.journal.start()
    await node.embedded.start(node.context.policies.policy)
    return node


async def dies(node):
    await node.embedded.aclose(is_orphan=False)
    await node.journal.aclose()


async def saved(node):
    """Until the save that a tick began is over."""
    if node.embedded._saver._task is not None:
        await node.embedded._saver._task


async def finish(node):
    """Its one exchange ends if it has one, and then its process."""
    if node.open:
        node.open.pop()[1].connect().respond(200, b"x" * 70)
    await node.rest()
    await node.embedded.aclose(is_orphan=True)
    stop(node)


def stop(node):
    """As a kill does: nothing more is written, and another process may own the folder."""
    node.journal._folder.release()
    for timer in node.journal._timers.values():
        timer.cancel()


async def successor(node):
    await node.embedded.aclose(is_orphan=True)
    stop(node)
    return await lives(node.folder)
