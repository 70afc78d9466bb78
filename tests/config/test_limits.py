"""Mirrors sidecar/config/limits.py."""

import re

import pytest
from pydantic import ValidationError

from sidecar.config.limits import LimitDoc, compiled, faults_of, identity_of, inexact, kind_of, written
from sidecar.core.limits.concurrency import SLOT_EXPIRY_US
from sidecar.core.policy import Limit

DAY_US = 86_400_000_000


def doc(**fields):
    return LimitDoc.model_validate({"id": "x", **fields})


def wrong(*, sized=False, **fields):
    return list(faults_of(doc(**fields), sized=sized))


@pytest.mark.parametrize(
    ("fields", "limit"),
    [
        ({"rate": "5/s", "burst": 10}, Limit("x", "rate", 10, per=5, period_us=1_000_000)),
        ({"rate": "100/10s"}, Limit("x", "rate", 100, per=100, period_us=10_000_000)),
        ({"quota": "10_000/month"}, Limit("x", "quota", 10_000, calendar="month", scope="customer")),
        (
            {"quota": "5/day", "anchor": "subscription", "zone": "customer", "scope": "subject", "over": "allow"},
            Limit("x", "quota", 5, calendar="day", scope="subject", zone="customer", anchored=True, over="allow"),
        ),
        ({"window": "100/60s"}, Limit("x", "window", 100, period_us=60_000_000)),
        ({"window": "100/60s", "exact": True}, Limit("x", "window", 100, period_us=60_000_000, exact=True)),
        ({"window": "100/min", "fixed": True}, Limit("x", "window", 100, period_us=60_000_000, fixed=True)),
        ({"concurrency": 4}, Limit("x", "concurrency", 4, meter="", period_us=SLOT_EXPIRY_US)),
        ({"concurrency": 4, "expiry": "30s"}, Limit("x", "concurrency", 4, meter="", period_us=30_000_000)),
        (
            {"rate": "1/s", "meter": "m", "reserve": 7, "stage": "shadow", "on_store_failure": "deny", "routes": ["r"]},
            Limit("x", "rate", 1, "m", per=1, period_us=1_000_000, stage="shadow", on_store_failure="deny",
                  routes=frozenset({"r"}), reserve=7),
        ),
        (
            {"quota": "5/month", "stage": "soft", "alert": [50, 80, 100], "link": "https://example.com/up"},
            Limit("x", "quota", 5, calendar="month", scope="customer", stage="soft", alerts=(50, 80, 100),
                  link="https://example.com/up"),
        ),
        (
            {"balance": "usd"},
            Limit("x", "balance", 0, "", scope="customer", period_us=SLOT_EXPIRY_US, unit="usd",
                  on_store_failure="deny"),
        ),
        (
            {"balance": "usd", "offline": "0.10", "expiry": "1h", "alert": 80},
            Limit("x", "balance", 0, "", scope="customer", period_us=3_600_000_000, unit="usd", offline=100_000_000,
                  alerts=(80,)),
        ),
        (
            {"balance": "usd", "over": "allow", "routes": "r"},
            Limit("x", "balance", 0, "", scope="customer", period_us=SLOT_EXPIRY_US, unit="usd", over="allow",
                  routes=frozenset({"r"})),
        ),
    ],
)  # fmt: skip
def test_each_form_becomes_its_limit(fields, limit):
    assert wrong(**fields) == []
    assert compiled(doc(**fields)) == limit


@pytest.mark.parametrize(
    ("text", "period_us"),
    [
        ("s", 10**6),
        ("second", 10**6),
        ("min", 6 * 10**7),
        ("h", 36 * 10**8),
        ("day", DAY_US),
        ("2d", 2 * DAY_US),
        ("5m", 3 * 10**8),
    ],
)
def test_a_period_is_a_word_or_a_duration(text, period_us):
    assert written(doc(window=f"1/{text}")).period_us == period_us


@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        ({}, "", "needs exactly one of rate, quota, window, concurrency, balance"),
        ({"rate": "1/s", "quota": "1/day"}, "", "needs exactly one of"),
        ({"rate": "5 per second"}, "rate", "is not an amount per period: write for example 5/s or 100/10s"),
        ({"rate": "5/0s"}, "rate", "is not from 1ms to 366d"),
        ({"rate": "5/parsec"}, "rate", "'parsec' is not a period: write for example 5/s"),
        ({"rate": "5/month"}, "rate", "a month has no fixed length, so no rate has it: write `quota: …/month`"),
        ({"window": "5/m"}, "window", "'m' could be a minute or a month"),
        ({"rate": "0/s"}, "rate", "is not from 1 to 2^53 - 1"),
        ({"quota": f"{2**53}/month"}, "quota", "is not from 1 to 2^53 - 1"),
        ({"quota": "5/months"}, "quota", "did you mean 'month'?"),
        ({"quota": "5/mon"}, "quota", "did you mean 'month'?"),
        ({"quota": "5/dya"}, "quota", "did you mean 'day'?"),
        ({"quota": "5/60s"}, "quota", "known: day, hour, month, week, year (a length such as 60s is a `window`)"),
        ({"quota": "5/m"}, "quota", "unknown calendar unit 'm'"),
        ({"quota": "1GiB/month"}, "quota", "is a size, but the meter does not count bytes"),
        ({"quota": "1/day", "zone": "Mars/Olympus"}, "zone", "write an IANA name such as Europe/Berlin, or customer"),
        ({"quota": "1/day", "zone": "../etc/passwd"}, "zone", "unknown time zone"),
        ({"quota": "1/day", "burst": 3}, "burst", "means nothing with quota, only with rate"),
        ({"balance": "usd", "scope": "key"}, "scope", "means nothing with balance"),
        ({"balance": "usd", "meter": "m"}, "meter", "means nothing with balance"),
        ({"balance": "usd", "per_seat": True}, "per_seat", "means nothing with balance"),
        ({"balance": "usd", "on_store_failure": "allow"}, "on_store_failure", "means nothing with balance"),
        ({"concurrency": 4, "exact": True}, "exact", "means nothing with concurrency"),
        ({"quota": "1/day", "offline": "1"}, "offline", "means nothing with quota, only with balance"),
        (
            {"balance": "usd", "offline": "0.0000000001"},
            "offline",
            "is finer than its unit counts: write at most 9 digits",
        ),
        ({"balance": "usd", "offline": "1", "over": "allow"}, "offline", "over: allow never denies: leave it out"),
        ({"rate": "1/s", "alert": [80]}, "alert", "means nothing with rate, only with quota, window, balance"),
        ({"concurrency": 1, "alert": [80]}, "alert", "means nothing with concurrency"),
        ({"quota": "1/day", "alert": [80, 50]}, "alert", "[80, 50] do not ascend: write each percent once"),
        ({"quota": "1/day", "alert": [80, 80]}, "alert", "do not ascend"),
        ({"quota": "1/day", "stage": "soft", "over": "allow"}, "stage", "over: allow never denies"),
        ({"rate": "1/s", "anchor": "subscription"}, "anchor", "only with quota"),
        ({"rate": "1/s", "fixed": False}, "fixed", "only with window"),
        ({"rate": "1/s", "expiry": "1s"}, "expiry_us", "only with concurrency, balance"),
        ({"concurrency": 1, "meter": "m"}, "meter", "only with rate, quota, window"),
        ({"concurrency": 1, "reserve": 5}, "reserve", "means nothing with concurrency"),
    ],
)
def test_each_fault_names_its_field_and_what_would_be_right(fields, field, said):
    [(where, what)] = wrong(**fields)
    assert where == field
    assert said in what


def test_a_quota_of_bytes_may_be_written_as_a_size():
    assert wrong(quota="10GiB/month", sized=True) == []
    assert compiled(doc(quota="10GiB/month")).amount == 10 << 30


def test_several_faults_of_one_limit_are_all_told():
    assert {field for field, _ in wrong(quota="1/mon", fixed=True, zone="Mars")} == {"quota", "fixed", "zone"}


def test_what_no_store_could_count_exactly_is_a_fault():
    # Fails if the bounds of the counters are not asked on load.
    assert list(inexact(doc(rate="5/s"))) == []
    [(field, what)] = inexact(doc(window=f"{2**50}/366d"))
    assert field == "window"
    assert what


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"quota": "1/day", "alert": list(range(10, 19))}, "at most 8"),
        ({"quota": "1/day", "alert": [101]}, "less than or equal to 100"),
        ({"quota": "1/day", "stage": "warn"}, "'enforce', 'soft' or 'shadow'"),
        ({"quota": "1/day", "link": "ftp://example.com"}, "String should match pattern"),
        ({"quota": "1/day", "link": "https://example.com/\r\nX: 1"}, "String should match pattern"),
        ({"quota": "1/day", "link": 'https://example.com/"'}, "String should match pattern"),
        ({"balance": "US$"}, "String should match pattern"),
        ({"balance": 5}, "valid string"),
    ],
)
def test_a_word_of_the_wrong_form_is_refused(fields, said):
    with pytest.raises(ValidationError, match=re.escape(said)):
        doc(**fields)


@pytest.mark.parametrize(
    ("fields", "figures"),
    [
        ({"quota": "10/month"}, {"amount": 120}),
        ({"rate": "5/s", "burst": 7}, {"amount": 84, "per": 60}),
        ({"window": "3/60s"}, {"amount": 36}),
        ({"concurrency": 2}, {"amount": 24}),
    ],
)
def test_what_is_per_seat_is_that_many_for_each_seat(fields, figures):
    limit = compiled(doc(**fields, per_seat=True), seats=12)
    assert {name: getattr(limit, name) for name in figures} == figures
    assert compiled(doc(**fields, per_seat=True)) == compiled(doc(**fields)) == compiled(doc(**fields), seats=12)


def test_a_quota_is_the_customer_s_and_all_else_the_key_s_unless_said():
    scopes = {kind: compiled(doc(**fields)).scope for kind, fields in FORMS.items()}
    assert scopes == {kind: "customer" if kind in ("quota", "balance") else "key" for kind in FORMS}


def test_the_kind_is_the_one_that_is_named():
    assert {kind: kind_of(doc(**fields)) for kind, fields in FORMS.items()} == {kind: kind for kind in FORMS}
    assert kind_of(doc()) is None


def test_the_figures_of_a_limit_are_no_part_of_its_identity():
    # APISIX limit-count: editing the policy restarted the quota.
    for kind, fields in FORMS.items():
        edited = {"quota": "9/month", "rate": "9/min", "window": "9/60s", "concurrency": 9, "balance": "usd"}[kind]
        before, after = compiled(doc(**fields)), compiled(doc(**{kind: edited}, over="allow", stage="shadow"))
        assert before != after
        assert identity_of(before) == identity_of(after)


FORMS = {
    "rate": {"rate": "1/s"},
    "quota": {"quota": "1/month"},
    "window": {"window": "1/60s"},
    "concurrency": {"concurrency": 1},
    "balance": {"balance": "usd"},
}
