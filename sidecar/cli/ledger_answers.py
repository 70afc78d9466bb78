"""`sidecar ledger totals | query | trace`: questions to the ledger. Answers go to standard output."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from sidecar.cli.ledger_push import clickhouse_url
from sidecar.cli.options import config_option, json_option, print_json, settings_of
from sidecar.cli.tables import print_table, printable
from sidecar.config.document import did_you_mean
from sidecar.config.settings import Settings
from sidecar.core.errors import PolicyError
from sidecar.core.usage import Aggregate
from sidecar.edge.ledger.queries import DIMENSIONS, Scope
from sidecar.ledger.periods import instant, period
from sidecar.ledger.reading import Answer, Ledger, has_meters, left_out, open_clickhouse, open_ledger
from sidecar.loading.documents import non_additive_meters

F = TypeVar("F", bound=Callable[..., Any])


def memory_of(settings: Settings) -> str:
    """The memory of the ledger's settings, as DuckDB writes it."""
    return f"{settings.ledger.memory_bytes}B"


def period_options(function: F) -> F:
    """The options --period, --from and --to."""
    for option in (
        click.option("--to", "end", default="", help="Up to this time, not included."),
        click.option("--from", "start", default="", help="From this time on: 2026-11-21 or 2026-11-21T14:00."),
        click.option(
            "--period", "period_", default="", help="A year, month, day or hour: 2026-11. Not with --from, --to."
        ),
    ):
        function = option(function)
    return function


def scope_of(period_: str, start: str, end: str, customer: str = "", meter: str = "") -> Scope:
    """The scope that the options say. UsageError: they exclude each other, or are not times."""
    if period_ and (start or end):
        raise click.UsageError("--period and --from, --to exclude each other: write one of them")
    try:
        start_us, end_us = (
            period(period_) if period_ else (instant(start) if start else None, instant(end) if end else None)
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if start_us is not None and end_us is not None and start_us >= end_us:
        raise click.UsageError(f"--to {end} is not after --from {start}")
    return Scope(start_us, end_us, customer=customer or None, meter=meter or None)


engine_option = click.option(
    "--engine", type=click.Choice(["duckdb", "clickhouse"]), help="It answers. Default: `ledger.engine`."
)


@contextmanager
def ledger_of(settings: Settings, engine: str | None) -> Iterator[Ledger]:
    """The ledger of the settings; its faults on standard error."""
    options = settings.ledger
    if (engine or options.engine) == "clickhouse":
        opened = open_clickhouse(clickhouse_url(settings))
    else:
        opened = open_ledger(options.dir, memory=memory_of(settings), threads=options.threads)
    with opened as made:
        for fault in made.faults:
            click.echo(f"sidecar: {printable(fault)}", err=True)
        yield made


def _dimensions(_ctx: click.Context, _parameter: click.Parameter, value: str) -> list[str]:
    names = [name.strip() for name in value.split(",") if name.strip()]
    unknown = [name for name in names if name not in DIMENSIONS]
    if unknown:
        raise click.BadParameter(f"'{unknown[0]}' is not one of {', '.join(DIMENSIONS)}")
    return list(dict.fromkeys(names))


@click.command()
@config_option
@period_options
@click.option("--by", default="customer,meter", show_default=True, callback=_dimensions,
              help=f"{', '.join(DIMENSIONS)}; several with commas.")  # fmt: skip
@click.option("--customer", default="", help="Only this customer.")
@click.option("--meter", default="", help="Only this meter.")
@engine_option
@json_option
def totals(config: Path | None, engine: str | None, by: list[str], as_json: bool, **options: str) -> int:
    """Sum up units, corrections and voids included.

    `units` are billed, `not_billable` are not. A sum by meter counts rows, because a record has one for each meter.
    Meters with another `aggregate` in the policies of the settings have the quantity that it says.
    Exit status 1: files were refused or offsets are missing, so the sums lack records.

    Next: `sidecar ledger trace --customer acme --meter tokens --period 2026-11`.
    """
    scope = scope_of(options["period_"], options["start"], options["end"], options["customer"], options["meter"])
    settings = settings_of(config)
    aggregates = _aggregates(settings)
    with ledger_of(settings, engine) as made:
        try:
            answer = made.totals(by, scope, aggregates)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        status = 1 if made.faults else 0
        if not answer.rows:
            for line in why_empty(made, scope):
                click.echo(f"sidecar: {line}", err=True)
    if aggregates and not has_meters(by, scope):
        click.echo(f"sidecar: not in the sums, since they do not add up: {', '.join(sorted(aggregates))}", err=True)
    for meter, why in left_out(by, scope, aggregates).items():
        click.echo(f"sidecar: meter '{meter}' is left out: {why}", err=True)
    if as_json:
        print_json({"start_us": scope.start_us, "end_us": scope.end_us, "by": by, "totals": answer.as_dicts()})
    else:
        print_table(answer.as_dicts(), answer.columns)
    return status


@click.command()
@click.argument("sql")
@config_option
@click.option("--csv", "as_csv", is_flag=True, help="Comma-separated values.")
@engine_option
@json_option
def query(sql: str, config: Path | None, engine: str | None, as_csv: bool, as_json: bool) -> int:
    """Ask in SQL, of the views usage, denials, postings, checkpoints and so on (docs/ledger.md). Nothing is changed.

    Next: `sidecar ledger query "SELECT plan, sum(units) FROM usage GROUP BY plan"`.
    """
    if as_csv and as_json:
        raise click.UsageError("--csv and --json exclude each other: write one of them")
    with ledger_of(settings_of(config), engine) as made:
        try:
            names, parts = made.query(sql)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        if as_csv:
            writer = csv.writer(sys.stdout, lineterminator="\n")
            writer.writerow(names)
            for part in parts:
                writer.writerows(part)
        else:
            rows = [row for part in parts for row in part]
            _show(Answer(names, rows), as_json)
            if not rows:
                click.echo("sidecar: no rows", err=True)
        return 1 if made.faults else 0


def why_empty(ledger: Ledger, scope: Scope) -> list[str]:
    """Why a sum has no rows, in words: names that no usage has, with the nearest one; else a load may be due."""
    unknown = [
        f"the ledger has no usage of the {name} '{value}': {did_you_mean(value, known)}"
        for name, value in (("customer", scope.customer), ("meter", scope.meter))
        if value is not None and value not in (known := ledger.names(name))
    ]
    return unknown or ["the ledger has no usage of that; new usage is in it after `sidecar ledger load`"]


def _aggregates(settings: Settings) -> dict[str, Aggregate]:
    """The meters of the policies whose quantity is not a sum."""
    try:
        return non_additive_meters(settings)
    except PolicyError as error:
        click.echo(
            f"sidecar: all meters are summed up, because the policies cannot be read: {error.faults[0]}", err=True
        )
        return {}


def _show(answer: Answer, as_json: bool) -> None:
    if as_json:
        print_json(answer.as_dicts())
    else:
        print_table(answer.as_dicts(), answer.columns)
