"""Mirrors sidecar/core/usage/billing.py."""

import pytest

from sidecar.core.usage import billing


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({"plan": "pro", "status": 200}, (True, "plan:pro")),
        ({"plan": "pro", "status": 404}, (True, "plan:pro")),
        ({"plan": "pro", "status": 500}, (False, "upstream_5xx")),
        ({"plan": "pro", "status": 200, "test": True}, (False, "test_key")),
        ({"plan": "", "status": 200}, (False, "unattributed")),
        ({"plan": "pro", "status": 200, "outcome": "client_gone"}, (True, "plan:pro")),  # what was consumed is consumed
        ({"plan": "pro", "status": 200, "outcome": "upstream_truncated"}, (False, "upstream_truncated")),
        ({"plan": "pro", "status": 504, "outcome": "upstream_timeout"}, (False, "upstream_timeout")),
        ({"plan": "pro", "status": 502, "outcome": "bad_upstream_answer"}, (False, "bad_upstream_answer")),
        ({"plan": "pro", "status": 101, "outcome": "tunnel"}, (True, "plan:pro")),
        ({"plan": "pro", "status": 0, "outcome": "aborted"}, (False, "aborted")),
        ({"plan": "pro", "status": 500, "test": True, "outcome": "aborted"}, (False, "test_key")),
        ({"plan": "pro", "status": 200, "excluded": "retry"}, (False, "retry")),
        ({"plan": "pro", "status": 200, "test": True, "excluded": "sandbox"}, (False, "sandbox")),
        ({"plan": "pro", "status": 503, "excluded": "health"}, (False, "health")),
        ({"plan": "", "status": 200, "excluded": "health"}, (False, "unattributed")),
    ],
)
def test_each_exchange_is_billable_or_not_for_one_stated_reason(said, found):
    assert billing(**said) == found
