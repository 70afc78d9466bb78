"""`sidecar counters`: manage the counters in Redis."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from sidecar.cli.options import config_option, settings_of
from sidecar.edge.redis.losses import accept_losses


@click.group()
def counters() -> None:
    """Manage the counters in Redis."""


@counters.command("accept-loss")
@config_option
def accept_loss(config: Path | None) -> int:
    """Admit requests again for limits with `on_store_loss: deny`, after Redis came back empty.

    All nodes follow within a second. The counters continue from their present values.

    Next: `sidecar_store_losses_total` and the log show when Redis was lost. Give Redis persistence.
    """
    settings = settings_of(config)
    if settings.redis is None:
        raise click.UsageError("redis.url is not set: the counters are in memory, so no Redis can lose them")
    losses = asyncio.run(accept_losses(settings.redis.endpoint))
    plural = "es" if losses > 1 else ""
    effect = "limits with `on_store_loss: deny` admit again within a second"
    click.echo(f"{losses} loss{plural} accepted: {effect}" if losses else "no loss is recorded")
    return 0
