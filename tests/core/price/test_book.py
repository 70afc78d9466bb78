"""Mirrors sidecar/core/price/book.py."""

from sidecar.core.price.book import Posted


def test_the_place_of_a_posting_says_when_it_was_made():
    assert Posted("1763692406000-3", "grant", "g", 1, 1).at_ms == 1_763_692_406_000
