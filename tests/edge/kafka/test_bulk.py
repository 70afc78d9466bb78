"""Bulk reading on a real broker: committed messages, ends behind markers, and secured listeners."""

import pytest
from confluent_kafka import Producer

from sidecar.core.errors import SinkError
from sidecar.edge.kafka.bulk import BulkReader
from sidecar.edge.kafka.connection import KafkaRefusalError
from tests.edge.kafka.test_connection import with_user
from tests.edge.kafka.topics import make_topics

pytestmark = [pytest.mark.kafka]


def producer(bootstrap, name):
    made = Producer({"bootstrap.servers": bootstrap, "transactional.id": name, "log_level": 0})
    made.init_transactions(20)
    return made


def transaction(made, topic, values, *, abort=False):
    made.begin_transaction()
    for value in values:
        made.produce(topic, value, partition=0)
    made.flush(20)
    made.abort_transaction(20) if abort else made.commit_transaction(20)


def read_to(reader, place, end):
    found = []
    while True:
        chunk = reader.read(0.5)
        found += chunk.messages.get(place, [])
        if chunk.positions[place] >= end:
            return found, chunk.positions[place]


def test_committed_messages_are_read_and_the_end_is_behind_the_markers(kafka_server):
    topic = make_topics(kafka_server.bootstrap).denials
    made = producer(kafka_server.bootstrap, topic)
    transaction(made, topic, [b"1", b"2"])
    transaction(made, topic, [b"3"], abort=True)
    transaction(made, topic, [b"4"])
    made.begin_transaction()
    made.produce(topic, b"open", partition=0)
    made.flush(20)
    with BulkReader({"bootstrap_servers": kafka_server.bootstrap}) as reader:
        cluster, partitions = reader.partitions([topic])
        assert (bool(cluster), partitions) == (True, {topic: [0]})
        # Fails if the end is asked for by a reader of committed messages: an open transaction would not be waited for.
        assert reader.bounds([(topic, 0)]) == {(topic, 0): (0, 8)}
        reader.assign({(topic, 0): 0})
        assert read_to(reader, (topic, 0), 7) == ([(0, b"1"), (1, b"2"), (5, b"4")], 7)
        assert reader.stable_ends() == {(topic, 0): 7}
        made.commit_transaction(20)
        assert read_to(reader, (topic, 0), 9) == ([(7, b"open")], 9)


def test_an_offset_that_is_not_there_is_an_error(kafka_server):
    topic = make_topics(kafka_server.bootstrap).denials
    with BulkReader({"bootstrap_servers": kafka_server.bootstrap}) as reader:
        reader.assign({(topic, 0): 100})
        # Fails if reading goes on at the first offset that there is: nobody would know of the gap.
        with pytest.raises(SinkError, match="OffsetOutOfRange"):
            [reader.read(0.5) for _ in range(10)]


def test_a_missing_topic_and_an_absent_broker_are_named(kafka_server):
    here = {"bootstrap_servers": kafka_server.bootstrap}
    with BulkReader(here) as reader, pytest.raises(SinkError, match="no topic never"):
        reader.partitions(["never.made"])
    with BulkReader({"bootstrap_servers": "127.0.0.1:1"}) as reader, pytest.raises(SinkError, match=r"127\.0\.0\.1:1"):
        reader.partitions(["t"])


def test_a_secured_broker_is_read_with_a_password_and_refuses_a_wrong_one(secured_kafka):
    name = make_topics(secured_kafka.bootstrap).denials
    made = producer(secured_kafka.bootstrap, name)
    transaction(made, name, [b"1"])
    with BulkReader(with_user(secured_kafka, "root")) as reader:
        assert reader.partitions([name])[1] == {name: [0]}
        reader.assign({(name, 0): 0})
        assert read_to(reader, (name, 0), 2)[0] == [(0, b"1")]
    wrong = with_user(secured_kafka, password="wrong")
    with BulkReader(wrong) as reader, pytest.raises(KafkaRefusalError, match=r"kafka\.security"):
        reader.partitions([name])
