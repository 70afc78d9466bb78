"""`sidecar records`: read, verify and count records. Records go to standard output, messages to standard error."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console

from sidecar.app.record_sources import record_source
from sidecar.cli.key_files import now
from sidecar.cli.options import config_option, json_option, print_json, settings_of
from sidecar.cli.record_changes import backfill, correct, void
from sidecar.cli.record_reports import print_report, report_json, warn_of_gaps, warn_of_repeats, warn_of_unread
from sidecar.cli.tables import printable
from sidecar.config.units import parse
from sidecar.core.errors import PolicyError
from sidecar.core.record import record_schema
from sidecar.loading.documents import non_additive_meters
from sidecar.records.find import ALL, Wanted, describe, time_span
from sidecar.records.find import find as search
from sidecar.records.sources import RecordSource, bodies, is_json, latest, verified
from sidecar.records.verify import Report

ONLY_WITH_RECORD = frozenset({402, 502, 504})  # statuses of ours that never come without a record
_NO_RECORD = (
    "refusals without a limit have no record: search the log for `sidecar.refusals` with the customer or the "
    "X-Request-Id, and see sidecar_refusals_total by reason"
)
F = TypeVar("F", bound=Callable[..., Any])


@click.group()
def records() -> None:
    """Read records from the topic or the file of the settings, from a journal, or from another file; change them."""


for _change in (void, correct, backfill):
    records.add_command(_change)


def _source_options(function: F) -> F:
    for option in (
        click.option("--denials", is_flag=True, help="Read denials instead of records."),
        click.option("--file", type=click.Path(path_type=Path, dir_okay=False), help="Read this file alone."),
        click.option("--journal", type=click.Path(path_type=Path, file_okay=False), help="Read a journal's folder."),
        config_option,
    ):
        function = option(function)
    return function


_may_begin_late = click.option(
    "--may-begin-late", is_flag=True, help="Accept that retention removed the first records."
)


def _source(config: Path | None, journal: Path | None, file: Path | None, denials: bool) -> RecordSource:
    if journal is not None and file is not None:
        raise click.UsageError("--journal and --file exclude each other: write one of them")
    source = record_source(settings_of(config), "denials" if denials else "records", journal, file)
    warn_of_unread(source)
    return source


@records.command()
@_source_options
@click.option(
    "-n",
    "--last",
    type=click.IntRange(0),
    default=10,
    show_default=True,
    help="The number of records, over all sources.",
)
@click.option("-f", "--follow", is_flag=True, help="Continue with new records.")
def tail(config: Path | None, journal: Path | None, file: Path | None, denials: bool, last: int, follow: bool) -> None:
    """Show the last records in order of time: one JSON document per line in a pipe, indented on a terminal.

    Of a file only the last 64 MiB are read, and of rotated ones where it has less than N records.
    `-f` waits for a file that does not exist yet.

    Next: `sidecar records tail | jq .data.usage`.
    """
    source = _source(config, journal, file, denials)
    console = Console()

    def show(body: bytes) -> None:
        if console.is_terminal and is_json(body):
            text = body.decode()
            console.print_json(text, ensure_ascii=not text.isprintable())
        else:
            text = body.decode(errors="replace")
            click.echo(printable(text) if console.is_terminal else text)

    async def run() -> None:
        recent, begin = await latest(source, last, may_be_missing=follow)
        for body in recent:
            show(body)
        if follow:
            async for body in bodies(source, begin=begin, follow=True):
                show(body)

    asyncio.run(run())


@records.command()
@_source_options
@click.option("--customer", default="", help="Only records of this customer.")
@click.option("--status", type=click.IntRange(100, 599), help="Only answers with this status.")
@click.option("--id", "id_", default="", help="Only this record: the X-Request-Id of an answer.")
@click.option(
    "--type",
    "types",
    multiple=True,
    type=click.Choice([*sorted(record_schema()["$defs"]), ALL]),
    help="Only records of this type. May be given several times. Default: usage and denials; with --id: all.",
)
@click.option("--time", "time_", default="", help="Only this day, minute or second, UTC: 14:03, 2026-11-21T14:03.")
@click.option("--within", default="0s", show_default=True, help="How much longer before and after --time, such as 5m.")
@click.option(
    "-n", "--last", type=click.IntRange(1), default=20, show_default=True, help="At most this many, the last ones."
)
def find(time_: str, within: str, last: int, denials: bool, types: tuple[str, ...], **options: Any) -> int:
    """Find records and denials: why was this customer refused at 14:03? Exit status 1 if nothing matches.

    On a terminal a line for each, in a pipe its JSON. Requests that were refused without a limit (400, 401, 403, 404,
    413 and 503 before the upstream) have no record: their reasons are in sidecar_refusals_total and in the log. A topic
    is read from a quarter of an hour before --time.

    Next: `sidecar records find --customer acme --time 14:03 --status 429`.
    """
    try:
        margin = timedelta(microseconds=parse(within, "_us"))
        begin, end = time_span(time_, now(), margin) if time_ else ("", "")
    except (ValueError, OverflowError) as error:
        raise click.UsageError(str(error)) from None
    wanted = Wanted(options.pop("customer"), options.pop("status") or 0, options.pop("id_"), begin, end, types)
    given = options["journal"] is None and options["file"] is not None
    streams = [True] if denials else [False] if given else [False, True]
    sources = [_source(**options, denials=each) for each in streams]
    left_out: Counter[str] = Counter()
    matches = asyncio.run(search(sources, wanted, last, left_out))
    on_terminal = Console().is_terminal
    for body in matches:
        click.echo(printable(describe(body)) if on_terminal else body.decode(errors="replace"))
    if left_out:
        others = ", ".join(f"{number} {kind}" for kind, number in sorted(left_out.items()))
        click.echo(printable(f"also match, and are shown with --type: {others}"), err=True)
    if not matches:
        places = printable(" and ".join(dict.fromkeys(source.text for source in sources)))
        click.echo(f"no record matches in {places}", err=True)
        if not wanted.status or (wanted.status >= 400 and wanted.status not in ONLY_WITH_RECORD):
            click.echo(_NO_RECORD, err=True)
    return 0 if matches else 1


@records.command()
@_source_options
@_may_begin_late
@json_option
def verify(may_begin_late: bool, as_json: bool, **options: Any) -> int:
    """Check that no record is missing, none is there twice, and each matches its schema. Exit status 1 if not.

    Every producer numbers its records without gaps from 1, so missing records can be counted: also before the first
    record, and after the last up to the number of the latest checkpoint. A journal may begin late, since shipped
    records are removed. A copy has the id of another record. A number that two ids share means that two producers use
    one source. Without any record nothing can be checked, and the exit status is 1.

    Next: a gap names its producer; `sidecar ship` ships the records that a dead node still has.
    """
    source = _source(**options)
    report = asyncio.run(verified(source, schema=True, may_begin_late=may_begin_late))
    if as_json:
        left_out = _leave_out_quantities(report, options["config"])
        whole = report.whole and report.records > 0
        print_json(report_json(report, left_out) | {"place": str(source), "whole": whole})
    elif report.records:
        print_report(report, source)
    if not report.records:
        click.echo(f"sidecar: nothing to verify: no records in {printable(source.text)}", err=True)
    return 0 if report.whole and report.records else 1


@records.command()
@_source_options
@_may_begin_late
@json_option
def count(may_begin_late: bool, as_json: bool, **options: Any) -> int:
    """Sum billable units by customer and meter. A copy has the id of another record and is not counted.

    Exit status 1: the sums are incomplete. Missing numbers and lines that cannot be read are reported on standard
    error. Copies, and numbers that two records share, are reported too, without a change of the exit status. Records
    that share a number are all counted. Meters of the settings' policies with another `aggregate` than sum and count
    are named instead of summed up; without readable policies all are summed up.

    Next: compare with the invoice, or with `sidecar records verify`.
    """
    source = _source(**options)
    report = asyncio.run(verified(source, schema=False, may_begin_late=may_begin_late))
    warn_of_repeats(report)
    status = 1 if warn_of_gaps(report) else 0
    left_out = _leave_out_quantities(report, options["config"])
    if not report.records:
        click.echo(f"sidecar: no records in {printable(source.text)}", err=True)
    if as_json:
        print_json(report_json(report, left_out) | {"place": str(source)})
        return status
    for kind, number in sorted(report.kinds.items()):
        click.echo(f"{number:>12}  {printable(kind)}")
    for (customer, meter), units in sorted(report.totals.items()):
        click.echo(f"{units:>12}  {printable(customer)}  {printable(meter)}")
    for meter in left_out or ():
        click.echo(f"sidecar: {meter} is not a sum of records: `sidecar ledger totals --meter {meter}`", err=True)
    return status


def _leave_out_quantities(report: Report, config: Path | None) -> list[str] | None:
    """Take meters that do not add up out of the totals; their names. None: the policies cannot be read."""
    try:
        meters = non_additive_meters(settings_of(config)).keys() & {meter for _, meter in report.totals}
    except PolicyError:
        return None
    for pair in [pair for pair in report.totals if pair[1] in meters]:
        del report.totals[pair]
    return sorted(meters)
