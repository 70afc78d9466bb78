"""Mirrors sidecar/core/digits.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.digits import decimal, eighteen, six

EDGES = [n + by for n in (0, 10, 100, 1_000, 10**6, 10**9, 10**12, 2**53, 2**63) for by in (-1, 0, 1)]


@pytest.mark.parametrize("n", EDGES)
def test_at_each_edge_the_digits_are_those_of_a_format(n):
    # Mutation: any bound in `decimal` or `eighteen` off by one, or by a thousand.
    assert decimal(n) == b"%d" % n
    assert n < 0 or eighteen(n) == b"%018d" % n
    assert not 0 <= n < 10**6 or six(n) == b"%06d" % n


@given(st.integers())
def test_any_number_is_written_as_a_format_writes_it(n):
    assert decimal(n) == b"%d" % n


@given(st.integers(0, 10**19))
def test_any_number_of_a_record_has_eighteen_digits(n):
    assert eighteen(n) == b"%018d" % n


@given(st.integers(0, 10**6 - 1))
def test_any_fraction_of_a_second_has_six_digits(n):
    assert six(n) == b"%06d" % n
