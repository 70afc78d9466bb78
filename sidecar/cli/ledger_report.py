"""The report of `sidecar ledger verify`, for people and programs."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any, Final

import click

from sidecar.cli.tables import print_text, printable
from sidecar.core.words import counted
from sidecar.ledger.verify import Late, LedgerReport

_NEXT_OF_REFUSED: Final = "  next: restore the file; the last one of a partition: delete it, then load again"
_NEXT_OF_MISSING: Final = "  next: `sidecar ledger load`; then `sidecar ledger seal --period 2026-11` says why"


def report_as_json(report: LedgerReport) -> dict[str, Any]:
    """The report as a document."""
    return {
        "whole": report.is_whole,
        "kinds": report.kinds,
        "missing": report.missing,
        "copies": report.copies,
        "reused_numbers": report.reused_count,
        "rejected": report.rejected_count,
        "unknown_originals": report.unknown_count,
        "labels_with_several_contents": [label for label, _, _ in report.labels],
        "differences": [each._asdict() for each in report.differences],
        "changed": [each._asdict() for each in report.changed],
        "late": [each._asdict() for each in report.late],
        "faults": list(report.faults),
        "sources": {
            name: {
                "first": each.numbers.first,
                "last": each.numbers.last,
                "present": each.present,
                "highest_by_checkpoint": report.claimed.get(name, 0),
                "gaps": report.gaps(name),
                "retired": report.is_retired(name),
            }
            for name, each in sorted(report.sources.items())
        },
        "examples": {
            "reused_numbers": report.reused,
            "rejected": report.rejected,
            "unknown_originals": report.unknown_originals,
        },
    }


def _warn(text: str) -> None:
    click.echo(printable(text), err=True)


def _warn_of_more(count: int, shown: Sized, what: str) -> None:
    if count > len(shown):
        _warn(f"{what}: and {count - len(shown)} more")


def print_report(report: LedgerReport) -> None:
    """Print the kinds and the verdict, and on standard error all that is wrong, with what to do next."""
    for kind, number in report.kinds.items():
        click.echo(f"{number:>12}  {kind}")
    _print_files(report)
    _print_numbers(report)
    _print_units(report)
    _print_records(report)
    for late in report.late:
        _warn(late_line(late))
    copies = sum(report.copies.values())
    print_text(
        f"{'whole' if report.is_whole else 'NOT whole'}: {report.missing} missing, "
        f"{counted(report.reused_count, 'number')} used again, {counted(len(report.differences), 'difference')} of "
        f"units, {report.rejected_count} rejected, {report.unknown_count} without original, "
        f"{counted(copies, 'copy') if copies == 1 else f'{copies} copies'}"
    )


def late_line(late: Late) -> str:
    """Late records of one sealed period, in words."""
    added = ", ".join(f"{meter} {number:+}" for meter, number in late.units.items())
    by = "recorded by operators" if late.by_operator else "loaded"
    return f"late: {late.period}: {counted(late.records, 'record')} {by} after it was sealed: {added}"


def _print_files(report: LedgerReport) -> None:
    for fault in report.faults:
        _warn(f"refused: {fault}")
    if report.faults:
        _warn(_NEXT_OF_REFUSED)


def _print_numbers(report: LedgerReport) -> None:
    for name, each in sorted(report.sources.items()):
        gaps = [f"{start} to {end}" for start, end in report.gaps(name)]
        if gaps:
            word = "given up" if report.is_retired(name) else "missing"
            _warn(f"{word}: {name}: {', '.join(gaps)}; {counted(each.present, 'number')} are here")
    if report.missing:
        _warn(_NEXT_OF_MISSING)
    for name, sequence, ids in report.reused:
        _warn(f"number used again: {name} {sequence}: {ids} ids")
    _warn_of_more(report.reused_count, report.reused, "number used again")


def _print_units(report: LedgerReport) -> None:
    for source, meter, stated, units in report.differences:
        _warn(f"units: {source}: {meter}: its checkpoint states {stated}, its records have {units}")
    for name, meter, stated, units in report.changed:
        _warn(f"changed: {name}: {meter}: the seal states {stated}, its records have {units}")


def _print_records(report: LedgerReport) -> None:
    for topic, part, offset, fault in report.rejected:
        _warn(f"rejected: {topic} partition {part} offset {offset}: {fault}")
    _warn_of_more(report.rejected_count, report.rejected, "rejected")
    for label, contents, sources in report.labels:
        hashes = " and ".join([f"{digest[:12]}…" for digest in contents])
        _warn(f"plan label {label} has several contents: SHA-256 {hashes}, by {', '.join(sources)}")
    for id_, cause in report.unknown_originals:
        _warn(f"original unknown: {id_} changes {cause}, which is not here")
    _warn_of_more(report.unknown_count, report.unknown_originals, "original unknown")
