"""Mirrors sidecar/core/price/decimals.py."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.price import NANOS_MAX
from sidecar.core.price.decimals import decimal_of, nanos_of


@given(st.integers(0, NANOS_MAX), st.integers(0, 9))
def test_amounts_are_written_and_read_without_losing_a_digit(nanos, places):
    text = decimal_of(nanos, places)
    assert nanos_of(text) == nanos
    assert Decimal(text) * 10**9 == nanos
    assert len(text.partition(".")[2]) >= places
    assert decimal_of(-nanos, places) == ("-" + text if nanos else text)


@pytest.mark.parametrize(
    ("nanos", "places", "text"),
    [
        (2_500_000_000, 2, "2.50"),
        (2_500_000_000, 0, "2.5"),
        (50_000_000_000, 0, "50"),
        (1, 2, "0.000000001"),
        (-2_500_000, 2, "-0.0025"),
        (0, 2, "0.00"),
    ],
)
def test_a_decimal_has_at_least_the_places_asked_for_and_no_needless_zero_after_them(nanos, places, text):
    assert decimal_of(nanos, places) == text


# Fails if trailing zeros count as digits, or if the largest amount is refused.
@pytest.mark.parametrize(
    ("text", "nanos"),
    [("0.000000001", 1), ("1", 10**9), ("2.5000000000000", 2_500_000_000), ("0", 0), ("2251799.813685248", NANOS_MAX)],
)
def test_a_decimal_is_whole_nano_units(text, nanos):
    assert nanos_of(text) == nanos


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("0.0000000001", "is finer than a nano-unit: write at most 9 digits"),
        ("2251799.813685249", "is out of range: write at most 2251799.813685248"),
        ("1e3", "is not an amount"),
        ("-1", "is not an amount"),
        (".5", "is not an amount"),
        ("", "is not an amount"),
    ],
)
def test_a_text_that_is_no_exact_amount_is_refused_with_what_to_write(text, reason):
    with pytest.raises(ValueError, match=reason):
        nanos_of(text)
