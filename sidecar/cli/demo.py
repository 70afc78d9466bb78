"""`sidecar demo`: shows the play of `sidecar.app.demo`, as a live table on a terminal, in plain lines elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import orjson
from rich.console import Console
from rich.live import Live
from rich.table import Table

from sidecar.app.demo import Standing, play
from sidecar.cli.options import json_option, print_json

Show = Callable[[Standing], None]


@click.command()
@json_option
def demo(as_json: bool) -> int:
    """Meter a small API for some seconds: a free-tier key, traffic, 429s, records; then compare the books.

    Needs neither Redis nor Kafka nor a file of yours, and leaves nothing behind. Exit status 0 only where what was
    served is what was recorded.

    Next: write a sidecar.yaml and run `sidecar check -c sidecar.yaml`.
    """
    console = Console()
    with tempfile.TemporaryDirectory(prefix="sidecar-demo-") as folder, _stage(console, as_json) as show:
        standing = asyncio.run(play(Path(folder), show))
    if as_json:
        print_json(_figures(standing))
    else:
        _epilogue(console, standing)
    return 0 if standing.balanced else 1


@contextlib.contextmanager
def _stage(console: Console, as_json: bool) -> Iterator[Show]:
    if as_json:
        yield lambda _standing: None
    elif console.is_terminal:
        with Live(_table(Standing()), console=console, refresh_per_second=10) as live:
            yield lambda standing: live.update(_table(standing))
    else:
        click.echo("A free-tier key: 5 requests a second, 10 at once. The client asks four times as often.")
        yield lambda standing: click.echo("  ".join(f"{name} {count}" for name, count in _rows(standing)))


def _rows(standing: Standing) -> list[tuple[str, str]]:
    return [
        ("seconds", f"{standing.seconds:.1f}"),
        ("requests", str(sum(standing.answers.values()))),
        ("served", str(standing.served)),
        ("throttled (429)", str(standing.throttled)),
        ("recorded", str(standing.records["usage"])),
        ("denials recorded", str(standing.records["denial"])),
    ]


def _table(standing: Standing) -> Table:
    table = Table(title="free tier: 5 requests a second, 10 at once; the client asks four times as often")
    for name, _ in _rows(standing):
        table.add_column(name, justify="right", min_width=8)
    table.add_row(*(count for _, count in _rows(standing)))
    return table


def _epilogue(console: Console, standing: Standing) -> None:
    console.print("\nThe last records, as they would be billed:")
    for record in standing.last:
        console.print_json(orjson.dumps(record).decode())
    told = standing.records
    sign = "=" if standing.balanced else "≠"
    console.print(
        f"served {standing.served} {sign} recorded {told['usage']}, "
        f"throttled {standing.throttled} {sign} denials recorded {told['denial']}"
    )


def _figures(standing: Standing) -> dict[str, object]:
    return {
        "requests": sum(standing.answers.values()),
        "served": standing.served,
        "throttled": standing.throttled,
        "recorded": standing.records["usage"],
        "denials_recorded": standing.records["denial"],
        "checkpoints": standing.records["checkpoint"],
        "balanced": standing.balanced,
        "last": standing.last,
    }
