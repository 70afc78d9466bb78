"""The hidden commands that the supervisor's children are. Without its pipe a child has no settings."""

from __future__ import annotations

import click

from sidecar.supervisor.child import run_child


@click.command(hidden=True)
@click.option("--index", type=int, required=True)
@click.option("--fd", type=int, required=True)
@click.option("--listen", required=True)
@click.option("--others", default="")
@click.option("--lease-fd", type=int, default=-1)
def worker(index: int, fd: int, listen: str, others: str, lease_fd: int) -> int:
    """Serve as worker `index` on the sockets `listen`; `lease_fd`: memory with the last worker's leases, or -1.

    `others` are the sockets of the other workers, for when they do not accept.
    """
    from sidecar.app.worker import Descriptors, run_worker  # noqa: PLC0415 - no worker has a shipper in its memory

    own, rest = ([int(each) for each in fds.split(",") if each] for fds in (listen, others))
    fds = Descriptors(own, rest, lease_fd)
    return run_child(f"worker-{index}", fd, lambda settings, link: run_worker(settings, index, link, fds))


@click.command(hidden=True)
@click.option("--fd", type=int, required=True)
def shipper(fd: int) -> int:
    """Ship what the workers of this node write."""
    from sidecar.app.shipping import run_shipper  # noqa: PLC0415 - as above

    return run_child("shipper", fd, run_shipper)
