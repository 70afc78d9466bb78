import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.counter import COUNT_MAX, NEVER_US, bounds_fault, checks_for, escaped, id_us, shift_of
from sidecar.core.identity import Identity
from sidecar.core.policy import Limit
from sidecar.core.price import Price

NOW_US = 1_795_239_000_123_456  # 2026-11-21T05:30:00 UTC
DAY_US = 86_400_000_000
WHO = Identity("k_7f", "app-42", "cust-9", "pro")

burst = Limit("burst", "rate", 10, per=5, period_us=1_000_000)
monthly = Limit("monthly", "quota", 10_000, calendar="month", scope="customer")
minute = Limit("minute", "window", 100, period_us=60_000_000, scope="subject")
fixed = Limit("fixed", "window", 100, period_us=60_000_000, fixed=True)
inflight = Limit("inflight", "concurrency", 4, period_us=60_000_000)
cost = Limit("credit.requests", "priced", 0, calendar="month", scope="customer", unit="usd", price=Price("per_unit", 9))
credit = Limit("credit", "balance", 0, unit="usd", period_us=600_000_000)

texts = st.text(st.characters() | st.sampled_from("{}:%ksc"), max_size=12)


def keys(*limits, who=WHO, now_us=NOW_US):
    return checks_for(limits, (1,) * len(limits), who, now_us).keys


def test_a_counter_is_named_by_customer_limit_scope_and_window():
    assert keys(burst, monthly, minute, fixed, inflight) == (
        ("sc:{cust-9}:burst:kk_7f",),
        ("sc:{cust-9}:monthly:ccust-9:2026-11",),
        ("sc:{cust-9}:minute:sapp-42:s60:29920650", "sc:{cust-9}:minute:sapp-42:s60:29920649"),
        ("sc:{cust-9}:fixed:kk_7f:s60:29920650",),
        ("sc:{cust-9}:inflight:kk_7f",),
    )


# APISIX limit-count: editing the policy restarted the quota
# Fails if amount, plan or any other part of the definition enters the key.
def test_an_edit_of_a_limit_or_a_change_of_plan_keeps_its_counter():
    edited = Limit("monthly", "quota", 5, calendar="month", scope="customer", over="allow", stage="shadow")
    assert keys(edited, who=Identity("k_7f", "app-42", "cust-9", "free")) == keys(monthly)


# litellm #34733: a window reset was last-write-wins
def test_the_next_window_is_another_counter():
    assert keys(monthly, now_us=NOW_US + 15 * DAY_US) == (("sc:{cust-9}:monthly:ccust-9:2026-12",),)


@given(st.tuples(texts, texts), st.tuples(texts, texts))
def test_no_customer_or_key_can_spell_another_s_counter(
    one, other
):  # Fails if `escaped` lets a colon or a brace through.
    names = [keys(burst, who=Identity(key, "s", customer, "free")) for customer, key in (one, other)]
    assert (names[0] == names[1]) == (one == other)


@given(texts)
def test_an_escaped_value_is_printable_and_never_empty(text):
    plain = escaped(text)
    assert plain
    assert plain.isascii()
    assert plain.isprintable()
    assert not set(plain) & set("{}: ")


def test_a_customer_without_a_name_still_has_a_hash_tag():  # `{}` is none: its keys would be spread over a cluster
    assert keys(burst, who=Identity("k", "s", "", "free")) == (("sc:{%}:burst:kk",),)
    assert keys(burst, who=Identity("k", "s", "%", "free")) == (("sc:{%25}:burst:kk",),)


def test_a_limit_named_ids_is_not_a_bucket_of_marks():
    checks = checks_for((Limit("ids", "rate", 1, per=1, period_us=1),), (1,), WHO, NOW_US)
    assert checks.keys[0][0] != checks.bucket(b"01KAJ52YB0ABCDEFGHJKMNPQRS")
    assert checks.bucket(b"01KAJ52YB0ABCDEFGHJKMNPQRS") == "sc:{cust-9}:ids:01KAJ52"


def test_checks_hold_until_the_first_of_their_windows_ends():
    checks = checks_for((burst, monthly, minute), (1, 1, 1), WHO, NOW_US)
    assert checks.until_us == checks.ends_us[2] < checks.ends_us[1]
    assert checks.holds(NOW_US)
    assert checks.holds(checks.until_us - 1)
    assert not checks.holds(checks.until_us)
    assert checks.at(checks.until_us).holds(checks.until_us)


def test_checks_without_windows_hold_for_ever():
    assert checks_for((burst, inflight), (1, 1), WHO, NOW_US).until_us == NEVER_US


def test_a_quota_can_follow_the_customer_s_zone_and_day():
    limit = Limit("m", "quota", 1, calendar="month", zone="customer", anchored=True)
    who = Identity("k", "s", "c", "p", zone="Asia/Kathmandu", anchor_us=1_768_600_000_000_000)
    assert checks_for((limit,), (1,), who, NOW_US).windows == ("2026-11@17",)


def test_an_exchange_holds_one_slot_whatever_it_costs():
    checks = checks_for((inflight, monthly), (7, 7), WHO, NOW_US)
    assert checks.costs == (1, 7)
    assert checks.slots
    assert not checks_for((inflight,), (0,), WHO, NOW_US).slots


def test_a_priced_limit_counts_like_a_quota_and_a_balance_has_the_customer_s_wallet():
    assert keys(cost, credit) == (
        ("sc:{cust-9}:credit.requests:ccust-9:2026-11",),
        ("sc:{cust-9}:wallet:usd", "sc:{cust-9}:ledger:usd", "sc:{cust-9}:holds:usd", "sc:{cust-9}:held:usd"),
    )


def test_a_balance_is_settled_in_every_ending():
    checks = checks_for((cost, credit), (0, 0), WHO, NOW_US)
    assert checks.slots
    assert checks.payers == (1, -1)
    assert checks_for((cost, monthly), (1, 1), WHO, NOW_US).payers == ()


def test_an_absurd_cost_stays_exact():
    assert checks_for((monthly,), (10**30,), WHO, NOW_US).costs == (COUNT_MAX,)


def test_an_id_says_when_it_was_made():
    assert id_us(b"01ARYZ6S41TSV4RRFFQ69G5FAV") == 1_469_918_176_385_000  # the example of the ULID specification
    assert id_us(b"7ZZZZZZZZZ" + b"0" * 16) == (2**48 - 1) * 1000


@pytest.mark.parametrize(
    "limit",
    [
        burst,
        monthly,
        minute,
        inflight,
        cost,
        credit,
        Limit("fast", "rate", 1_400_000, per=700_000, period_us=1_000_000),
        Limit("tpm", "rate", 100_000_000, per=100_000_000, period_us=60_000_000),
        Limit("odd", "rate", 10, per=3, period_us=1_000_000),
        Limit("day", "window", 10_000_000, period_us=DAY_US),
    ],
)
def test_what_people_write_is_within_bounds(limit):
    assert bounds_fault(limit) is None


@pytest.mark.parametrize(
    ("limit", "says"),
    [
        (Limit("x", "quota", 0, calendar="day"), "amount 0 must be from 1"),
        (Limit("x", "quota", COUNT_MAX + 1, calendar="day"), "must be from 1 to"),
        (Limit("x", "rate", 1_000_003, per=999_983, period_us=30 * DAY_US), "too fine to count exactly"),
        (Limit("x", "rate", 5, per=0, period_us=1), "at least 1 unit"),
        (Limit("x", "window", 10**9, period_us=DAY_US), "use fixed"),
        (Limit("x", "window", 10, period_us=1_500), "whole milliseconds"),
        (Limit("x", "concurrency", 10), "needs period_us"),
        (Limit("x", "balance", 0, period_us=600_000_000), "needs a unit"),
        (Limit("x", "balance", 5, unit="usd", period_us=600_000_000), "has no amount"),
        (Limit("x", "balance", 0, unit="usd"), "from a second to a day"),
        (Limit("x", "balance", 0, unit="usd", period_us=600_000_000, offline=-1), "offline -1"),
        (Limit("x", "priced", 0, calendar="month", unit="usd"), "needs a price"),
        (Limit("x", "priced", 0, calendar="day", price=Price("package", COUNT_MAX + 1)), "more than a balance holds"),
        (Limit("wallet", "quota", 1, calendar="day"), "is a word of other keys"),
    ],
)
def test_what_a_double_cannot_hold_is_refused_on_load(limit, says):
    assert says in (bounds_fault(limit) or "")


# Fails if the age is left out: a burst that time has given back is given back again.
def test_a_rate_gives_back_only_what_time_has_not():
    per_second = Limit("r", "rate", 100, per=1, period_us=1_000_000)
    assert shift_of(per_second, 10, -10, 0) == (-10_000_000, 0)
    assert shift_of(per_second, 10, -10, 4_000_000) == (-6_000_000, 0)
    assert shift_of(per_second, 10, -3, 4_000_000) == (-3_000_000, 0)
    assert shift_of(per_second, 10, -10, 10_000_000) == (0, 0)
    assert shift_of(per_second, 10, 5, 10_000_000) == (5_000_000, 0)
