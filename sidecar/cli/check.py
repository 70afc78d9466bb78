"""`sidecar check`: what a configuration binds us to, before it is run."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from sidecar.app.checking import findings
from sidecar.cli.options import config_option, json_option, print_json, settings_of


@click.command()
@config_option
@json_option
def check(config: Path | None, as_json: bool) -> int:
    """Validate settings, policies and keys; print routes, plans, limits and by how much each may be missed.

    Every fault is one line, `file:line: where: what would be right`, and the exit status is 2. Warnings leave it 0.

    Next: `sidecar run -c sidecar.yaml`; while it runs, SIGHUP puts an edited policy into force.
    """
    found = asyncio.run(findings(settings_of(config)))
    if as_json:
        print_json(found)
    else:
        _print(found)
    return 0


def _print(found: dict[str, Any]) -> None:
    many = "s" if found["workers"] > 1 else ""
    click.echo(
        f"policy {found['version']}: counters in {found['counters']}, records to {found['records']}, "
        f"{found['workers']} worker{many}"
    )
    click.echo("\nroutes, the most specific first")
    _table(found["routes"], ("id", "methods", "path", "upstream"))
    click.echo("\nlimits")
    columns = ("plan", "id", "says", "meter", "scope", "over", "stage", "on_store_failure", "over_by_at_most")
    _table(found["limits"], columns)
    click.echo(
        "\nNo limit is exceeded while its store answers; while it does not, by at most the last column, in a window."
    )
    if found["counters"] == "memory":
        click.echo("Counters in memory are forgotten at a restart: after it a quota is granted once more.")
    for why, words in found["not_in_this_version"].items():
        click.echo(f"Not yet: {why} ({', '.join(words)}).")
    for warning in found["warnings"]:
        click.echo(f"warning: {warning}", err=True)
    click.echo("good")


def _table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    """Columns as wide as what stands in them; lines are never folded, so that they can be searched."""
    cells = [
        [", ".join(cell) if isinstance(cell := row[name], list) else str(cell) for name in columns] for row in rows
    ]
    for line in (lines := [list(columns), *cells]):
        widths = [max(len(other[column]) for other in lines) for column in range(len(columns))]
        click.echo("  " + "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
