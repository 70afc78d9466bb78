"""Workers with leases before one store, on virtual time: Poisson arrivals, delays on the way, kills. Seeded."""

import random
from heapq import heappop, heappush
from itertools import accumulate, count

from sidecar import ports
from sidecar.core.errors import StoreError
from sidecar.core.identity import Identity
from sidecar.core.limits import checks_for
from sidecar.core.record import Ids
from sidecar.edge.admission.denials import Denials
from sidecar.edge.leases import BYTES, Chain, Leases, SharedLeaseTable
from sidecar.testing import CounterBook, HandClock

START_US = 1_763_692_440_000_000  # the start of a minute
SECOND_US = 1_000_000
TURN_US = 100_000
WHO = Identity("k1", "app", "cust", "free")
WEIGHTS = (30, 20, 15, 12, 10, 7, 4, 2)  # how unevenly the load falls


class World:
    """Virtual time: what is due, in order."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.clock = HandClock(START_US)
        self.store = CounterBook(self.clock)
        self._due = []
        self._order = count()

    @property
    def now_us(self):
        return self.clock.now_us() - START_US

    def after(self, us, call):
        heappush(self._due, (self.now_us + us, next(self._order), call))

    def run(self, until_us):
        while self._due and self._due[0][0] <= until_us:
            at_us, _, call = heappop(self._due)
            self.clock.turn(at_us - self.now_us)
            call()
        self.clock.turn(until_us - self.now_us)


class Path(ports.Counters):
    """`Counters` at the other end of a network. What a dead worker sent arrives; nothing comes back to it."""

    def __init__(self, world):
        self._world = world
        self.alive = True
        self.calls = 0

    def reserve(self, id, checks, done):
        self._send(lambda: self._world.store.reserve(id, checks, self._back(done)))

    def charge_unconditionally(self, id, checks, done):
        self._send(lambda: self._world.store.charge_unconditionally(id, checks, self._back(done)))

    def settle(self, id, checks, actual, failed=None):
        self._send(lambda: self._world.store.settle(id, checks, actual))

    def _send(self, call):
        self.calls += 1
        self._world.after(self._world.random.randrange(50, 400), call)

    def _back(self, done):
        return lambda said: self._world.after(
            self._world.random.randrange(50, 400), lambda: done(said) if self.alive else None
        )


class Worker:
    """One of `workers`. `memory` is what a killed one had: what it held in hand is given back from there."""

    def __init__(self, world, number, workers, memory=None):
        self.world = world
        self.memory = memory or bytearray(BYTES)
        self.ids = Ids(world.random.getrandbits(60))
        self.path = Path(world)
        chain = Chain(Denials(self.path, world.clock), self.path, self._alone)
        self.leases = Leases(chain, world.clock, self.mint, workers)
        self.leases.adopt(SharedLeaseTable(self.memory))
        self.number = number
        world.after(world.random.randrange(TURN_US), self._turn)

    def mint(self):
        return self.ids.mint(self.world.clock.now_us() // 1000)

    def kill(self):
        self.path.alive = False

    def _turn(self):
        if self.path.alive:
            self.leases.adjust()
            self.world.after(TURN_US, self._turn)

    def _alone(self, id, checks, done):
        raise AssertionError("the store never fails here")


class Run:
    """`per_second` requests to `limits` over eight workers. `admitted` are the times (µs from the start).

    Every `kill_every_us` one is killed, and another has its place at once: with its memory where it `inherits`.
    """

    def __init__(self, *limits, per_second, seconds, seed=1, kill_every_us=0, unused=0.0, inherits=True):
        workers = len(WEIGHTS)
        self.world = World(seed)
        self.limits = limits
        self.unused = unused
        self.workers = [Worker(self.world, number, workers) for number in range(workers)]
        self._weights = list(accumulate(WEIGHTS))
        self._known = [None] * workers
        self._gap_us = SECOND_US / per_second
        self._kill_every_us = kill_every_us
        self._inherits = inherits
        self.dead_calls = 0
        self.admitted, self.asked, self.modes = [], 0, {}
        self.world.after(0, self._arrive)
        if kill_every_us:
            self.world.after(kill_every_us, self._kill)
        self.world.run(seconds * SECOND_US)

    @property
    def calls(self):
        return self.dead_calls + sum(worker.path.calls for worker in self.workers)

    def stop(self):
        """The load ends; what is in hand comes back."""
        self._gap_us = 0
        self.world.run(self.world.now_us + 10 * TURN_US)

    def _arrive(self):
        if not self._gap_us:
            return
        self.world.after(max(1, round(self.world.random.expovariate(1 / self._gap_us))), self._arrive)
        [number] = self.world.random.choices(range(len(self.workers)), cum_weights=self._weights)
        now_us = self.world.clock.now_us()
        checks = self._known[number]
        if checks is None or now_us >= checks.until_us:
            checks = self._known[number] = checks_for(self.limits, (1,) * len(self.limits), WHO, now_us)
        worker = self.workers[number]
        id_ = worker.mint()
        self.asked += 1
        worker.leases.reserve(id_, checks, lambda said: self._answered(worker, id_, said))

    def _answered(self, worker, id_, said):
        assert not isinstance(said, StoreError)
        self.modes[said.mode] = self.modes.get(said.mode, 0) + 1
        if not said.allowed:
            return
        if self.world.random.random() < self.unused:
            zeros = (0,) * len(self.limits)
            self.world.after(
                5_000, lambda: worker.leases.settle(id_, said.checks, zeros) if worker.path.alive else None
            )
        else:
            self.admitted.append(self.world.now_us)

    def _kill(self):
        number = self.world.random.randrange(len(self.workers))
        dead = self.workers[number]
        dead.kill()
        self.dead_calls += dead.path.calls
        memory = dead.memory if self._inherits else None
        self.workers[number] = Worker(self.world, number, len(self.workers), memory)
        self._known[number] = None
        self.world.after(self._kill_every_us, self._kill)
