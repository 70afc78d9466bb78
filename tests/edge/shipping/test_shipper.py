"""The shipper: with a sink of lists for the rule, with real Kafka and real journal files for the promise."""

import asyncio
import contextlib
import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest
from confluent_kafka import Producer

from sidecar.core.errors import LostStretchError, RefusedError, SinkError
from sidecar.core.record.frame import RECORD, encode_frame, segment_name
from sidecar.edge.clock import SystemClock
from sidecar.edge.journal.journals import JournalFolder
from sidecar.edge.kafka.sink import KafkaSink
from sidecar.edge.shipping.folder import FileQuarantine
from sidecar.edge.shipping.shipper import Pace, Shipper
from tests.edge.kafka.topics import (
    ListQuarantine,
    MemoryJournal,
    make_topic,
    make_topics,
    read_topic,
    record,
    sequences,
    until,
)

ROOT = Path(__file__).parents[3]
SECOND = 1_000_000
QUICK = Pace(retry_min_us=10_000, retry_max_us=100_000)


class ListSink:
    """A sink that keeps what it is given, and fails as told: each of `faults` is met once, in order."""

    def __init__(self, *faults):
        self.entries, self.positions, self.faults = [], {}, list(faults)
        self.opened = self.closed = 0
        self.largest = 0

    async def open(self):
        self.opened += 1
        if self.faults and self.faults[0] == "away":
            raise SinkError(str(self.faults.pop(0)))
        return dict(self.positions)

    async def commit(self, entries, positions):
        self.largest = max(self.largest, sum(len(entry.body) for entry in entries))
        fault = self.faults.pop(0) if self.faults else None
        if bad := [entry for entry in entries if entry.body == b"poison"]:
            raise RefusedError(bad, "poison")
        if fault == "lost before":
            raise SinkError(fault)
        self.entries += entries
        self.positions.update(positions)
        if fault == "acknowledgement lost":
            raise SinkError(fault)

    async def close(self):
        self.closed += 1

    def numbers(self):
        return [entry.sequence for entry in self.entries]


def records(first, last, **kind):
    return [record(number, **kind) for number in range(first, last + 1)]


def make(journal, sink, pace=QUICK, quarantine=None):
    return Shipper(journal, sink, quarantine or ListQuarantine(), SystemClock(), pace)


async def drained(shipper, seconds=30):
    shipper.stop(seconds * SECOND)
    return await shipper.run()


@contextlib.asynccontextmanager
async def running(shipper, drain_seconds=30):
    """The shipper at work; drained at the end."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(shipper.run())
        yield task
        shipper.stop(drain_seconds * SECOND)


# --- The rule --------------------------------------------------------------------------------------------------------


async def test_every_journal_is_carried_over_in_order_and_freed():
    journal, sink = MemoryJournal(a=records(1, 50), b=records(101, 150)), ListSink()
    shipper = make(journal, sink)
    assert await drained(shipper)
    assert [number for number in sink.numbers() if number < 100] == list(range(1, 51))
    assert [number for number in sink.numbers() if number > 100] == list(range(101, 151))
    assert journal.freed == {"a": 50, "b": 50}
    assert (shipper.figures.shipped, shipper.figures.state) == (100, "stopped")


async def test_it_goes_on_from_the_positions_of_the_sink():
    journal, sink = MemoryJournal(a=records(1, 50)), ListSink()
    sink.positions = {"a": "30"}
    await drained(make(journal, sink))
    assert sink.numbers() == list(range(31, 51))


async def test_a_lost_acknowledgement_costs_a_look_and_no_double():
    # APISIX #4829 sent three times. Fails if the batch is sent again without opening the sink, from old positions, or
    # because its reader is kept.
    journal = MemoryJournal(a=records(1, 200, size=1_000))
    lost = "acknowledgement lost"
    sink = ListSink(None, lost, None, lost, "away", "away", *[None] * 5, lost)  # the last one is of the last batch
    shipper = make(journal, sink, Pace(20_000, retry_min_us=1_000))
    await drained(shipper)
    assert sink.numbers() == list(range(1, 201))
    assert (shipper.figures.failures, sink.faults) == (5, [])


async def test_a_batch_that_failed_is_not_gone():
    # tyk-pump: popped, then failed to write: gone. APISIX #2175: dropped on the first failure.
    # Fails if segments are freed before the commit, or if a reader goes on behind what was not committed.
    class Watching(ListSink):
        freed = ()

        async def commit(self, entries, positions):
            self.freed += (journal.freed["a"],)
            await super().commit(entries, positions)

    journal, sink = MemoryJournal(a=records(1, 40, size=1_000)), Watching("away", "lost before", "lost before")
    await drained(make(journal, sink, Pace(20_000, retry_min_us=1_000)))
    assert sink.numbers() == list(range(1, 41))
    assert sink.freed == (0, 0, 0, 20)
    assert journal.freed == {"a": 40}


async def test_nothing_is_dropped_however_long_the_sink_is_away():
    # Kong queue: the oldest dropped at 10,000 entries, all dropped after 60 s of failure.
    journal, sink = MemoryJournal(a=records(1, 12_000)), ListSink(*["away"] * 300)
    shipper = make(journal, sink, Pace(retry_min_us=100, retry_max_us=200))
    await drained(shipper)
    assert sink.numbers() == list(range(1, 12_001))
    assert shipper.figures.failures == 300


async def test_memory_is_bounded_by_the_batch_whatever_the_backlog():
    journal, sink = MemoryJournal(a=records(1, 500, size=1_000), b=records(1, 500, size=1_000)), ListSink()
    await drained(make(journal, sink, Pace(20_000)))
    assert sink.largest <= 20_000
    assert len(sink.entries) == 1_000


async def test_poison_goes_to_the_quarantine_and_the_rest_on():
    # Fails if the refused batch goes as a whole.
    entries = records(1, 20)
    entries[4] = entries[4]._replace(body=b"poison")
    entries[11] = entries[11]._replace(body=b"poison")
    journal, sink, quarantine = MemoryJournal(a=entries), ListSink(), ListQuarantine()
    shipper = make(journal, sink, quarantine=quarantine)
    await drained(shipper)
    assert sink.numbers() == [number for number in range(1, 21) if number not in {5, 12}]
    assert quarantine.lines == [("a", 5, "poison"), ("a", 12, "poison")]
    assert (shipper.figures.quarantined, shipper.figures.shipped) == (2, 18)
    assert sink.positions == {"a": "20"}


async def test_poison_that_the_quarantine_cannot_keep_holds_the_position():
    # Fails if the position is committed before the quarantine has it.
    class Full(ListQuarantine):
        tries = 0

        def put(self, worker, entry, reason):
            self.tries += 1
            if self.tries < 3:
                raise OSError(28, "No space left on device")
            super().put(worker, entry, reason)

    journal, sink, quarantine = MemoryJournal(a=[record(1)._replace(body=b"poison"), record(2)]), ListSink(), Full()
    await drained(make(journal, sink, quarantine=quarantine))
    assert (len(quarantine.lines), sink.numbers()) == (1, [2])


async def test_a_journal_that_appears_is_found():
    journal, sink = MemoryJournal(a=records(1, 2)), ListSink()
    async with running(make(journal, sink)):
        await until(lambda: len(sink.entries) == 2, "shipping")
        journal.entries["b"] = records(7, 9)
        await until(lambda: len(sink.entries) == 5, "shipping of the new journal")


class Unreadable(MemoryJournal):
    """A journal whose worker `b` cannot be read, in one of several ways, until `mended`."""

    def __init__(self, error, at, **entries):
        super().__init__(**entries)
        self.error, self.at, self.mended, self.tries = error, at, False, 0

    def reader(self, worker, position):
        reader = super().reader(worker, position)
        if worker == "b" and not self.mended:
            self.tries += 1
            if self.at == "opening":
                raise self.error
            reader.read = self.fail
        return reader

    def fail(self, max_bytes):
        raise self.error


@pytest.mark.parametrize("at", ["opening", "reading"])
@pytest.mark.parametrize("error", [SinkError("journal version 9"), OSError(5, "Input/output error"), IndexError(7)])
async def test_a_journal_that_cannot_be_read_holds_no_other_up_and_is_tried_again(at, error, caplog):
    # Fails if one worker's fault ends the session: nobody's records would be shipped (review 1.2).
    journal, sink = Unreadable(error, at, a=records(1, 9), b=records(101, 109)), ListSink()
    shipper = make(journal, sink, Pace(1_000, poll_min_us=1_000, poll_max_us=5_000, retry_max_us=20_000))
    async with running(shipper):
        await until(lambda: sink.numbers() == list(range(1, 10)) and journal.tries > 3, "shipping of the other")
        assert list(shipper.figures.faults) == ["b"]
        assert (shipper.figures.state, shipper.figures.failures) == ("shipping", 0)
        assert caplog.text.count("worker b: its records wait in the journal") == 1
        journal.mended = True
        await until(lambda: len(sink.entries) == 18, "shipping after it was mended")
        assert shipper.figures.faults == {}


async def test_a_drain_that_leaves_an_unreadable_journal_says_so():
    # Fails if `sidecar ship` ends with "nothing is left" although a journal could not be read.
    journal, sink = (
        Unreadable(SinkError("journal version 9"), "reading", a=records(1, 9), b=records(101, 109)),
        ListSink(),
    )
    shipper = make(journal, sink)
    assert await drained(shipper) is False
    assert sink.numbers() == list(range(1, 10))
    assert shipper.figures.last_error == "journal version 9"


async def test_a_stretch_that_is_gone_is_counted_once_and_moves_no_position_back(caplog):
    # Fails if each opening of the sink counts the same loss again, or if the position goes to where the journal ends.
    class Shortened(MemoryJournal):
        def reader(self, worker, position):
            reader = super().reader(worker, position)
            if position == "30":
                read = reader.read

                def lost(_):
                    reader.read = read
                    raise LostStretchError("gone", 700)

                reader.read = lost
            return reader

    journal, sink = Shortened(a=records(1, 30), b=records(101, 103)), ListSink("away", None, "lost before", "away")
    sink.positions = {"a": "30"}
    shipper = make(journal, sink)
    async with running(shipper):
        await until(lambda: sink.positions == {"a": "30", "b": "3"}, "shipping of the other")
        journal.entries["b"] += records(104, 105)
        await until(lambda: len(sink.entries) == 5, "shipping after a failure")
        journal.entries["a"] += records(1, 5)
        await until(lambda: len(sink.entries) == 10, "shipping of the next epoch")
    assert sink.numbers() == [101, 102, 103, 104, 105, 1, 2, 3, 4, 5]
    assert (shipper.figures.lost_bytes, shipper.figures.losses) == (700, {"a": "gone"})
    assert caplog.text.count("worker a: gone") == 1


async def test_segments_that_cannot_be_deleted_stop_no_shipping(caplog):
    class Kept(MemoryJournal):
        def reader(self, worker, position):
            reader = super().reader(worker, position)

            def free(committed):
                raise PermissionError(13, "Permission denied")

            reader.free = free
            return reader

    sink = ListSink()
    shipper = make(Kept(a=records(1, 50, size=1_000)), sink, Pace(10_000))
    assert await drained(shipper)
    assert sink.numbers() == list(range(1, 51))
    assert caplog.text.count("cannot be deleted: [Errno 13] Permission denied") == 1


async def test_an_outage_is_two_lines_in_the_log_and_not_silence(caplog):
    # APISIX #8555: silent after the broker was restarted. Fails if `_turn` logs each try, or none.
    caplog.set_level(logging.INFO)
    journal, sink = MemoryJournal(a=records(1, 5)), ListSink(*["away"] * 20)
    shipper = make(journal, sink, Pace(retry_min_us=100, retry_max_us=200))
    async with running(shipper):
        await until(lambda: shipper.figures.failures == 20 and sink.entries, "the end of the outage")
    said = [(each.levelname, each.getMessage()) for each in caplog.records]
    assert said == [
        ("ERROR", "shipper failing: records wait in the journal: away"),
        ("INFO", "shipper shipping: the sink answers again, records are being shipped"),
        ("INFO", "shipper stopped: all records are shipped"),
    ]


async def test_what_is_committed_is_noted_while_the_sink_is_away_and_after():
    # Fails if it is noted before the commit: what waits would be told as shipped.
    journal, sink = MemoryJournal(a=records(1, 5)), ListSink(None, "lost before", *["away"] * 10_000)
    noted, pace = {}, Pace(retry_min_us=100, retry_max_us=200)
    shipper = Shipper(journal, sink, ListQuarantine(), SystemClock(), pace, noted.update)
    async with running(shipper, drain_seconds=0):
        await until(lambda: sink.entries, "shipping")
        journal.entries["a"] += records(6, 8)
        await until(lambda: shipper.figures.failures > 5, "the outage")
        assert shipper.figures.last_error == "away"
        assert noted == {"a": "5"}
    assert shipper.figures.state == "stopped"


async def test_a_drain_ends_at_its_deadline_and_leaves_the_rest_in_the_journal():
    class Stuck(ListSink):
        async def commit(self, entries, positions):
            await asyncio.Event().wait()

    journal, sink = MemoryJournal(a=records(1, 5)), Stuck()
    began = time.monotonic()
    assert await drained(make(journal, sink), 0.3) is False
    assert 0.2 < time.monotonic() - began < 5
    assert journal.freed == {"a": 0}
    assert sink.opened == sink.closed


async def test_a_drain_can_be_cut_short_while_it_waits():
    shipper = make(MemoryJournal(a=records(1, 5)), ListSink(*["away"] * 10_000))
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(shipper.run())
        shipper.stop(3600 * SECOND)
        await until(lambda: shipper.figures.failures > 1, "the outage")
        shipper.stop(0)
    assert task.result() is False


# --- The promise, with real Kafka ------------------------------------------------------------------------------------


class Log:
    """A worker's journal file, appended to frame by frame as a worker does."""

    def __init__(self, folder, worker="0"):
        self.source, self.written = f"//sidecar/test/n/{worker}/1", 0
        self._worker = folder / worker
        self._worker.mkdir(parents=True)
        self._segment = 0

    def add(self, count, size=700):
        """`count` more records, in a new segment every 3,000."""
        if self._segment == 0 or self.written % 3_000 < count:
            self._segment += 1
        frames = []
        for number in range(self.written + 1, self.written + count + 1):
            each = record(number, source=self.source, size=size)
            frames.append(encode_frame(RECORD, "records", number, each.id[-26:].rjust(26, b"0"), each.key, each.body))
        self.written += count
        with (self._worker / segment_name(1, self._segment)).open("ab", buffering=0) as file:
            file.write(b"".join(frames))


def start_child(folder, kind, target):
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.edge.shipping.ship_child", str(folder), kind, target],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert child.stdout.readline() == b"started\n"
    return child


def kill(child):
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()


def exactly_once(messages, *logs):
    """Each record of each journal once, and nothing else."""
    found = sequences(messages)
    assert {source: len(numbers) for source, numbers in found.items()} == {log.source: log.written for log in logs}
    for log in logs:
        assert sorted(found[log.source]) == list(range(1, log.written + 1))


@pytest.mark.kafka
@pytest.mark.slow
def test_each_record_is_there_once_through_twelve_kills_of_the_shipper(kafka_server, tmp_path):
    # Fails if the position is committed in a transaction of its own, before or after the records; or if a new shipper
    # reads the position before the old one is fenced. OpenMeter kafkaingest; openmeter #4485: a year of duplicates.
    seed = random.SystemRandom().randrange(1 << 32)
    print("seed", seed)
    chance, topics = random.Random(seed), make_topics(kafka_server.bootstrap)
    logs = [Log(tmp_path, "0"), Log(tmp_path, "1")]
    for _ in range(12):
        child = start_child(tmp_path, "kafka", json.dumps(topics))
        deadline = time.monotonic() + chance.uniform(0.2, 1.6)
        while time.monotonic() < deadline:
            logs[chance.randrange(2)].add(chance.randrange(1, 120))
            time.sleep(0.01)
        kill(child)
    child = start_child(tmp_path, "kafka", json.dumps(topics))
    wanted, deadline = sum(log.written for log in logs), time.monotonic() + 60
    while len(read_topic(topics.bootstrap, topics.records)) < wanted:
        assert time.monotonic() < deadline
    kill(child)
    exactly_once(read_topic(topics.bootstrap, topics.records), *logs)


@pytest.mark.slow
def test_each_line_is_in_the_file_once_through_twenty_kills_of_the_shipper(tmp_path):
    # Fails if the file is not cut back on opening, or if the positions are written before the records.
    chance, log = random.Random(7), Log(tmp_path / "journal")
    path = tmp_path / "records.jsonl"
    for _ in range(20):
        child = start_child(tmp_path / "journal", "file", str(path))
        deadline = time.monotonic() + chance.uniform(0, 0.1)
        while time.monotonic() < deadline:
            log.add(chance.randrange(1, 100))
            time.sleep(0.002)
        kill(child)
    child = start_child(tmp_path / "journal", "file", str(path))
    deadline = time.monotonic() + 30
    while path.read_bytes().count(b"\n") < log.written and time.monotonic() < deadline:
        time.sleep(0.05)
    kill(child)
    numbers = [int(orjson.loads(line)["sequence"]) for line in path.read_bytes().splitlines()]
    assert numbers == list(range(1, log.written + 1))
    assert log.written > 1_000


@pytest.fixture
def topics(kafka_server):
    return make_topics(kafka_server.bootstrap)


def real(folder, topics, **changes):
    sink = KafkaSink(topics.options(**changes))
    return Shipper(JournalFolder(folder), sink, FileQuarantine(folder), SystemClock(), QUICK)


@pytest.mark.kafka
@pytest.mark.slow
async def test_a_broker_killed_mid_traffic_and_back_costs_nothing_and_needs_no_hand(kafka_server, topics, tmp_path):
    # APISIX #8555. Fails if the producer is kept after an error, or a record counted as sent before the commit.
    log, shipper = Log(tmp_path), real(tmp_path, topics)
    log.add(500)
    async with running(shipper):
        await until(lambda: shipper.figures.shipped == 500, "shipping")
        log.add(2_000)
        kafka_server.kill()
        log.add(2_000)
        await until(lambda: shipper.figures.failures, "the outage")
        await asyncio.to_thread(kafka_server.start)
        log.add(500)
    exactly_once(read_topic(topics.bootstrap, topics.records), log)


@pytest.mark.kafka
@pytest.mark.slow
async def test_a_broker_that_is_away_at_the_start_is_waited_for(kafka_server, topics, tmp_path):
    log, shipper = Log(tmp_path), real(tmp_path, topics)
    log.add(300)
    kafka_server.kill()
    async with running(shipper):
        await until(lambda: shipper.figures.failures > 2, "the outage")
        assert shipper.figures.state == "failing"
        await asyncio.to_thread(kafka_server.start)
    exactly_once(read_topic(topics.bootstrap, topics.records), log)


@pytest.mark.kafka
@pytest.mark.slow
async def test_a_broker_frozen_for_longer_than_all_timeouts_doubles_nothing(kafka_server, topics, tmp_path):
    # Fails if a batch whose commit timed out is sent again without reading the position: its first copy may be there.
    bounds = {"request_timeout_us": 500_000, "commit_timeout_us": 1_500_000, "transaction_timeout_us": 2_000_000}
    log, shipper = Log(tmp_path), real(tmp_path, topics, **bounds)
    async with running(shipper, drain_seconds=60):
        for _ in range(3):
            log.add(1_500)
            failures = shipper.figures.failures
            kafka_server.pause()
            await until(lambda least=failures + 2: shipper.figures.failures >= least, "two timeouts")
            await asyncio.to_thread(kafka_server.resume)
            log.add(500)
    exactly_once(read_topic(topics.bootstrap, topics.records), log)


@pytest.mark.kafka
async def test_an_unknown_outcome_is_looked_up_on_kafka_before_anything_is_sent_again(topics, tmp_path):
    # A caller's timeout does not mean "not sent". Fails if `_session` goes on with the old readers after a failure.
    class Deaf(KafkaSink):
        commits = 0

        async def commit(self, entries, positions):
            await super().commit(entries, positions)
            self.commits += 1
            if self.commits % 2:
                raise SinkError("the acknowledgement was lost")

    log = Log(tmp_path)
    log.add(1_000)
    shipper = Shipper(
        JournalFolder(tmp_path), Deaf(topics.options()), FileQuarantine(tmp_path), SystemClock(), Pace(100_000)
    )
    assert await drained(shipper)
    exactly_once(read_topic(topics.bootstrap, topics.records), log)


@pytest.mark.kafka
async def test_a_record_too_large_for_the_topic_is_put_aside_among_good_ones(kafka_server, tmp_path):
    topics = make_topics(kafka_server.bootstrap, max_message_bytes="60000")
    log = Log(tmp_path)
    log.add(200)
    log.add(1, size=80_000)
    log.add(200)
    shipper = real(tmp_path, topics)
    assert await drained(shipper)
    assert sorted(sequences(read_topic(topics.bootstrap, topics.records))[log.source]) == [
        number for number in range(1, 402) if number != 201
    ]
    (line,) = (tmp_path / "quarantine" / "0.jsonl").read_bytes().splitlines()
    kept = orjson.loads(line)
    assert (kept["sequence"], orjson.loads(kept["body"])["sequence"]) == (201, f"{201:018d}")
    assert "MessageSizeTooLarge" in kept["reason"] or "max message size" in kept["reason"] or "10" in kept["reason"]


@pytest.mark.kafka
async def test_a_missing_topic_is_waited_for_and_named(kafka_server, topics, tmp_path):
    late = topics._replace(records=f"{topics.records}.late")
    log, shipper = Log(tmp_path), real(tmp_path, late)
    log.add(50)
    async with running(shipper):
        await until(lambda: shipper.figures.failures > 1, "the failure")
        assert f"no topic {late.records}" in shipper.figures.last_error
        make_topic(kafka_server.bootstrap, late.records, 2)
    exactly_once(read_topic(late.bootstrap, late.records), log)


@pytest.mark.kafka
async def test_two_shippers_of_one_node_take_turns_and_double_nothing(topics, tmp_path):
    # Fails without fencing, and where a fenced shipper goes on from what it remembers.
    log = Log(tmp_path)
    log.add(500)
    first, second = real(tmp_path, topics), real(tmp_path, topics)
    async with running(first):
        await until(lambda: first.figures.shipped == 500, "shipping")
        async with running(second):
            for _ in range(10):
                log.add(100)
                await until(lambda: second.figures.shipped + first.figures.shipped >= log.written - 100, "shipping")
    assert "taken over" in first.figures.last_error or first.figures.failures + second.figures.failures > 0
    exactly_once(read_topic(topics.bootstrap, topics.records), log)


@pytest.mark.kafka
async def test_a_record_with_an_old_date_bears_the_time_of_the_append(kafka_server, tmp_path):
    # OpenMeter #5005: Kafka deleted old-dated records before they were read. Fails with CreateTime on the topic.
    topics = make_topics(kafka_server.bootstrap, message_timestamp_type="LogAppendTime")
    log = Log(tmp_path)
    log.add(3)
    began_ms = time.time_ns() // 1_000_000
    assert await drained(real(tmp_path, topics))
    for message in read_topic(topics.bootstrap, topics.records):
        kind, at_ms = message.timestamp()
        assert kind == 2
        assert at_ms >= began_ms - 1_000


@pytest.mark.kafka
async def test_copies_made_by_others_do_not_come_from_us(topics, tmp_path):
    # openmeter #4485, lago #4725: the oracle sees a double where there is one.
    log = Log(tmp_path)
    log.add(10)
    assert await drained(real(tmp_path, topics))
    other = Producer({"bootstrap.servers": topics.bootstrap})
    other.produce(topics.records, record(3, source=log.source).body)
    assert other.flush(20) == 0
    with pytest.raises(AssertionError):
        exactly_once(read_topic(topics.bootstrap, topics.records), log)
