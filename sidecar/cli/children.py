"""The hidden commands that the supervisor's children are. Without its pipe a child has no settings."""

from __future__ import annotations

import click

from sidecar.app.processes import run_child
from sidecar.app.shipping import run_shipper
from sidecar.app.worker import run_worker


@click.command(hidden=True)
@click.option("--index", type=int, required=True)
@click.option("--fd", type=int, required=True)
def worker(index: int, fd: int) -> int:
    """Serve as worker `index`."""
    return run_child(f"worker-{index}", fd, lambda settings, link: run_worker(settings, index, link))


@click.command(hidden=True)
@click.option("--fd", type=int, required=True)
def shipper(fd: int) -> int:
    """Ship what the workers of this node write."""
    return run_child("shipper", fd, run_shipper)
