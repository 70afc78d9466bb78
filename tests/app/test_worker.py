"""What a worker does beside the path of requests. Its parts together are run by tests/e2e, with real servers."""

import pytest

from sidecar.app import worker as module
from sidecar.edge.journal import Report


# Fails if the report is printed as it is.
@pytest.mark.parametrize(
    ("report", "text", "fields"),
    [
        (Report(7, 1, 2, 0, 0, 0, {}), "a worker was killed: 1 exchange closed as crashed, not billed", {"epoch": 7}),
        (Report(7, 0, 2, 9, 0, 0, {}), "the journal held bytes that are not entries", {"epoch": 7, "torn_bytes": 9}),
    ],
)
def test_what_a_killed_worker_left_is_said_in_words(caplog, report, text, fields):
    module._log_what_was_left(report)
    assert [(each.getMessage(), each.fields) for each in caplog.records] == [(text, fields)]
