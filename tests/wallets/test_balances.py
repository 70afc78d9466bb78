"""Mirrors sidecar/wallets/balances.py."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config.compile import load
from sidecar.config.settings import load_settings
from sidecar.core.price import Price, Tier, rate
from sidecar.wallets.balances import _charge, balances, prices

EXAMPLES = Path(__file__).parents[2] / "policies/examples"
SETTINGS = load_settings(None, {"SIDECAR_REDIS__URL": "redis://127.0.0.1:6379/0"})
POLICY = """\
meters: { out: { usage: openai.output_total }, thought: { usage: reasoning }, sent: { value: request.bytes },
          got: { value: response.bytes }, calls: { count: 2 } }
routes:
- { id: a, match: { path: /a }, usage: openai, estimate: { output: 100, ceiling: 1000 } }
- { id: b, match: { path: /b }, max_body: 500B }
- { id: c, match: { path: /c } }
plans: { p: { currency: usd, prices: { %s }, limits: [ { id: n, concurrency: 3, scope: customer },
         { id: w, balance: usd, %s } ] } }
"""


@pytest.fixture
def told(tmp_path):
    def told(prices, more="over: deny", edit=("", "")):
        (tmp_path / "p.yaml").write_text((POLICY % (prices, more)).replace(*edit))
        [balance] = balances(load(tmp_path, {"default"}), SETTINGS)
        return balance

    return told


@pytest.mark.parametrize(
    ("prices", "each"),
    [
        ("out: {per_unit: 1}", "900.00"),  # the ceiling less what the route's default holds
        ("thought: {per_unit: 1}", "999.00"),  # not estimated, so that `reserve` is all that is held
        ("thought: {per_unit: 1, reserve: 400}", "600.00"),
        ("out: {per_unit: 1, ceiling: 5000}", "4900.00"),
        ("out: {graduated: [{up_to: 5, price: 1}, {up_to: 9, price: 3}, {price: 2}]}", "2700.00"),  # the dearest tier
        ('out: {price: "0.10", per: 3}', "30.000000001"),  # a whole charge is rounded once
        ("out: {package: 1, per: 400}", "3.00"),
        ("out: {volume: [{up_to: 100, price: 2}, {price: 1}]}", "1900.00"),  # 100 units priced anew
        ("calls: {per_unit: 1}", "0.00"),  # known on arrival
        ("calls: {volume: [{up_to: 100, price: 2}, {price: 1}]}", "100.00"),  # a unit given back prices all anew
        ("sent: {per_unit: 1}, out: {per_unit: 1}", None),
        ("sent: {per_unit: 1, ceiling: 500, reserve: 200}, out: {per_unit: 1}", "1200.00"),  # both, on one route
    ],
)
def test_a_balance_goes_below_zero_by_what_an_exchange_may_use_beyond_what_is_held(told, prices, each):
    assert told(prices)["below_zero_per_exchange"] == each


def test_a_body_is_bounded_by_its_route_and_what_is_not_is_named(told):
    balance = told("sent: {per_unit: 1}, got: {per_unit: 1, ceiling: 9}")
    assert balance["unbounded_by"] == ["sent on a", "sent on c"]
    assert told("sent: {per_unit: 1}", "routes: b")["below_zero_per_exchange"] == "499.00"


def test_in_total_it_is_that_for_each_of_the_customer_s_slots(told):
    assert (told("out: {per_unit: 1}")["at_once"], told("out: {per_unit: 1}")["below_zero_in_total"]) == (3, "2700.00")


@pytest.mark.parametrize("of", ["key", "subject"])
def test_slots_of_less_than_a_customer_are_no_bound_in_total(told, of):
    # Mutation: the scope of the concurrency limit not looked at.
    balance = told("out: {per_unit: 1}", edit=("scope: customer", f"scope: {of}"))
    assert (balance["at_once"], balance["below_zero_in_total"]) == (None, None)
    assert balance["below_zero_per_exchange"] == "900.00"


@pytest.mark.parametrize("more", ["over: allow", "stage: shadow", "stage: soft"])
def test_a_balance_that_refuses_nobody_has_no_bound(told, more):
    balance = told("out: {per_unit: 1}", more)
    assert (
        balance["below_zero_per_exchange"] is balance["below_zero_in_total"] is balance["while_redis_is_away"] is None
    )


def test_what_passes_while_redis_is_away_is_told(told):
    assert told("out: {per_unit: 1}")["while_redis_is_away"] == "0.00"
    assert told("out: {per_unit: 1}", 'offline: "0.10"')["while_redis_is_away"] == "0.10"


def test_prices_are_told_with_what_pays_for_them_and_a_customer_s_own_beside_the_plan_s():
    found = prices(load(EXAMPLES / "payments.yaml", {"default"}))
    assert [(price["customer"], price["meter"], price["price"], price["paid_by"]) for price in found] == [
        ("", "requests", "1.00 usd per begun 1000", ""),
        ("", "payments", "volume: to 1000 0.05 usd each, the rest 0.04 usd each", ""),
        ("cust-9", "requests", "0.80 usd per begun 1000", ""),
    ]
    [plain, archive] = prices(load(EXAMPLES / "json-rpc.yaml", {"default"}))
    assert (plain["paid_by"], archive["paid_by"], archive["period"]) == ("commit", "commit", "month")


TIERS = st.lists(st.integers(0, 50), min_size=2, max_size=4).map(
    lambda amount: tuple(Tier(None if i == len(amount) - 1 else 10 * (i + 1), each) for i, each in enumerate(amount))
)
PRICES = st.one_of(
    st.builds(lambda amount, per, free: Price("per_unit", amount, per, included=free), *(st.integers(1, 50),) * 3),
    st.builds(lambda amount, per, free: Price("package", amount, per, included=free), *(st.integers(1, 50),) * 3),
    st.builds(lambda tiers, per: Price("graduated", per=per, tiers=tiers), TIERS, st.integers(1, 7)),
    st.builds(lambda tiers, per: Price("volume", per=per, tiers=tiers), TIERS, st.integers(1, 7)),
)


@given(PRICES, st.integers(0, 100), st.integers(0, 100), st.integers(0, 100))
def test_no_exchange_ever_adds_more_than_was_told(price, standing, held, used):
    # Mutation: the steps of a volume price, or the one of rounding, left out.
    added = rate(price, standing + used) - rate(price, standing + held)
    assert added <= _charge(price, max(0, used - held))


def test_the_figures_of_a_balance_are_in_the_scale_of_its_unit(tmp_path):
    # Fails if a figure is converted with nine digits.
    text = POLICY % ("out: {package: 1, per: 400}", 'offline: "10000000.25"') + "units: { usd: { digits: 2 } }\n"
    (tmp_path / "p.yaml").write_text(text)
    loaded = load(tmp_path, {"default"})
    [balance] = balances(loaded, SETTINGS)
    assert (balance["unit"], balance["digits"], balance["while_redis_is_away"]) == ("usd", 2, "10000000.25")
    assert (balance["below_zero_per_exchange"], balance["below_zero_in_total"]) == ("3.00", "9.00")
    assert [price["price"] for price in prices(loaded)] == ["1.00 usd per begun 400"]
