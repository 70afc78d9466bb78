"""A Kafka that is away is told once, with its cause, and aiokafka's line per try stays out of the log."""

import socket

import pytest
from aiokafka import AIOKafkaProducer, errors

from sidecar.edge.kafka.connection import no_connection


# Fails if the filter is not on the logger that aiokafka's client writes to.
async def test_a_refused_connection_is_told_in_plain_words_and_not_by_aiokafka(caplog):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        server = f"127.0.0.1:{closed.getsockname()[1]}"
    producer = AIOKafkaProducer(bootstrap_servers=server)
    with pytest.raises(errors.KafkaConnectionError):
        await producer.start()
    await producer.stop()
    assert no_connection(server) == f"no connection to kafka.bootstrap_servers ({server}): connection refused"
    assert not [record for record in caplog.records if record.name == "aiokafka"]
