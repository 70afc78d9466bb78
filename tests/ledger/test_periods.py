"""Periods tile time: the end of one is the start of the next."""

from datetime import UTC, datetime

import pytest

from sidecar.ledger.periods import instant, period


def us(*parts):
    return int(datetime(*parts, tzinfo=UTC).timestamp()) * 1_000_000


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("2026", (2026, 1, 1), (2027, 1, 1)),
        ("2026-12", (2026, 12, 1), (2027, 1, 1)),
        ("2028-02", (2028, 2, 1), (2028, 3, 1)),
        ("2026-11-30", (2026, 11, 30), (2026, 12, 1)),
        ("2026-11-30T23", (2026, 11, 30, 23), (2026, 12, 1)),
    ],
)
def test_a_period_is_half_open(text, start, end):
    assert period(text) == (us(*start), us(*end))


@pytest.mark.parametrize("text", ["", "2026-13", "2026-02-30", "last month", "2026-11-30T24", "202"])
def test_a_text_that_is_not_a_period_is_refused(text):
    with pytest.raises(ValueError, match=r"2026-11|calendar"):
        period(text)


def test_a_time_is_of_utc_unless_it_says_otherwise():
    assert instant("2026-11-21") == us(2026, 11, 21)
    assert instant("2026-11-21T14:03:20.000001") == us(2026, 11, 21, 14, 3, 20) + 1
    assert instant("2026-11-21T14:00+01:00") == us(2026, 11, 21, 13)
    with pytest.raises(ValueError, match="not a time"):
        instant("noon")
