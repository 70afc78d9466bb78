"""`sidecar kafka`: the topics."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from sidecar.app.kafka import connection, plans
from sidecar.cli.options import config_option, settings_of
from sidecar.edge.kafka.topics import TopicPlan, ensure_topics, topic_faults


@click.group()
def kafka() -> None:
    """Create and check the topics."""


@kafka.command()
@config_option
@click.option(
    "--partitions",
    type=click.IntRange(1),
    default=12,
    show_default=True,
    help="Partitions of the topics of records and denials.",
)
@click.option("--replicas", type=click.IntRange(1), default=3, show_default=True, help="Replicas of each topic.")
def init(config: Path | None, partitions: int, replicas: int) -> int:
    """Create missing topics, and report wrong settings of existing ones, which are not changed.

    Topics use Kafka's append time, so that retention does not delete records that arrive late.

    Next: `sidecar run -c sidecar.yaml`.
    """
    settings = settings_of(config)
    if settings.kafka is None:
        raise click.UsageError(
            "kafka.bootstrap_servers is not set, so records go to sink.file: set it to write to Kafka"
        )
    return asyncio.run(_init(connection(settings), plans(settings.kafka, partitions, replicas)))


async def _init(to: dict[str, Any], wanted: tuple[TopicPlan, ...]) -> int:
    made = await ensure_topics(to, wanted)
    for name in made:
        click.echo(f"made {name}")
    faults = await topic_faults(to, wanted)
    for fault in faults:
        click.echo(f"{'wrong' if fault.grave else 'warning'}: {fault}", err=True)
    if not made and not faults:
        click.echo("all topics are there, and as they must be")
    return 1 if any(fault.grave for fault in faults) else 0
