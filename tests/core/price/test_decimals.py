"""Mirrors sidecar/core/price/decimals.py."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.price.decimals import AMOUNT_MAX, DIGITS, amount_of, decimal_of


# Fails if either direction has a number of digits of its own, or if `0` is padded to the digits of a unit without any.
@given(st.integers(0, AMOUNT_MAX), st.integers(0, DIGITS), st.integers(0, DIGITS))
def test_amounts_of_every_scale_are_written_and_read_without_losing_a_digit(amount, digits, places):
    text = decimal_of(amount, digits, places)
    assert amount_of(text, digits) == amount
    assert Decimal(text) * 10**digits == amount
    assert min(places, digits) <= len(text.partition(".")[2]) <= digits
    assert decimal_of(-amount, digits, places) == ("-" + text if amount else text)


@given(st.decimals("0", "10000", places=9), st.integers(0, DIGITS))
def test_a_decimal_is_an_amount_of_a_scale_or_refused_and_never_rounded(number, digits):
    exact = number * 10**digits
    if exact == int(exact):
        assert amount_of(f"{number:f}", digits) == exact
    else:
        with pytest.raises(ValueError, match="is finer than its unit counts"):
            amount_of(f"{number:f}", digits)


@pytest.mark.parametrize(
    ("amount", "digits", "places", "text"),
    [
        (2_500_000_000, 9, 2, "2.50"),
        (2_500_000_000, 9, 0, "2.5"),
        (50_000_000_000, 9, 0, "50"),
        (1, 9, 2, "0.000000001"),
        (-2_500_000, 9, 2, "-0.0025"),
        (0, 9, 2, "0.00"),
        (250, 2, 0, "2.5"),
        (250, 2, 2, "2.50"),
        (25, 1, 2, "2.5"),
        (-5, 0, 2, "-5"),
        (0, 0, 0, "0"),
    ],
)
def test_a_decimal_has_at_least_the_places_asked_for_and_no_needless_zero_after_them(amount, digits, places, text):
    assert decimal_of(amount, digits, places) == text


# Fails if trailing zeros count as digits, or if the largest amount is refused.
@pytest.mark.parametrize(
    ("text", "digits", "amount"),
    [
        ("0.000000001", 9, 1), ("1", 9, 10**9), ("2.5000000000000", 9, 2_500_000_000), ("0", 9, 0),
        ("2251799.813685248", 9, AMOUNT_MAX), ("10000000", 2, 10**9), ("0.01", 2, 1), ("5.0", 0, 5),
        ("22517998136852.48", 2, AMOUNT_MAX), ("2251799813685248", 0, AMOUNT_MAX),
    ],
)  # fmt: skip
def test_a_decimal_is_a_whole_number_of_the_last_digit(text, digits, amount):
    assert amount_of(text, digits) == amount


@pytest.mark.parametrize(
    ("text", "digits", "reason"),
    [
        ("0.0000000001", 9, "is finer than its unit counts: write at most 9 digits after the point"),
        ("0.001", 2, "write at most 2 digits after the point"),
        ("0.01", 1, "write at most 1 digit after the point"),
        ("0.1", 0, "write no digits after the point"),
        ("2251799.813685249", 9, "is out of range: write at most 2251799.813685248, or give its unit fewer digits"),
        ("2251799813685249", 0, "is out of range: write at most 2251799813685248$"),
        ("1e3", 9, "is not an amount"),
        ("-1", 9, "is not an amount"),
        (".5", 9, "is not an amount"),
        ("", 9, "is not an amount"),
    ],
)
def test_a_text_that_is_no_exact_amount_is_refused_with_what_to_write(text, digits, reason):
    with pytest.raises(ValueError, match=reason):
        amount_of(text, digits)
