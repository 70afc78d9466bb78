"""Mirrors sidecar/embedded/replay.py: after a kill the counters are what the records come to, to the unit."""

import os
import random

import pytest

from tests.embedded.survivor import Node, counted, dice, lived

SEED = int(os.environ.get("E2E_SEED", "0")) or random.SystemRandom().getrandbits(32)
TIMES = int(os.environ.get("E2E_KILLS", "1"))


# Fails if a slice's position is taken before what was put is written, if `written` is used for records, if a mark is
# not put before a settle, or if a hold is not saved.
@pytest.mark.parametrize("durability", ["os", "interval", "always"])
@pytest.mark.parametrize("seed", range(SEED, SEED + 4 * TIMES))
async def test_a_life_after_a_kill_holds_what_the_one_before_it_held(tmp_path, seed, durability):
    print(f"E2E_SEED={seed}")
    chance = dice(seed)
    node = await Node(tmp_path, durability=durability).start()
    await node.grant("first", 10**9)
    for _ in range(4):
        await lived(node, chance, 60)
        expected, later = node.released(), await node.next_life()
        assert counted(later.state) == expected
        assert later.report.faults == ()
        node = later
    await node.journal.aclose()
