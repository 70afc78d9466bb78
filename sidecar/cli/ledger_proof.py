"""`sidecar ledger verify | seal | retire`: is everything there? Answers go to standard output."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from sidecar.app import kafka
from sidecar.app.commands import command_source, pending_statement
from sidecar.cli.ledger_report import late_line, print_report, report_as_json
from sidecar.cli.options import actor_option, config_option, json_option, print_json, reason_option, settings_of
from sidecar.cli.tables import print_rows, print_text, printable
from sidecar.config.settings import Settings
from sidecar.control.build_variant import VERSION
from sidecar.core.billing.sealing import SourceVerdict
from sidecar.core.errors import SinkError
from sidecar.core.words import counted
from sidecar.edge.clock import SystemClock
from sidecar.edge.kafka.bulk import BulkReader
from sidecar.ledger.connection import LedgerRows, open_ledger
from sidecar.ledger.facts import time_us
from sidecar.ledger.retiring import retirement
from sidecar.ledger.sealing import Period, Sealing, proven, seal
from sidecar.ledger.unread import unread_faults
from sidecar.ledger.verify import Late, late_records
from sidecar.ledger.verify import verify as verify_ledger

_NEXT_OF_LATE: Final = (
    "the units of late records are in `sidecar ledger totals --period {}` and not in the seal: "
    "bill or credit the difference with the next invoice"
)
_MONTH = re.compile(r"(20\d\d)-(0[1-9]|1[0-2])")


def _period(_context: click.Context, _parameter: click.Parameter, text: str) -> Period:
    match = _MONTH.fullmatch(text)
    if match is None:
        raise click.BadParameter(f"'{text}' is not a month: write 2026-11")
    start = datetime(int(match[1]), int(match[2]), 1, tzinfo=UTC)
    end = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
    return Period(text, time_us(start), time_us(end))


@click.command()
@config_option
@json_option
def verify(config: Path | None, as_json: bool) -> int:
    """Check that the ledger is whole: files as written, every number once, units as checkpoints state them.

    Copies are listed, and are in no sum. Exit status 1: it is not whole.

    Next: `sidecar ledger seal --period 2026-11`.
    """
    with _open_ledger(settings_of(config), checks_digests=True) as ledger:
        report = verify_ledger(ledger)
    if as_json:
        print_json(report_as_json(report))
    else:
        print_report(report)
    return 0 if report.is_whole else 1


@click.command(name="seal")
@config_option
@click.option("--period", required=True, callback=_period, help="A month, in UTC: 2026-11.")
@click.option("--without-kafka", is_flag=True, help="Do not ask Kafka whether records of the month are not loaded yet.")
@click.option(
    "--accept-rejected", is_flag=True, help="Seal although there are rejected lines that may be records of the month."
)
@json_option
def seal_(config: Path | None, period: Period, as_json: bool, **options: bool) -> int:
    """Seal a month: prove that every source has delivered all its records of it, and write that down.

    It asks Kafka, where one is configured, whether all records of the month are loaded. Rejected lines that may be of
    the month keep it open: look at them with `sidecar ledger query 'FROM rejected'`.
    Exit status 1: the month is not complete yet; the answer says what is missing of which source.

    Next: repeat it later, or `sidecar ledger retire SOURCE` where a machine does not return.
    """
    settings = settings_of(config)
    asks_kafka = settings.kafka is not None and not options["without_kafka"]
    with _open_ledger(settings, checks_digests=True) as ledger:
        find_unread = partial(_find_unread, settings, ledger) if asks_kafka else None
        now_us = SystemClock().now_us()
        sealing = seal(ledger, period, now_us, find_unread=find_unread, accepts_rejected=options["accept_rejected"])
        late = late_records(ledger.engine, sealing.document) if sealing.document and not sealing.is_new else []
    if as_json:
        print_json(_sealing_as_json(sealing, late))
    else:
        _print_sealing(sealing, late)
    return 0 if sealing.is_sealed else 1


def _sealing_as_json(sealing: Sealing, late: Sequence[Late]) -> dict[str, Any]:
    return {
        "period": sealing.period.name,
        "sealed": sealing.is_sealed,
        "new": sealing.is_new,
        "over": sealing.is_over,
        "sources": [_verdict_as_json(each) for each in sealing.sources],
        "faults": list(sealing.faults),
        "unread": list(sealing.unread),
        "rejected": sealing.rejected,
        "late": [each._asdict() for each in late],
        "document": sealing.document,
    }


def _print_sealing(sealing: Sealing, late: Sequence[Late]) -> None:
    for fault in (*sealing.faults, *sealing.unread):
        click.echo(f"sidecar: {printable(fault)}", err=True)
    if sealing.document is None:
        sources = [_verdict_as_json(each) for each in sealing.sources]
    else:
        sources = [{"source": name, **facts} for name, facts in sealing.document["sources"].items()]
    rows = [
        {
            "source": each["source"],
            "state": each["state"],
            "records": each["highest"].get("records", 0),
            "missing": "; ".join(each.get("missing") or each.get("may_be_missing", ())),
        }
        for each in sources
    ]
    print_rows(rows, ("source", "state", "records", "missing"))
    for each in late:
        click.echo(printable(late_line(each)), err=True)
    print_text(f"{sealing.period.name}: {_state_of(sealing)}", err=True)
    if late:
        print_text(f"sidecar: {_NEXT_OF_LATE.format(sealing.period.name)}", err=True)


def _state_of(sealing: Sealing) -> str:
    if sealing.document is not None:
        before = "" if sealing.is_new else "already "
        return f"{before}sealed at {sealing.document['sealed']}"
    if not sealing.is_over:
        return "not sealed: it is not over; it can be sealed a minute after its end, UTC"
    return f"not sealed: {_why_not(sealing)}"


def _find_unread(settings: Settings, ledger: LedgerRows, before_us: int) -> tuple[str, ...]:
    assert settings.kafka is not None  # noqa: S101 - the caller asks for it
    try:
        with BulkReader(kafka.connection(settings)) as reader:
            return unread_faults(reader, ledger, kafka.streams(settings.kafka).values(), before_us)
    except SinkError as error:
        return (f"{error}; Kafka may have records that are not loaded: repeat it, or seal with --without-kafka",)


def _why_not(sealing: Sealing) -> str:
    incomplete = sum(not each.is_complete for each in sealing.sources)
    if sealing.faults:
        return "files were refused"
    if sealing.unread:
        return "records are not loaded"
    if incomplete:
        return f"{counted(incomplete, 'source')} of {len(sealing.sources)} incomplete"
    if not sealing.sources:
        return "no source"
    lines = "1 rejected line" if sealing.rejected == 1 else f"{sealing.rejected} rejected lines"
    return f"{lines} may be of it: `sidecar ledger query 'FROM rejected'`; --accept-rejected seals it all the same"


@click.command()
@config_option
@click.argument("source")
@click.option("--force", is_flag=True, help="Also a source that has recorded within the last ten minutes.")
@reason_option
@actor_option
@json_option
def retire(config: Path | None, source: str, *, force: bool, reason: str, actor: str, as_json: bool) -> None:
    """Give up what is missing of a source whose machine does not return, so that periods can be sealed.

    SOURCE is a name that `sidecar ledger seal` lists, with what is missing of it. The retirement is a record, shipped
    as others are: load it before the next seal. The answer says what may be missing.

    Next: `sidecar ledger load`, then `sidecar ledger seal --period 2026-11`.
    """
    settings = settings_of(config)
    with _open_ledger(settings) as ledger:
        given_up = retirement(ledger.engine, source, SystemClock().now_us(), proven(ledger.folder), force=force)
    if not given_up.is_recorded:
        pending = [pending_statement(each) for each in given_up.statements(reason, actor, VERSION)]
        with command_source(settings) as commands:
            commands.write(pending, VERSION)
    done = "exists" if given_up.is_recorded else "recorded"
    if as_json:
        print_json(
            {"done": done, "source": source, "highest": given_up.highest, "may_be_missing": given_up.may_be_missing}
        )
        return
    for each in given_up.may_be_missing:
        click.echo(f"may be missing: {each}")
    click.echo(f"{source}: {'was retired before' if given_up.is_recorded else 'retired'}", err=True)


@contextmanager
def _open_ledger(settings: Settings, *, checks_digests: bool = False) -> Iterator[LedgerRows]:
    options = settings.ledger
    memory = f"{options.memory_bytes}B"
    with open_ledger(options.dir, memory, options.threads, checks_digests=checks_digests) as ledger:
        yield ledger


def _verdict_as_json(verdict: SourceVerdict) -> dict[str, Any]:
    return {
        "source": verdict.source,
        "state": verdict.state,
        "complete": verdict.is_complete,
        "highest": dict(verdict.highest),
        "missing": list(verdict.missing),
        "may_be_missing": list(verdict.may_be_missing),
    }
