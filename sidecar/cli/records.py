"""`sidecar records`: read back what was written down. Records go to standard output, complaints to standard error."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console

from sidecar.app.reading import Place, bodies, is_json, place_of, verified
from sidecar.app.verify import Report
from sidecar.cli.options import config_option, json_option, print_json, settings_of
from sidecar.config.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])


@click.group()
def records() -> None:
    """Read records back: from the topic or the file that the settings name, from a journal, or from any file."""


def _where(function: F) -> F:
    for option in (
        click.option("--denials", is_flag=True, help="The denials instead of the records."),
        click.option("--file", type=click.Path(path_type=Path, dir_okay=False), help="A file of JSON lines."),
        click.option("--journal", type=click.Path(path_type=Path, file_okay=False), help="A journal's folder."),
        config_option,
    ):
        function = option(function)
    return function


def _place(config: Path | None, journal: Path | None, file: Path | None, denials: bool) -> tuple[Settings, Place]:
    if journal is not None and file is not None:
        raise click.UsageError("name --journal or --file, not both")
    settings = settings_of(config)
    return settings, place_of(settings, "denials" if denials else "records", journal, file)


@records.command()
@_where
@click.option("-n", "--last", type=click.IntRange(0), default=10, show_default=True, help="So many, of each partition.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes.")
def tail(config: Path | None, journal: Path | None, file: Path | None, denials: bool, last: int, follow: bool) -> None:
    """Show the last records: one JSON document a line in a pipe, spread out on a terminal.

    Next: `sidecar records tail | jq .data.usage`.
    """
    settings, place = _place(config, journal, file, denials)
    console = Console()

    async def show() -> None:
        async for body in bodies(settings, place, last, follow=follow):
            if console.is_terminal and is_json(body):
                console.print_json(body.decode())
            else:
                click.echo(body.decode(errors="replace"))

    asyncio.run(show())


@records.command()
@_where
@json_option
def verify(config: Path | None, journal: Path | None, file: Path | None, denials: bool, as_json: bool) -> int:
    """Prove that every number is there, none twice, and each record as its schema says. Exit status 1: it is not so.

    Every producer numbers its records without gaps from 1, so what is missing can be counted.

    Next: a gap names its producer; `sidecar ship` carries what a dead node still holds.
    """
    settings, place = _place(config, journal, file, denials)
    report = asyncio.run(verified(settings, place, schema=True)).report
    if as_json:
        print_json(_told(report) | {"place": str(place), "whole": report.whole})
    else:
        _print_report(report, place)
    return 0 if report.whole else 1


@records.command()
@_where
@json_option
def count(config: Path | None, journal: Path | None, file: Path | None, denials: bool, as_json: bool) -> None:
    """Sum up billable units by customer and meter; copies are counted once.

    Next: compare with the invoice, or with `sidecar records verify`.
    """
    settings, place = _place(config, journal, file, denials)
    report = asyncio.run(verified(settings, place, schema=False)).report
    if as_json:
        print_json(_told(report) | {"place": str(place)})
        return
    for kind, number in sorted(report.kinds.items()):
        click.echo(f"{number:>12}  {kind}")
    for (customer, meter), units in sorted(report.totals.items()):
        click.echo(f"{units:>12}  {customer}  {meter}")


def _told(report: Report) -> dict[str, Any]:
    totals: dict[str, dict[str, int]] = {}
    for (customer, meter), units in sorted(report.totals.items()):
        totals.setdefault(customer, {})[meter] = units
    return {
        "records": report.records,
        "kinds": dict(sorted(report.kinds.items())),
        "missing": report.missing,
        "duplicates": report.duplicates,
        "faults": report.faults,
        "not_billable": report.not_billable,
        "totals": totals,
        "sources": {
            source: {"first": numbers.first, "last": numbers.last, "missing": numbers.missing, "gaps": numbers.gaps()}
            for source, numbers in sorted(report.sources.items())
        },
        "examples": {"duplicates": report.duplicate_ids, "faults": report.fault_examples},
    }


def _print_report(report: Report, place: Place) -> None:
    for source, numbers in sorted(report.sources.items()):
        click.echo(f"{source}: {numbers.count} records, {numbers.first} to {numbers.last}")
        for start, end in numbers.gaps():
            click.echo(f"  missing: {start} to {end}", err=True)
    for example in report.duplicate_ids:
        click.echo(f"twice: {example}", err=True)
    for example in report.fault_examples:
        click.echo(f"wrong: {example}", err=True)
    verdict = "whole" if report.whole else "NOT whole"
    click.echo(
        f"{place}: {verdict}: {report.records} records, {report.missing} missing, {report.duplicates} twice, "
        f"{report.faults} wrong"
    )
