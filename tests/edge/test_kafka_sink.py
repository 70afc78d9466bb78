"""The Kafka sink against a real broker, read back with librdkafka and read_committed."""

import pytest

from sidecar.edge.kafka_sink import KafkaSink
from tests.edge.shipping import make_topics, positions, read_topic, record, sequences

pytestmark = [pytest.mark.kafka]

SOURCE = "//sidecar/test/n/0/1"


@pytest.fixture
def topics(kafka_server):
    return make_topics(kafka_server.bootstrap)


async def test_records_denials_and_positions_are_committed_as_one(topics):
    sink = KafkaSink(topics.options())
    assert await sink.open() == {}
    await sink.commit([*map(record, range(1, 201)), record(1, stream="denials")], {"0": "p1", "1": "q1"})
    await sink.close()
    assert sorted(sequences(read_topic(topics.bootstrap, topics.records))[SOURCE]) == list(range(1, 201))
    assert sequences(read_topic(topics.bootstrap, topics.denials)) == {SOURCE: [1]}
    assert positions(topics) == {b"n1/0": b"p1", b"n1/1": b"q1"}
    assert await sink.open() == {"0": "p1", "1": "q1"}
    await sink.close()
