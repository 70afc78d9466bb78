"""Prints the report of `sidecar records verify` and `count`: results on standard output, faults on standard error."""

from __future__ import annotations

from typing import Any

import click

from sidecar.cli.tables import print_text, printable
from sidecar.core.words import counted
from sidecar.records.sources import RecordSource, not_read
from sidecar.records.verify import Report

TWO_PRODUCERS = (
    "two producers use one source: older versions allowed that for nodes of one name and after a lost volume"
)


def warn_of_unread(source: RecordSource) -> None:
    """Name the files that may be of `source` and are not read: compressed ones, and those of other names."""
    if packed := source.compressed():
        _say(f"sidecar: {not_read(packed)}")
    for path, reason in source.not_taken().items():
        _say(f"sidecar: {path}: {reason}")


def report_json(report: Report, left_out: list[str] | None) -> dict[str, Any]:
    """The document of `--json`. `left_out`: meters that do not add up; None: they are not known."""
    totals: dict[str, dict[str, int]] = {}
    for (customer, meter), units in sorted(report.totals.items()):
        totals.setdefault(customer, {})[meter] = units
    return {
        "records": report.records,
        "kinds": dict(sorted(report.kinds.items())),
        "missing": report.missing,
        "missing_before_first": report.before,
        "duplicates": report.duplicates,
        "reused_numbers": report.reused,
        "faults": report.faults,
        "not_billable": report.not_billable,
        "totals": totals,
        "not_sums": left_out,
        "sources": {
            source: {
                "first": numbers.first,
                "last": numbers.last,
                "highest_by_checkpoint": numbers.claimed,
                "missing": numbers.missing,
                "gaps": numbers.gaps(),
            }
            for source, numbers in sorted(report.sources.items())
        },
        "examples": {
            "duplicates": report.duplicate_ids,
            "reused_numbers": report.reused_examples,
            "faults": report.fault_examples,
        },
    }


def warn_of_repeats(report: Report) -> None:
    """Report copies, and numbers that were used again."""
    if report.duplicates:
        copies = (
            "1 copy of a known id was" if report.duplicates == 1 else f"{report.duplicates} copies of known ids were"
        )
        _say(f"sidecar: {copies} not counted")
    if report.reused:
        numbers = counted(report.reused, "number")
        _say(f"sidecar: {numbers} occurred again with another id, also counted: {TWO_PRODUCERS}")


def warn_of_gaps(report: Report) -> bool:
    """Report missing and unreadable records. True if there are any."""
    missing = report.missing + (0 if report.may_begin_late else report.before)
    if missing:
        numbers = "1 number is" if missing == 1 else f"{missing} numbers are"
        _say(f"sidecar: {numbers} missing from the sums: `sidecar records verify` lists them")
    if report.faults:
        lines = counted(report.faults, "record")
        _say(f"sidecar: {lines} cannot be read, and not in the sums: {report.fault_examples[0]}")
    return bool(missing or report.faults)


def print_report(report: Report, source: RecordSource) -> None:
    """The result by source, and the verdict."""
    for name, numbers in sorted(report.sources.items()):
        click.echo(printable(f"{name}: {counted(numbers.count, 'record')}, {numbers.first} to {numbers.last}"))
        if numbers.before:
            reason = "removed by shipping or retention" if report.may_begin_late else "lost, or removed by retention"
            _say(f"  begins late: 1 to {numbers.before} are absent: {reason}")
        for start, end in numbers.gaps():
            _say(f"  missing: {start} to {end}")
    for example in report.duplicate_ids:
        _say(f"twice: {example}")
    for example in report.reused_examples:
        _say(f"number used again: {example}")
    if report.reused:
        _say(f"  {TWO_PRODUCERS}")
    for example in report.fault_examples:
        _say(f"wrong: {example}")
    verdict = "whole" if report.whole else "NOT whole"
    missing = report.missing + (0 if report.may_begin_late else report.before)
    print_text(
        f"{printable(source.text)}: {verdict}: {counted(report.records, 'record')}, {missing} missing, "
        f"{report.duplicates} twice, {counted(report.reused, 'number')} used again, {report.faults} wrong"
    )


def _say(text: str) -> None:
    click.echo(printable(text), err=True)
