"""`sidecar demo`: runs `sidecar.demo` and shows its figures, as a live table on a terminal, else as lines."""

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

from sidecar.cli.options import json_option, print_json
from sidecar.demo import DemoResult, run_demo

Show = Callable[[DemoResult], None]


@click.command()
@json_option
def demo(as_json: bool) -> int:
    """Meter a small API for some seconds with a free-tier key, then compare the answers with the records.

    Needs no Redis, no Kafka and no files, and leaves no files behind. The exit status is 0 only if the records match
    the answers.

    Next: write a sidecar.yaml and run `sidecar check -c sidecar.yaml`.
    """
    console = Console()
    with tempfile.TemporaryDirectory(prefix="sidecar-demo-") as folder, _display(console, as_json) as show:
        result = asyncio.run(run_demo(Path(folder), show))
    if as_json:
        print_json(_figures(result))
    else:
        _print_summary(console, result)
    return 0 if result.balanced else 1


@contextlib.contextmanager
def _display(console: Console, as_json: bool) -> Iterator[Show]:
    if as_json:
        yield lambda _result: None
    elif console.is_terminal:
        with Live(table_of(DemoResult()), console=console, refresh_per_second=10) as live:
            yield lambda result: live.update(table_of(result))
    else:
        click.echo("A free-tier key: 5 requests per second, bursts of 10. The client sends 20 per second.")
        yield lambda result: click.echo("  ".join(f"{name} {count}" for name, count in _rows(result)))


def _rows(result: DemoResult) -> list[tuple[str, str]]:
    return [
        ("seconds", f"{result.seconds:.1f}"),
        ("requests", str(sum(result.answers.values()))),
        ("served", str(result.served)),
        ("throttled (429)", str(result.throttled)),
        ("recorded", str(result.records["usage"])),
        ("denials recorded", str(result.records["denial"])),
    ]


def table_of(result: DemoResult) -> Table:
    """The figures so far, for a terminal of 80 columns or more."""
    table = Table(title="free tier: 5 requests per second, bursts of 10; the client sends 20 per second")
    for name, _ in _rows(result):
        table.add_column(name, justify="right", min_width=8)
    table.add_row(*(count for _, count in _rows(result)))
    return table


def _print_summary(console: Console, result: DemoResult) -> None:
    console.print("\nThe last two billable records:")
    for record in result.last:
        console.print_json(orjson.dumps(record).decode())
    records = result.records
    sign = "=" if result.balanced else "≠"
    console.print(
        f"served {result.served} {sign} recorded {records['usage']}, "
        f"throttled {result.throttled} {sign} denials recorded {records['denial']}"
    )


def _figures(result: DemoResult) -> dict[str, object]:
    return {
        "requests": sum(result.answers.values()),
        "served": result.served,
        "throttled": result.throttled,
        "recorded": result.records["usage"],
        "denials_recorded": result.records["denial"],
        "checkpoints": result.records["checkpoint"],
        "balanced": result.balanced,
        "last": result.last,
    }
