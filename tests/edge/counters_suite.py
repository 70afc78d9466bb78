"""What every backend of `Counters` does, on a clock that the test sets. A backend's test gives the `store` fixture."""

import random
from dataclasses import replace
from itertools import permutations

import pytest

from sidecar import ports
from sidecar.core.identity import Identity
from sidecar.core.limits import checks_for, wallet_name
from sidecar.core.policy import Limit
from sidecar.core.price import Price
from sidecar.core.price.wallet import Grant, Wallet

START_US = 4_101_537_600_000_000  # 2099-12-21: what Redis keeps for a window outlives the test
SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
DAY_US = 86_400 * SECOND_US
WHO = Identity("k1", "app-1", "cust-1", "free")
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

five = Limit("five", "quota", 5, calendar="month", scope="customer")
tokens = Limit("tokens", "quota", 100, calendar="month", scope="customer")
pace = Limit("pace", "rate", 2, per=1, period_us=SECOND_US)
sliding = Limit("sliding", "window", 10, period_us=MINUTE_US)
fixed = Limit("fixed", "window", 10, period_us=MINUTE_US, fixed=True)
inflight = Limit("inflight", "concurrency", 2, period_us=10 * SECOND_US)
spent = Limit("credit.tokens", "priced", 0, calendar="month", scope="customer", unit="usd", price=Price("per_unit", 10))
credit = Limit("credit", "balance", 0, scope="customer", unit="usd", period_us=MINUTE_US)


class SetClock(ports.Clock):
    """Both clocks of the port, as the test sets them."""

    def __init__(self, at_us=START_US):
        self.at_us = at_us

    def now_us(self):
        return self.at_us

    def mono_us(self):
        return self.at_us


class Store:
    """Counters under test, their clock, and ids minted on it."""

    def __init__(self, counters, clock):
        self.counters = counters
        self.clock = clock
        self._random = random.Random(7)

    def mint(self):
        made_ms, made = self.clock.at_us // 1000, ""
        for _ in range(10):
            made, made_ms = _ALPHABET[made_ms & 31] + made, made_ms >> 5
        return (made + "".join(self._random.choices(_ALPHABET, k=16))).encode()

    def checks(self, *limits, costs=None, who=WHO):
        return checks_for(limits, costs or (1,) * len(limits), who, self.clock.at_us)

    def reserve(self, checks, id=None):
        return self._answer(self.counters.reserve, id or self.mint(), checks)

    def charge_unconditionally(self, checks, id=None):
        return self._answer(self.counters.charge_unconditionally, id or self.mint(), checks)

    def left(self, limit, who=WHO):
        """What remains of a limit, asked without taking any."""
        return self.reserve(self.checks(limit, costs=(0,), who=who)).remaining[0]

    def settle(self, id, checks, *actual):
        self.counters.settle(id, checks, actual)

    def pass_us(self, passed_us):
        self.clock.at_us += passed_us

    def _answer(self, ask, id, checks):
        answers = []
        ask(id, checks, answers.append)
        (answer,) = answers
        return answer


class CountersSuite:
    def test_a_limit_admits_its_amount_and_denies_the_next(self, store):
        decisions = [store.reserve(store.checks(five)) for _ in range(6)]
        assert [decision.allowed for decision in decisions] == [True] * 5 + [False]
        assert [decision.remaining[0] for decision in decisions] == [4, 3, 2, 1, 0, 0]
        assert decisions[5].violated == 0
        assert decisions[5].reset_us[0] == decisions[5].checks.entries[0].window.end_us - store.clock.at_us

    # unkey #1995: an earlier limit was charged when a later one refused
    # Fails if the first pass writes.
    def test_a_denial_by_a_later_limit_charges_no_earlier_one(self, store):
        both = store.checks(tokens, five)
        for _ in range(5):
            assert store.reserve(both).allowed
        assert store.reserve(both).violated == 1
        assert store.left(tokens) == 95

    # Kong docs #6586: refused calls counted, so a steady client was blocked for ever
    # Fails if a denial moves the arrival time.
    def test_a_steady_client_over_its_rate_gets_its_rate(self, store):
        admitted = 0
        for _ in range(100):
            admitted += store.reserve(store.checks(pace)).allowed
            store.pass_us(SECOND_US // 10)
        assert admitted == 11  # a burst of 2, then one a second for 9.9 s

    def test_a_denied_rate_tells_when_it_passes(self, store):
        for _ in range(2):
            store.reserve(store.checks(pace))
        store.pass_us(300_000)
        denied = store.reserve(store.checks(pace))
        assert denied.reset_us[0] == 700_000
        store.pass_us(699_999)
        assert not store.reserve(store.checks(pace)).allowed
        store.pass_us(1)
        assert store.reserve(store.checks(pace)).allowed

    def test_a_rate_that_divides_no_second_is_exact(self, store):
        third = Limit("third", "rate", 1, per=3, period_us=SECOND_US)
        start_us = store.clock.at_us
        for n in range(1, 7):
            assert store.reserve(store.checks(third)).allowed
            waits_us = store.reserve(store.checks(third)).reset_us[0]
            store.pass_us(waits_us)
            assert store.clock.at_us - start_us >= n * SECOND_US / 3
        assert store.clock.at_us - start_us <= 2 * SECOND_US + 6

    # litellm #30460, #28283: after a Redis timeout the counter was added again
    # Fails if the mark is not read, or not written.
    def test_a_reserve_sent_twice_counts_once_and_answers_the_same(self, store):
        checks, id_ = store.checks(five), store.mint()
        first, again = store.reserve(checks, id_), store.reserve(checks, id_)
        assert (first.allowed, again.allowed) == (True, True)
        assert first.remaining == again.remaining
        assert store.left(five) == 4

    def test_a_refused_reserve_sent_again_is_refused_although_there_is_room_now(self, store):
        checks, first, id_ = store.checks(inflight), store.mint(), store.mint()
        store.reserve(checks, first)
        store.reserve(checks)
        assert not store.reserve(checks, id_).allowed
        store.settle(first, checks, 1)
        assert store.reserve(checks, id_).violated == 0
        assert store.reserve(checks).allowed

    def test_a_settle_replaces_the_estimate_by_the_truth_once(self, store):
        checks, id_ = store.checks(tokens, costs=(40,)), store.mint()
        store.reserve(checks, id_)
        store.settle(id_, checks, 10)
        store.settle(id_, checks, 10)
        assert store.left(tokens) == 90

    # DEEIX-Chat #477: settling below zero rolled the usage back
    def test_a_settle_may_end_below_zero_and_then_all_is_denied(self, store):
        checks, id_ = store.checks(tokens, costs=(40,)), store.mint()
        store.reserve(checks, id_)
        store.settle(id_, checks, 150)
        assert store.left(tokens) == -50
        assert not store.reserve(store.checks(tokens)).allowed

    def test_a_cost_known_only_afterwards_is_counted_though_nothing_was_held(self, store):
        checks, id_ = store.checks(tokens, costs=(0,)), store.mint()
        store.reserve(checks, id_)
        store.settle(id_, checks, 30)
        assert store.left(tokens) == 70

    # Fails if a settle that finds no mark leaves none.
    def test_a_reserve_that_comes_after_its_settle_counts_nothing(self, store):
        checks, id_ = store.checks(tokens, costs=(40,)), store.mint()
        store.settle(id_, checks, 10)
        store.reserve(checks, id_)
        store.settle(id_, checks, 10)
        assert store.left(tokens) == 100

    # litellm #27639: reservations leaked; release is idempotent
    def test_what_was_denied_gives_nothing_back_when_it_is_settled(self, store):
        store.reserve(store.checks(tokens, costs=(90,)))
        checks, id_ = store.checks(tokens, costs=(40,)), store.mint()
        assert not store.reserve(checks, id_).allowed
        store.settle(id_, checks, 0)
        assert store.left(tokens) == 10

    # Fails if a settle without a mark is always, or never, taken as reserved.
    def test_an_exchange_that_outlives_its_mark_is_settled_all_the_same_and_once(self, store):
        checks, id_ = store.checks(tokens, costs=(40,)), store.mint()
        store.reserve(checks, id_)
        store.pass_us(DAY_US // 24)
        self.expire_marks(store)
        store.settle(id_, checks, 10)
        store.settle(id_, checks, 10)
        assert store.left(tokens) == 90

    # Fails if a settle of nothing reserved needs a mark: a leased exchange would need a second command to make one.
    def test_what_reserved_nothing_is_settled_without_a_mark_and_once(self, store):
        checks, id_ = store.checks(tokens, costs=(0,)), store.mint()
        store.settle(id_, checks, 10)
        store.settle(id_, checks, 10)
        assert store.left(tokens) == 90

    def test_a_settle_goes_to_the_window_that_held_it(self, store):
        checks, id_ = store.checks(fixed, costs=(8,)), store.mint()
        store.reserve(checks, id_)
        store.pass_us(MINUTE_US)
        store.settle(id_, checks, 20)
        assert store.left(fixed) == 10

    def test_an_estimate_given_back_to_a_rate_can_be_used_again(self, store):
        limit = Limit("tpm", "rate", 100, per=100, period_us=MINUTE_US)
        checks, id_ = store.checks(limit, costs=(100,)), store.mint()
        store.reserve(checks, id_)
        store.settle(id_, checks, 25)
        assert store.left(limit) == 75

    # Fails if a rate gives back what time has given already.
    def test_a_late_return_to_a_rate_does_not_grow_its_burst(self, store):
        limit = Limit("tpm", "rate", 100, per=100, period_us=MINUTE_US)
        checks, id_ = store.checks(limit, costs=(100,)), store.mint()
        store.reserve(checks, id_)
        store.pass_us(MINUTE_US)
        assert store.reserve(store.checks(limit, costs=(100,))).allowed
        store.settle(id_, checks, 0)
        assert store.left(limit) == 0

    def test_a_rate_owes_what_was_used_beyond_its_estimate(self, store):
        limit = Limit("tpm", "rate", 100, per=100, period_us=MINUTE_US)
        checks, id_ = store.checks(limit, costs=(100,)), store.mint()
        store.reserve(checks, id_)
        store.settle(id_, checks, 300)
        assert store.left(limit) == -200
        store.pass_us(2 * MINUTE_US)
        assert store.left(limit) == 0

    # alisaifee/limits #268: a sliding log of every hit stalled Redis
    # Fails if the weight of the previous window rounds down, or is left out.
    def test_a_sliding_window_weighs_the_previous_one(self, store):
        store.pass_us(MINUTE_US - store.clock.at_us % MINUTE_US)
        for _ in range(10):
            assert store.reserve(store.checks(sliding)).allowed
        store.pass_us(MINUTE_US)
        assert not store.reserve(store.checks(sliding)).allowed
        store.pass_us(MINUTE_US // 4)  # ten weigh 7.5, rounded up to 8
        assert [store.reserve(store.checks(sliding)).allowed for _ in range(3)] == [True, True, False]

    def test_a_sliding_window_tells_when_it_passes(self, store):
        store.pass_us(MINUTE_US - store.clock.at_us % MINUTE_US)
        store.reserve(store.checks(sliding, costs=(10,)))
        for cost in (4, 10):
            waits_us = store.reserve(store.checks(sliding, costs=(cost,))).reset_us[0]
            store.pass_us(waits_us - 1)
            assert not store.reserve(store.checks(sliding, costs=(cost,))).allowed
            store.pass_us(1)
            assert store.reserve(store.checks(sliding, costs=(cost,))).allowed

    def test_a_fixed_window_starts_afresh(self, store):
        store.reserve(store.checks(fixed, costs=(10,)))
        assert not store.reserve(store.checks(fixed)).allowed
        store.pass_us(MINUTE_US)
        assert store.reserve(store.checks(fixed)).allowed

    # litellm #34733: a window reset was last-write-wins
    # Fails if a window that has passed is not noticed.
    def test_checks_of_a_window_that_has_passed_count_in_the_one_of_now(self, store):
        old = store.checks(five)
        store.reserve(old)
        store.pass_us(15 * DAY_US)
        decision = store.reserve(old)
        assert list(decision.remaining) == [4]
        assert decision.checks.entries[0].window.id == "2100-01"

    # APISIX #12823: slots of a dead replica stayed taken
    # Fails if slots are counted without a look at their expiry.
    def test_a_slot_that_nobody_gives_back_expires(self, store):
        for _ in range(2):
            assert store.reserve(store.checks(inflight)).allowed
        store.pass_us(10 * SECOND_US - 1)
        assert not store.reserve(store.checks(inflight)).allowed
        store.pass_us(1)
        assert store.left(inflight) == 2

    # apache/apisix #12872, DocsGPT #2769: a slot's time was over while its request was still under way
    # Fails if `extend` does not reach the store, or leaves slots as they are.
    def test_a_slot_lives_as_long_as_its_exchange_is_open(self, store):
        checks, ids = store.checks(inflight), [store.mint() for _ in range(2)]
        for each in ids:
            store.reserve(checks, each)
        for _ in range(10):
            store.pass_us(4 * SECOND_US)
            store.counters.extend([(each, checks) for each in ids])
        assert not store.reserve(store.checks(inflight)).allowed
        store.settle(ids[0], checks, 0)
        assert store.left(inflight) == 1

    # Fails if a mark is not looked at: an extension that overtakes its settle would take a slot that nobody gives back.
    def test_an_extension_takes_nothing_that_was_given_back_or_never_taken(self, store):
        checks, ids = store.checks(inflight), [store.mint() for _ in range(4)]
        assert [store.reserve(checks, each).allowed for each in ids[:3]] == [True, True, False]
        store.settle(ids[0], checks, 0)
        store.settle(ids[1], checks, 0)
        store.counters.extend([(each, checks) for each in ids])
        assert store.left(inflight) == 2

    def test_a_slot_that_expired_in_an_outage_is_taken_again_by_the_exchange_that_is_still_open(self, store):
        checks, id_ = store.checks(inflight), store.mint()
        store.reserve(checks, id_)
        store.pass_us(4 * MINUTE_US)
        assert store.left(inflight) == 2
        store.counters.extend([(id_, checks)])
        assert store.left(inflight) == 1
        self.expire_marks(store)
        store.settle(id_, checks, 0)
        assert store.left(inflight) == 2

    # Fails if holds are not extended: what is held would be given back, and lent to another exchange meanwhile.
    def test_a_hold_lives_as_long_as_its_exchange_is_open(self, store):
        self.fund(store, 100)
        checks, id_ = store.checks(spent, credit, costs=(10, 0)), store.mint()
        store.reserve(checks, id_)
        for _ in range(10):
            store.pass_us(MINUTE_US // 3)
            store.counters.extend([(id_, checks)])
        assert not store.reserve(store.checks(spent, credit)).allowed
        store.settle(id_, checks, 3, 0)
        assert store.left(credit) == 70

    # Fails if an extension puts a hold back that was released: it would be released, and paid out, a second time.
    def test_an_extension_does_not_hold_again_what_was_released(self, store):
        self.fund(store, 100)
        checks, id_ = store.checks(spent, credit, costs=(10, 0)), store.mint()
        store.reserve(checks, id_)
        store.pass_us(2 * MINUTE_US)
        assert store.left(credit) == 100
        store.counters.extend([(id_, checks)])
        store.pass_us(2 * MINUTE_US)
        assert store.left(credit) == 100

    def test_a_settle_frees_the_slot_once(self, store):
        checks, ids = store.checks(inflight), [store.mint() for _ in range(2)]
        for each in ids:
            store.reserve(checks, each)
        store.settle(ids[0], checks, 1)
        store.settle(ids[0], checks, 1)
        assert store.left(inflight) == 1

    # APISIX limit-count: editing the policy restarted the quota
    def test_an_edited_limit_goes_on_from_what_was_used(self, store):
        store.reserve(store.checks(five, costs=(4,)))
        assert store.left(replace(five, amount=10)) == 6
        assert store.left(replace(five, amount=3)) == -1

    # Fails if kinds whose values have different types share a key: Redis answers WRONGTYPE until the old one expires.
    def test_a_limit_whose_kind_is_edited_under_its_id_goes_on_counting(self, store):
        kinds = [
            Limit("edited", "rate", 10, per=10, period_us=DAY_US),
            Limit("edited", "quota", 10, calendar="month"),
            Limit("edited", "window", 10, period_us=MINUTE_US),
            Limit("edited", "window", 10, period_us=MINUTE_US, fixed=True),
            Limit("edited", "concurrency", 10, period_us=DAY_US),
        ]
        failures = []
        for number, (before, after) in enumerate(permutations(kinds, 2)):
            who = replace(WHO, key_id=f"k{number}")
            old, new = store.checks(before, who=who), store.checks(after, who=who)
            ids = [store.mint() for _ in range(3)]
            assert store.reserve(old, ids[0]).allowed
            assert store.reserve(new, ids[1]).allowed
            assert store.reserve(old, ids[2]).allowed  # another worker has not loaded the edit yet
            for id_, checks in zip(ids, (old, new, old), strict=True):
                store.counters.settle(id_, checks, (0,), failures.append)
            assert store.left(after, who) == store.left(before, who) == 10
        assert failures == []

    def test_a_shadow_limit_counts_and_says_what_it_would_have_done(self, store):
        shadow = replace(five, stage="shadow")
        decisions = [store.reserve(store.checks(tokens, shadow)) for _ in range(6)]
        assert all(decision.allowed for decision in decisions)
        assert [decision.shadowed for decision in decisions] == [()] * 5 + [(1,)]
        assert store.left(shadow) == -1

    def test_a_limit_that_may_be_passed_goes_below_zero_and_denies_nothing(self, store):
        over = replace(five, over="allow")
        decision = store.reserve(store.checks(over, costs=(7,)))
        assert decision.allowed
        assert decision.shadowed == ()
        assert list(decision.remaining) == [-2]

    def test_a_rate_that_may_be_passed_fills_no_further_than_full(self, store):
        shadow = replace(pace, stage="shadow")
        for _ in range(50):
            assert store.reserve(store.checks(shadow)).allowed
        assert store.left(shadow) == 0

    def test_a_cost_above_the_limit_is_denied_and_a_cost_of_nothing_passes(self, store):
        assert not store.reserve(store.checks(five, costs=(6,))).allowed
        assert store.reserve(store.checks(five, costs=(5,))).allowed
        assert store.reserve(store.checks(five, costs=(0,))).allowed

    def test_the_first_enforced_limit_that_denies_is_named(self, store):
        checks = store.checks(
            replace(five, id="a", amount=1, stage="shadow"), five, replace(five, id="c"), costs=(6, 6, 6)
        )
        decision = store.reserve(checks)
        assert (decision.violated, decision.shadowed) == (1, (0,))

    def test_customers_do_not_share(self, store):
        store.reserve(store.checks(five, costs=(5,)))
        assert store.left(five, replace(WHO, customer="cust-2")) == 5

    # Kong OSS: what was let through while Redis was away is forgotten
    # Fails if force looks at the limit.
    def test_what_is_forced_is_counted_past_the_limit_and_once(self, store):
        id_ = store.mint()
        store.charge_unconditionally(store.checks(five, costs=(7,)), id_)
        store.charge_unconditionally(store.checks(five, costs=(7,)), id_)
        assert store.left(five) == -2

    def test_what_was_reserved_already_is_not_forced_again(self, store):
        checks, id_ = store.checks(five), store.mint()
        store.reserve(checks, id_)
        store.charge_unconditionally(checks, id_)
        assert store.left(five) == 4

    def test_what_was_denied_and_let_through_is_forced(self, store):
        checks, id_ = store.checks(five, costs=(6,)), store.mint()
        assert not store.reserve(checks, id_).allowed
        store.charge_unconditionally(checks, id_)
        assert store.left(five) == -1

    def test_what_is_forced_counts_in_the_window_it_was_used_in_and_takes_no_slot(self, store):
        checks = store.checks(fixed, inflight)
        store.pass_us(MINUTE_US)
        store.charge_unconditionally(checks)
        assert store.left(fixed) == 10
        assert store.left(inflight) == 2

    # Fails if a forced cost fills a rate no further than full: each outage would let a burst pass that is not paid off.
    def test_what_is_forced_into_a_full_rate_is_paid_off_before_anything_passes(self, store):
        for _ in range(5):
            store.charge_unconditionally(store.checks(pace))
        assert store.left(pace) == -3
        store.pass_us(3 * SECOND_US)
        assert not store.reserve(store.checks(pace)).allowed
        store.pass_us(SECOND_US)
        assert store.reserve(store.checks(pace)).allowed

    def test_what_is_forced_into_a_rate_that_refuses_nobody_fills_it_no_further_than_full(self, store):
        shadow = replace(pace, stage="shadow")
        for _ in range(5):
            store.charge_unconditionally(store.checks(shadow))
        assert store.left(shadow) == 0

    # litellm #34732, #18730: check, then count: N at once all passed
    # Fails if a priced limit is charged where its balance cannot pay.
    def test_a_balance_admits_what_it_pays_for_and_denies_the_next(self, store):
        self.fund(store, 100)
        decisions = [store.reserve(store.checks(spent, credit, costs=(3, 0))) for _ in range(4)]
        assert [decision.allowed for decision in decisions] == [True] * 3 + [False]
        assert [list(decision.remaining) for decision in decisions] == [[-3, 70], [-6, 40], [-9, 10], [-9, 10]]
        assert (decisions[3].violated, decisions[3].reset_us[1]) == (1, 0)

    # eliza #9904: a reservation stayed on error
    def test_what_was_held_of_a_balance_and_not_used_goes_back(self, store):
        self.fund(store, 100)
        checks, id_ = store.checks(spent, credit, costs=(10, 0)), store.mint()
        store.reserve(checks, id_)
        assert not store.reserve(store.checks(spent, credit)).allowed
        store.settle(id_, checks, 0, 0)
        store.settle(id_, checks, 0, 0)
        assert store.left(credit) == 100

    # DEEIX-Chat #477: settling below zero rolled the usage back
    def test_a_balance_may_end_below_zero_and_then_all_that_costs_is_denied(self, store):
        self.fund(store, 100)
        checks, id_ = store.checks(spent, credit, costs=(10, 0)), store.mint()
        store.reserve(checks, id_)
        store.settle(id_, checks, 25, 0)
        assert store.left(credit) == -150
        assert not store.reserve(store.checks(spent, credit)).allowed

    # litellm #27639: reservations leaked, so honest calls got 429
    def test_a_hold_that_nobody_settles_goes_back(self, store):
        self.fund(store, 100)
        store.reserve(store.checks(spent, credit, costs=(10, 0)))
        store.pass_us(MINUTE_US)
        assert store.reserve(store.checks(spent, credit, costs=(10, 0))).allowed

    # litellm #30460, #28283: after a Redis timeout the counter was added again
    # Fails if only the mark is looked at: it is gone after three minutes, and the first hold would never go back.
    def test_a_reserve_that_comes_again_after_its_mark_has_gone_holds_no_more(self, store):
        self.fund(store, 100)
        checks, id_ = store.checks(spent, replace(credit, period_us=DAY_US), costs=(3, 0)), store.mint()
        store.reserve(checks, id_)
        store.pass_us(4 * MINUTE_US)
        self.expire_marks(store)
        assert store.reserve(checks, id_).allowed
        assert store.left(credit) == 70

    # Fails if the wallet of a scale is read in another, or if its last digit is lost on the way.
    @pytest.mark.parametrize(
        ("digits", "granted", "price"),
        [(2, 10_000_000 * 100, 1), (9, 1, 1), (9, 2_251_799 * 10**9, 1), (0, 2**51 - 1, 1), (5, 10**14 + 1, 7)],
    )
    def test_a_wallet_is_spent_to_the_last_digit_of_its_scale(self, store, digits, granted, price):
        costs = replace(spent, unit="credits", price=Price("per_unit", price))
        balance = replace(credit, unit="credits", digits=digits)
        self.fund(store, granted, wallet_name("credits", digits))
        most = granted // price
        if most > 1:
            assert store.reserve(store.checks(costs, balance, costs=(most - 1, 0))).allowed
        last = store.reserve(store.checks(costs, balance, costs=(1, 0)))
        assert (last.allowed, last.remaining[1]) == (True, granted - most * price)
        assert not store.reserve(store.checks(costs, balance, costs=(1, 0))).allowed
        assert store.left(replace(balance, digits=(digits + 1) % 10)) == 0  # of another scale, and so another wallet

    def fund(self, store, amount, name="usd"):
        """Fill the wallet of WHO with this name."""
        store.counters.state[f"sc:{{cust-1}}:wallet:cust-1:{name}"] = Wallet((Grant("g", 0, 0, 0, amount, amount),))

    def expire_marks(self, store):
        """Let the marks go, where the store's own clock is not the test's."""
