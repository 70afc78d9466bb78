"""The Kafka settings as arguments of aiokafka's clients, and the topics that they require."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sidecar.core.errors import PolicyError
from sidecar.edge.kafka.token_file import TokenFile
from sidecar.edge.kafka.topics import TopicPlan, topic_plans
from sidecar.loading.certificates import Pem, Use, client_context, read_use

if TYPE_CHECKING:
    from sidecar.config.sections import Kafka, Security
    from sidecar.config.settings import Settings

CLIENT_ID = "sidecar"


def connection(settings: Settings, pem: Pem | None = None) -> dict[str, Any]:
    """The connection arguments of aiokafka's clients. Without `pem` the certificates are read from their files.

    PolicyError: a certificate file is missing or invalid.
    """
    kafka = settings.kafka
    assert kafka is not None  # noqa: S101 - the callers ask for it
    security = kafka.security
    options: dict[str, Any] = {
        "bootstrap_servers": kafka.bootstrap_servers,
        "client_id": CLIENT_ID,
        "security_protocol": security.protocol,
    }
    if security.protocol.startswith("SASL") and security.token_file is not None:
        options |= {"sasl_mechanism": security.mechanism, "sasl_oauth_token_provider": TokenFile(security.token_file)}
    elif security.protocol.startswith("SASL"):
        assert security.password is not None  # noqa: S101 - settings reject the other case
        options |= {
            "sasl_mechanism": security.mechanism,
            "sasl_plain_username": security.username,
            "sasl_plain_password": security.password.get_secret_value(),
        }
    if security.protocol.endswith("SSL"):
        options["ssl_context"] = client_context(security, _read(settings, security) if pem is None else pem)
    return options


def _read(settings: Settings, security: Security) -> Pem:
    pem: dict[str, str] = {}
    use = Use(("kafka", "security"), security.ca, security.cert, security.key)
    if errors := read_use(use, pem):
        raise PolicyError([settings.fault((*use.loc, name), error) for name, error in errors])
    return pem


def streams(kafka: Kafka) -> Mapping[str, str]:
    """The topic of each stream of the journal."""
    return {"records": kafka.topics.records, "denials": kafka.topics.denials}


def plans(kafka: Kafka, partitions: int, replicas: int) -> tuple[TopicPlan, ...]:
    """The required topics, with partitions and replicas."""
    return topic_plans(streams(kafka), kafka.topics.positions, partitions, replicas)
