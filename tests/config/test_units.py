"""Mirrors sidecar/config/units.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config import units
from sidecar.config.units import Unitless, parse, quantity, suffix_of


@pytest.mark.parametrize(
    ("text", "suffix", "value"),
    [
        ("50ms", "_ms", 50),
        ("10s", "_ms", 10_000),
        ("10s", "_us", 10_000_000),
        ("1.5s", "_ms", 1_500),
        ("0.1s", "_us", 100_000),
        ("5m", "_seconds", 300),
        ("5min", "_seconds", 300),
        ("2 h", "_seconds", 7_200),
        ("1d", "_ms", 86_400_000),
        ("64MiB", "_bytes", 67_108_864),
        ("8kB", "_bytes", 8_000),
        ("1_000B", "_bytes", 1_000),
        ("0.5KiB", "_bytes", 512),
    ],
)
def test_a_human_form_becomes_an_integer_of_the_unit(text, suffix, value):
    assert parse(text, suffix) == value


@pytest.mark.parametrize(
    ("text", "suffix", "said"),
    [
        ("50", "_ms", "write for example 50ms"),
        ("10 parsecs", "_ms", "write for example 50ms"),
        ("10kib", "_bytes", "write for example 8KiB"),
        ("-5s", "_ms", "not a quantity"),
        ("1500us", "_ms", "not a whole number of milliseconds"),
        ("1500ms", "_seconds", "not a whole number of seconds"),
        ("0.0001ms", "_us", "not a whole number"),
        ("٣s", "_ms", "not a quantity"),
    ],
)
def test_what_is_not_exactly_a_quantity_is_refused(text, suffix, said):
    # Nango #6523. Fails if a fraction is rounded instead of refused.
    with pytest.raises(ValueError, match=said):
        parse(text, suffix)


@given(st.integers(0, 10**9), st.sampled_from(["us", "ms", "s", "min", "h", "d"]))
def test_microseconds_hold_every_duration_exactly(amount, unit):
    scale = {"us": 1, "ms": 10**3, "s": 10**6, "min": 60 * 10**6, "h": 3600 * 10**6, "d": 86400 * 10**6}[unit]
    assert parse(f"{amount}{unit}", "_us") == amount * scale


def test_a_bare_number_without_a_unit_in_the_name_is_asked_for_one():
    # Kong #14995: milliseconds were passed where seconds were meant.
    with pytest.raises(ValueError, match=r"50 of what\? write for example 50ms"):
        quantity(Unitless("50"), "_ms")


@pytest.mark.parametrize(("given_value", "value"), [(50, 50), ("50", 50), ("1s", 1_000), (None, None), ([], [])])
def test_a_number_under_a_name_with_its_unit_is_in_that_unit(given_value, value):
    assert quantity(given_value, "_ms") == value


@pytest.mark.parametrize("wrong", [1.5, True])
def test_fractions_and_booleans_are_no_quantities(wrong):
    with pytest.raises(ValueError, match="not a whole number of milliseconds"):
        quantity(wrong, "_ms")


def test_a_suffix_is_found_at_the_end_of_a_name():
    assert [suffix_of(name) for name in ("timeout_ms", "cap_bytes", "drain_seconds", "workers", "ms")] == [
        "_ms",
        "_bytes",
        "_seconds",
        None,
        None,
    ]


# Fails if a value is written in a unit that does not hold it whole.
@pytest.mark.parametrize(
    ("value", "suffix", "written"),
    [(75_000, "_ms", "75s"), (1_500, "_ms", "1500ms"), (300, "_seconds", "5m"), (0, "_bytes", "0"),
     (32 << 10, "_bytes", "32KiB"), (1_000, "_bytes", "1000B"), (4 << 30, "_bytes", "4GiB")],
)  # fmt: skip
def test_a_value_is_written_in_the_largest_unit_that_holds_it_whole(value, suffix, written):
    assert units.text(value, suffix) == written
    assert units.quantity(written, suffix) == value
