"""What was seen, exactly, whatever the order, and in bounded memory."""

import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.records.seen import Ids, Numbers


@given(st.lists(st.one_of(st.integers(1, 300), st.integers(65_530, 65_545), st.integers(1, 1 << 35))))
def test_numbers_agree_with_sets(numbers):
    seen, held = Numbers(), set()
    for number in numbers:
        assert seen.add(number) == (number not in held)
        held.add(number)
    assert (seen.count, seen.first, seen.last) == (len(held), min(held, default=0), max(held, default=0))
    missing = max(held, default=0) - min(held, default=1) + 1 - len(held) if held else 0
    assert seen.missing == missing
    found = seen.gaps()
    assert all(number not in held for start, end in found for number in (start, end))
    if len(found) < 20:
        assert sum(end - start + 1 for start, end in found) == missing


def test_blocks_that_are_full_are_not_held():
    seen = Numbers()
    for number in range(1, 140_000):
        assert seen.add(number)
    # Fails if the bits of full blocks are kept: an eighth of a byte for each record, for ever.
    assert (seen._full, list(seen._blocks)) == ({0, 1}, [2])
    assert not seen.add(1)
    assert not seen.add(65_536)
    assert (seen.missing, seen.gaps()) == (0, [])


@pytest.mark.parametrize("live", [0, 10, 1_000_000])
def test_ids_agree_with_sets_also_where_they_are_read_back(live):
    # Fails if what was pushed out is forgotten, or written twice and read once.
    ids, held, dice = Ids(live), set(), random.Random(2)
    known = [f"01M8N9{dice.choice('ABCDEFGH')}{place:019d}" for place in range(300)] + ["alert", "x" * 26, ""]
    for _ in range(3_000):
        id_ = dice.choice(known)
        assert ids.add(id_) == (id_ not in held)
        held.add(id_)
    ids.close()


def test_ids_of_hours_need_the_memory_of_minutes():
    ids = Ids(10_000)
    tracemalloc.start()
    try:
        for hour in range(20):
            for place in range(4_000):
                assert ids.add(f"01M8{hour:03d}{place:019d}")
        # Fails if nothing is pushed out: 80,000 ids of about 100 bytes.
        assert tracemalloc.get_traced_memory()[0] < 3_000_000
    finally:
        tracemalloc.stop()
    assert not ids.add(f"01M8{0:03d}{7:019d}")
    ids.close()
