"""The life of a source on the stream: announced before it serves, ended by itself or closed by who comes after it."""

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from sidecar.core.record import record_schema
from sidecar.core.record.frame import segment_name
from sidecar.edge.clock import SystemClock
from sidecar.edge.journal import Orphan, recover
from sidecar.edge.journal.folder import Folder
from sidecar.edge.journal.predecessors import lineage
from tests.edge.journal.logs import DENIED, OPENED, SOURCE, bodies, entries, exchange, journal, mint, told, write

validator = Draft202012Validator(record_schema())


def statements(folder, kind="source"):
    """The records of a kind, each a valid one."""
    found = [entry.body for entry in entries(folder) if b'"type":"sidecar.%b.v1"' % kind.encode() in entry.body]
    records = [orjson.loads(body) for body in found]
    assert all(validator.is_valid(record) for record in records)
    return records


def killed(log):
    """The worker ends without a word, and the kernel releases its lock."""
    for timer in log._timers.values():
        timer.cancel()
    log._folder.release()


def drained(log):
    log.summarise_denials()
    log.checkpoint(0, "p1", 0, {"requests": 1}, final=True)
    return log.aclose()


async def test_a_source_announces_itself_with_its_first_number_before_it_serves(tmp_path):
    # Fails if it is written when the first exchange is: an idle worker would be unknown.
    log = journal(tmp_path, version="1.2.3")
    epoch = log.start().epoch
    [started] = statements(tmp_path)
    assert started["source"] == started["data"]["about"] == started["partitionkey"] == f"{SOURCE}/{epoch}"
    assert started["data"]["state"] == "started"
    assert started["data"]["version"] == "1.2.3"
    assert "predecessor" not in started["data"]
    assert int(started["sequence"]) == 1
    await exchange(log)
    assert entries(tmp_path)[-1].sequence == 2
    await log.aclose()


async def test_a_drained_source_ends_with_a_final_checkpoint_and_is_closed_by_nobody(tmp_path):
    # Fails if a record is written after it, or if the successor looks at the kind of the last record only.
    log = journal(tmp_path, version="1")
    first = log.start().epoch
    await exchange(log)
    log.denials.count(DENIED, 1)
    await drained(log)
    last = bodies(tmp_path)[-1]
    assert last["type"] == "sidecar.checkpoint.v1"
    assert last["data"]["final"] is True
    assert last["data"]["highest"] == {"records": 2, "denials": 1}
    assert int(last["sequence"]) == 3
    again = journal(tmp_path, version="1")
    again.start()
    started = statements(tmp_path)[-1]
    assert [each["data"]["state"] for each in statements(tmp_path)] == ["started", "started"]
    assert started["data"]["predecessor"] == f"{SOURCE}/{first}"
    await again.aclose()


async def test_nothing_is_recorded_after_the_final_checkpoint(tmp_path):
    log = journal(tmp_path, version="1")
    log.start()
    log.checkpoint(0, "p1", 0, final=True)
    assert not log.accepting()
    assert not await told(log.close, "records", mint(), "c", write)
    assert not await told(log.open, mint(), OPENED)
    await log.aclose()
    assert entries(tmp_path)[-1].sequence == 2


async def test_a_source_with_an_open_exchange_is_not_final_and_its_successor_closes_both(tmp_path):
    # The drain's time was over. Fails if `final` is written although an exchange has no record yet.
    log = journal(tmp_path, version="1")
    first = log.start().epoch
    assert await told(log.open, mint(), OPENED)
    await drained(log)
    assert "final" not in bodies(tmp_path)[-1]["data"]
    again = journal(tmp_path, version="1")
    assert again.start().crashed == 1
    closed, started = statements(tmp_path)[-2:]
    assert closed["data"]["state"] == "closed"
    assert closed["data"]["about"] == started["data"]["predecessor"] == f"{SOURCE}/{first}"
    assert closed["data"]["highest"] == {"records": 2, "denials": 0}
    assert [int(each["sequence"]) for each in bodies(tmp_path)[-3:]] == [1, 2, 3]  # closed, started, crashed
    await again.aclose()


@pytest.mark.parametrize("ends_with_checkpoint", [False, True])
async def test_a_killed_source_is_closed_with_the_highest_numbers_of_its_streams(tmp_path, ends_with_checkpoint):
    # Fails if an ordinary checkpoint counts as an end, or if the numbers are those of the last checkpoint only.
    log = journal(tmp_path, version="1")
    first = log.start().epoch
    log.checkpoint(0, "p1", 0)
    for _ in range(3):
        assert await told(log.close, "denials", mint(), "c", write)
    for _ in range(5):
        await exchange(log)
    if ends_with_checkpoint:
        log.checkpoint(0, "p1", 0)
        await told(log.note, b"{}")
    killed(log)
    again = journal(tmp_path, version="1")
    again.start()
    [closed] = [each for each in statements(tmp_path) if each["data"]["state"] == "closed"]
    assert closed["data"]["about"] == f"{SOURCE}/{first}"
    assert closed["data"]["highest"] == {"records": 7 + ends_with_checkpoint, "denials": 3}
    await again.aclose()


async def test_denials_before_the_last_checkpoint_are_known_from_it_though_their_segment_is_gone(tmp_path):
    log = journal(tmp_path, version="1", segment_bytes=1_000)
    log.start()
    for _ in range(4):
        assert await told(log.close, "denials", mint(), "c", write)
    for _ in range(20):
        await exchange(log)
    log.checkpoint(0, "p1", 0)
    await exchange(log)
    killed(log)
    segments = sorted((tmp_path / "0").glob("*.seg"))
    assert len(segments) > 3
    for path in segments[:-2]:
        path.unlink()
    [left] = lineage(Folder(tmp_path / "0")).unended
    assert left.highest["denials"] == 4
    assert left.highest["records"] == 23


async def test_a_start_that_was_killed_before_it_announced_itself_leaves_both_to_the_next(tmp_path):
    # Fails if only the latest epoch is looked at: the first one would never be closed.
    log = journal(tmp_path, version="1")
    first = log.start().epoch
    assert await told(log.open, mint(), OPENED)
    killed(log)
    second = journal(tmp_path, version="1")
    epoch = second.start().epoch
    killed(second)
    path = tmp_path / "0" / segment_name(epoch, 1)
    data = path.read_bytes()
    for cut, closes in ((data.index(b'"state":"closed"'), [first]), (data.index(b'"state":"started"'), [first, epoch])):
        path.write_bytes(data[:cut])  # half of the first write
        third = journal(tmp_path, version="1")
        last = third.start().epoch
        own = [each for each in statements(tmp_path) if each["source"] == f"{SOURCE}/{last}"]
        assert [each["data"]["about"] for each in own] == [f"{SOURCE}/{each}" for each in [*closes, last]]
        killed(third)
        (tmp_path / "0" / segment_name(last, 1)).unlink()


async def test_a_worker_that_no_longer_exists_is_closed_once_though_nothing_was_open(tmp_path):
    # Fails if the recovery looks at open exchanges only: the source would stay without an end for ever.
    log = journal(tmp_path, version="1")
    first = log.start().epoch
    await exchange(log)
    killed(log)
    orphan = Orphan(tmp_path, "0", "//sidecar/other/name/0", "1")
    assert [recover(orphan, SystemClock()) for _ in range(3)] == [0, 0, 0]
    *_, closed, started, final = bodies(tmp_path)
    assert closed["data"] == {
        "state": "closed", "about": f"{SOURCE}/{first}", "version": "1", "highest": {"records": 2, "denials": 0},
    }  # fmt: skip
    assert started["data"]["predecessor"] == f"{SOURCE}/{first}"
    assert final["data"]["final"] is True
    assert [int(each["sequence"]) for each in (closed, started, final)] == [1, 2, 3]
    assert lineage(Folder(tmp_path / "0")).unended == []


@given(lives=st.lists(st.sampled_from(["drained", "killed", "open"]), min_size=1, max_size=5))
@settings(max_examples=25, deadline=None)
async def test_however_its_lives_ended_each_source_has_exactly_one_end(tmp_path_factory, lives):
    folder = tmp_path_factory.mktemp("lives")
    for life in lives:
        log = journal(folder, version="1")
        log.start()
        await exchange(log)
        if life == "drained":
            await drained(log)
            continue
        if life == "open":
            assert await told(log.open, mint(), OPENED)
        killed(log)
    last = journal(folder, version="1")
    last.start()
    await drained(last)
    sources = statements(folder)
    started = [each["data"]["about"] for each in sources if each["data"]["state"] == "started"]
    closed = [each["data"]["about"] for each in sources if each["data"]["state"] == "closed"]
    final = [each["source"] for each in statements(folder, "checkpoint") if each["data"].get("final")]
    assert len(started) == len(set(started)) == len(lives) + 1
    assert sorted([*closed, *final]) == sorted(started)


async def test_a_checkpoint_says_since_when_its_oldest_open_exchange_is_open(tmp_path):
    # Fails if it is the one that was opened first: arrivals and OPEN entries are not in the same order.
    log = journal(tmp_path, version="1")
    log.start()
    log.checkpoint(0, "p1", 0)
    ids = [mint() for _ in range(3)]
    for id_, time_us in zip(ids, (3_000_000, 1_500_000, 2_000_000), strict=True):
        assert await told(log.open, id_, orjson.dumps(orjson.loads(OPENED) | {"time_us": time_us}))
    for id_ in (ids[1], ids[0], ids[2]):
        log.checkpoint(3, "p1", 0)
        assert await told(log.close, "records", id_, "c", write)
    log.checkpoint(0, "p1", 0)
    await log.aclose()
    oldest = [each["data"].get("oldest_open") for each in statements(tmp_path, "checkpoint")]
    assert oldest == [
        None, "1970-01-01T00:00:01.500000Z", "1970-01-01T00:00:02.000000Z", "1970-01-01T00:00:02.000000Z", None,
    ]  # fmt: skip
