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
    """Validate settings, policies and keys; print routes, limits, prices, balances, and by how much each may be missed.

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
    nodes = f" on each of {found['nodes']} nodes" if found["nodes"] > 1 else ""
    click.echo(
        f"policy {found['version']}: counters in {found['counters']}, records to {found['records']}, "
        f"{found['workers']} worker{many}{nodes}"
    )
    click.echo("\nroutes, the most specific first")
    _table(found["routes"], ("id", "methods", "path", "upstream", "reads", "usage"))
    click.echo("\nlimits")
    columns = ("plan", "customer", "id", "says", "meter", "scope", "over", "stage", "on_store_failure")
    _table(found["limits"], (*columns, "over_by_at_most", *["lost_by_a_kill"] * found["leases"]))
    click.echo(
        "\nNo limit is exceeded while its store answers; while it does not, by at most over_by_at_most, in a window:\n"
        "by this node, or by all that `redis.nodes` counts."
    )
    if found["leases"]:
        click.echo("A worker that is killed takes at most lost_by_a_kill of a window with it: what it had leased.")
    _print_money(found)
    if found["counters"] == "memory":
        click.echo("Counters in memory are forgotten at a restart: after it a quota is granted once more.")
    for warning in found["warnings"]:
        click.echo(f"warning: {warning}", err=True)
    click.echo("good")


def _print_money(found: dict[str, Any]) -> None:
    if found["prices"]:
        click.echo("\nprices")
        _table(found["prices"], ("plan", "customer", "meter", "price", "period", "paid_by"))
    if found["balances"]:
        click.echo("\nbalances")
        columns = ("plan", "customer", "id", "unit", "over", "stage", "below_zero_per_exchange", "below_zero_in_total")
        _table(found["balances"], (*columns, "while_redis_is_away"))
        click.echo(
            "\nA balance goes below zero only by what exchanges under way use beyond what was held for them: each by\n"
            "at most the first figure, `-` being no bound. While Redis is away, the last figure passes: on this\n"
            "node, or on all that `redis.nodes` counts."
        )
    for balance in found["balances"]:
        if balance["unbounded_by"]:
            meters = ", ".join(balance["unbounded_by"])
            click.echo(
                f"No bound for {balance['id']} of {balance['plan']}: {meters}. A `ceiling` at the price gives one."
            )
    if found["exclude"]:
        click.echo("\nrecorded, neither billed nor charged")
        _table(found["exclude"], ("id", "says"))


def _table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    """Columns as wide as what stands in them; lines are never folded, so that they can be searched."""
    cells = [[_cell(row[name]) for name in columns] for row in rows]
    for line in (lines := [list(columns), *cells]):
        widths = [max(len(other[column]) for other in lines) for column in range(len(columns))]
        click.echo("  " + "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    said = ", ".join(value) if isinstance(value, list) else "" if value is None else str(value)
    return said or "-"
