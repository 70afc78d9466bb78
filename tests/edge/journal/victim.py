"""Workers that are killed: each child writes exchanges, tells what was acknowledged on a pipe, and gets SIGKILL.

Run as `python victim.py FOLDER KILLS SEED`; prints what was acknowledged and what a shipper read meanwhile. One process
forks all children, so that a kill costs milliseconds and often hits a start, a rotation or a recovery.
"""

import asyncio
import json
import os
import random
import select
import signal
import sys
import time
from pathlib import Path

from sidecar.core.record import Ids
from sidecar.edge.clock import SystemClock
from sidecar.edge.journal import Journal, JournalOptions
from sidecar.edge.journal.reader import JournalReader

WORD_BYTES = 27  # of what a child says: what was acknowledged, and its id
PATIENCE_S = 60
OPENED = (
    b'{"time_us":1,"subject":"s","customer":"c","key_id":"k","plan":"pro@1","route":"r","method":"GET","path":"/",'
    b'"reserved":{"requests":1}}'
)


def options(folder, durability):
    return JournalOptions(folder, "0", "//sidecar/r/n/0", durability, interval_us=2_000, segment_bytes=4_096)


async def write_for_ever(folder, durability, random_bits, pipe):
    log = Journal(options(folder, durability), SystemClock())
    report = log.start()
    os.write(pipe, b"S" + b"%026d" % report.crashed)
    ids = Ids(random_bits)

    def closed(id_, ok):
        if ok:
            os.write(pipe, b"C" + id_)

    def opened(id_, ok):
        if ok:
            os.write(pipe, b"O" + id_)
            if id_[-1] % 4:  # every fourth stays open
                log.close("records", id_, "c", lambda source, n: b'{"n":%d}' % n, lambda ok: closed(id_, ok))

    for turn in range(10**9):
        for _ in range(turn % 7):
            id_ = ids.mint(time.time_ns() // 1_000_000)
            log.open(id_, OPENED, lambda ok, id_=id_: opened(id_, ok))
        await asyncio.sleep(0)


def live_and_die(folder, durability, rng):
    """Fork a writer and kill it, every third at a random time of its start, the others after some words; what it said.

    Words and no times where it is to be at work: how long a write to the disk takes is no matter of this test.
    """
    seconds, words = (rng.uniform(0, 0.03), 10**9) if rng.random() < 1 / 3 else (PATIENCE_S, rng.randrange(1, 40))
    ours, theirs = os.pipe()
    bits = rng.getrandbits(60)
    child = os.fork()
    if child == 0:
        os.close(ours)
        asyncio.run(write_for_ever(folder, durability, bits, theirs))
    os.close(theirs)
    said, deadline = b"", time.monotonic() + seconds
    while len(said) < words * WORD_BYTES and (left := deadline - time.monotonic()) > 0:
        if select.select([ours], [], [], left)[0]:
            said += os.read(ours, 1 << 16)
    os.kill(child, signal.SIGKILL)
    while data := os.read(ours, 1 << 16):
        said += data
    os.close(ours)
    os.waitpid(child, 0)
    whole = range(0, len(said) // WORD_BYTES * WORD_BYTES, WORD_BYTES)
    return [(said[at : at + 1].decode(), said[at + 1 : at + WORD_BYTES].decode()) for at in whole]


def ship(folder, position, shipped, reader=None):
    """Read on from `position` and free, as the shipper does; the position reached and the reader."""
    reader = reader or JournalReader(folder, "0", position)
    while batch := reader.read(1 << 14):
        shipped += [(entry.id.decode(), entry.body.decode()) for entry in batch]
        position = batch[-1].position_after
        reader.free(position)
    return position, reader


async def recover(folder):
    log = Journal(options(folder, "os"), SystemClock())
    log.start()
    await log.aclose()


def main(folder, kills, seed):
    rng, told, shipped, position, reader = random.Random(seed), [], [], None, None
    missing = 0
    for kill in range(kills):
        told += live_and_die(folder, ("os", "always", "interval")[kill % 3], rng)
        if rng.random() < 0.5:  # the shipper is restarted now and then, too
            missing += reader.figures.missing if reader else 0
            reader = None
        if rng.random() < 0.7:
            position, reader = ship(folder, position, shipped, reader)
    asyncio.run(recover(folder))
    missing += reader.figures.missing if reader else 0
    position, reader = ship(folder, position, shipped)
    missing += reader.figures.missing
    left = len(list((folder / "0").glob("*.seg")))
    print(json.dumps({"told": told, "shipped": shipped, "missing": missing, "segments_left": left}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
