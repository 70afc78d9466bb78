from dataclasses import replace

import pytest

from sidecar.core.decision import Decision
from sidecar.core.headers import denial_problem, ratelimit_fields, retry_after, warning_fields, x_ratelimit_fields
from sidecar.core.identity import Identity
from sidecar.core.limits import checks_for
from sidecar.core.policy import Limit

NOW_US = 1_795_239_000_000_000
WHO = Identity("k", "s", "c", "free")
burst = Limit("burst", "rate", 100, per=100, period_us=60_000_000)
monthly = Limit("monthly", "quota", 10_000, calendar="month")
egress = Limit("egress", "quota", 2**30, meter="egress_bytes", calendar="day")
tokens = Limit("tokens", "quota", 500, meter="input_tokens", calendar="hour")
spent = Limit("spent", "priced", 0, meter="input_tokens", calendar="month", unit="usd")
credit = Limit("credit", "balance", 0, unit="usd", period_us=600_000_000, link="https://example.com/top-up")
inflight = Limit("inflight", "concurrency", 4, period_us=60_000_000)


def decision(*limits, remaining=(), reset_us=(), violated=-1, costs=None, shadowed=()):
    checks = checks_for(limits, costs or (1,) * len(limits), WHO, NOW_US)
    zeros = (0,) * len(limits)
    return Decision(
        checks, NOW_US, remaining or zeros, reset_us or zeros, 1 + violated + 64 * sum(1 << index for index in shadowed)
    )


def lines(fields):
    return [f"{name.decode()}: {value.decode()}" for name, value in fields]


def test_policies_and_what_is_left_are_told_as_in_the_draft():
    assert lines(
        ratelimit_fields(decision(burst, monthly, remaining=(50, 9_000), reset_us=(30_000_000, 86_400_000_000)))
    ) == [
        'RateLimit-Policy: "burst";q=100;w=60, "monthly";q=10000;w=2592000',
        'RateLimit: "burst";r=50;t=30, "monthly";r=9000;t=86400',
    ]


def test_units_other_than_requests_are_named():
    assert lines(ratelimit_fields(decision(egress, tokens, inflight)))[0] == (
        'RateLimit-Policy: "egress";q=1073741824;w=86400;qu="content-bytes", '
        '"tokens";q=500;w=3600;qu="input_tokens", "inflight";q=4;qu="concurrent-requests"'
    )


@pytest.mark.parametrize(("reset_us", "t"), [(0, 0), (1, 1), (999_999, 1), (1_000_000, 1), (1_000_001, 2)])
def test_a_reset_is_never_told_too_early(reset_us, t):  # Fails if t rounds down. Kong #14995: ms where s were meant
    told = decision(monthly, remaining=(1,), reset_us=(reset_us,), violated=0)
    assert lines(ratelimit_fields(told))[1] == f'RateLimit: "monthly";r=1;t={t}'
    assert retry_after(told) == max(t, 1) >= reset_us / 1_000_000


def test_what_is_left_is_never_told_below_zero():
    fields = ratelimit_fields(decision(monthly, remaining=(-7,)))
    assert lines(fields)[1] == 'RateLimit: "monthly";r=0;t=0'


def test_figures_stay_within_fifteen_digits():  # RFC 9651 §3.3.1
    huge = Limit("huge", "quota", 2**51, calendar="day")
    assert lines(ratelimit_fields(decision(huge, remaining=(2**51,)))) == [
        'RateLimit-Policy: "huge";q=999999999999999;w=86400',
        'RateLimit: "huge";r=999999999999999;t=0',
    ]


def test_shadow_limits_are_not_spoken_of():
    shadow = replace(monthly, id="trial", stage="shadow")
    fields = ratelimit_fields(decision(shadow, burst, remaining=(1, 2)))
    assert lines(fields) == ['RateLimit-Policy: "burst";q=100;w=60', 'RateLimit: "burst";r=2;t=0']
    assert ratelimit_fields(decision(shadow, remaining=(1,))) == []
    assert x_ratelimit_fields(decision(shadow, remaining=(1,))) == []


# Fails if money is told: no field of the draft has a unit for it.
def test_balances_and_what_they_pay_for_are_not_spoken_of():
    fields = ratelimit_fields(decision(spent, credit, burst, remaining=(-5, 10**12, 2)))
    assert lines(fields) == ['RateLimit-Policy: "burst";q=100;w=60', 'RateLimit: "burst";r=2;t=0']
    assert lines(x_ratelimit_fields(decision(spent, credit, burst, remaining=(-5, 0, 2), violated=1)))[1] == (
        "X-RateLimit-Remaining: 2"
    )
    assert x_ratelimit_fields(decision(spent, credit, violated=1)) == []


def test_a_soft_limit_that_is_used_up_warns_and_a_shadow_is_silent():
    soft = replace(monthly, stage="soft", link="https://example.com/upgrade")
    shadow = replace(monthly, id="trial", stage="shadow")
    assert lines(warning_fields(decision(soft, shadow, shadowed=(0, 1)))) == [
        'Sidecar-Warning: limit "monthly" is used up; see https://example.com/upgrade'
    ]
    assert warning_fields(decision(soft)) == []
    assert warning_fields(decision(replace(soft, link=""), shadowed=(0,)))[0][1].endswith(b" is used up")


def test_a_link_cannot_end_its_line():
    evil = replace(monthly, stage="soft", link="https://h/\r\nX: 1")
    assert lines(warning_fields(decision(evil, shadowed=(0,)))) == [
        'Sidecar-Warning: limit "monthly" is used up; see https://h/%0D%0AX: 1'
    ]


def test_no_limits_no_fields():
    assert ratelimit_fields(decision()) == []
    assert x_ratelimit_fields(decision()) == []


@pytest.mark.parametrize(
    ("id", "told"),
    [('a"b', r'"a\"b"'), ("a\\b", r'"a\\b"'), ("a\r\nX: 1", '"a%0D%0AX: 1"'), ("é", '"%C3%A9"'), ("5%d", '"5%d"')],
)
def test_an_id_cannot_end_its_string_or_its_line(id, told):
    fields = ratelimit_fields(decision(replace(monthly, id=id), remaining=(1,)))
    assert lines(fields)[1] == f"RateLimit: {told};r=1;t=0"


def test_a_rate_s_window_is_the_time_of_its_whole_burst_rounded_up():
    odd = Limit("odd", "rate", 10, per=3, period_us=1_000_000)
    assert '"odd";q=10;w=4' in lines(ratelimit_fields(decision(odd)))[0]


def test_the_older_fields_tell_of_the_limit_nearest_to_its_end():
    told = decision(monthly, burst, remaining=(9_000, 5), reset_us=(86_400_000_000, 30_000_001))
    assert lines(x_ratelimit_fields(told)) == [
        "X-RateLimit-Limit: 100",
        "X-RateLimit-Remaining: 5",
        "X-RateLimit-Reset: 31",
    ]


def test_the_older_fields_tell_of_the_limit_that_denied():
    told = decision(monthly, burst, remaining=(9_000, 0), reset_us=(86_400_000_000, 1), violated=0)
    assert lines(x_ratelimit_fields(told))[0] == "X-RateLimit-Limit: 10000"


# unkey #7000: "slow down" and "used up" looked alike
@pytest.mark.parametrize(
    ("limit", "status", "slug"),
    [
        (monthly, 429, "quota-exceeded"),
        (burst, 429, "quota-exceeded"),
        (inflight, 429, "temporary-reduced-capacity"),
        (Limit("wallet", "balance", 1), 402, "balance-exhausted"),
    ],
)
def test_a_denial_says_which_limit_and_what_to_do(limit, status, slug):
    problem = denial_problem(decision(limit, reset_us=(1_500_000,), violated=0))
    assert (problem.status, problem.slug) == (status, slug)
    assert problem.extra["violated-policies"] == [problem.extra["limit"]["id"]] == [limit.id]
    assert limit.id in problem.detail
    assert problem.headers == (() if status == 402 else ((b"Retry-After", b"2"),))


def test_a_balance_that_cannot_be_asked_for_is_no_empty_one():
    # Mutation: told as exhausted, an outage of the store sends customers with funds to the till.
    denied = decision(credit, reset_us=(1_000_000,), violated=0)
    denied.mode = "degraded"
    problem = denial_problem(denied)
    assert (problem.status, problem.slug, problem.headers) == (503, "balance-unknown", ((b"Retry-After", b"1"),))


def test_a_denial_has_the_figures_of_the_limit_that_denied():
    # Fails if they are those of the first limit, or used units are those that are left.
    denied = decision(burst, monthly, remaining=(7, 20), reset_us=(0, 3_600_000_000), violated=1, costs=(1, 30))
    assert denial_problem(denied).extra["limit"] == {
        "id": "monthly", "meter": "requests", "scope": "key", "used": 9_980, "limit": 10_000, "remaining": 20,
        "period": "2026-11", "resets": "2026-11-21T06:30:00.000000Z",
    }  # fmt: skip


def test_a_denial_of_slots_has_no_time_and_one_of_a_balance_has_its_amount():
    # Fails if an overdraft is available, or an amount is not in the digits of its unit.
    slots = denial_problem(decision(inflight, violated=0)).extra["limit"]
    assert slots == {"id": "inflight", "meter": "requests", "scope": "key", "used": 4, "limit": 4, "remaining": 0}
    owing = replace(credit, amount=500, digits=2)
    denied = denial_problem(decision(owing, remaining=(120,), violated=0, costs=(0,)))
    assert denied.extra["limit"] == {"id": "credit", "unit": "usd", "available": "-3.8"}


@pytest.mark.parametrize("mode", ["degraded", "local"])
def test_a_denial_by_a_worker_s_share_has_no_figures(mode):
    denied = decision(monthly, violated=0)
    denied.mode = mode
    assert "limit" not in denial_problem(denied).extra


@pytest.mark.parametrize("limit", [credit, replace(monthly, link=credit.link)])
def test_a_denial_says_where_the_limit_is_raised(limit):
    assert denial_problem(decision(limit, violated=0)).extra["link"] == "https://example.com/top-up"


def test_a_request_that_can_never_pass_is_told_so():
    problem = denial_problem(decision(tokens, violated=0, costs=(501,)))
    assert problem.detail == "this request asks for 501 units; limit tokens never holds more than 500"


def test_ids_are_text_in_a_problem_whatever_braces_they_have():
    problem = denial_problem(decision(replace(monthly, id="{x}"), violated=0))
    assert problem.detail == "limit {x} of 10000 requests is used up for now"


# Fails if what nobody knows is told as used up: a loss of the store would look like customers over all their limits.
@pytest.mark.parametrize(
    ("unknown", "seconds", "why"),
    [("lost", 60, "after a loss of the counter store; the operator"), ("away", 69_783, "the counter store does not")],
)
def test_usage_that_is_unknown_is_not_told_as_used_up(unknown, seconds, why):
    denied = decision(monthly, burst, reset_us=(69_783_000_000, 0), violated=0)
    denied.unknown, denied.mode = unknown, "degraded"
    problem = denial_problem(denied)
    assert (problem.status, problem.slug) == (429, "usage-unknown")
    assert problem.detail.startswith(f"usage of limit monthly is unknown{': ' if unknown == 'away' else ' '}{why}")
    assert problem.headers == ((b"Retry-After", b"%d" % seconds),)
    assert lines(ratelimit_fields(denied)) == [
        'RateLimit-Policy: "monthly";q=10000;w=2592000, "burst";q=100;w=60',
        'RateLimit: "monthly";r=0;t=69783',
    ]
    assert lines(x_ratelimit_fields(denied))[0] == "X-RateLimit-Limit: 10000"


def test_a_balance_that_is_unknown_is_in_no_field():
    denied = decision(monthly, credit, violated=1)
    denied.unknown, denied.mode = "away", "degraded"
    assert lines(ratelimit_fields(denied)) == ['RateLimit-Policy: "monthly";q=10000;w=2592000']
    assert x_ratelimit_fields(denied) == []
    assert denial_problem(denied).slug == "balance-unknown"
