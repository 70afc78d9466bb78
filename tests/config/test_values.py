"""Mirrors sidecar/config/values.py."""

import pytest
from pydantic import TypeAdapter, ValidationError

from sidecar.config.values import Customers, Decimals, Percents, Quantity, Scalars


def said(form, value):
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(form).validate_python(value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("value", "text"), [("0.01", "0.01"), ("12", "12"), (12, "12"), ("0.0000000375", "0.0000000375")]
)
def test_a_decimal_amount_is_kept_as_its_text(value, text):
    assert TypeAdapter(Decimals).validate_python(value) == text


@pytest.mark.parametrize(
    ("value", "right"), [(0.01, "0.01"), (0.0000025, "0.0000025"), (1e-09, "0.000000001"), (1.0, "1.0")]
)
def test_an_amount_that_yaml_has_rounded_is_refused_with_what_to_write(value, right):
    assert f'has been rounded by YAML already: write "{right}" in quotes' in said(Decimals, value)


@pytest.mark.parametrize("value", ["-1", "+1", "1e-3", ".5", "5.", "1,5", "1_000", "", "0." + "1" * 19, " 1"])
def test_what_is_no_plain_decimal_is_refused(value):
    assert "string_pattern_mismatch" in said(Decimals, value)


@pytest.mark.parametrize(("value", "units"), [(5, 5), ("1GiB", 1 << 30), ("500kB", 500_000)])
def test_a_quantity_may_be_written_as_a_size(value, units):
    assert TypeAdapter(Quantity).validate_python(value) == units


def test_one_may_be_written_for_a_list_of_one():
    for form, value in ((Customers, "c"), (Percents, 80), (Scalars, "gold")):
        assert TypeAdapter(form).validate_python(value) == (value,)


def test_a_value_of_a_json_body_is_its_text_there():
    assert TypeAdapter(Scalars).validate_python([True, 12, "x", "1.50"]) == ("true", "12", "x", "1.50")


@pytest.mark.parametrize("value", [0, 101, 50.5])
def test_a_percent_is_whole_and_from_1_to_100(value):
    assert said(Percents, [value])
