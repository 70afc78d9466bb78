import pytest
from aiokafka import AIOKafkaProducer

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


OAUTH = SERVERS | {
    "SIDECAR_KAFKA__SECURITY__PROTOCOL": "SASL_PLAINTEXT",
    "SIDECAR_KAFKA__SECURITY__MECHANISM": "OAUTHBEARER",
    "SIDECAR_KAFKA__SECURITY__TOKEN_FILE": "token",
}


async def test_a_token_file_is_given_to_the_client_as_its_provider(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "token").write_text("ey.J")
    options = kafka.connection(load_settings(None, OAUTH))
    assert options["sasl_mechanism"] == "OAUTHBEARER"
    assert await options["sasl_oauth_token_provider"].token() == "ey.J"
    client = AIOKafkaProducer(**options)  # which validates what it is given
    await client.stop()


@pytest.mark.parametrize("left_out", ["PROTOCOL", "MECHANISM", "TOKEN_FILE"])
def test_a_token_file_goes_with_its_mechanism_and_a_protocol(left_out):
    env = {name: value for name, value in OAUTH.items() if not name.endswith(left_out)}
    with pytest.raises(PolicyError, match=r"kafka\.security\.token_file: goes with"):
        load_settings(None, env)


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
