"""The harness of the shipper: how a lag is reckoned, and a short run to a file."""

import shutil

import orjson
import pytest

from benchmarks import shipping
from benchmarks.feed import Said
from benchmarks.stage import RunFailed
from sidecar.core.record.frame import Position

# Ten records a second of 100 bytes each, for ten seconds, in two segments; a line a second.
SECOND = 1_000_000
LINES = [[at * SECOND, at * 10, at * 1_000, f"1.{1 + at // 6}.{50 + at % 6 * 1_000}"] for at in range(11)]
SAID = Said(b"a warning\n" + b"\n".join(map(orjson.dumps, LINES)))


def test_a_position_within_a_ticks_write_is_told_in_records():
    # Fails if the records of a tick count as a whole: a commit may end anywhere.
    assert SAID.records_at(Position(1, 1, 50)) == 0
    assert SAID.records_at(Position(1, 1, 2_050)) == 20
    assert SAID.records_at(Position(1, 1, 2_350)) == 23
    assert SAID.records_at(Position(1, 2, 50)) == 60
    assert SAID.records_at(Position(1, 2, 4_050)) == 100


def test_a_feed_that_wrote_nothing_is_no_feed():
    with pytest.raises(RunFailed, match="No space left"):
        Said(b"OSError: No space left on device\n")


def test_a_lag_is_the_age_of_the_oldest_record_that_is_not_committed():
    # Fails if it is taken from the newest, or from when a commit was seen alone: a shipper that stands still must lag.
    at_once = [(us + 1, Position.parse(place)) for us, _, _, place in LINES]
    assert max(shipping._lags(SAID, at_once)) == 0
    late = [(us + SECOND // 2, position) for us, position in at_once]
    assert max(shipping._lags(SAID, late)) == pytest.approx(SECOND // 2, abs=2 * shipping.GRID_US)
    stopped = at_once[:4]
    assert max(shipping._lags(SAID, stopped)) == pytest.approx(6 * SECOND, abs=2 * shipping.GRID_US)


@pytest.mark.skipif(not shutil.which("taskset"), reason="needs taskset")
def test_a_short_run_to_a_file_measures_and_every_record_is_there():
    # Mutation: a shipper that leaves one out, or writes one twice, gives no number (`hold_to`).
    found = shipping.measure(["file"], (30_000, 1, 500, 1), pure=True)["file"]
    assert 1_000 < found["cpu_ns_per_record"] < 1_000_000
    assert found["rounds"][0]["records_per_core_second"] == found["records_per_core_second"]
    assert 0 <= found["lag"]["p50_us"] <= found["lag"]["p99_us"] <= found["lag"]["max_us"]
