"""Mirrors sidecar/core/price/wallet.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.price.rating import AMOUNT_MAX
from sidecar.core.price.wallet import (
    Grant,
    Posting,
    Wallet,
    add,
    available,
    balance,
    burn,
    expire_grants,
    give_back,
    in_burn_order,
    move,
    void,
)

NOW_US = 1_795_239_000_000_000


def grant(name, amount=100, remaining=None, **more):
    fields = {"priority": 0, "starts_us": 0, "expires_us": 0, **more}
    return Grant(name, amount=amount, remaining=amount if remaining is None else remaining, **fields)


def left(wallet):
    return {each.id: each.remaining for each in wallet.grants}


@st.composite
def wallets(draw):
    times = st.sampled_from([0, 1, NOW_US - 1, NOW_US, NOW_US + 1, NOW_US + 10])
    grants = []
    for name in draw(st.lists(st.sampled_from("abcdef"), unique=True)):
        amount = draw(st.integers(1, 100))
        grants.append(
            Grant(
                name, draw(st.integers(-1, 2)), draw(times), draw(times), amount, draw(st.integers(0, amount)),
                draw(st.integers(0, 60)), draw(times), draw(st.integers(0, 3)),
            )
        )  # fmt: skip
    return Wallet(tuple(grants), draw(st.sampled_from([0, 0, 7, 500])))


# The order, as it is promised: priority, then expiry, then age.
# Fails if any of the three is left out of the key, or "never" sorts as the soonest.
def test_it_burns_by_priority_then_expiry_then_age_then_name():
    grants = [
        grant("later", expires_us=NOW_US + 9),
        grant("never", made_us=2),
        grant("never-but-older", made_us=1),
        grant("sooner", expires_us=NOW_US + 5, made_us=7),
        grant("promised-first", priority=-1),
        grant("a-last-resort", priority=5, expires_us=NOW_US + 1),
        grant("never-by-name", made_us=2),
    ]
    assert [each.id for each in in_burn_order(grants)] == [
        "promised-first", "sooner", "later", "never-but-older", "never", "never-by-name", "a-last-resort",
    ]  # fmt: skip


def test_it_burns_one_grant_before_the_next_and_then_makes_debt():
    wallet = Wallet((grant("second", 50), grant("first", 30, priority=-1)))
    assert left(burn(wallet, 40, NOW_US)) == {"first": 0, "second": 40}
    broke = burn(wallet, 90, NOW_US)
    assert (left(broke), broke.debt) == ({"first": 0, "second": 0}, 10)
    assert available(broke, NOW_US) == -10


def test_what_has_not_started_or_has_expired_pays_nothing():
    wallet = Wallet((grant("early", starts_us=NOW_US + 1), grant("late", expires_us=NOW_US), grant("now", 5)))
    assert available(wallet, NOW_US) == 5
    assert left(burn(wallet, 7, NOW_US)) == {"early": 100, "late": 100, "now": 0}
    assert left(give_back(wallet, 7, NOW_US)[0]) == left(wallet)


# Fails if it is given back in the order of burning, beyond an amount, or before the debt is paid.
def test_it_gives_back_to_the_debt_and_then_in_the_reverse_order_up_to_each_amount():
    wallet = Wallet((grant("first", 30, 0, priority=-1), grant("second", 50, 20)), debt=5)
    back, lost = give_back(wallet, 40, NOW_US)
    assert (back.debt, left(back), lost) == (0, {"first": 5, "second": 50}, 0)
    back, lost = give_back(wallet, 70, NOW_US)
    assert (left(back), lost) == ({"first": 30, "second": 50}, 5)


def test_what_finds_no_room_when_it_comes_back_has_expired_with_its_grant():
    wallet = Wallet((grant("a", 30, 20),))
    after, postings = move(wallet, "release", "exchange", -25, NOW_US)
    assert left(after) == {"a": 30}
    assert postings == [Posting("release", "exchange", 25), Posting("lost", "exchange", -15)]


def test_an_expired_grant_goes_and_says_what_went_with_it():
    wallet = Wallet((grant("old", 30, 20, expires_us=NOW_US), grant("used", 30, 0, expires_us=1), grant("on", 9)))
    after, postings = expire_grants(wallet, NOW_US)
    assert left(after) == {"on": 9}
    assert postings == [Posting("expire", "old", -20)]


def test_a_grant_that_rolls_over_lives_on_with_no_more_than_may():
    wallet = Wallet((grant("month", 100, 80, expires_us=NOW_US, rollover_max=30, rollover_until_us=NOW_US + 10),))
    after, postings = expire_grants(wallet, NOW_US)
    assert after.grants == (grant("month", 30, 30, expires_us=NOW_US + 10),)
    assert postings == [Posting("rollover", "month", -50)]
    assert expire_grants(after, NOW_US + 10) == (Wallet(), [Posting("expire", "month", -30)])


@pytest.mark.parametrize("more", [{"rollover_max": 30}, {"rollover_max": 30, "rollover_until_us": NOW_US}])
def test_a_grant_whose_rollover_is_over_as_well_expires(more):
    after, postings = expire_grants(Wallet((grant("month", expires_us=NOW_US, **more),)), NOW_US)
    assert (after, postings) == (Wallet(), [Posting("expire", "month", -100)])


def test_a_grant_that_starts_pays_the_debt_before_it_can_be_spent():
    wallet = Wallet((grant("tomorrow", 50, starts_us=NOW_US + 1),), debt=20)
    assert available(expire_grants(wallet, NOW_US)[0], NOW_US) == -20
    after, postings = expire_grants(wallet, NOW_US + 1)
    assert (left(after), after.debt, postings) == ({"tomorrow": 30}, 0, [])


def test_a_new_grant_pays_the_debt_first():
    after, postings = add(Wallet(debt=20), grant("purchase", 50), NOW_US)
    assert (left(after), after.debt) == ({"purchase": 30}, 0)
    assert postings == [Posting("grant", "purchase", 50)]


def test_a_void_takes_what_is_left_and_leaves_what_was_used_used():
    wallet = Wallet((grant("a", 30, 20), grant("b", 9)), debt=0)
    assert void(wallet, "a") == (Wallet((grant("b", 9),)), [Posting("void", "a", -20)])
    assert void(wallet, "unknown") == (wallet, [])


def test_a_debt_ends_where_a_double_is_no_longer_exact():
    after, postings = move(Wallet(debt=AMOUNT_MAX - 5), "settle", "exchange", 9, NOW_US)
    assert (after.debt, postings) == (AMOUNT_MAX, [Posting("settle", "exchange", -5)])


# The promise that the ledger stands on.
# Fails if a rollover, a forfeit or a debt that a grant pays has no posting, or one that says another figure.
@given(wallets(), st.integers(-700, 700), st.sampled_from(["move", "expire", "add", "void"]))
def test_the_postings_of_every_change_sum_to_what_it_changed(wallet, amount, what):
    after, postings = {
        "move": lambda: move(wallet, "settle", "x", amount, NOW_US),
        "expire": lambda: expire_grants(wallet, NOW_US),
        "add": lambda: add(wallet, grant("new", 50), NOW_US),
        "void": lambda: void(wallet, "a"),
    }[what]()
    assert balance(after) == balance(wallet) + sum(posting.delta for posting in postings)
    assert after.debt >= 0
    assert all(0 <= each.remaining <= each.amount for each in after.grants)


@given(wallets(), st.integers(0, 700))
def test_what_is_burnt_and_given_back_leaves_the_wallet_as_it_was(wallet, amount):
    now = expire_grants(wallet, NOW_US)[0]
    back, lost = give_back(burn(now, amount, NOW_US), amount, NOW_US)
    assert (balance(back), available(back, NOW_US), lost) == (balance(now), available(now, NOW_US), 0)


@given(wallets())
def test_a_wallet_whose_grants_expired_has_nothing_left_to_expire(wallet):
    expired, _ = expire_grants(wallet, NOW_US)
    again, postings = expire_grants(expired, NOW_US)
    assert (set(again.grants), again.debt, postings) == (set(expired.grants), expired.debt, [])
    assert expired.debt == 0 or available(expired, NOW_US) == -expired.debt
