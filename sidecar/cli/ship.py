"""`sidecar ship`: carry a journal to where records go, and stop: for a dead node's volume, or before a move."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from sidecar.app.shipping import ship as carry
from sidecar.cli.options import config_option, settings_of
from sidecar.core.errors import SinkError
from sidecar.core.words import counted
from sidecar.edge.clock import SystemClock
from sidecar.edge.journal.backlog import measure


@click.command()
@config_option
@click.option(
    "--journal",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="The journal's folder. Default: journal.dir of the settings.",
)
@click.option("--node", help="The name of the node that wrote it. Default: node of the settings.")
@click.option(
    "--seconds",
    type=click.IntRange(1),
    default=3600,
    show_default=True,
    help="Stop after this many seconds, even if something is left.",
)
def ship(config: Path | None, journal: Path | None, node: str | None, seconds: int) -> int:
    """Ship a journal to Kafka (or to sink.file) and stop when it is empty.

    Exchanges that its workers left open are closed as `crashed` first, unless a worker still runs.

    If it was interrupted, start it again: what was committed is not sent twice. Positions are kept by node name, so
    a dead node's volume is shipped under that node's name. Exit status 1: records are left.

    Next: `sidecar records verify` proves that nothing is missing.
    """
    settings = settings_of(config)
    if journal is not None:
        settings = settings.model_copy(update={"journal": settings.journal.model_copy(update={"dir": journal})})
    if node is not None:
        settings = settings.model_copy(update={"node": node})
    if not settings.journal.dir.is_dir():
        raise SinkError(f"{settings.journal.dir}: there is no journal: name its folder with --journal")
    empty, shipping = asyncio.run(carry(settings, seconds))
    figures, left = shipping.shipper.figures, measure(settings.journal.dir, SystemClock().now_us())
    click.echo(f"shipped {figures.shipped}, quarantined {figures.quarantined}, left {left.bytes} bytes")
    if shipping.orphans.recovered:
        click.echo(
            f"closed {counted(shipping.orphans.recovered, 'exchange')} as crashed, which the journal's workers had open"
        )
    if not empty:
        reasons = [figures.last_error, *shipping.orphans.faults.values()]
        click.echo(f"sidecar: {'; '.join(filter(None, dict.fromkeys(reasons))) or 'time is over'}", err=True)
    return 0 if empty else 1
