"""Telling the store, beside what test_counters.py and test_ledger.py show of it: what of a rate is charged."""

from sidecar.core.limits import checks_for
from sidecar.core.policy import Limit
from sidecar.edge.degraded.debts import BATCH
from sidecar.testing import HandClock
from tests.edge.degraded.test_ledger import START_US, WHO, Life, Store

TOKENS = Limit("tpm", "rate", 1000, per=100, period_us=1_000_000)


def life():
    clock = HandClock(START_US)
    return Life(None, clock, Store(clock))


def left(life):
    said = []
    life.store.reserve(life.mint(), checks_for([TOKENS], [0], WHO, life.clock.now_us()), said.append)
    return said[0].remaining[0]


# Fails if the truth of an exchange that ended long ago is charged in full: a long outage would deny as long again.
async def test_what_has_leaked_since_is_not_charged_and_what_has_not_is_charged_beyond_the_burst():
    worker = life()
    for _ in range(10):
        _, id_, checks = worker.ask(TOKENS, cost=50)
        worker.port.settle(id_, checks, (90,))
        worker.clock.turn(1_000_000)
    worker.clock.turn(60_000_000)
    await worker.paid()
    assert left(worker) == 1000
    worker.store.away = True
    for _ in range(2):
        _, id_, checks = worker.ask(TOKENS, cost=400)
        worker.port.settle(id_, checks, (500,))
    await worker.paid()
    assert left(worker) == 0


async def test_what_comes_to_its_end_while_it_is_told_is_charged_at_the_truth():
    worker = life()
    _, id_, checks = worker.ask(TOKENS, cost=400)
    worker.store.away = False
    held = []
    worker.store.charge_unconditionally = lambda *asked: held.append(asked)
    worker.port.tick()
    worker.port.settle(id_, checks, (100,))
    del worker.store.charge_unconditionally
    worker.store.charge_unconditionally(*held[0])
    assert (left(worker), worker.port.owed) == (900, 0)


async def test_the_newest_are_told_first():
    worker = life()
    ids = [worker.ask(TOKENS)[1] for _ in range(BATCH + 5)]
    worker.store.away = False
    worker.port.tick()
    assert [*worker.port._debts.by_id] == ids[:5]
