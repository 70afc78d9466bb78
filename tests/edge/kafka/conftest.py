import pytest

from sidecar.edge.kafka.sink import KafkaSink
from tests.edge.kafka.topics import make_topics


@pytest.fixture
def topics(kafka_server):
    return make_topics(kafka_server.bootstrap)


@pytest.fixture
async def sink(topics):
    made = KafkaSink(topics.options())
    yield made
    await made.close()
