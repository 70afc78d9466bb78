"""`sidecar ledger trace`: from a sum to its records, and from a record to all that refers to it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import click

from sidecar.cli.ledger_answers import engine_option, ledger_of, period_options, scope_of, why_empty
from sidecar.cli.options import config_option, json_option, print_json, settings_of
from sidecar.cli.tables import narrowed, print_fields, print_table, printable
from sidecar.core.words import counted
from sidecar.edge.ledger.queries import Scope

_SHOWN: Final = 1_000
_BILLABLE: Final = {True: "yes", False: "no", None: "unknown"}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_RFC_3339: Final = "%Y-%m-%dT%H:%M:%S.%fZ"
_ID: Final = re.compile(r"[0-9A-Z]{26}")
_EXAMPLE: Final = "01M8NXEFA000A1604YF8Y20000"
_PLACE: Final = ("topic", "part", "offset")  # names a record
_UNITS: Final = ("line", "model", "meter", "units")
_OF_ROWS: Final = frozenset({*_UNITS, "first"})
_TIMES: Final = {"time_us": "time", "period_us": "period_time"}


@click.command()
@click.argument("record_id", required=False, default="")
@config_option
@period_options
@click.option("--customer", default="", help="The customer of the sum.")
@click.option("--meter", default="", help="The meter of the sum.")
@click.option("-n", "--limit", type=click.IntRange(0), default=_SHOWN, show_default=True,
              help="Of a sum: the first rows; 0: all.")  # fmt: skip
@engine_option
@json_option
def trace(record_id: str, config: Path | None, engine: str | None, limit: int, as_json: bool, **options: str) -> int:
    """Show a record with all that refers to it and its decision; or the records of a sum, in order of time.

    The rows of a sum are a table: times are in UTC, and long names of models are shortened. --json has all.
    Exit status 1: there is no such record, or files of the ledger were refused.

    Next: `sidecar ledger trace 01M8NXEFA000A1604YF8Y20000`.
    """
    customer, meter = options["customer"], options["meter"]
    scope = scope_of(options["period_"], options["start"], options["end"], customer, meter)
    if bool(record_id) is any(value is not None for value in scope):
        raise click.UsageError("name either a record's id, or --customer, --meter and --period of a sum")
    with ledger_of(settings_of(config), engine) as made:
        answer = made.record(record_id) if record_id else made.records_of(scope, limit)
        is_cut = not record_id and 0 < limit == len(answer.rows)
        more = made.count_of(scope) - limit if is_cut else 0
        if not answer.rows:
            for line in [_unknown(record_id)] if record_id else why_empty(made, scope):
                click.echo(f"sidecar: {line}", err=True)
            return 1
        status = 1 if made.faults else 0
    rows = [{name: value for name, value in row.items() if value is not None} for row in answer.as_dicts()]
    if as_json:
        print_json(rows)
    elif record_id:
        _print_records(rows)
    else:
        _print_sum(answer.as_dicts(), scope)
    if more:
        click.echo(f"sidecar: and {counted(more, 'more row')}; `-n 0` shows all", err=True)
    return status


def _print_sum(rows: list[dict[str, Any]], scope: Scope) -> None:
    """The rows of a sum with what tells them apart, in 80 columns where the sum is of one customer and one meter."""
    times = [_time(row["period_us"]) for row in rows]
    is_one_year = times[0][4:5] == "-" and len({time[:5] for time in times}) == 1
    title = f"{times[0][:4]}, UTC" if is_one_year else "UTC"
    known = (("customer", scope.customer), ("meter", scope.meter))
    columns = [title, "id", *[name for name, value in known if value is None], "units", "billable", "model"]
    table = [
        {**row, title: time[5:] if is_one_year else time, "billable": _BILLABLE[row["billable"]]}
        for row, time in zip(rows, times, strict=True)
    ]
    print_table(narrowed(table, columns, "model"), columns)


def _time(us: int | None, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """A time in UTC, to the second; as it is where the calendar does not have it."""
    if us is None:
        return "-"
    try:
        return f"{_EPOCH + timedelta(microseconds=us):{form}}"
    except (ValueError, OverflowError):
        return str(us)


def _unknown(record_id: str) -> str:
    form = "" if _ID.fullmatch(record_id) else f"; an id has 26 letters and digits, as {_EXAMPLE}"
    return f"the ledger has no record {printable(record_id)}; a new one is in it after `sidecar ledger load`{form}"


def _print_records(rows: list[dict[str, Any]]) -> None:
    """Each record with its fields, and then its units in a table: a record has a row for each line and meter."""
    for _, group in groupby(rows, key=lambda row: [row.get(name) for name in _PLACE]):
        of_record = list(group)
        fields: dict[str, Any] = {}
        for row in of_record:
            fields = {name: value for name, value in row.items() if name not in _OF_ROWS} | fields
        click.echo()
        print_fields({_TIMES.get(name, name): _field(name, value) for name, value in fields.items()})
        units = [{name: row.get(name) for name in _UNITS} for row in of_record if "meter" in row]
        print_table(units, [name for name in _UNITS if any(row[name] is not None for row in units)])


def _field(name: str, value: Any) -> str:
    return _time(value, _RFC_3339) if name in _TIMES else str(value)
