"""Compaction changes no sum, wherever it is killed; and only what has ended is removed."""

import os
import shutil
import signal

import orjson
import pytest

from sidecar.edge.ledger.digests import DAMAGED, damaged_files
from sidecar.edge.ledger.earlier import Earlier
from sidecar.edge.ledger.engine import Engine
from sidecar.edge.ledger.files import COMPACTING, LedgerFile, LedgerFolder
from sidecar.edge.ledger.footers import FOREIGN
from sidecar.edge.ledger.schema import NAMES
from sidecar.edge.ledger.writer import PartitionWriter
from sidecar.ledger.compacting import Retention, compact
from sidecar.ledger.load_options import LoadOptions
from sidecar.ledger.loading import Loader
from tests.edge.ledger.events import lines, usage
from tests.edge.ledger.ledgers import TOPIC, ask, contents, load
from tests.ledger.test_loading import kill_at

DAY_US = 86_400_000_000
ALL = f"SELECT topic, {', '.join(f'{chr(34)}{name}{chr(34)}' for name in NAMES)} FROM ledger ORDER BY ALL"


def day(number):
    return {
        "period_time": f"2026-11-{number:02}T10:00:00.000000Z",
        "envelope": {"time": f"2026-11-{number:02}T10:00:01Z"},
    }


def run(folder, retention=None, **options):
    ledger = LedgerFolder(folder)
    ledger.identify()
    with Engine(folder=folder) as engine:
        return compact(ledger, engine, retention or Retention(), **options)


def ranges(folder):
    return [tuple(map(int, name.split(".")[1].split("-"))) for name in contents(folder)]


def test_files_of_a_day_are_joined_and_every_row_stays(tmp_path):
    batches = [
        [usage(n, {"requests": 1, "tokens": n}, **day(20 + n // 4)) for n in range(start, start + 2)]
        for start in (1, 3, 5, 7)
    ]
    load(tmp_path, *batches)
    before = ask(tmp_path, ALL)
    done = run(tmp_path)
    # Fails if files of two days are joined: retention could not remove the older one.
    assert ranges(tmp_path) == [(0, 3), (4, 7)]
    assert [parts for _, parts in done.joined] == [2, 2]
    assert ask(tmp_path, ALL) == before
    assert run(tmp_path).joined == []


def test_no_file_gets_more_rows_than_the_bound_and_none_spans_missing_offsets(tmp_path):
    load(tmp_path, *[[usage(number)] for number in range(1, 8)])
    next((tmp_path / TOPIC).glob("*2.*.parquet")).unlink()
    run(tmp_path, max_rows=3)
    assert ranges(tmp_path) == [(0, 1), (3, 5), (6, 6)]


def test_the_same_parts_are_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        load(tmp_path / name, *[[usage(number)] for number in range(1, 8)])
        run(tmp_path / name)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


# Fails if the parts are deleted before the union has its name.
def test_a_compaction_that_is_killed_at_any_step_changes_nothing(tmp_path):
    for step in range(1, 9):
        folder = tmp_path / str(step)
        load(folder, *[[usage(number)] for number in range(1, 5)])
        before = ask(folder, ALL)
        killed = kill_at(step, folder, "compact")
        assert killed == (-signal.SIGKILL if step <= 7 else 0)  # sync, rename, sync the folder, 4 deletions
        assert ask(folder, ALL) == before
        assert LedgerFolder(folder).listing().position(TOPIC, 0) == 4
        run(folder)
        assert (ranges(folder), ask(folder, ALL)) == ([(0, 3)], before)


def test_a_sink_file_goes_on_after_a_compaction(tmp_path):
    path, ledger = tmp_path / "r.jsonl", tmp_path / "ledger"

    def load_file():
        with Loader(LedgerFolder(ledger), LoadOptions(flush_records=2), memory="512MB") as loader:
            loader.load_file(path)
            return loader.report.total("records")

    path.write_bytes(lines(*[usage(number) for number in range(1, 7)]))
    load_file()
    run(ledger)
    path.write_bytes(lines(*[usage(number) for number in range(1, 9)]))
    assert load_file() == 2  # Fails if the union has no digest of its end, or another.


def test_two_compactions_do_not_meet(tmp_path):
    load(tmp_path, [usage(1)], [usage(2)])
    lock = LedgerFolder(tmp_path).lock(TOPIC, 0, COMPACTING)
    done = run(tmp_path)
    os.close(lock)
    assert (done.joined, len(done.faults)) == ([], 1)


# Fails if the loader takes the listing that it had: the files that a copy is looked for in are gone.
def test_a_load_goes_on_while_its_files_are_joined(tmp_path):
    load(tmp_path, [usage(1)], [usage(2)])
    ledger = LedgerFolder(tmp_path)
    with Engine(folder=tmp_path) as engine:
        writer = PartitionWriter(ledger, TOPIC, 0, (engine, Earlier(engine, ledger)))
        for number, compacts in ((3, True), (2, False)):
            writer.add([(writer.position, orjson.dumps(usage(number)))])
            listing = ledger.listing()
            if compacts:
                assert len(run(tmp_path).joined) == 1
                ledger.listing = lambda: (setattr(ledger, "listing", LedgerFolder(tmp_path).listing), listing)[1]  # noqa: B023
            loaded = writer.flush(writer.position + 1)
        writer.close()
    assert loaded.copies == 1
    assert ranges(tmp_path) == [(0, 1), (2, 2), (3, 3)]


def at(number):
    return ask_us(f"2026-11-{number:02}")


def ask_us(text):
    with Engine() as engine:
        return engine.run(f"SELECT epoch_us(TIMESTAMP '{text}')")[0][0]


def test_only_whole_files_that_ended_before_are_removed_and_the_last_one_never(tmp_path):
    load(tmp_path, *[[usage(number, **day(number))] for number in range(1, 5)])
    load(tmp_path, *[[usage(number, **day(number))] for number in range(1, 3)], topic="usage.denials")
    # A late record of day 1 in the file of day 3: that file ends on day 3.
    load(tmp_path, [usage(7, **day(1)), usage(8, **day(3))], [usage(9, **day(4))], part=1)
    done = run(tmp_path, Retention(at(3), {"usage.denials": at(30)}))
    assert [(file.topic, file.part, file.first) for file in done.removed] == [
        ("usage.denials", 0, 0),
        (TOPIC, 0, 0),
        (TOPIC, 0, 1),
    ]
    done = run(tmp_path, Retention(at(30)))
    assert [(file.part, file.first) for file in done.removed] == [(0, 2), (1, 0)]
    assert LedgerFolder(tmp_path).listing().position(TOPIC, 0) == 4  # Fails if the last file goes: all would come again
    assert run(tmp_path).removed == []


# Fails if a union is made of damaged parts: it would have their damage under a digest that is right.
def test_a_damaged_part_is_named_and_in_no_union(tmp_path):
    load(tmp_path, [usage(1)], [usage(2)])
    before = contents(tmp_path)
    path = min((tmp_path / TOPIC).glob("*.parquet"))
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    done = run(tmp_path)
    assert (done.joined, contents(tmp_path).keys()) == ([], before.keys())
    [fault] = done.faults
    assert f"{path.name}: {DAMAGED}" in fault
    path.write_bytes(before[path.name])
    [(union, _)] = run(tmp_path).joined
    assert damaged_files(LedgerFolder(tmp_path), [union]) == {}
    assert len(union.digest) == 16


# Fails if parts are deleted because the name of another partition's file says that it has them.
@pytest.mark.parametrize("what", ["garbage", "foreign", "link", "partition", "renamed", "no digest"])
def test_files_that_a_wrong_file_covers_are_read_and_not_deleted(tmp_path, what):
    load(tmp_path, [usage(1)], [usage(2)], [usage(3)])
    before = contents(tmp_path)
    [wrong] = load(tmp_path / "other", [usage(1), usage(2)], part=1)
    path = tmp_path / TOPIC / wrong.file._replace(part=0).name
    copied = LedgerFolder(tmp_path / "other").at(wrong.file)
    if what == "garbage":
        path.write_bytes(b"PAR1" + b"x" * 100 + (50).to_bytes(4, "little") + b"PAR1")
    elif what == "foreign":
        with Engine() as engine:
            engine.run(f"COPY (SELECT 1 AS a) TO '{path}' (FORMAT parquet)")
    elif what == "link":
        path.symlink_to(tmp_path / "nowhere")
    elif what == "renamed":
        path.write_bytes(min(before.items())[1])
    elif what == "no digest":
        path = path.with_name(wrong.file._replace(part=0, digest="").name)
        path.write_bytes(copied.read_bytes())
    else:
        path.write_bytes(copied.read_bytes())
    shutil.rmtree(tmp_path / "other")
    assert ask(tmp_path, "SELECT sum(units) FROM usage") == [(3,)]
    rows = ask(tmp_path, ALL)
    [fault] = run(tmp_path).faults
    assert fault.startswith(f"{TOPIC}/{path.name}: ")
    assert ask(tmp_path, ALL) == rows
    assert ranges_of_good(tmp_path) == [(0, 2)]


def ranges_of_good(folder):
    return [(file.first, file.last) for file in LedgerFolder(folder).listing().files]


# Fails if the place and the digest are all that is looked at: this file has both, and lacks a record of its range.
def test_files_are_not_deleted_where_the_one_that_covers_them_lacks_a_row(tmp_path):
    load(tmp_path, [usage(1)], [usage(2)])
    names = contents(tmp_path).keys()
    ledger = LedgerFolder(tmp_path / "other")
    ledger.identify()
    with Engine(folder=ledger.path) as engine:
        writer = PartitionWriter(ledger, TOPIC, 0, (engine, Earlier(engine, ledger)))
        writer.add([(0, orjson.dumps(usage(1)))])
        loaded = writer.flush(2)
        writer.close()
    ledger.at(loaded.file).rename(LedgerFolder(tmp_path).at(loaded.file))
    shutil.rmtree(tmp_path / "other")
    done = run(tmp_path)
    assert done.faults == [f"{TOPIC} partition 0: {loaded.file}: differs from its parts, which stay: report this"]
    assert contents(tmp_path).keys() == {*names, loaded.file.name}


# Fails if the first file that is not of the ledger ends the command, or only files that are joined are checked.
def test_a_refused_file_is_named_where_there_is_nothing_to_join_and_other_partitions_are_joined(tmp_path):
    load(tmp_path, [usage(1)])
    load(tmp_path, [usage(2)], [usage(3)], part=1)
    [path] = (tmp_path / TOPIC).glob("p0000.*.parquet")
    whole = path.read_bytes()
    data = bytearray(whole)
    data[100] ^= 1
    path.write_bytes(data)
    done = run(tmp_path)
    assert done.faults == [f"{TOPIC} partition 0: {path.name}: {DAMAGED}"]
    assert [(union.part, parts) for union, parts in done.joined] == [(1, 2)]
    path.write_bytes(whole)
    foreign = path.with_name(LedgerFile(TOPIC, 0, 1, 9, "0" * 16).name)
    with Engine() as engine:
        engine.run(f"COPY (SELECT 1 AS a) TO '{foreign}' (FORMAT parquet)")
    [fault] = run(tmp_path).faults
    assert fault.startswith(f"{TOPIC}/{foreign.name}: {FOREIGN}")
