"""The topics that the sidecar writes to: made as they must be, and told apart from those that are not.

What exists is never altered: an operator's topic is reported with what it lacks. Records bear Kafka's append time,
because a retention that goes by the record's own time would delete late ones before anybody read them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from aiokafka import errors
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from sidecar.core.errors import SinkError

DAY_MS: Final = 86_400_000
RECORD_RETENTION_MS: Final = 400 * DAY_MS  # a year of invoices, and the month in which the last one is disputed
DENIAL_RETENTION_MS: Final = 30 * DAY_MS
MIN_MESSAGE_BYTES: Final = 1_048_588  # Kafka's default; the sink's largest batch fits

_STREAM: Final = {"message.timestamp.type": "LogAppendTime", "cleanup.policy": "delete", "retention.bytes": "-1"}
# Small segments, cleaned early: the shipper reads this topic from its start when it opens, so it must stay short.
_POSITIONS: Final = {
    "message.timestamp.type": "LogAppendTime",
    "cleanup.policy": "compact",
    "segment.bytes": "16777216",
    "segment.ms": "600000",
    "min.cleanable.dirty.ratio": "0.05",
    "max.compaction.lag.ms": "3600000",
    "delete.retention.ms": "3600000",
}
# What makes a topic wrong, rather than merely other than we would have made it: setting -> why.
_REQUIRED: Final = {
    "message.timestamp.type": "retention by the records' own time deletes late records before they are read",
    "cleanup.policy": "records must not be compacted away, and positions must never expire",
}


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """A topic as it is to be."""

    name: str
    partitions: int
    replicas: int
    settings: Mapping[str, str] = field(default_factory=dict)


class TopicFault(NamedTuple):
    """What a topic lacks. `grave`: shipping to it would fail or lose; else a warning."""

    topic: str
    what: str
    grave: bool = True

    def __str__(self) -> str:
        return f"{self.topic}: {self.what}"


def topic_plans(
    streams: Mapping[str, str], positions: str, partitions: int = 12, replicas: int = 3
) -> tuple[TopicPlan, ...]:
    """The plans for the topics of `streams` ("records" and "denials" to names) and for that of the positions."""
    safe = {"min.insync.replicas": "2"} if replicas >= 3 else {}
    keep = {"records": RECORD_RETENTION_MS, "denials": DENIAL_RETENTION_MS}
    plans = [
        TopicPlan(name, partitions, replicas, {**_STREAM, **safe, "retention.ms": str(keep[stream])})
        for stream, name in streams.items()
    ]
    return (*plans, TopicPlan(positions, 1, replicas, {**_POSITIONS, **safe}))


async def ensure_topics(connection: Mapping[str, Any], plans: Sequence[TopicPlan]) -> list[str]:
    """Make the topics that are missing; the names of those that were. `connection` in aiokafka's names.

    SinkError: Kafka does not answer or will not make one.
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
        return [plan.name for plan in missing]


def _raise_refused(answers: Sequence[Mapping[str, Any]]) -> None:
    refused = []
    for answer in answers:
        error = errors.for_code(answer["error_code"])
        if error not in {errors.NoError, errors.TopicAlreadyExistsError}:  # another `init` was quicker
            refused.append(f"{answer['topic']}: {answer.get('error_message') or error.__name__}")
    if refused:
        raise SinkError("Kafka did not make " + "; ".join(refused))


async def topic_faults(connection: Mapping[str, Any], plans: Sequence[TopicPlan]) -> list[TopicFault]:
    """What the topics lack, in the order of `plans`. SinkError: Kafka does not answer."""
    async with _admin(connection) as admin:
        known = {topic["topic"]: topic for topic in await admin.describe_topics()}
        found: list[TopicFault] = []
        for plan in plans:
            if plan.name not in known:
                found.append(TopicFault(plan.name, "is missing: `sidecar kafka init` makes it"))
                continue
            settings = await _settings(admin, plan.name)
            found += _faults(plan, settings, [part["replicas"] for part in known[plan.name]["partitions"]])
        return found


async def _settings(admin: Any, topic: str) -> dict[str, str]:
    (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    ((code, message, _, _, entries),) = answer.resources
    if code:
        raise SinkError(f"{topic}: its settings cannot be read: {message or errors.for_code(code).__name__}")
    return {entry[0]: entry[1] for entry in entries}


def _faults(plan: TopicPlan, settings: Mapping[str, str], replicas: Sequence[Sequence[int]]) -> list[TopicFault]:
    """The pure rule: what a topic with these `settings`, and a list of replicas a partition, lacks."""
    found = [
        TopicFault(plan.name, f"{name} is {settings.get(name)}, not {plan.settings[name]}: {why}")
        for name, why in _REQUIRED.items()
        if settings.get(name) != plan.settings[name]
    ]
    if int(settings.get("max.message.bytes", MIN_MESSAGE_BYTES)) < MIN_MESSAGE_BYTES:
        found.append(
            TopicFault(
                plan.name,
                f"max.message.bytes is {settings['max.message.bytes']}, less than {MIN_MESSAGE_BYTES}:"
                " larger records would go to quarantine",
            )
        )
    if plan.settings["cleanup.policy"] == "compact" and len(replicas) != 1:
        found.append(TopicFault(plan.name, f"has {len(replicas)} partitions where one is used: make it anew", False))
    fewest = min(map(len, replicas), default=0)
    if fewest == 1:
        found.append(TopicFault(plan.name, "has one replica: a lost broker takes the records with it", False))
    elif fewest >= 3 and settings.get("min.insync.replicas") == "1":
        found.append(TopicFault(plan.name, "min.insync.replicas is 1: acks=all then waits for one broker only", False))
    return found


@asynccontextmanager
async def _admin(connection: Mapping[str, Any]) -> AsyncIterator[Any]:
    admin = AIOKafkaAdminClient(request_timeout_ms=10_000, **connection)
    try:
        await admin.start()
        yield admin
    except (errors.KafkaError, TimeoutError, OSError) as error:
        raise SinkError(f"Kafka at {connection['bootstrap_servers']}: {type(error).__name__}: {error}") from error
    finally:
        await admin.close()
