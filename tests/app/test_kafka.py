import pytest

from sidecar.app import kafka
from sidecar.config.settings import load_settings
from sidecar.core.errors import PolicyError

SERVERS = {"SIDECAR_KAFKA__BOOTSTRAP_SERVERS": "h:1"}
SASL = SERVERS | {
    "SIDECAR_KAFKA__SECURITY__PROTOCOL": "SASL_SSL",
    "SIDECAR_KAFKA__SECURITY__MECHANISM": "SCRAM-SHA-256",
    "SIDECAR_KAFKA__SECURITY__USERNAME": "u",
    "SIDECAR_KAFKA__SECURITY__PASSWORD": "p",
}


def test_a_plain_connection_is_servers_and_protocol():
    assert kafka.connection(load_settings(None, SERVERS)) == {
        "bootstrap_servers": "h:1",
        "client_id": "sidecar",
        "security_protocol": "PLAINTEXT",
    }


def test_credentials_and_tls_are_told_in_the_words_of_the_client():
    found = kafka.connection(load_settings(None, SASL))
    assert (found["sasl_mechanism"], found["sasl_plain_username"], found["sasl_plain_password"]) == (
        "SCRAM-SHA-256",
        "u",
        "p",
    )
    assert found["ssl_context"].check_hostname is True


def test_a_certificate_that_is_not_there_is_a_fault():
    settings = load_settings(None, SASL | {"SIDECAR_KAFKA__SECURITY__CA": "nowhere.pem"})
    with pytest.raises(
        PolicyError,
        match=r"^SIDECAR_KAFKA__SECURITY__CA: kafka\.security\.ca: .*nowhere\.pem cannot be read: No such file",
    ):
        kafka.connection(settings)


def test_every_stream_has_its_topic_and_positions_have_theirs():
    settings = load_settings(None, SERVERS | {"SIDECAR_KAFKA__TOPICS__DENIALS": "no"})
    assert kafka.streams(settings.kafka) == {"records": "usage.records", "denials": "no"}
    plans = kafka.plans(settings.kafka, 3, 1)
    assert [(plan.name, plan.partitions) for plan in plans] == [("usage.records", 3), ("no", 3), ("usage.positions", 1)]
