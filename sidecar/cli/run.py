"""`sidecar run`: the node, until a signal ends it."""

from __future__ import annotations

from pathlib import Path

import click

from sidecar.app.processes import run_node
from sidecar.cli.options import config_option, settings_of
from sidecar.loading.documents import load


@click.command()
@config_option
def run(config: Path | None) -> int:
    """Serve until a signal ends it.

    SIGTERM drains (a second one cuts the open requests), SIGHUP reloads policies and keys. /livez, /readyz, /metrics
    and /status are on the control listener.

    Next: `curl -H 'X-Api-Key: …' http://127.0.0.1:8080/`, and `sidecar records tail`.
    """
    return run_node(settings_of(config), load)
