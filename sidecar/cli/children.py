"""The hidden commands that the supervisor's children are. Without its pipe a child has no settings."""

from __future__ import annotations

import click

from sidecar.app.child import run_child


@click.command(hidden=True)
@click.option("--index", type=int, required=True)
@click.option("--fd", type=int, required=True)
@click.option("--hand", type=int, default=-1)
def worker(index: int, fd: int, hand: int) -> int:
    """Serve as worker `index`; `hand` is the descriptor of memory that outlives it."""
    from sidecar.app.worker import run_worker  # noqa: PLC0415 - no worker has a shipper in its memory

    return run_child(f"worker-{index}", fd, lambda settings, link: run_worker(settings, index, link, hand))


@click.command(hidden=True)
@click.option("--fd", type=int, required=True)
def shipper(fd: int) -> int:
    """Ship what the workers of this node write."""
    from sidecar.app.shipping import run_shipper  # noqa: PLC0415 - as above

    return run_child("shipper", fd, run_shipper)
