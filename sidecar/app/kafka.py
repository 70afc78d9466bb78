"""Kafka as the settings name it: the connection in aiokafka's own words, and the topics as they are to be."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sidecar.core.errors import Fault, PolicyError
from sidecar.edge.kafka_topics import TopicPlan, topic_plans

if TYPE_CHECKING:
    from sidecar.config.sections import Kafka, Security

CLIENT_ID = "sidecar"


def connection(kafka: Kafka) -> dict[str, Any]:
    """What aiokafka's clients take: servers, protocol, credentials, certificates. PolicyError: a file is wrong."""
    security = kafka.security
    found: dict[str, Any] = {
        "bootstrap_servers": kafka.bootstrap_servers,
        "client_id": CLIENT_ID,
        "security_protocol": security.protocol,
    }
    if security.protocol.startswith("SASL"):
        assert security.password is not None  # noqa: S101 - settings refuse the other case
        found |= {
            "sasl_mechanism": security.mechanism,
            "sasl_plain_username": security.username,
            "sasl_plain_password": security.password.get_secret_value(),
        }
    if security.protocol.endswith("SSL"):
        found["ssl_context"] = _tls(security)
    return found


def _tls(security: Security) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=security.ca)
        if security.cert is not None:
            context.load_cert_chain(security.cert, security.key)
    except OSError as error:  # also ssl.SSLError: not PEM, or a key of another certificate
        raise PolicyError([Fault("settings", 0, "kafka.security", f"ca, cert or key: {error}")]) from None
    return context


def streams(kafka: Kafka) -> Mapping[str, str]:
    """Topics by stream of the journal."""
    return {"records": kafka.topics.records, "denials": kafka.topics.denials}


def plans(kafka: Kafka, partitions: int, replicas: int) -> tuple[TopicPlan, ...]:
    """The topics as they are to be."""
    return topic_plans(streams(kafka), kafka.topics.positions, partitions, replicas)
