"""The topics that the sidecar writes to: creation, and a report of their faults.

An existing topic is never altered, only reported. Records get Kafka's append time, because a retention by their own
time would delete late records before they are read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final, NamedTuple

from aiokafka import errors
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.protocol.metadata import MetadataRequest

from sidecar.core.errors import SinkError
from sidecar.edge.kafka.connection import failing

DAY_MS: Final = 86_400_000
RECORD_RETENTION_MS: Final = 400 * DAY_MS  # a year of invoices, and the month in which the last one is disputed
DENIAL_RETENTION_MS: Final = 30 * DAY_MS
MIN_MESSAGE_BYTES: Final = 1_048_588  # Kafka's default; the sink's largest batch fits

_KNOWN_SECONDS: Final = 30
_POLL_SECONDS: Final = 0.05

_STREAM: Final = {"message.timestamp.type": "LogAppendTime", "cleanup.policy": "delete", "retention.bytes": "-1"}
# Small segments, compacted early: the shipper reads this topic from its start when it opens, so it must stay short.
_POSITIONS: Final = {
    "message.timestamp.type": "LogAppendTime",
    "cleanup.policy": "compact",
    "segment.bytes": "16777216",
    "segment.ms": "600000",
    "min.cleanable.dirty.ratio": "0.05",
    "max.compaction.lag.ms": "3600000",
    "delete.retention.ms": "3600000",
}
# The settings that must be ours (others may differ): setting -> why.
_REQUIRED: Final = {
    "message.timestamp.type": "retention by the records' own time deletes late records before they are read",
    "cleanup.policy": "records must not be compacted away, and positions must never expire",
}


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """The intended properties of a topic."""

    name: str
    partitions: int
    replicas: int
    settings: Mapping[str, str] = field(default_factory=dict)


class TopicFault(NamedTuple):
    """A fault of a topic. `grave`: shipping to it would fail or lose records; otherwise it is a warning.

    `is_refusal`: the broker does not let this user see it.
    """

    topic: str
    what: str
    grave: bool = True
    is_refusal: bool = False

    def __str__(self) -> str:
        return f"{self.topic}: {self.what}"


def topic_plans(
    streams: Mapping[str, str], positions: str, partitions: int = 12, replicas: int = 3
) -> tuple[TopicPlan, ...]:
    """The plans of the topics in `streams` ("records" and "denials" to names), and of the topic of positions."""
    safe = {"min.insync.replicas": "2"} if replicas >= 3 else {}
    keep = {"records": RECORD_RETENTION_MS, "denials": DENIAL_RETENTION_MS}
    plans = [
        TopicPlan(name, partitions, replicas, {**_STREAM, **safe, "retention.ms": str(keep[stream])})
        for stream, name in streams.items()
    ]
    return (*plans, TopicPlan(positions, 1, replicas, {**_POSITIONS, **safe}))


async def ensure_topics(connection: Mapping[str, Any], plans: Sequence[TopicPlan]) -> list[str]:
    """Create missing topics, and wait until every broker knows them. Returns the names of the created topics.

    `connection` has aiokafka's parameters. SinkError: Kafka does not answer, or refuses to create one.
    """
    async with _admin(connection) as admin:
        known = await admin.list_topics()
        missing = [plan for plan in plans if plan.name not in known]
        if not missing:
            return []
        new = [
            NewTopic(plan.name, plan.partitions, plan.replicas, topic_configs=dict(plan.settings)) for plan in missing
        ]
        answer = (await admin.create_topics(new)).to_object()
        _raise_refused(answer["topic_errors"])
        names = [plan.name for plan in missing]
        await _known_everywhere(admin, set(names))
        return names


async def _known_everywhere(admin: Any, topics: set[str]) -> None:
    """Wait until each broker that answers knows `topics` and the leaders of their partitions.

    The controller acknowledges a topic before the brokers know it, and any broker may get the next request.
    """
    deadline = monotonic() + _KNOWN_SECONDS
    brokers = (await admin.describe_cluster())["brokers"]
    for broker in brokers:
        while missing := topics - await _led_topics(admin, broker["node_id"], topics):
            if monotonic() > deadline:
                raise SinkError(
                    f"created {', '.join(sorted(topics))}, but broker {broker['node_id']} does not know "
                    f"{', '.join(sorted(missing))} after {_KNOWN_SECONDS} s: run the command again"
                )
            await asyncio.sleep(_POLL_SECONDS)


async def _led_topics(admin: Any, broker: int, topics: set[str]) -> set[str]:
    """The topics that a broker knows with a leader for each partition; `topics` if it does not answer.

    The request is for all topics, because a request for one topic may create it. The method is private to aiokafka,
    which is another reason to pin its version.
    """
    try:
        answer = (await admin._send_request_to_node(broker, MetadataRequest(None))).to_object()
    except (errors.KafkaError, TimeoutError, OSError):
        return topics
    return {
        topic["topic"]
        for topic in answer["topics"]
        if topic["partitions"] and all(part["leader"] >= 0 for part in topic["partitions"])
    }


def _raise_refused(answers: Sequence[Mapping[str, Any]]) -> None:
    refused = []
    for answer in answers:
        error = errors.for_code(answer["error_code"])
        if error not in {errors.NoError, errors.TopicAlreadyExistsError}:  # created by another `init` at the same time
            remedy = ": choose the number with --replicas" if error is errors.InvalidReplicationFactorError else ""
            refused.append(f"{answer['topic']}: {answer.get('error_message') or error.__name__}{remedy}")
    if refused:
        raise SinkError("Kafka did not create " + "; ".join(refused))


async def topic_faults(connection: Mapping[str, Any], plans: Sequence[TopicPlan]) -> list[TopicFault]:
    """The faults of the topics, in the order of `plans`. SinkError: Kafka does not answer."""
    async with _admin(connection) as admin:
        known = {topic["topic"]: topic for topic in await admin.describe_topics()}
        faults: list[TopicFault] = []
        for plan in plans:
            if plan.name not in known:
                faults.append(await _absence(admin, plan.name))
                continue
            settings = await _settings(admin, plan.name)
            faults += _faults(plan, settings, [part["replicas"] for part in known[plan.name]["partitions"]])
        return faults


async def _absence(admin: Any, topic: str) -> TopicFault:
    """Why a topic is not among those that this user sees. A broker names no topic to a user without DESCRIBE."""
    code, _, _ = await _described(admin, topic)
    if code == errors.TopicAuthorizationFailedError.errno:
        what = "is missing, or this user may not see it: allow the user what docs/kafka.md lists, then check again"
        return TopicFault(topic, what, is_refusal=True)
    return TopicFault(topic, "is missing: `sidecar kafka init` creates it")


async def _described(admin: Any, topic: str) -> tuple[int, str, Sequence[Any]]:
    """The error code, its message, and the settings of a topic."""
    (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    ((code, message, _, _, entries),) = answer.resources
    return code, message, entries


async def _settings(admin: Any, topic: str) -> dict[str, str]:
    code, message, entries = await _described(admin, topic)
    if code:
        raise SinkError(f"{topic}: its settings cannot be read: {message or errors.for_code(code).__name__}")
    return {entry[0]: entry[1] for entry in entries}


def _faults(plan: TopicPlan, settings: Mapping[str, str], replicas: Sequence[Sequence[int]]) -> list[TopicFault]:
    """The faults of a topic with these `settings`, and these replicas of each partition."""
    faults = [
        TopicFault(plan.name, f"{name} is {settings.get(name)}, not {plan.settings[name]}: {why}")
        for name, why in _REQUIRED.items()
        if settings.get(name) != plan.settings[name]
    ]
    if int(settings.get("max.message.bytes", MIN_MESSAGE_BYTES)) < MIN_MESSAGE_BYTES:
        faults.append(
            TopicFault(
                plan.name,
                f"max.message.bytes is {settings['max.message.bytes']}, less than {MIN_MESSAGE_BYTES}:"
                " larger records would be quarantined",
            )
        )
    if plan.settings["cleanup.policy"] == "compact" and len(replicas) != 1:
        faults.append(
            TopicFault(plan.name, f"has {len(replicas)} partitions, and only one is used: create it again", False)
        )
    fewest = min(map(len, replicas), default=0)
    if fewest == 1:
        faults.append(TopicFault(plan.name, "has one replica: if its broker is lost, so are the records", False))
    elif fewest >= 3 and settings.get("min.insync.replicas") == "1":
        faults.append(TopicFault(plan.name, "min.insync.replicas is 1: acks=all then waits for one broker only", False))
    return faults


@asynccontextmanager
async def _admin(connection: Mapping[str, Any]) -> AsyncIterator[Any]:
    admin = AIOKafkaAdminClient(request_timeout_ms=10_000, **connection)
    with failing("Kafka", connection):
        try:
            await admin.start()
            yield admin
        finally:
            await admin.close()
