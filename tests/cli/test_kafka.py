import uuid

import pytest
from confluent_kafka.admin import AdminClient

pytestmark = pytest.mark.kafka


@pytest.fixture
def broker(kafka_server):
    return kafka_server.bootstrap


@pytest.fixture
def environment(broker):
    some = uuid.uuid4().hex[:8]
    return {
        "SIDECAR_KAFKA__BOOTSTRAP_SERVERS": broker,
        "SIDECAR_KAFKA__TOPICS__RECORDS": f"records-{some}",
        "SIDECAR_KAFKA__TOPICS__DENIALS": f"denials-{some}",
        "SIDECAR_KAFKA__TOPICS__POSITIONS": f"positions-{some}",
    }


def test_init_makes_what_is_missing_and_alters_nothing(sidecar, folder, broker, environment):
    status, out, err = sidecar(
        "kafka", "init", "-c", "sidecar.yaml", "--replicas", "1", "--partitions", "3", **environment
    )
    assert status == 0
    assert out.count("made ") == 3
    assert "has one replica" in err
    topics = AdminClient({"bootstrap.servers": broker}).list_topics(timeout=10).topics
    assert len(topics[environment["SIDECAR_KAFKA__TOPICS__RECORDS"]].partitions) == 3
    status, out, _ = sidecar("kafka", "init", "-c", "sidecar.yaml", "--replicas", "1", **environment)
    assert (status, out) == (0, "")


def test_check_names_the_topics_that_are_missing(sidecar, folder, environment):
    status, _, err = sidecar("check", "-c", "sidecar.yaml", **environment)
    assert status == 0
    assert err.count("is missing: `sidecar kafka init` creates it") == 3


def test_a_broker_that_does_not_answer_is_status_1_in_one_line(sidecar, folder):
    status, out, err = sidecar("kafka", "init", "-c", "sidecar.yaml", SIDECAR_KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1")
    assert (status, out) == (1, "")
    assert err.startswith("sidecar: Kafka: no connection to kafka.bootstrap_servers (127.0.0.1:1): connection refused")
    assert err.count("\n") == 1
