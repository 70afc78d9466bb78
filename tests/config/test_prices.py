"""Mirrors sidecar/config/prices.py."""

from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config.document import read
from sidecar.config.models import validate
from sidecar.config.names import At
from sidecar.config.prices import PriceDoc, describe, faults_of, price_of
from sidecar.core.errors import PolicyError
from sidecar.core.price import Price, Tier, rate


def doc(text):
    return validate(PriceDoc, read(Path("p.yaml"), text))


def wrong(text, digits=9):
    document = read(Path("p.yaml"), text)
    try:
        return [str(fault) for fault in faults_of(At(document, ()), validate(PriceDoc, document), digits)]
    except PolicyError as error:
        return [str(fault) for fault in error.faults]


@pytest.mark.parametrize(
    ("text", "price"),
    [
        ('{per_unit: "0.0000025"}', Price("per_unit", 2_500)),
        ('{per_unit: "0.0000000375"}', Price("per_unit", 75, 2)),
        ('{price: "2.50", per: 1000000}', Price("per_unit", 2_500)),
        ('{price: "0.10", per: 3}', Price("per_unit", 100_000_000, 3)),
        ('{price: "0.09", per: 1GiB}', Price("per_unit", 9 * 10**7 // 2**7, 2**23)),
        ("{package: 1, per: 100}", Price("package", 10**9, 100)),
        (
            '{included: 50, graduated: [{up_to: 100, price: "0.00001"}, {price: "0.0000000085"}]}',
            Price("graduated", per=2, tiers=(Tier(100, 20_000), Tier(None, 17)), included=50),
        ),
        (
            '{volume: [{up_to: 1000, price: "0.01"}, {price: "0.008"}], per: 10}',
            Price("volume", tiers=(Tier(1_000, 1_000_000), Tier(None, 800_000))),
        ),
        ("{per_unit: 0}", Price("per_unit")),
    ],
)
def test_each_form_becomes_its_price_in_lowest_terms(text, price):
    assert wrong(text) == []
    assert price_of(doc(text), 9) == price


@given(
    units=st.integers(0, 10**7), figure=st.integers(0, 10**12), places=st.integers(0, 12), per=st.integers(1, 10**6),
    digits=st.integers(0, 9),
)  # fmt: skip
def test_no_digit_of_a_price_is_lost_in_any_scale(units, figure, places, per, digits):
    # Mutation: float(text) instead of Fraction(text), or a price rounded to a whole amount for each unit.
    text = f"{figure // 10**places}.{figure % 10**places:0{places}}" if places else str(figure)
    exact = Fraction(text) * 10**digits * units / per
    if (Fraction(text) * 10**digits / per).denominator > 10**9:
        with pytest.raises(ValueError, match="is whole for no number of units"):
            price_of(PriceDoc(price=text, per=per), digits)
        return
    price = price_of(PriceDoc(price=text, per=per), digits)
    assert abs(rate(price, units) - exact) <= Fraction(1, 2)
    assert Fraction(price.amount, price.per) * units == exact


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "p.yaml:1: needs exactly one of per_unit, price, graduated, volume, package"),
        ("{per_unit: 1, package: 1}", "needs exactly one of"),
        ("{per_unit: 0.01}", 'per_unit: 0.01 has been rounded by YAML already: write "0.01" in quotes'),
        ("{per_unit: 1, per: 5}", "per: means nothing with per_unit, only with price, graduated, volume, package"),
        ("{price: 1}", "price: per how many units? write for example per: 1000000"),
        ("{package: 1}", "package: per how many units?"),
        (
            '{package: "0.0000000001", per: 5}',
            "package: loses precision: '0.0000000001' is finer than its unit counts: write at most 9 digits",
        ),
        ('{per_unit: "0.0000000000000000001"}', "is not right: write a decimal amount in quotes"),
        (
            '{price: "0.0000000001", per: 1000000007}',
            "loses precision: 0.0000000001 for 1000000007 is whole for no number of units up to 1000000000: use fewer",
        ),
        ('{price: "123456789.123456789", per: 999999937}', "price: "),
        ("{per_unit: 99999999999}", "is more than a balance holds"),
        ("{graduated: [{price: 1}, {price: 2}]}", "graduated[0]: needs up_to: only the last omits it"),
        ("{volume: [{up_to: 5, price: 1}]}", "volume[0]: is the last tier, for all the rest: leave up_to out"),
        (
            "{volume: [{up_to: 5, price: 1}, {up_to: 5, price: 2}, {price: 3}]}",
            "volume[1].up_to: is not above 5, where the tier before it ends",
        ),
        ("{volume: []}", "volume: is empty: give at least one"),
        ("{per_unit: 1, ceiling: 5, reserve: 6}", "ceiling: is below what is reserved, 6: raise it"),
        ("{per_unit: -1}", "'-1' is not right: write a decimal amount in quotes"),
        (
            "{per_unit: 1, currency: USD}",
            "currency: 'USD' is not right: write a currency or another unit of balances in lower",
        ),
        ("{per_unti: 1}", "did you mean 'per_unit'?"),
    ],
)
def test_each_fault_names_its_field_and_what_would_be_right(text, said):
    assert said in wrong(text)[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{per_unit: "0.0000025"}', "2.50 usd per 1000000"),
        ('{price: "10.00", per: 1000000}', "10.00 usd per 1000000"),
        ('{per_unit: "0.01"}', "0.01 usd each"),
        ('{per_unit: "1250"}', "1250.00 usd each"),
        ('{per_unit: "0.0000000375"}', "0.0375 usd per 1000000"),
        ('{price: "0.10", per: 3}', "0.10 usd per 3"),
        ('{price: "0.09", per: 1GiB}', "0.09 usd per GiB"),
        ("{per_unit: 0}", "0.00 usd each"),
        ('{package: "1.00", per: 100}', "1.00 usd per begun 100"),
        (
            '{included: 50, graduated: [{up_to: 100, price: "0.00001"}, {price: "0.000008"}]}',
            "50 included, then graduated: to 100 10.00 usd per 1000000, the rest 8.00 usd per 1000000",
        ),
        (
            '{volume: [{up_to: 9, price: "0.01"}, {price: "0.008"}]}',
            "volume: to 9 0.01 usd each, the rest 0.008 usd each",
        ),
    ],
)
def test_a_price_is_told_as_people_read_it(text, said):
    assert describe(price_of(doc(text), 9), "usd", 9) == said


@pytest.mark.parametrize(
    ("text", "digits", "price", "said"),
    [
        ("{per_unit: 3}", 2, Price("per_unit", 300), "3.00 credits each"),
        ("{per_unit: 3}", 0, Price("per_unit", 3), "3 credits each"),
        ('{per_unit: "0.01"}', 2, Price("per_unit", 1), "0.01 credits each"),
        ('{per_unit: "0.00025"}', 2, Price("per_unit", 1, 40), "250.00 credits per 1000000"),  # finer: exact in a sum
        ('{per_unit: "0.4"}', 0, Price("per_unit", 2, 5), "400000 credits per 1000000"),
        ('{package: "0.05", per: 3}', 2, Price("package", 5, 3), "0.05 credits per begun 3"),
        (
            '{graduated: [{up_to: 10, price: "0.5"}, {price: "0.005"}]}',
            2,
            Price("graduated", per=2, tiers=(Tier(10, 100), Tier(None, 1))),
            "graduated: to 10 0.50 credits each, the rest 5000.00 credits per 1000000",
        ),
    ],
)
def test_a_price_is_counted_in_the_scale_of_its_unit_and_finer_ones_as_fractions_of_it(text, digits, price, said):
    assert wrong(text, digits) == []
    assert price_of(doc(text), digits) == price
    assert describe(price, "credits", digits) == said


@pytest.mark.parametrize(
    ("text", "digits", "said"),
    [
        (
            '{package: "0.005", per: 10}',
            2,
            "finer than its unit counts: write at most 2 digits after the point, or give the unit more than 2 digits",
        ),
        ('{package: "0.5", per: 10}', 0, "write no digits after the point, or give the unit more than 0 digits"),
        ('{per_unit: "0.000000000001"}', 2, "0.000000000001 for 1 is whole for no number of units up to 1000000000"),
        ("{per_unit: 22517998136853}", 2, "a price of 22517998136853 is more than a balance holds (22517998136852.48)"),
    ],
)
def test_a_price_that_its_unit_cannot_count_is_refused_with_what_to_do(text, digits, said):
    [fault] = wrong(text, digits)
    assert said in fault
