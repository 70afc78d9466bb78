"""A batch is a file, and equal batches are equal files."""

import random

import orjson
import pytest

from sidecar.edge.files import OwnedError
from sidecar.edge.ledger.earlier import Earlier
from sidecar.edge.ledger.engine import Engine
from sidecar.edge.ledger.files import LedgerFolder
from sidecar.edge.ledger.writer import PartitionWriter
from tests.edge.ledger.events import event, usage
from tests.edge.ledger.ledgers import TOPIC, contents, load, views


def batch(count=2_000, seed=1):
    chance = random.Random(seed)
    return [
        usage(number, {"requests": 1, "tokens": chance.randrange(99)}, customer=f"c{chance.randrange(9)}")
        if number % 50
        else event(number, "checkpoint", {"highest": {"records": number}})
        for number in range(1, count + 1)
    ]


# Fails if the metadata has anything of the load, such as its time. With 500,000 rows it was tried by hand, too.
def test_the_same_cuts_are_the_same_bytes_with_any_number_of_threads(tmp_path):
    records = batch(30_000)
    for threads in (1, 2, 4):
        load(tmp_path / str(threads), records[:20_000], records[20_000:], threads=threads)
    one = contents(tmp_path / "1")
    assert len(one) == 2
    assert one == contents(tmp_path / "2") == contents(tmp_path / "4")


def test_other_cuts_are_the_same_rows(tmp_path):
    records = batch()
    rows = []
    for name, cut in (("a", 1), ("b", 700), ("c", 1_999)):
        load(tmp_path / name, records[:cut], records[cut:])
        with views(tmp_path / name) as (engine, _):
            rows.append(engine.run('FROM ledger ORDER BY "offset", meter'))
    assert rows[0] == rows[1] == rows[2]


def test_nothing_is_written_of_an_empty_batch(tmp_path):
    assert load(tmp_path, []) == [None]
    assert contents(tmp_path) == {}


def test_a_second_writer_of_a_partition_is_refused_and_leaves_the_work_of_the_first(tmp_path):
    with Engine() as engine:
        ledger = LedgerFolder(tmp_path)
        writer = PartitionWriter(ledger, TOPIC, 0, (engine, Earlier(engine, ledger)))
        writer.add([(0, orjson.dumps(usage(1)))])
        with pytest.raises(OwnedError):
            load(tmp_path, [usage(2)])
        assert writer.flush(1).records == 1  # Fails if the work files are cleared before the lock is held.
        writer.close()
    assert len(load(tmp_path, [usage(2)])) == 1


def test_work_of_a_killed_writer_is_removed(tmp_path):
    folder = tmp_path / TOPIC
    folder.mkdir()
    for name in ("p0000.new", "p0000.lines"):
        (folder / name).write_bytes(b"PAR1 half")
    [loaded] = load(tmp_path, [usage(1)])
    assert sorted(path.name for path in folder.iterdir()) == [loaded.file.name, "p0000.lock"]
