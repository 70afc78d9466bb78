import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.identity import Identity
from sidecar.core.limits import (
    Limit,
    checks_for,
    current_key,
    escaped,
    id_us,
    scale_of,
    wallet_keys,
    wallet_name,
    wallet_of,
)
from sidecar.core.limits.keys import account_of, beside_wallet
from tests.core.limits.examples import (
    DAY_US,
    NOW_US,
    WHO,
    burst,
    cost,
    credit,
    fixed,
    inflight,
    keys,
    minute,
    monthly,
    texts,
)


def test_a_counter_is_named_by_customer_limit_scope_and_window():
    assert keys(burst, monthly, minute, fixed, inflight) == (
        ("sc:{cust-9}:r=burst:kk_7f",),
        ("sc:{cust-9}:q=monthly:ccust-9:2026-11",),
        ("sc:{cust-9}:w=minute:sapp-42:s60:29920650", "sc:{cust-9}:w=minute:sapp-42:s60:29920649"),
        ("sc:{cust-9}:w=fixed:kk_7f:s60:29920650",),
        ("sc:{cust-9}:s=inflight:kk_7f",),
    )


# APISIX limit-count: editing the policy restarted the quota
# Fails if amount, plan or any other part of the definition enters the key.
def test_an_edit_of_a_limit_or_a_change_of_plan_keeps_its_counter():
    edited = Limit("monthly", "quota", 5, calendar="month", scope="customer", over="allow", stage="shadow")
    assert keys(edited, who=Identity("k_7f", "app-42", "cust-9", "free")) == keys(monthly)


# litellm #34733: a window reset was last-write-wins
def test_the_next_window_is_another_counter():
    assert keys(monthly, now_us=NOW_US + 15 * DAY_US) == (("sc:{cust-9}:q=monthly:ccust-9:2026-12",),)


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
    assert keys(burst, who=Identity("k", "s", "", "free")) == (("sc:{%}:r=burst:kk",),)
    assert keys(burst, who=Identity("k", "s", "%", "free")) == (("sc:{%25}:r=burst:kk",),)


def test_a_limit_named_like_another_key_of_the_store_has_a_counter_of_its_own():
    checks = checks_for((Limit("ids", "rate", 1, per=1, period_us=1),), (1,), WHO, NOW_US)
    assert checks.keys[0][0] == "sc:{cust-9}:r=ids:kk_7f"
    assert checks.bucket(b"01KAJ52YB0ABCDEFGHJKMNPQRS") == "sc:{cust-9}:ids:01KAJ52"


def test_a_priced_limit_counts_like_a_quota_and_a_balance_has_the_customer_s_wallet():
    assert keys(cost, credit) == (
        ("sc:{cust-9}:q=credit.requests:ccust-9:2026-11",),
        tuple(f"sc:{{cust-9}}:{name}:cust-9:usd" for name in ("wallet", "ledger", "holds", "held")),
    )


@pytest.mark.parametrize("digits", range(10))
def test_a_wallet_in_another_scale_is_another_wallet(digits):
    # Fails if the scale is left out of a name: 1,250 hundredths would be read as 1,250 billionths.
    name = wallet_name("credits", digits)
    assert scale_of(name) == ("credits", digits)
    every = [wallet_keys("acme", wallet_name("credits", other))[0] for other in range(10)]
    assert len({*every}) == 10
    assert every[9] == "sc:{acme}:wallet:acme:credits"  # as in version 0.1
    assert every[2] == "sc:{acme}:wallet:acme:credits.2"
    limit = Limit("credit", "balance", 0, unit="credits", digits=digits, period_us=600_000_000)
    assert keys(limit, who=Identity("k", "s", "acme", "p")) == (wallet_keys("acme", name)[:4],)


@pytest.mark.parametrize("customer", ["acme", "a:b{c}%", "", "Müller GmbH", "wallet"])
@pytest.mark.parametrize("name", ["usd", "credits.2"])
def test_the_key_of_a_wallet_says_whose_it_is(customer, name):
    assert wallet_of(wallet_keys(customer, name, "root")[0]) == (customer, name)
    assert current_key(wallet_keys(customer, name)[0]) == wallet_keys(customer, name)[0]


def test_the_key_of_a_wallet_of_version_0_1_says_whose_it_was():
    assert wallet_of("sc:{a%3Ab}:wallet:usd") == ("a:b", "usd")


def test_an_id_says_when_it_was_made():
    assert id_us(b"01ARYZ6S41TSV4RRFFQ69G5FAV") == 1_469_918_176_385_000  # the example of the ULID specification
    assert id_us(b"7ZZZZZZZZZ" + b"0" * 16) == (2**48 - 1) * 1000


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ("monthly:cacme:2026-11", "q=monthly:cacme:2026-11"),
        ("cycle:cacme:2026-11@17", "q=cycle:cacme:2026-11@17"),
        ("burst:kk_acme", "r=burst:kk_acme"),
        ("minutely:sapp:s60:29933864", "w=minutely:sapp:s60:29933864"),
        ("inflight:cacme:slots", "s=inflight:cacme"),
        ("ids:cacme:2026-11", "q=ids:cacme:2026-11"),
        ("ids:kk", "r=ids:kk"),
        ("alert:cacme", "r=alert:cacme"),
        ("alert:monthly:cacme:2026-11:50", "alert:q=monthly:cacme:2026-11:50"),
        ("alert:minutely:cacme:s60:29933864:50", "alert:w=minutely:cacme:s60:29933864:50"),
        ("alert:credit:cacme:gpromo-1:80", "alert:b=credit:cacme:gpromo-1:80"),
        ("wallet:usd", "wallet:acme:usd"),
        ("granted:gpu_s", "granted:acme:gpu_s"),
        ("ledger:credits", "ledger:acme:credits"),
        ("retry:94732C62E681B1", "retry:acme:94732C62E681B1"),
        ("ids:01M8NXE", "ids:01M8NXE"),
        ("ids:", "ids:"),
    ],
)
def test_a_key_of_version_0_1_has_one_of_today_and_that_stays(before, now):
    # Fails if a scope's letter is not told from a unit's or a bucket's first one.
    assert current_key("sc:{acme}:" + before) == "sc:{acme}:" + now
    assert current_key("sc:{acme}:" + now) == "sc:{acme}:" + now


@pytest.mark.parametrize("key", ["sc:keys", "sc:key:386d", "sc:store:mark", "sc:{17}:store:mark", "other:{a}:b:c", ""])
def test_keys_of_other_things_are_left_alone(key):
    assert current_key(key) == key


def test_no_key_of_today_is_taken_for_one_of_before():
    every = [*keys(burst, monthly, minute, fixed, inflight, cost, credit), wallet_keys("c:{u}st", "credits")]
    assert all(current_key(key) == key for each in every for key in each)


@pytest.mark.parametrize("account", ["acme", "a}:wallet:b", "ä %", ""])
def test_the_other_keys_of_a_wallet_and_its_account_follow_from_its_first_key(account):
    # Fails if a name within a customer or an account is replaced, or if an escape is not undone.
    keys = wallet_keys("c:wallet:1", "usd", account or "c:wallet:1")
    assert keys == tuple(beside_wallet(keys[0], name) for name in ("wallet", "ledger", "holds", "held", "granted"))
    assert account_of(keys[0]) == (account or "c:wallet:1")
