"""Leases by hand: one worker, a store that answers when the test says so, and a clock that it turns."""

from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidecar.core.decision import Decision, reserve
from sidecar.core.errors import StoreError, StoreReason
from sidecar.core.identity import Identity
from sidecar.core.limits import checks_for
from sidecar.core.policy import Limit
from sidecar.core.record import Ids
from sidecar.edge.leases import Chain, Leases
from sidecar.testing import CounterBook, HandClock
from tests.edge.leases.simulation import SECOND_US, START_US, TURN_US, WHO, Run, Worker, World

QUOTA = Limit("quota", "quota", 10_000, calendar="month", scope="customer")
PACE = Limit("pace", "rate", 2000, per=1000, period_us=SECOND_US, scope="customer")
FIXED = Limit("fixed", "window", 1000, period_us=SECOND_US, fixed=True)
AWAY = StoreError("away", StoreReason.NO_REPLY)


class Desk:
    """A worker's counters: `asks` and `settles` keep what was answered; `store` counts what it is asked."""

    def __init__(self, *limits, costs=None, demand=20, workers=1):
        self.clock = HandClock(START_US)
        self.store = Counted(self.clock)
        self.ids = Ids(1)
        self.alone = []
        self.leases = Leases(Chain(self.store, self.store, self._alone), self.clock, self.mint, workers)
        self.checks = checks_for(limits, costs or (1,) * len(limits), WHO, START_US)
        self.asks(demand)
        self.turn()
        if demand:
            self.asks(1)  # what is known from now on

    def mint(self):
        return self.ids.mint(self.clock.now_us() // 1000)

    def ask(self, id=None, checks=None):
        told = []
        self.leases.reserve(id or self.mint(), checks or self.checks, told.append)
        return told

    def asks(self, many):
        return [said for _ in range(many) for said in self.ask()]

    def turn(self, us=TURN_US):
        self.clock.turn(us)
        self.leases.adjust()

    def used(self, limit=QUOTA):
        return self.store.used(limit.id)

    def _alone(self, id, checks, done):
        self.alone.append(id)
        done(Decision(checks, 0, (0,), (0,), mode="degraded"))


@pytest.fixture
def desk():
    return Desk(QUOTA)


class Counted(CounterBook):
    calls = 0
    lose = False  # what is asked is done, and the answer is AWAY

    def reserve(self, id, checks, done):
        self.calls += 1
        if self.lose:
            super().reserve(id, checks, lambda _: done(AWAY))
        else:
            super().reserve(id, checks, done)

    def charge_unconditionally(self, id, checks, done):
        self.calls += 1
        super().charge_unconditionally(id, checks, done)

    def settle(self, id, checks, actual, failed=None):
        self.calls += 1
        super().settle(id, checks, actual, failed)


def modes(decisions):
    return [said.mode for said in decisions]


def test_the_quiet_are_asked_for_one_by_one():
    desk = Desk(QUOTA, demand=0)
    for _ in range(5):
        assert modes(desk.asks(3)) == ["exact"] * 3
        desk.turn()
    assert desk.used() == desk.store.calls == 15


def test_steady_demand_is_answered_from_a_lease(desk):
    before = desk.store.calls
    assert modes(desk.asks(20)) == ["leased"] * 20
    assert desk.store.calls == before + 1
    assert desk.used() == 41


# Mutation: what was spent here is not taken off.
def test_a_leased_answer_tells_what_is_left_as_far_as_it_is_known_here():
    desk = Desk(QUOTA, PACE, costs=(3, 1))
    known = desk.asks(1)[0]
    [said] = desk.asks(1)
    assert said.checks.lease
    assert said.checks.keys == desk.checks.keys
    assert said.remaining[0] == known.remaining[0] - 3
    assert said.remaining[1] == known.remaining[1] - 1
    assert said.reset_us == known.reset_us
    assert said.allowed


def test_what_is_kept_in_hand_is_in_the_counter_already(desk):
    desk.asks(5)
    assert (desk.used(), desk.leases.units) == (41, 15)


# Mutation: `idle` looks at nothing but the time.
def test_idle_units_go_back_within_two_turns(desk):
    desk.asks(5)
    desk.turn()
    assert desk.leases.units == 15
    desk.turn()
    assert (desk.used(), desk.leases.units) == (26, 0)


def test_more_than_a_fallen_demand_will_need_goes_back_at_once():
    desk = Desk(replace(QUOTA, amount=10**6), demand=400)
    desk.asks(1)
    for _ in range(6):
        desk.turn()
        desk.asks(1)
    assert desk.leases.units < 8
    assert desk.used() == 400 + 1 + 7 + desk.leases.units


def test_all_goes_back_when_it_is_recalled(desk):
    desk.asks(5)
    desk.leases.recall()
    assert (desk.used(), desk.leases.units, desk.leases.owed) == (26, 0, 0)
    assert modes(desk.asks(1)) == ["exact"]


def test_what_is_on_its_way_when_it_is_recalled_goes_back_with_the_next_recall(desk):
    desk.store.holding = True
    told = desk.ask()
    desk.leases.recall()
    assert desk.leases.outstanding == 1
    desk.store.holding = False
    desk.store.let_go()
    desk.leases.recall()
    assert modes(told) == ["leased"]
    assert (desk.used(), desk.leases.outstanding) == (22, 0)


# Mutation: `until` is left out of `reserve`.
def test_nothing_is_spent_after_its_window():
    desk = Desk(FIXED)
    assert modes(desk.asks(1)) == ["leased"]
    desk.clock.turn(SECOND_US)
    [said] = desk.ask()
    assert said.mode == "exact"
    assert said.checks.entries[0].window.start_us == START_US + SECOND_US


def test_at_a_windows_end_no_more_is_leased_than_can_be_used_before_it():
    desk = Desk(FIXED, demand=200)
    desk.clock.turn(850_000)
    desk.asks(2)
    assert desk.leases.units + 2 == 96


def test_no_two_leases_are_asked_for_at_once_and_who_waits_is_answered_in_order(desk):
    before, answered = desk.store.calls, []
    desk.store.holding = True
    for number in range(30):
        desk.leases.reserve(desk.mint(), desk.checks, lambda said, n=number: answered.append((n, said.mode)))
    assert (desk.store.calls, answered) == (before + 1, [])
    desk.store.holding = False
    desk.store.let_go()
    assert answered == [(number, "leased") for number in range(30)]
    assert desk.store.calls == before + 2


def test_who_comes_while_others_are_answered_waits_behind_them(desk):
    answered = []

    def first(_):
        answered.append("first")
        desk.leases.reserve(desk.mint(), desk.checks, lambda _: answered.append("new"))

    desk.store.holding = True
    desk.leases.reserve(desk.mint(), desk.checks, first)
    desk.leases.reserve(desk.mint(), desk.checks, lambda _: answered.append("second"))
    desk.store.holding = False
    desk.store.let_go()
    assert answered == ["first", "second", "new"]


# Fails if the units that are left after serving are added to what was in hand before it (`lease.units += serve()`).
def test_a_unit_that_comes_back_while_waiting_requests_are_answered_is_not_lost(desk):
    used = desk.used()
    desk.store.holding = True
    for _ in range(20):
        id_ = desk.mint()
        desk.leases.reserve(id_, desk.checks, lambda said, id_=id_: desk.leases.settle(id_, said.checks, (0,)))
    desk.store.holding = False
    desk.store.let_go()
    assert desk.leases.units == desk.leases._units[0] == 19  # the first is older than the lease: the store is told
    desk.leases.recall()
    assert desk.used() == used


def test_a_lease_that_the_store_does_not_answer_is_decided_alone_and_given_back_later(desk):
    used = desk.used()
    desk.store.lose = True
    desk.store.holding = True
    asked = [desk.mint() for _ in range(3)]
    told = [desk.ask(id_) for id_ in asked]
    desk.store.fails = AWAY
    desk.store.let_go()
    assert desk.alone == asked
    assert modes(said for (said,) in told) == ["degraded"] * 3
    desk.store.lose = desk.store.holding = False
    assert (desk.used(), desk.leases.owed) == (used + 20, 1)
    desk.turn()
    assert desk.leases.owed == 1
    desk.store.fails = None
    desk.turn()
    assert (desk.used(), desk.leases.owed) == (used, 0)


def test_a_lease_in_hand_goes_on_while_the_store_is_away(desk):
    desk.asks(1)
    desk.store.fails = AWAY
    assert modes(desk.asks(19)) == ["leased"] * 19


# Mutation: GIVE_UP_US is an hour: after the mark has gone, what was never taken would be given back.
def test_what_the_store_has_not_taken_for_too_long_is_lost_to_the_window(desk):
    desk.asks(5)
    desk.store.fails = AWAY
    desk.leases.recall()
    desk.turn(151 * SECOND_US)
    desk.store.fails = None
    desk.turn()
    assert (desk.used(), desk.leases.owed, desk.leases.lost) == (41, 0, 1)


def test_a_lease_in_a_window_of_the_stores_own_clock_is_of_no_use():
    desk = Desk(FIXED)
    desk.store.holding = True
    told = desk.ask()
    asked = desk.store.reserve
    desk.store._calls.clear()
    desk.clock.turn(SECOND_US)
    lease = desk.leases._leases[desk.checks]
    asked(
        b"0" * 26, lease.of((20,)), lambda said: desk.leases._replied(lease, (b"0" * 26, 20, 0), lease.of((20,)), said)
    )
    desk.store.holding = False
    desk.store.let_go()
    assert modes(told) == ["exact"]
    assert desk.store.settled[-1] == (b"0" * 26, (0,))


def test_a_lease_that_was_on_its_way_until_its_window_had_ended_is_not_spent():
    desk = Desk(FIXED)
    desk.store.holding = True
    told = desk.ask()
    desk.clock.turn(SECOND_US)
    desk.store.holding = False
    desk.store.let_go()
    assert modes(told) == ["exact"]
    assert told[0].checks.entries[0].window.start_us == START_US + SECOND_US


@pytest.mark.parametrize("mode", ["exact", "degraded"])
def test_no_lease_is_built_on_what_was_decided_alone_or_in_another_window(mode):
    desk = Desk(FIXED, demand=0)
    elsewhere = desk.checks.with_costs(desk.checks.costs) if mode == "exact" else desk.checks

    def answer(id, checks, done):
        done(Decision(elsewhere, START_US, (1000,), (0,), mode=mode))

    desk.store.reserve = answer
    for _ in range(3):
        desk.asks(20)
        desk.turn()
    assert desk.leases.requested == 0


# What exchanges of a lease come to.


def test_a_unit_that_came_to_nothing_is_there_for_the_next():
    desk = Desk(QUOTA, costs=(2,))
    before = desk.store.calls
    for _ in range(3):
        id_ = desk.mint()
        [said] = desk.ask(id_)
        desk.leases.settle(id_, said.checks, (0,))
    assert desk.store.calls == before + 1
    assert desk.leases.units == 19 * 2  # but for the first: its id is older than the lease, so it goes by the store
    [again] = desk.ask()
    assert again.remaining == [10_000 - 21 * 2 - 2 * 2]
    desk.turn()
    assert desk.used() == (41 - 1) * 2


def test_a_unit_that_came_to_something_for_one_limit_is_not_there_for_the_next():
    desk = Desk(QUOTA, FIXED)
    desk.ask()
    id_ = desk.mint()
    [said] = desk.ask(id_)
    units = desk.leases.units
    desk.leases.settle(id_, said.checks, (0, 1))
    assert desk.leases.units == units
    desk.leases.recall()
    assert (desk.used(), desk.used(FIXED)) == (22, 23)


# Mutation: `id > lease.id` is left out: a unit of an older lease is in no counter that gives it back.
def test_a_unit_of_a_lease_that_has_ended_goes_back_to_the_store(desk):
    id_ = desk.mint()
    [said] = desk.ask(id_)
    desk.asks(19)
    desk.asks(1)
    desk.leases.settle(id_, said.checks, (0,))
    desk.turn()
    assert desk.used() == 21 + 40 - 1


def test_what_was_used_beyond_the_costs_is_charged_at_once_and_leases_rest(desk):
    id_ = desk.mint()
    [said] = desk.ask(id_)
    desk.leases.settle(id_, said.checks, (500,))
    assert desk.used() == 41 + 499
    desk.asks(19)
    assert modes(desk.asks(1)) == ["exact"]
    for _ in range(10):
        desk.asks(20)
        desk.turn()
    assert "leased" in modes(desk.asks(20))


def test_what_was_used_less_than_the_costs_goes_back_with_the_next_turn():
    desk = Desk(QUOTA, costs=(10,))
    ids = [desk.mint() for _ in range(4)]
    told = [desk.ask(id_)[0] for id_ in ids]
    for id_, said in zip(ids, told, strict=True):
        desk.leases.settle(id_, said.checks, (7,))
    used, calls = desk.used(), desk.store.calls
    desk.turn()
    assert (desk.used(), desk.store.calls) == (used - 12, calls + 1)


def test_a_correction_that_finds_the_store_away_is_told_later(desk):
    id_ = desk.mint()
    [said] = desk.ask(id_)
    desk.store.fails = AWAY
    other = desk.mint()
    [again] = desk.ask(other)
    desk.leases.settle(id_, said.checks, (3,))
    desk.leases.settle(other, again.checks, (3,))
    assert desk.leases.owed == 2
    desk.store.fails = None
    desk.turn()
    assert desk.leases.owed == 0
    assert desk.used() == 41 + 4


def test_exchanges_of_windows_and_leases_long_gone_are_corrected_in_theirs():
    desk = Desk(FIXED)
    id_ = desk.mint()
    [said] = desk.ask(id_)
    for _ in range(30):
        desk.turn()
    used = desk.used(FIXED)
    desk.leases.settle(id_, said.checks, (4,))
    assert desk.store.state[said.checks.keys[0][0]] == used + 3


def test_what_was_not_leased_is_settled_as_ever():
    desk = Desk(QUOTA, demand=0)
    id_ = desk.mint()
    [said] = desk.ask(id_)
    desk.leases.settle(id_, said.checks, (5,))
    assert desk.store.settled == [(id_, (5,))]


@pytest.mark.parametrize(
    "other",
    [
        replace(QUOTA, id="exact", exact=True),
        Limit("slots", "concurrency", 100, period_us=SECOND_US),
        Limit("priced", "priced", 0, calendar="month", scope="customer", unit="usd"),
    ],
)
def test_beside_a_limit_that_is_not_leased_none_is(other):
    desk = Desk(PACE, other)
    assert modes(desk.asks(20)) == ["exact"] * 20


# Mutation: what other keys of this worker hold is left out of the bound.
def test_many_keys_of_one_customer_hold_no_more_together_than_one():
    desk = Desk(replace(QUOTA, amount=2000), workers=8, demand=0)
    keys = [checks_for(desk.checks.limits, (1,), Identity(f"k{n}", "app", "cust", "free"), START_US) for n in range(9)]
    for checks in keys * 20:
        desk.ask(checks=checks)
    desk.turn()
    for checks in keys * 2:
        desk.ask(checks=checks)
    assert 100 <= desk.leases.units <= 2000 // 16


# By all interleavings.

COUNTED = st.lists(
    st.one_of(
        st.builds(lambda n: Limit("q", "quota", n, calendar="month", scope="customer"), st.integers(20, 2000)),
        st.builds(lambda n: Limit("w", "window", n, period_us=SECOND_US, fixed=True), st.integers(20, 2000)),
    ),
    min_size=1,
    max_size=2,
    unique_by=lambda limit: limit.id,
)
RATES = st.builds(
    lambda burst, per: [Limit("r", "rate", burst, per=per, period_us=SECOND_US, scope="customer")],
    st.integers(30, 200),
    st.sampled_from([7, 100, 300, 1000, 5000]),
)
SHORT = Limit("r", "rate", 100, per=1000, period_us=SECOND_US, scope="customer")  # forgets all in a tenth of a second
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask", "ask", "back", "kill"]),
        st.integers(0, 2),
        st.integers(1, 150),
        st.sampled_from([0, 0, 900, 20_000, 60_000, 120_000, 250_000]),
        st.sampled_from([0, 300, 1_500, 4_000]),
    ),
    min_size=5,
    max_size=40,
)


class Play:
    """Three workers. Each unit counts when it was spent: when the store decided, or where it was leased, here."""

    def __init__(self, limits, cost):
        self.world = World(1)
        self.limits, self.costs = limits, (cost,) * len(limits)
        # Each believes that it is alone, so that leases are as large as they can be.
        self.workers = [Worker(self.world, number, 1) for number in range(3)]
        self.open = []
        self.spent_us = []
        self.counted = {}
        self.killed = False
        self._known = {}

    def ask(self, number):
        now_us, worker = self.world.clock.now_us(), self.workers[number]
        checks = self._known.get(worker)
        if checks is None or now_us >= checks.until_us:
            checks = self._known[worker] = checks_for(self.limits, self.costs, WHO, now_us)
        id_ = worker.mint()
        worker.leases.reserve(id_, checks, lambda said: said.allowed and self._admitted(worker, id_, said))

    def _admitted(self, worker, id_, said):
        now_us = self.world.clock.now_us()
        for index, limit in enumerate(self.limits):
            if limit.kind == "rate":
                self.spent_us.append(now_us if said.mode == "leased" else said.now_us)
            else:
                self._count(said.checks, index, self.costs[index])
        self.open.append((worker, id_, said))

    def _count(self, checks, index, units):
        key = checks.keys[index][0]
        self.counted[key] = self.counted.get(key, 0) + units
        assert self.counted[key] <= checks.limits[index].amount, "a limit was exceeded"
        assert self.counted[key] <= self.world.store.state.get(key, 0), "what was admitted is not in the counter"

    def back(self, number, many):
        """Exchanges came to nothing, or to less. A rate is not told: it forgets anyway."""
        for _ in range(min(many, len(self.open))):
            worker, id_, said = self.open.pop(many * 7 % len(self.open))
            actual = tuple(cost // 3 * number for cost in self.costs)
            if actual != self.costs and self.limits[0].kind != "rate":
                for index, units in enumerate(actual):
                    self._count(said.checks, index, units - self.costs[index])
                worker.leases.settle(id_, said.checks, actual)

    def kill(self, number, many):
        """Every other time who comes next finds what was in hand."""
        self.killed = True
        self.workers[number].kill()
        memory = self.workers[number].memory if many % 2 else None
        self.open = [(worker, *rest) for worker, *rest in self.open if worker.path.alive]
        self.workers[number] = Worker(self.world, number, 1, memory)

    def hold_rate(self):
        """The rule itself would have allowed each, at its time."""
        [limit] = [limit for limit in self.limits if limit.kind == "rate"] or [None]
        state = {}
        for number, at_us in enumerate(sorted(self.spent_us)):
            alone = checks_for((limit,), self.costs[:1], WHO, at_us)
            decision, writes = reserve(state, b"%026d" % number, alone, at_us)
            assert decision.allowed, "a rate was exceeded"
            state.update({key: value for key, member, value, _ in writes if member is None})

    def end(self):
        self.world.run(self.world.now_us + 20 * TURN_US)
        for worker in self.workers:
            worker.leases.recall()
        self.world.run(self.world.now_us + TURN_US)
        assert all(not worker.leases.units and not worker.leases.owed for worker in self.workers)
        if not self.killed:
            for key, units in self.counted.items():
                assert self.world.store.state[key] == units, "the counter is not the truth"


# Mutations: a unit is not counted down; corrections are lost. By the examples: units of a rate live for LIFE_US,
# whatever is left of the backlog (`life_us`).
@settings(max_examples=100, deadline=None)
@given(st.one_of(COUNTED, RATES), st.sampled_from([1, 1, 3]), STEPS)
@example([SHORT], 1, [("ask", 0, 75, 60_000, 2_000), ("ask", 0, 6, 0, 0), ("ask", 1, 120, 0, 0)])
@example([SHORT], 1, [("ask", 0, 105, 60_000, 2_000), ("ask", 0, 5, 0, 0), ("ask", 1, 120, 0, 0)])
def test_however_it_interleaves_no_limit_is_exceeded_and_the_counters_end_at_the_truth(limits, cost, steps):
    play = Play(tuple(limits), cost)
    for what, number, many, passes_us, apart_us in steps:
        if what == "ask":
            for _ in range(many):
                play.ask(number)
                play.world.run(play.world.now_us + apart_us)
        else:
            getattr(play, what)(number, many)
        play.world.run(play.world.now_us + passes_us)
    play.end()
    play.hold_rate()


# Eight workers, uneven load, twice what the limit allows. (At full size: docs/leases.md.)

WINDOW = Limit("w", "window", 10_000, period_us=10 * SECOND_US, fixed=True)


def per_window(run, windows):
    counts = [0] * windows
    for at_us in run.admitted:
        counts[at_us // WINDOW.period_us] += 1
    return counts


@pytest.mark.parametrize("seed", [1, 2])
def test_none_over_and_all_of_a_limit_is_usable(seed):
    run = Run(WINDOW, per_second=2000, seconds=20, seed=seed)
    print(f"seed {seed}: {per_window(run, 2)} of {WINDOW.amount}, {run.calls} calls for {run.asked}")
    assert all(0.999 * WINDOW.amount <= used <= WINDOW.amount for used in per_window(run, 2))


# Mutation: nothing is found of who was killed.
@pytest.mark.parametrize("seed", [1, 2])
def test_with_a_worker_killed_each_second_all_but_what_was_on_its_way_is(seed):
    limit, kills = replace(QUOTA, amount=30_000), 16
    run = Run(limit, per_second=2000, seconds=30, seed=seed, kill_every_us=SECOND_US)
    print(f"seed {seed}: {len(run.admitted)} of {limit.amount}")
    assert limit.amount - kills <= len(run.admitted) <= limit.amount


# Mutation: a HORIZON_US of half a second loses 3 %.
@pytest.mark.parametrize("seed", [1, 2])
def test_with_a_worker_killed_each_second_and_none_in_its_place_that_finds_what_it_had_almost_all_of_it_is(seed):
    limit = replace(QUOTA, amount=30_000)
    run = Run(limit, per_second=2000, seconds=30, seed=seed, kill_every_us=SECOND_US, inherits=False)
    print(f"seed {seed}: {len(run.admitted)} of {limit.amount}")
    assert 0.99 * limit.amount <= len(run.admitted) <= limit.amount


def test_units_that_come_to_nothing_are_used_by_others_in_the_end():
    limit = replace(QUOTA, amount=3000)
    run = Run(limit, per_second=2000, seconds=6, unused=0.1)
    assert len(run.admitted) == limit.amount == run.world.store.used("quota")


def test_from_rest_a_rate_loses_no_more_than_its_pads_and_then_nothing():
    limit = Limit("r", "rate", 1000, per=1000, period_us=SECOND_US)
    run = Run(limit, per_second=2000, seconds=6)
    first = sum(at_us < 2 * SECOND_US for at_us in run.admitted)
    assert 3000 - 150 <= first <= 3000
    assert 4000 - 8 <= len(run.admitted) - first <= 4000 + 8


@pytest.mark.parametrize(
    "limits",
    [
        (replace(QUOTA, amount=10**9),),
        (replace(QUOTA, amount=10**9), Limit("r", "rate", 20_000, per=20_000, period_us=SECOND_US)),
    ],
)
def test_at_4000_requests_a_second_a_request_costs_less_than_003_calls(limits):
    run = Run(*limits, per_second=4000, seconds=1)  # the first tenth of a second is exact
    calls, admitted = run.calls, len(run.admitted)
    run.world.run(4 * SECOND_US)
    each = (run.calls - calls) / (len(run.admitted) - admitted)
    run.stop()
    print(f"{each:.4f} calls a request")
    assert each <= 0.03
    assert run.world.store.used("quota") == len(run.admitted) == run.asked
