"""Mirrors sidecar/config/patterns.py."""

import re

import pytest

from sidecar.config import patterns
from sidecar.config.patterns import HEADER_VALUE, METHOD, NAME, RIGHT, SERVERS


def test_every_pattern_has_words_that_say_what_would_be_right():
    forms = {value for name, value in vars(patterns).items() if name.isupper() and isinstance(value, str)}
    assert forms == set(RIGHT)


@pytest.mark.parametrize(
    ("pattern", "right", "wrong"),
    [
        (NAME, ["a", "free-tier.v2_x", "9"], ["", "-a", "a b", "a" * 64, "a/b", "é"]),
        (METHOD, ["GET", "M-SEARCH"], ["get", "", "GET "]),
        (HEADER_VALUE, ["gold", "a b", "x"], ["", " a", "a ", "a\nb"]),
        (SERVERS, ["h:1", "h:1,i:2", "[::1]:9092"], ["h", "h:", "h:1,", "h:1 i:2"]),
    ],
)
def test_each_form_takes_what_it_says_and_no_more(pattern, right, wrong):
    assert all(re.fullmatch(pattern, text) for text in right)
    assert not any(re.fullmatch(pattern, text) for text in wrong)
