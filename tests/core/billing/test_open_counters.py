from sidecar.core.billing.open_counters import BILLABLE, EXCLUDED, NOT_BILLABLE, Caller, OpenCounters
from sidecar.core.identity import Identity
from sidecar.core.limits import Limit
from sidecar.core.policy import Plan, Policy, Route
from sidecar.core.price import Price, Tier

NOW_US = 1_796_083_230_000_000  # 2026-12-01T00:00:30Z
PRICE = Price("graduated", tiers=(Tier(None, 1),))
LIMITS = (
    Limit("monthly", "quota", 100, scope="customer", calendar="month", zone="customer", anchored=True),
    Limit("sliding", "window", 100, scope="subject", period_us=60_000_000),
    Limit("rate", "rate", 10, per=1, period_us=1_000_000),
    Limit("at_once", "concurrency", 5, period_us=1_000_000),
    Limit("paid", "priced", 0, scope="customer", calendar="month", unit="usd", price=PRICE),
    Limit("credit", "balance", 0, scope="customer", unit="usd", period_us=1_000_000),
)
ANN = Identity("k1", "ann", "acme", "pro", "Asia/Kathmandu", 1_769_797_800_000_000)  # the 31st there


def windows(limits=LIMITS):
    policy = Policy("1", [Route("api")], [Plan("pro", "pro@3", limits)], lambda route: REQUESTS)
    return OpenCounters(policy, NOW_US)


class Requests:
    """A meter as far as terms are compiled."""

    id, known, reads, holds, headers, unread, missing = "requests", True, (), (), (), None, None
    asks = needs = frozenset()

    def ask(self, _request):
        return 1


REQUESTS = (Requests(),)


def names(counters):
    return [(each.limit, each.window, each.holder, each.most) for each in counters]


def caller(*limits, plan="pro@3", route="api"):
    return Caller("acme", "ann", "k1", plan, route, limits or None)


def test_limits_with_windows_are_counters_and_rates_slots_and_balances_are_not():
    # Fails if a sliding window is counted without the one before it, or in the calendar of UTC.
    assert names(windows().of_key(ANN)) == [
        ("monthly", "2026-11@31", "acme", NOT_BILLABLE), ("sliding", "s60:29934720", "ann", EXCLUDED),
        ("sliding", "s60:29934719", "ann", EXCLUDED), ("paid", "2026-12", "acme", BILLABLE),
    ]  # fmt: skip
    assert names(windows().of_records(caller(), ANN, is_known=True)) == names(windows().of_key(ANN))


def test_a_record_counts_in_the_limits_that_it_names_and_in_prices():
    # Fails if a limit that was added to the plan later counts records from before.
    made = windows().of_records(caller("sliding", "rate", "gone"), ANN, is_known=True)
    assert [each.limit for each in made] == ["sliding", "sliding", "paid"]


def test_a_record_of_a_plan_or_route_that_has_gone_counts_in_the_limits_that_it_names():
    # Fails if a change of plan in the midst of a month takes what was used before out of the counter.
    for each in (caller("monthly", plan="old@1"), caller("monthly", route="old")):
        assert [one.limit for one in windows().of_records(each, ANN, is_known=True)] == ["monthly"]
    assert windows().of_records(caller(plan="old@1"), ANN, is_known=True) == []


def test_without_the_customer_s_zone_its_own_windows_are_left_out_and_named():
    made = windows().of_records(caller(), ANN, is_known=False)
    assert [each.limit for each in made] == ["sliding", "sliding", "paid"]
    assert windows().unknown_windows(caller()) == ["monthly"]


def test_no_record_of_an_earlier_period_is_in_an_open_counter():
    made = windows()
    assert made.since_us <= min(each.start_us for each in made.of_key(ANN))
