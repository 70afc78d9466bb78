"""Mirrors sidecar/core/price/rating.py."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.price import AMOUNT_MAX, Price, Tier, charged, highest_unit_price, in_lowest_terms, price_fault, rate

QUANTITY = st.integers(0, 10**15)
AMOUNTS = st.integers(0, 10**12)
PER = st.sampled_from([1, 2, 3, 1000, 10**6, 10**9])


@st.composite
def tiers(draw) -> tuple[Tier, ...]:
    bounds = sorted(draw(st.sets(st.integers(1, 10**6), max_size=5)))
    return tuple(Tier(bound, draw(AMOUNTS)) for bound in [*bounds, None])


def exact(price: Price, quantity: int) -> Fraction:
    """The charge by the book, one unit of each tier at a time, in fractions."""
    below, total = 0, Fraction(0)
    for tier in price.tiers:
        top = quantity if tier.up_to is None else tier.up_to
        inside = max(0, min(quantity, top) - below)
        total += Fraction(inside * tier.amount, price.per)
        below = top
    return total


# Fails if the rounding is down: off by up to one.
@given(AMOUNTS, PER, QUANTITY)
def test_a_unit_price_is_exact_to_half_of_one(amount, per, quantity):
    assert abs(rate(Price("per_unit", amount, per), quantity) - Fraction(quantity * amount, per)) <= Fraction(1, 2)


def test_half_of_one_is_rounded_up():
    assert [rate(Price("per_unit", 1, 2), quantity) for quantity in range(4)] == [0, 1, 1, 2]


# Nango #6523: fractions rounded, the cap drifted from the bill.
@given(AMOUNTS, st.lists(QUANTITY, max_size=6))
def test_a_unit_price_adds_up_over_any_split(amount, parts):
    price = Price("per_unit", amount)
    assert sum(rate(price, part) for part in parts) == rate(price, sum(parts))


# Fails if `below` is not carried from tier to tier.
@given(tiers(), PER, QUANTITY)
def test_a_graduated_price_is_each_unit_in_its_tier(tiers_, per, quantity):
    price = Price("graduated", per=per, tiers=tiers_)
    assert abs(rate(price, quantity) - exact(price, quantity)) <= Fraction(1, 2)


@given(tiers(), st.integers(1, 2 * 10**6))
def test_a_volume_price_is_all_units_in_one_tier(tiers_, quantity):
    amount = next(tier.amount for tier in tiers_ if tier.up_to is None or quantity <= tier.up_to)
    assert rate(Price("volume", tiers=tiers_), quantity) == quantity * amount


@pytest.mark.parametrize(("quantity", "charge"), [(0, 0), (1, 7), (1000, 7), (1001, 14), (2000, 14)])
def test_a_begun_package_is_a_package(quantity, charge):
    assert rate(Price("package", 7, 1000), quantity) == charge


# Fails if _package floors, or a tier's bound is taken as exclusive in one place.
@given(st.sampled_from(["per_unit", "graduated", "package"]), tiers(), AMOUNTS, PER, QUANTITY, QUANTITY)
def test_more_never_costs_less(kind, tiers_, amount, per, one, other):
    price = Price(kind, per=per, tiers=tiers_) if kind == "graduated" else Price(kind, amount, per)
    assert rate(price, min(one, other)) <= rate(price, max(one, other))


def test_a_tier_includes_its_bound():
    steps = (Tier(10, 5), Tier(20, 3), Tier(None, 1))
    assert [rate(Price("graduated", tiers=steps), q) for q in (10, 11, 20, 21)] == [50, 53, 80, 81]
    assert [rate(Price("volume", tiers=steps), q) for q in (10, 11, 20, 21)] == [50, 33, 60, 21]


@pytest.mark.parametrize("kind", ["per_unit", "graduated", "volume", "package"])
def test_nothing_used_costs_nothing_and_less_is_refused(kind):
    price = Price(kind, tiers=(Tier(None, 9),)) if kind in {"graduated", "volume"} else Price(kind, 9)
    assert rate(price, 0) == 0
    with pytest.raises(ValueError, match="never negative"):
        rate(price, -1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "flat"}, {"kind": "per_unit", "amount": -1}, {"kind": "package", "per": 0},
        {"kind": "graduated"}, {"kind": "per_unit", "tiers": (Tier(None, 1),)},
        {"kind": "volume", "amount": 1, "tiers": (Tier(None, 1),)}, {"kind": "volume", "tiers": (Tier(None, -1),)},
        {"kind": "volume", "tiers": (Tier(5, 1),)}, {"kind": "volume", "tiers": (Tier(None, 1), Tier(5, 1))},
        {"kind": "volume", "tiers": (Tier(5, 1), Tier(5, 2), Tier(None, 1))},
        {"kind": "volume", "tiers": (Tier(0, 1), Tier(None, 1))}, {"kind": "per_unit", "included": -1},
    ],
)  # fmt: skip
def test_a_price_that_cannot_be_rated_is_not_made(wrong):
    with pytest.raises(ValueError, match=r"price|kind|tiers"):
        Price(**wrong)


PRICES = st.one_of(
    st.builds(Price, st.sampled_from(["per_unit", "package"]), AMOUNTS, PER, included=st.integers(0, 2000)),
    st.builds(
        lambda kind, per, tiers_, included: Price(kind, 0, per, tiers_, included),
        st.sampled_from(["graduated", "volume"]), PER, tiers(), st.integers(0, 2000),
    ),
)  # fmt: skip


# Fails if tiers or packages begin at 0 and not above what is included.
@given(PRICES, QUANTITY)
def test_what_is_included_costs_nothing_and_the_rest_is_priced_as_if_it_were_not_there(price, quantity):
    without = Price(price.kind, price.amount, price.per, price.tiers)
    assert rate(price, min(quantity, price.included)) == 0
    assert rate(price, price.included + quantity) == rate(without, quantity)


def test_an_allowance_is_a_free_first_tier():
    free = Price("graduated", tiers=(Tier(10, 0), Tier(15, 7), Tier(None, 3)))
    included = Price("graduated", tiers=(Tier(5, 7), Tier(None, 3)), included=10)
    assert [rate(free, units) for units in range(30)] == [rate(included, units) for units in range(30)]


@given(PRICES, QUANTITY)
def test_lowest_terms_change_no_charge(price, quantity):
    least = in_lowest_terms(price)
    assert rate(least, quantity) == rate(price, quantity)
    assert least.per <= price.per


def test_a_fraction_of_a_nano_for_a_unit_is_in_lowest_terms():  # 0.0000000375 of a unit of money
    assert in_lowest_terms(Price("per_unit", 375, 10)) == Price("per_unit", 75, 2)
    assert in_lowest_terms(Price("package", 6, 4)) == Price("package", 6, 4)


@given(PRICES.filter(lambda price: price.kind != "volume"), st.lists(st.integers(0, 10**6), min_size=2, max_size=8))
def test_no_part_of_a_charge_is_more_than_the_dearest_price_says(price, parts):
    flat, total, units = highest_unit_price(price), 0, 0
    for part in parts:
        assert rate(price, units + part) - rate(price, units) <= rate(flat, part) + 1
        units, total = units + part, total + rate(flat, part)
    assert rate(price, units) <= total + len(parts)


def test_a_charge_ends_where_a_double_is_no_longer_exact():
    assert charged(Price("per_unit", 10**9), 10**9) == AMOUNT_MAX
    assert charged(Price("per_unit", 10**9), 7) == 7 * 10**9


@pytest.mark.parametrize(
    "price",
    [
        Price("per_unit", 2500), Price("per_unit", 75, 2), Price("per_unit", AMOUNT_MAX),
        Price("package", 10**12, 1000),
        Price("graduated", per=1000, tiers=(Tier(10**8, 10_000), Tier(None, 8_000)), included=5 * 10**7),
    ],
)  # fmt: skip
def test_what_people_write_can_be_rated_exactly(price):
    assert price_fault(price) is None


@pytest.mark.parametrize(
    ("price", "says"),
    [
        (Price("per_unit", 10**15 + 1, 10**6), "1000000.000000001 for 1000000 units is too fine to rate exactly"),
        (Price("package", AMOUNT_MAX + 1), "2251799.813685249 is more than a balance holds (2251799.813685248)"),
        (Price("per_unit", 1, included=AMOUNT_MAX + 1), "at most 2251799813685248 units"),
        (Price("graduated", tiers=(Tier(AMOUNT_MAX + 1, 1), Tier(None, 1))), "included, per and up_to"),
    ],
)
def test_what_a_double_cannot_hold_is_a_fault(price, says):
    assert says in (price_fault(price) or "")


def test_a_fault_of_a_price_has_its_figures_in_the_scale_of_its_unit():
    said = price_fault(Price("package", AMOUNT_MAX + 1), 2)
    assert said == "a price of 22517998136852.49 is more than a balance holds (22517998136852.48)"
