"""Loading goes on where it ended, whatever ended it: nothing is lost and nothing is doubled."""

import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import orjson
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewPartitions

from sidecar.core.errors import SinkError
from sidecar.edge.files import OwnedError
from sidecar.edge.kafka import bulk
from sidecar.edge.kafka.bulk import BulkReader, Chunk
from sidecar.edge.kafka.connection import KafkaRefusalError
from sidecar.edge.ledger.files import LedgerFolder
from sidecar.ledger import loading, topic_load
from sidecar.ledger.load_options import LoadOptions
from sidecar.ledger.loading import Loader
from tests.edge.kafka.topics import make_topic, read_topic
from tests.edge.ledger.events import lines, usage
from tests.edge.ledger.ledgers import ask, contents, load

MEMORY = "512MB"


def load_files(folder, *paths, **options):
    with Loader(LedgerFolder(folder), LoadOptions(**options), memory=MEMORY) as loader:
        for path in paths:
            loader.load_file(path)
        return loader.report


@pytest.fixture
def path(tmp_path):
    made = tmp_path / "records.jsonl"
    made.write_bytes(lines(*[usage(number) for number in range(1, 11)]))
    return made


def test_a_file_that_has_grown_is_loaded_further_and_a_copy_of_it_not_again(tmp_path, path):
    ledger = tmp_path / "ledger"
    assert load_files(ledger, path, flush_records=4).total("records") == 10
    assert [len(each) for each in (contents(ledger),)] == [3]
    with path.open("ab") as file:
        file.write(lines(usage(11)))
    copy = tmp_path / "copy"
    copy.write_bytes(path.read_bytes())
    assert load_files(ledger, path, copy).total("records") == 1
    assert ask(ledger, "SELECT count(*), sum(units), min(sequence), max(sequence) FROM usage") == [(11, 11, 1, 11)]


def test_another_file_of_the_same_first_line_is_refused(tmp_path, path):
    ledger = tmp_path / "ledger"
    load_files(ledger, path)
    path.write_bytes(lines(usage(1), *[usage(number) for number in range(20, 40)]))
    with pytest.raises(SinkError, match="not the file that was loaded"):
        load_files(ledger, path)
    path.write_bytes(lines(usage(1)))
    with pytest.raises(SinkError, match="were loaded"):
        load_files(ledger, path)


def kill_at(step, folder, what, *paths):
    words = ["-m", "tests.edge.ledger.killed", str(folder), str(step), what, *map(str, paths)]
    return subprocess.run([sys.executable, *words], check=False, timeout=60).returncode


# Fails if the file is renamed before it is whole, or the next load counts from another place than the names.
def test_a_load_that_is_killed_at_any_step_is_finished_by_the_next(tmp_path, path):
    path.write_bytes(lines(*[usage(number) for number in range(1, 7)]))
    whole = tmp_path / "whole"
    load_files(whole, path, flush_records=3)
    for step in range(1, 8):
        ledger = tmp_path / f"killed-{step}"
        killed = kill_at(step, ledger, "load", path)
        assert killed == (-signal.SIGKILL if step <= 6 else 0)  # 2 files, 3 steps each
        load_files(ledger, path, flush_records=3)
        assert contents(ledger) == contents(whole)


# A topic.


def connection(server):
    return {"bootstrap.servers": server.bootstrap}


def load_topic(server, folder, *topics, partitions=(), **options):
    with (
        BulkReader({"bootstrap_servers": server.bootstrap}) as reader,
        Loader(LedgerFolder(folder), LoadOptions(**options), memory=MEMORY) as loader,
    ):
        loader.load_topics(reader, topics, partitions)
        return loader.report


@pytest.fixture
def topic(kafka_server):
    """Four partitions with committed and aborted transactions."""
    name = f"l{time.monotonic_ns()}"
    make_topic(kafka_server.bootstrap, name, 4)
    produce(kafka_server, name, 1, 300)
    return name


def produce(server, topic, first, last, *, size=50):
    made = Producer({**connection(server), "transactional.id": topic, "log_level": 0})
    made.init_transactions(20)
    for start in range(first, last + 1, size):
        made.begin_transaction()
        for number in range(start, min(start + size, last + 1)):
            customer = f"c{number % 7}"
            made.produce(topic, orjson.dumps(usage(number, customer=customer)), customer)
        made.flush(20)
        is_aborted = start // size % 3 == 1
        made.abort_transaction(20) if is_aborted else made.commit_transaction(20)


def ids(server, topic):
    return sorted(orjson.loads(message.value())["id"] for message in read_topic(server.bootstrap, topic))


def rows(folder):
    return ask(folder, 'SELECT part, "offset", id, meter, units, "copy" FROM ledger ORDER BY ALL')


@pytest.mark.kafka
def test_the_ledger_is_the_topic_for_any_cuts(kafka_server, topic, tmp_path, monkeypatch):
    expected = ids(kafka_server, topic)
    every = []
    for number in range(10):
        ledger = tmp_path / str(number)
        load_topic(kafka_server, ledger, topic, flush_records=25 + 37 * number)
        every.append(rows(ledger))
    # Fails if records of aborted transactions are read, or one behind a marker is left out.
    assert sorted(row[2] for row in every[0]) == expected
    assert all(each == every[0] for each in every)
    monkeypatch.setattr(bulk, "CHUNK", 7)
    load_topic(kafka_server, tmp_path / "again", topic, flush_records=25)
    # Fails if a cut depends on how messages arrive.
    assert contents(tmp_path / "again") == contents(tmp_path / "0")
    assert load_topic(kafka_server, tmp_path / "0", topic).files == 0


CONFIG = """
kafka: {{ bootstrap_servers: "{server}", topics: {{ records: {topic}, denials: {topic}.denials }} }}
ledger: {{ dir: {folder} }}
"""


@pytest.mark.kafka
def test_loads_that_are_killed_while_records_come_lose_and_double_nothing(kafka_server, topic, tmp_path):
    make_topic(kafka_server.bootstrap, f"{topic}.denials", 1)
    config, ledger = tmp_path / "sidecar.yaml", tmp_path / "ledger"
    config.write_text(CONFIG.format(server=kafka_server.bootstrap, topic=topic, folder=ledger))
    command = [sys.executable, "-m", "sidecar", "ledger", "load", "-c", str(config)]
    for kill in range(3):
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as running:
            before, deadline = len(list(ledger.glob("[!.]*/*.parquet"))), time.monotonic() + 60
            while running.poll() is None and time.monotonic() < deadline:
                # Killed once a partition has its next file, while the others are being written.
                if len(list(ledger.glob("[!.]*/*.parquet"))) > before:
                    running.kill()
                    break
        produce(kafka_server, topic, 301 + 100 * kill, 400 + 100 * kill)
    done = subprocess.run(command, check=False, timeout=60, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(id_ for (id_,) in ask(ledger, "SELECT id FROM records")) == ids(kafka_server, topic)
    assert ask(ledger, "SELECT count(*) FROM copies") == [(0,)]


@pytest.mark.kafka
def test_loaders_share_the_partitions(kafka_server, topic, tmp_path):
    folder = LedgerFolder(tmp_path)
    held = [folder.lock(topic, part) for part in (0, 2)]
    assert held
    load_topic(kafka_server, tmp_path, topic)
    assert {part for (part,) in ask(tmp_path, "SELECT DISTINCT part FROM ledger")} <= {1, 3}
    # Fails if a partition that is named is left out in silence.
    with pytest.raises(OwnedError, match=f"{topic} partition 2: the process with pid"):
        load_topic(kafka_server, tmp_path, topic, partitions=[2])
    with pytest.raises(SinkError, match="has a partition 9"):
        load_topic(kafka_server, tmp_path, topic, partitions=[9])


@pytest.mark.kafka
def test_following_writes_a_file_when_its_time_has_come(kafka_server, topic, tmp_path):
    stop, files = threading.Event(), []

    def on_file(loaded):
        files.append(loaded)
        if sum(each.records for each in files) >= len(ids(kafka_server, topic)):
            stop.set()

    late = threading.Timer(1.0, produce, (kafka_server, topic, 301, 350))
    late.start()
    options = {"flush_seconds": 0.2, "follow": True, "on_file": on_file, "stop": stop.is_set}
    load_topic(kafka_server, tmp_path, topic, **options)
    late.join()
    assert stop.is_set()


@contextmanager
def following(server, folder, topic, *partitions):
    """A loader in a process of its own."""
    words = [server.bootstrap, str(folder), topic, *map(str, partitions)]
    with subprocess.Popen([sys.executable, "-m", "tests.ledger.following", *words], stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def until(condition, what):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def owners(folder, topic, parts):
    """The pid in the lock of each partition. To try the lock would get in the way of a loader."""
    locks = [folder / topic / f"p{part:04}.lock" for part in parts]
    return [int(lock.read_text() or 0) if lock.exists() else 0 for lock in locks]


def is_loaded(server, folder, topic):
    return sorted(id_ for (id_,) in ask(folder, "SELECT id FROM records")) == ids(server, topic)


# Fails if a loader that follows looks for partitions at its start only, or reads those that it has from elsewhere when
# it takes others.
@pytest.mark.kafka
def test_loaders_take_over_the_partitions_of_those_that_are_killed(kafka_server, topic, tmp_path):
    with following(kafka_server, tmp_path, topic, 0, 1) as first:
        until(lambda: owners(tmp_path, topic, (0, 1)) == [first.pid] * 2, "the first has its own")
        with following(kafka_server, tmp_path, topic) as second:
            until(lambda: owners(tmp_path, topic, (2, 3)) == [second.pid] * 2, "the second has the others")
            with following(kafka_server, tmp_path, topic) as third:
                assert b"partition 0: the process with pid" in third.stderr.readline()  # Fails if it ends.
                until(lambda: is_loaded(kafka_server, tmp_path, topic), "all is loaded by two")
                produce(kafka_server, topic, 301, 400)
                first.kill()  # with records that are in no file
                first.wait()
                produce(kafka_server, topic, 401, 500)
                until(lambda: is_loaded(kafka_server, tmp_path, topic), "all is loaded by the rest")
                assert set(owners(tmp_path, topic, range(4))) <= {second.pid, third.pid}
                second.kill()
                second.wait()
                produce(kafka_server, topic, 501, 600)
                until(lambda: is_loaded(kafka_server, tmp_path, topic), "all is loaded by the third")
                assert owners(tmp_path, topic, range(4)) == [third.pid] * 4
                third.terminate()
                assert third.wait(30) == 0
    assert ask(tmp_path, "SELECT count(*) FROM copies") == [(0,)]
    assert LedgerFolder(tmp_path).listing()[1:] == ([], [])


# Fails if the partitions of a topic are asked for at the start only.
@pytest.mark.kafka
def test_a_loader_that_follows_takes_up_new_partitions(kafka_server, topic, tmp_path):
    with following(kafka_server, tmp_path, topic) as running:
        until(lambda: owners(tmp_path, topic, range(4)) == [running.pid] * 4, "it has all")
        admin = AdminClient(connection(kafka_server))
        admin.create_partitions([NewPartitions(topic, 6)])[topic].result(20)
        until(lambda: owners(tmp_path, topic, (4, 5)) == [running.pid] * 2, "it has the new ones")
        made = Producer(connection(kafka_server))
        for part in range(6):
            made.produce(topic, orjson.dumps(usage(900 + part)), partition=part)
        made.flush(20)
        until(lambda: is_loaded(kafka_server, tmp_path, topic), "all is loaded")
    assert ask(tmp_path, "SELECT count(DISTINCT part) FROM ledger WHERE sequence >= 900") == [(6,)]


@pytest.mark.kafka
def test_a_topic_that_was_made_anew_is_refused(kafka_server, topic, tmp_path):
    other = f"{topic}.new"
    make_topic(kafka_server.bootstrap, other, 4)
    load(tmp_path, [usage(1)], topic=other)
    # Fails if the position is not compared with the end: new records up to it would never be loaded.
    with pytest.raises(SinkError, match="the topic was made anew"):
        load_topic(kafka_server, tmp_path, other)


@pytest.mark.kafka
def test_an_open_transaction_is_left_for_the_next_load(kafka_server, topic, tmp_path, monkeypatch):
    monkeypatch.setattr(topic_load, "_PATIENCE_SECONDS", 0.5)
    expected = ids(kafka_server, topic)
    made = Producer({**connection(kafka_server), "transactional.id": f"{topic}.open", "log_level": 0})
    made.init_transactions(20)
    made.begin_transaction()
    made.produce(topic, orjson.dumps(usage(9_999)), partition=1)
    made.flush(20)
    load_topic(kafka_server, tmp_path, topic)
    assert sorted(id_ for (id_,) in ask(tmp_path, "SELECT id FROM records")) == expected
    made.commit_transaction(20)
    monkeypatch.undo()  # a commit is acknowledged a moment before it is visible
    assert load_topic(kafka_server, tmp_path, topic).total("records") == 1


class Away:
    """Kafka that does not answer at first."""

    def __init__(self, failures, error=SinkError):
        self.failures, self.error = failures, error

    def partitions(self, topics):
        self._fail()
        return "cluster", {topic: [0] for topic in topics}

    def bounds(self, places):
        self._fail()
        return dict.fromkeys(places, (0, 0))

    def assign(self, positions):
        self._fail()

    def read(self, seconds):
        return Chunk({}, {})

    def stable_ends(self):
        return {}

    def _fail(self):
        if self.failures:
            self.failures -= 1
            raise self.error("no connection")


@pytest.mark.parametrize("failures", [1, 2, 5])
def test_a_load_that_follows_waits_for_kafka_at_its_start(tmp_path, monkeypatch, failures):
    # Fails if only a loader that has read something waits: a node's loader would end with each restart of Kafka.
    monkeypatch.setattr(loading, "_POLL_SECONDS", 0.001)
    troubles = []
    stop = threading.Event()
    reader = Away(failures)
    options = LoadOptions(lambda: stop.is_set() or not reader.failures, on_trouble=troubles.append, follow=True)
    with Loader(LedgerFolder(tmp_path), options, memory=MEMORY) as loader:
        loader.load_topics(reader, ["t"])
    assert troubles == ["no connection"] * failures


@pytest.mark.parametrize(("error", "follow"), [(SinkError, False), (KafkaRefusalError, True)])
def test_a_load_that_does_not_follow_or_is_refused_fails_at_once(tmp_path, error, follow):
    with (
        Loader(LedgerFolder(tmp_path), LoadOptions(follow=follow), memory=MEMORY) as loader,
        pytest.raises(error, match="no connection"),
    ):
        loader.load_topics(Away(9, error), ["t"])
