"""Mirrors sidecar/config/wallet_units.py: through loads, and what a reload is told of."""

import pytest

from sidecar.config.compile import load as load_policy
from sidecar.config.wallet_units import changed_faults, digits_of
from sidecar.core.errors import PolicyError
from sidecar.core.price import Price

CREDITS = """\
meters: { calls: { count: 1 } }
plans:
  pro:
    currency: credits
    prices: { calls: { per_unit: "0.05" } }
    limits: [{ id: credit, balance: credits, offline: "0.25" }]
"""


def test_prices_and_balances_are_counted_in_the_digits_of_their_unit(load):
    # Fails if `offline` or a price of a customer's own is converted with nine digits.
    own = 'customers: { acme: { plan: pro, prices: { calls: { per_unit: "0.1" } } } }\n'
    policy = load(CREDITS, "units: { credits: { digits: 2 } }\n", own)
    priced, credit = policy.plans["pro"].limits
    assert (priced.digits, priced.price, credit.digits, credit.offline) == (2, Price("per_unit", 5), 2, 25)
    assert policy.customers["acme"].limits[0].price == Price("per_unit", 10)


def test_a_unit_that_no_document_names_has_nine_digits(load):
    credit = load(CREDITS).plans["pro"].limits[-1]
    assert (credit.digits, credit.offline, digits_of({}, "credits")) == (9, 250_000_000, 9)


def test_ten_million_credits_fit_where_their_unit_has_two_digits(load, faults):
    million = CREDITS.replace("0.25", "10000000")
    assert load(million, "units: { credits: { digits: 2 } }\n").plans["pro"].limits[-1].offline == 10**9
    [fault] = faults(million)
    assert fault == (
        "p.yaml:6: plans.pro.limits[0].offline: '10000000' is out of range: write at most 2251799.813685248, or give "
        "its unit fewer digits, under units in a policy"
    )


@pytest.mark.parametrize(
    ("units", "said"),
    [
        ("credits: { digits: 10 }", "p.yaml:1: units.credits.digits: should be less than or equal to 9, not 10"),
        ("credits: { digits: -1 }", "units.credits.digits: should be greater than or equal to 0, not -1"),
        ("credits: { digits: 1.5 }", "units.credits.digits: 1.5 is not a whole number"),
        ("credits: { digits: two }", "units.credits.digits: should be a whole number, not 'two'"),
        ("credits: {}", "units.credits.digits: is missing"),
        ("credits: 2", "units.credits: should be a mapping of fields to values"),
        ("credits: { digit: 2 }", "units.credits.digit: is not known here; did you mean 'digits'?"),
        ("Credits: { digits: 2 }", "'Credits' is not right: write a currency or another unit"),
        (
            "credit: { digits: 2 }",
            "p.yaml:1: units.credit: no price and no balance is in 'credit', so leave it out; did you mean 'credits'?",
        ),
    ],
)
def test_a_scale_that_means_nothing_is_a_fault_with_its_line(faults, units, said):
    assert any(said in fault for fault in faults(f"units: {{ {units} }}\n{CREDITS}"))


def test_a_unit_of_prices_that_no_balance_pays_for_is_in_use(load):
    without = CREDITS.replace('[{ id: credit, balance: credits, offline: "0.25" }]', "[]")
    assert load("units: { credits: { digits: 2 } }\n" + without).plans["pro"].limits == ()


def test_a_unit_is_given_its_scale_once(tmp_path):
    both = "units: { credits: { digits: 2 } }\n"
    (tmp_path / "a.yaml").write_text(CREDITS + both)
    (tmp_path / "b.yaml").write_text(both)
    with pytest.raises(PolicyError) as caught:
        load_policy(tmp_path, {"default"})
    [fault] = caught.value.faults
    assert (fault.where, fault.line) == ("units.credits", 1)
    assert "is already defined at" in fault.what


@pytest.mark.parametrize(
    ("price", "said"),
    [
        (
            '{ package: "0.005", per: 10 }',
            "plans.pro.prices.calls.package: loses precision: '0.005' is finer than its unit",
        ),
        (
            "{ per_unit: 22517998136853 }",
            "plans.pro.prices.calls.per_unit: a price of 22517998136853 is more than a balance",
        ),
    ],
)
def test_a_price_that_is_too_fine_or_too_high_for_its_unit_is_a_fault_with_its_line(faults, price, said):
    text = CREDITS.replace('{ per_unit: "0.05" }', price) + "units: { credits: { digits: 2 } }\n"
    [fault] = faults(text)
    assert fault.startswith(f"p.yaml:5: {said}")


def test_the_price_of_a_customer_s_own_is_held_to_the_unit_of_its_plan(faults):
    text = CREDITS + "units: { credits: { digits: 2 } }\ncustomers:\n"
    [fault] = faults(text + '  acme: { plan: pro, prices: { calls: { package: "0.005", per: 10 } } }\n')
    assert fault.startswith("p.yaml:9: customers.acme.prices.calls.package: loses precision")


def test_a_scale_is_part_of_what_a_label_stands_for_and_none_changes_no_label(load):
    # Fails if the label of a plan without `version` stays the same: it would stand for two wallets.
    plain = load(CREDITS)
    scaled = load(CREDITS + "units: { credits: { digits: 2 } }\n")
    assert plain.plans["pro"].label != scaled.plans["pro"].label
    assert plain.version != scaled.version
    spelled_out = load(CREDITS + "units: { credits: { digits: 9 } }\n")
    assert spelled_out.plans["pro"].label == plain.plans["pro"].label


def changed(tmp_path, text, applied):
    (tmp_path / "p.yaml").write_text(text)
    loaded = load_policy(tmp_path / "p.yaml", {"default"})
    balances = {limit.balance: at for offer in loaded.offers.values() for at, limit in offer.limits if limit.balance}
    return [str(fault).replace(f"{tmp_path}/", "") for fault in changed_faults(loaded.units, balances, applied)]


def test_other_digits_than_those_of_the_policy_that_runs_are_a_fault_at_the_unit_or_at_its_balance(tmp_path):
    scaled = CREDITS + "units:\n  credits: { digits: 2 }\n"
    assert changed(tmp_path, scaled, {"credits": 2, "usd": 9}) == changed(tmp_path, scaled, {}) == []
    [at_unit] = changed(tmp_path, scaled, {"credits": 9})
    why, remedy = (
        "a reload would leave all wallets in credits empty",
        "or move the credit and restart, see docs/wallets.md",
    )
    said = f"2 digits here and 9 in the policy that runs: {why}; write 9, {remedy}"
    assert at_unit == f"p.yaml:8: units.credits.digits: {said}"
    [at_balance] = changed(tmp_path, CREDITS, {"credits": 2})
    said = "credits has 9 digits here and 2 in the policy that runs"
    write = "units: { credits: { digits: 2 } }"
    assert at_balance == f"p.yaml:6: plans.pro.limits[0].balance: {said}: {why}; write {write}, {remedy}"
