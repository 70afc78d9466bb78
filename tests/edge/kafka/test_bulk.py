"""Bulk reading on a real broker: committed messages, ends behind markers, and secured listeners."""

import time

import pytest
from confluent_kafka import Producer

from sidecar.core.errors import SinkError
from sidecar.edge.kafka.bulk import BulkReader
from sidecar.edge.kafka.connection import KafkaRefusalError
from tests.edge.kafka.test_connection import with_tls, with_user
from tests.edge.kafka.topics import make_topic, make_topics
from tests.servers.certificates import make

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


def test_a_broker_is_read_over_tls_and_one_of_another_authority_is_refused(secured_kafka, tmp_path):
    # Fails if one of the clients (admin, bounds, messages) is made without the connection's TLS.
    topic = f"tls{time.monotonic_ns()}"
    make_topic(secured_kafka.bootstrap, topic, 2)
    made = producer(secured_kafka.bootstrap, topic)
    values = [bytes([number]) * 100_000 for number in range(50)]  # more than one record of TLS, and than one fetch
    transaction(made, topic, values)
    authority = secured_kafka.folder / "certificates" / "ca.pem"
    with BulkReader(with_tls(secured_kafka.ssl, authority)) as reader:
        assert reader.partitions([topic])[1] == {topic: [0, 1]}
        assert reader.bounds([(topic, 0), (topic, 1)]) == {(topic, 0): (0, 51), (topic, 1): (0, 0)}
        reader.assign({(topic, 0): 0})
        assert read_to(reader, (topic, 0), 51) == (list(enumerate(values)), 51)
        assert reader.stable_ends() == {(topic, 0): 51}
    other = with_tls(secured_kafka.ssl, make(tmp_path / "other").authority)
    with BulkReader(other) as reader, pytest.raises(KafkaRefusalError, match="not trusted"):
        reader.partitions([topic])


def test_partitions_that_are_assigned_later_are_read_beside_those_that_were(kafka_server):
    # Fails if a second assignment begins the first one's partitions anew, or reads them from where they were fetched.
    topic = f"b{time.monotonic_ns()}"
    make_topic(kafka_server.bootstrap, topic, 2)
    made = producer(kafka_server.bootstrap, topic)
    transaction(made, topic, [b"0", b"1", b"2"])
    with BulkReader({"bootstrap_servers": kafka_server.bootstrap}) as reader:
        reader.assign({(topic, 0): 0})
        assert len(read_to(reader, (topic, 0), 4)[0]) == 3
        made.begin_transaction()
        made.produce(topic, b"other", partition=1)
        made.produce(topic, b"3", partition=0)
        made.commit_transaction(20)
        reader.assign({(topic, 0): 1, (topic, 1): 0})
        messages = {(topic, 0): [], (topic, 1): []}
        positions = {}
        while positions != {(topic, 0): 6, (topic, 1): 2}:
            chunk = reader.read(0.5)
            positions = chunk.positions
            for place, pairs in chunk.messages.items():
                messages[place] += pairs
        assert messages == {(topic, 0): [(1, b"1"), (2, b"2"), (4, b"3")], (topic, 1): [(0, b"other")]}
