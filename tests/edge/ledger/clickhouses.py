"""Databases of a ClickHouse in process, for tests: one engine in memory for each test run."""

from __future__ import annotations

import functools
import itertools

import clickhouse_connect

_NUMBERS = itertools.count(1)


@functools.cache
def _engine():
    """The engine ends, with all it has, when its last client is closed: this one never is."""
    return clickhouse_connect.get_client(interface="chdb")


def new_url():
    """A database of its own."""
    _engine()
    return f"chdb://?database=ledger_{next(_NUMBERS)}"
