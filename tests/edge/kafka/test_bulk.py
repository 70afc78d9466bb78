"""Bulk reading on a real broker: committed messages, ends behind markers, and secured listeners."""

import pytest
from confluent_kafka import Producer

from sidecar.core.errors import SinkError
from sidecar.edge.kafka import bulk
from sidecar.edge.kafka.bulk import BulkReader
from sidecar.edge.kafka.connection import KafkaRefusalError
from tests.edge.kafka.topics import make_topic, make_topics

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


def read_all(reader, place):
    found = []
    while True:
        chunk = reader.read(0.5)
        found += chunk.messages.get(place, [])
        if place in chunk.ends:
            return found, chunk.ends[place]


def test_committed_messages_are_read_and_the_end_is_behind_the_markers(kafka_server):
    topic = make_topics(kafka_server.bootstrap).denials
    made = producer(kafka_server.bootstrap, topic)
    transaction(made, topic, [b"1", b"2"])
    transaction(made, topic, [b"3"], abort=True)
    transaction(made, topic, [b"4"])
    made.begin_transaction()
    made.produce(topic, b"open", partition=0)
    made.flush(20)
    with BulkReader({"bootstrap.servers": kafka_server.bootstrap}) as reader:
        _, partitions = reader.partitions([topic])
        assert partitions == {topic: [0]}
        # Fails if the end is asked for by a reader of committed messages: an open transaction would not be waited for.
        assert reader.bounds([(topic, 0)]) == {(topic, 0): (0, 8)}
        reader.assign({(topic, 0): 0})
        assert read_all(reader, (topic, 0)) == ([(0, b"1"), (1, b"2"), (5, b"4")], 7)
        made.commit_transaction(20)
        assert read_all(reader, (topic, 0)) == ([(7, b"open")], 9)


def test_a_missing_topic_and_an_absent_broker_are_named(kafka_server, monkeypatch):
    monkeypatch.setattr(bulk, "_ANSWER_SECONDS", 1)
    with (
        BulkReader({"bootstrap.servers": kafka_server.bootstrap}) as reader,
        pytest.raises(SinkError, match="no topic never"),
    ):
        reader.partitions(["never.made"])
    with (
        BulkReader({"bootstrap.servers": "127.0.0.1:1"}) as reader,
        pytest.raises(SinkError, match=r"127\.0\.0\.1:1"),
    ):
        reader.partitions(["t"])


def options_of(secured_kafka, **options):
    return {name.replace("_", "."): value for name, value in options.items()} | {
        "bootstrap.servers": secured_kafka.sasl
    }


def test_a_secured_broker_is_read_with_a_password_and_refuses_a_wrong_one(secured_kafka):
    name = make_topics(secured_kafka.bootstrap).denials
    make_topic(secured_kafka.bootstrap, f"{name}.x", 1)
    how = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "sasl_username": "root"}
    with BulkReader(options_of(secured_kafka, **how, sasl_password="right")) as reader:
        assert reader.partitions([name])[1] == {name: [0]}
    wrong = options_of(secured_kafka, **how, sasl_password="wrong")
    with BulkReader(wrong) as reader, pytest.raises(KafkaRefusalError, match=r"kafka\.security"):
        reader.partitions([name])
