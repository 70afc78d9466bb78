from collections import Counter

import pytest

from sidecar.demo import DemoResult


def result(served=5, throttled=3, other=0, usage=5, denial=3, exit_status=0):
    answers = Counter({200: served, 429: throttled, 502: other})
    return DemoResult(answers=answers, records=Counter(usage=usage, denial=denial), exit_status=exit_status)


def test_books_balance_when_what_was_served_and_refused_was_written_down():
    assert result().balanced


@pytest.mark.parametrize(
    "wrong",
    [{"usage": 4}, {"usage": 6}, {"denial": 2}, {"other": 1}, {"exit_status": 1}, {"served": 0, "usage": 0}],
)
def test_books_do_not_balance_when(wrong):
    # Fails if `balanced` forgets one of its terms.
    assert not result(**wrong).balanced
