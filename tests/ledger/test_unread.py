"""Records of a period that are in Kafka and not in the ledger keep it open; later ones do not."""

import time

import orjson
import pytest

from sidecar.core.errors import SinkError
from sidecar.edge.kafka.bulk import BulkReader
from sidecar.ledger import unread
from sidecar.ledger.connection import open_ledger
from sidecar.ledger.unread import unread_faults
from tests.edge.kafka.test_bulk import producer, transaction
from tests.edge.kafka.topics import make_topic
from tests.ledger.parquet import event, write
from tests.ledger.test_loading import load_topic
from tests.ledger.test_verify import END_US, LATER_US, S, denial, good

UNTIL_US = END_US + 60_000_000


def value(record):
    return record if isinstance(record, bytes) else orjson.dumps(record)


def later(kind="usage", **more):
    return event(kind, S, 9, {"usage": {"tokens": 1}}, time_us=LATER_US, **more)


@pytest.fixture
def topic(kafka_server):
    name = f"u{time.monotonic_ns()}"
    make_topic(kafka_server.bootstrap, name, 2)
    return name


@pytest.fixture
def made(kafka_server, topic):
    """A producer of transactions; the first one has a whole source."""
    made = producer(kafka_server.bootstrap, topic)
    transaction(made, topic, [value(record) for record in [*good(), denial()]])
    return made


def find(server, folder, *topics, until_us=UNTIL_US):
    with BulkReader({"bootstrap_servers": server.bootstrap}) as reader, open_ledger(folder) as ledger:
        return unread_faults(reader, ledger, topics, until_us)


# Fails if the message's time in Kafka counts (all are of now), offsets alone, or period_time alone.
@pytest.mark.kafka
@pytest.mark.parametrize(
    ("record", "holds"),
    [
        (later(), False),
        (later("checkpoint"), False),
        (later(period_us=END_US - 1), True),  # it ended in the next month
        (event("usage", S, 9, {"usage": {"tokens": 1}}, time_us=UNTIL_US), False),
        (event("usage", S, 9, {"usage": {"tokens": 1}}, time_us=UNTIL_US - 1), True),
        (later("correction", period_us=END_US - 1), True),
        (later("source"), True),
        (b"not a record", True),
        (b'{"time": "2027-01-01T00:00:00", "data": {}}', True),  # of no zone
        (b"[]", True),
    ],
)
def test_a_record_that_may_be_of_the_period_is_named_with_its_partition(
    kafka_server, topic, made, tmp_path, record, holds
):
    load_topic(kafka_server, tmp_path, topic)
    assert find(kafka_server, tmp_path, topic) == ()
    transaction(made, topic, [value(later()), value(record)])
    fault = f"{topic} partition 0: 3 offsets are not loaded: `sidecar ledger load`"  # with the transaction's end
    assert find(kafka_server, tmp_path, topic) == ((fault,) if holds else ())
    load_topic(kafka_server, tmp_path, topic)
    assert find(kafka_server, tmp_path, topic) == ()


@pytest.mark.kafka
def test_an_aborted_transaction_does_not_matter_and_an_open_one_does(kafka_server, topic, made, tmp_path, monkeypatch):
    # Fails if positions are compared with ends: the ends of transactions are in no file.
    monkeypatch.setattr(unread, "_PATIENCE_SECONDS", 1.5)
    load_topic(kafka_server, tmp_path, topic)
    transaction(made, topic, [value(good()[0])], abort=True)
    assert find(kafka_server, tmp_path, topic) == ()
    made.begin_transaction()
    made.produce(topic, value(good()[0]), partition=1)
    made.flush(20)
    fault = f"{topic} partition 1: a transaction is open in Kafka: try again later"
    assert find(kafka_server, tmp_path, topic) == (fault,)
    made.abort_transaction(20)


@pytest.mark.kafka
def test_a_topic_of_which_nothing_is_loaded_is_named(kafka_server, topic, made, tmp_path, monkeypatch):
    # Fails if only partitions with files are asked for: the denials, or a new partition, would be left out.
    write(tmp_path, good())
    fault = f"{topic} partition 0: 9 offsets are not loaded: `sidecar ledger load`"
    assert find(kafka_server, tmp_path, topic) == (fault,)
    assert find(kafka_server, tmp_path, topic, until_us=1) == (fault,)  # a start is in it
    monkeypatch.setattr(unread, "UNREAD_MAX", 8)
    monkeypatch.setattr(unread, "_read", None)
    assert find(kafka_server, tmp_path, topic) == (fault,)
    with pytest.raises(SinkError, match="no topic never"):
        find(kafka_server, tmp_path, "never.made")


class Bounds:
    """A reader of a topic in another place than the ledger is."""

    def __init__(self, low, high):
        self.low, self.high = low, high

    def partitions(self, topics):
        return "A", {topic: [0] for topic in topics}

    def bounds(self, places):
        return dict.fromkeys(places, (self.low, self.high))


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0, 7, None),
        (9, 9, "offsets 7 to 8 were deleted before a load"),
        (0, 3, "ends at 3, and the ledger has it up to 7"),
    ],
)
def test_a_topic_that_is_not_the_one_that_was_loaded_is_named(tmp_path, low, high, text):
    write(tmp_path, good())
    with open_ledger(tmp_path) as ledger:
        faults = unread_faults(Bounds(low, high), ledger, ["usage.records"], UNTIL_US)
        assert [text in fault for fault in faults] == ([True] if text else [])
        (tmp_path / "ledger.json").write_text('{"format": 1, "origins": {"usage.records": "Kafka cluster B"}}')
        faults = unread_faults(Bounds(0, 7), ledger, ["usage.records"], UNTIL_US)
        assert "Kafka cluster B, and this is Kafka cluster A" in faults[0]
