"""Mirrors sidecar/core/words.py."""

import pytest

from sidecar.core.words import counted


# Fails if 0 is singular.
@pytest.mark.parametrize(("number", "text"), [(0, "0 postings"), (1, "1 posting"), (2, "2 postings")])
def test_only_one_is_singular(number, text):
    assert counted(number, "posting") == text
