"""Mirrors sidecar/core/usage/rules.py."""

import pytest

from sidecar.core.usage import REQUESTS, Count, MeterRule, When
from sidecar.core.usage.rules import ALWAYS


@pytest.mark.parametrize("status", [200, 302, 404, 499])
def test_a_request_is_an_answer_that_is_not_the_api_s_own_failure(status):
    assert status in REQUESTS.when.statuses
    assert not REQUESTS.when.statuses & {101, 500, 503}


def test_a_meter_of_which_nothing_is_said_counts_one_always():
    assert MeterRule("m") == MeterRule("m", Count(1), When()) == MeterRule("m", Count(1), ALWAYS)
