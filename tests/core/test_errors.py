"""The table of what can go wrong upstream: what clients and records have been promised of it."""

import pytest

from sidecar.core.errors import UpstreamReason, unreadable
from sidecar.core.usage import billing


# Fails if a slug or status of the table changes: clients and consumers of records go by them.
def test_the_slugs_and_statuses_of_upstream_failures_are_fixed():
    assert {(reason.slug, reason.status) for reason in UpstreamReason} == {
        ("upstream-saturated", 503),
        ("upstream-share-used", 429),
        ("upstream-unreachable", 502),
        ("upstream-unreachable", 504),
        ("upstream-closed", 502),
        ("upstream-truncated", 502),
        ("upstream-timeout", 504),
        ("bad-upstream-answer", 502),
    }


# Fails if `_UNBILLED` leaves the table's reasons out.
@pytest.mark.parametrize("reason", UpstreamReason)
def test_an_exchange_that_the_upstream_failed_is_not_billed(reason):
    assert billing("pro", status=200, outcome=reason.outcome) == (False, reason.outcome)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (FileNotFoundError(2, "No such file"), "cannot be read: No such file: create it, or correct the path"),
        (PermissionError(13, "Denied"), "cannot be read: Denied: let the user of the sidecar read it"),
        (IsADirectoryError(21, "Is a directory"), "cannot be read: Is a directory: name a file"),
        (OSError(5, "I/O error"), "cannot be read: I/O error"),
        (OSError("odd"), "cannot be read: odd"),
    ],
    ids=repr,
)
def test_a_file_that_cannot_be_read_is_an_error_with_its_remedy(error, text):
    assert unreadable(error) == text
