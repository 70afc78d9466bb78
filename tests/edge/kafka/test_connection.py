"""A Kafka that is away is told once, with its cause, and aiokafka's line per try stays out of the log."""

import dataclasses
import socket
import ssl

import pytest
from aiokafka import AIOKafkaProducer, errors

from sidecar.core.errors import SinkError
from sidecar.edge.kafka.connection import KafkaRefusalError, explain, no_connection
from sidecar.edge.kafka.sink import KafkaSink
from sidecar.edge.kafka.topics import topic_faults, topic_plans
from tests.edge.kafka.topics import make_topics
from tests.servers.certificates import make


# Fails if the filter is not on the logger that aiokafka's client writes to.
async def test_a_refused_connection_is_told_in_plain_words_and_not_by_aiokafka(caplog):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        server = f"127.0.0.1:{closed.getsockname()[1]}"
    producer = AIOKafkaProducer(bootstrap_servers=server)
    with pytest.raises(errors.KafkaConnectionError):
        await producer.start()
    await producer.stop()
    assert (
        no_connection(server)
        == f"no connection to kafka.bootstrap_servers ({server}): connection refused: start it, or correct the address"
    )
    assert not [record for record in caplog.records if record.name == "aiokafka"]


def with_user(server, name="ann", password="right", mechanism="PLAIN"):
    return {
        "bootstrap_servers": server.sasl,
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": mechanism,
        "sasl_plain_username": name,
        "sasl_plain_password": password,
    }


def with_tls(bootstrap, authority):
    context = ssl.create_default_context(cafile=str(authority))
    return {"bootstrap_servers": bootstrap, "security_protocol": "SSL", "ssl_context": context}


@pytest.fixture
def options(secured_kafka, tmp_path):
    """Connection arguments that the broker, or the client, refuses; by what is wrong."""
    authority = secured_kafka.folder / "certificates" / "ca.pem"
    plain = {"bootstrap_servers": secured_kafka.bootstrap}
    return {
        "password": with_user(secured_kafka, password="wrong"),
        "mechanism": with_user(secured_kafka, mechanism="SCRAM-SHA-256"),
        "no SASL there": with_user(secured_kafka) | plain,
        "authority": with_tls(secured_kafka.ssl, make(tmp_path / "other").authority),
        "name": with_tls(secured_kafka.ssl.replace("127.0.0.1", "localhost"), authority),
        "TLS there": {"bootstrap_servers": secured_kafka.ssl},
        "no TLS there": with_tls(secured_kafka.bootstrap, authority),
    }


REFUSED = {
    "password": "the broker refuses this user, password or token: correct them in kafka.security",
    "mechanism": "does not offer this mechanism: set kafka.security.mechanism to one that its listener enables",
    "no SASL there": "takes no user: set kafka.security.protocol to that of the listener",
    "authority": "is not trusted (unable to get local issuer certificate): set kafka.security.ca to its authority",
    "name": "certificate is not valid for 'localhost'): write a name of it in kafka.bootstrap_servers",
}
CLOSED = "closed the connection: if it does so each time, kafka.security.protocol is not its listener's"


# An untrusted certificate was `operation not permitted` in the log, and all of them `Unable to bootstrap` in check.
@pytest.mark.kafka
@pytest.mark.parametrize(("wrong", "text"), [*REFUSED.items(), ("TLS there", CLOSED), ("no TLS there", CLOSED)])
async def test_a_broker_that_refuses_is_shown_with_the_setting_that_is_wrong(secured_kafka, options, wrong, text):
    with pytest.raises(SinkError) as checked:
        await topic_faults(options[wrong], topic_plans({"records": "r"}, "p"))
    assert text in str(checked.value)
    assert isinstance(checked.value, KafkaRefusalError) is (wrong in REFUSED)
    topics = make_topics(secured_kafka.bootstrap)
    sink = KafkaSink(dataclasses.replace(topics.options(), connection=options[wrong], no_connection=no_connection))
    with pytest.raises(SinkError) as shipped:
        await sink.open()
    await sink.close()
    assert text in str(shipped.value)


@pytest.mark.kafka
async def test_a_user_without_permissions_learns_what_to_allow_it(secured_kafka):
    topics = make_topics(secured_kafka.bootstrap)
    plans = topic_plans(topics.options().topics, topics.positions)
    faults = await topic_faults(with_user(secured_kafka), plans)
    assert [fault.is_refusal for fault in faults] == [True] * 3
    assert "or this user may not see it: allow the user what docs/kafka.md lists" in faults[0].what
    sink = KafkaSink(dataclasses.replace(topics.options(), connection=with_user(secured_kafka)))
    with pytest.raises(SinkError, match=r"write with the transactional id \S+: allow it WRITE and DESCRIBE there"):
        await sink.open()
    await sink.close()
    assert not [fault for fault in await topic_faults(with_user(secured_kafka, "root"), plans) if fault.is_refusal]


def test_another_error_is_named_by_its_class():
    assert explain(errors.UnknownError("x")) == "UnknownError: [Error -1] UnknownError: x"
    assert explain(TimeoutError()) == "no answer in time"
