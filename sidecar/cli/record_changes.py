"""`sidecar records void | correct | backfill`: changes of what is billed, each a record with its reason and its actor.

The id of a void or a correction goes to standard output, a message to standard error. A backfill prints its number of
records and their units.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Callable, Collection, Mapping
from itertools import chain
from pathlib import Path
from secrets import token_hex
from typing import Any, Final

import click

from sidecar.app.adjusting import Adjusted, adjust, is_repeatable
from sidecar.app.commands import command_source, history_sources, originals, pending_statement
from sidecar.cli.options import actor_option, config_option, json_option, print_json, reason_option, settings_of
from sidecar.cli.tables import printable
from sidecar.config.settings import Settings
from sidecar.control.build_variant import VERSION
from sidecar.core.digits import BASE32
from sidecar.core.errors import PolicyError, SinkError
from sidecar.core.record.changes import VOID, Change, History, correction_of, void_of
from sidecar.core.record.statements import Audit
from sidecar.core.usage import PolicySource
from sidecar.core.words import counted
from sidecar.edge.clock import SystemClock
from sidecar.loading.documents import load_policies
from sidecar.records.backfill import Batch, count_recorded, read_batch
from sidecar.records.changes import Recorded, record_change
from sidecar.records.originals import unread

_UNITS: Final = re.compile(r"[+-]?[0-9]{1,16}")
_NOT_KNOWN: Final = (
    "whether quota and wallet were given back is known for a day: `sidecar counters drift --customer {}` compares them"
)
_file_option = click.option(
    "--file",
    "files",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Read the record and its changes from this file of JSON lines too. May be given several times.",
)


def _record_id(_context: click.Context, _parameter: click.Parameter, text: str) -> str:
    if len(text) != 26 or text.strip(BASE32):
        raise click.BadParameter(
            f"'{printable(text)}' is not the id of a record: 26 characters, the X-Request-Id of its answer"
        )
    return text


def _units(_context: click.Context, _parameter: click.Parameter, texts: tuple[str, ...]) -> dict[str, int]:
    units: dict[str, int] = {}
    for text in texts:
        meter, _, number = text.rpartition("=")
        change = int(number) if _UNITS.fullmatch(number) else 0
        if not meter or not change or meter in units:
            raise click.BadParameter(
                f"'{printable(text)}': write each meter once, as tokens=-12 or tokens=+5, and not 0"
            )
        units[meter] = change
    return units


def _key(_context: click.Context, _parameter: click.Parameter, text: str | None) -> str | None:
    if text is not None and not text.strip():
        raise click.BadParameter("is empty: write a name, or leave --id out for a random one")
    return text


@click.command()
@config_option
@click.argument("id_", metavar="ID", callback=_record_id)
@reason_option
@actor_option
@_file_option
@json_option
def void(config: Path | None, id_: str, reason: str, actor: str, **options: Any) -> None:
    """Take back all usage of a record: of the exchange ID, with its corrections.

    The record stays, and a void is recorded that is minus its usage, in its period. A second void of one record changes
    nothing, and is exit status 0 too.

    Next: `sidecar records find --id ID` shows the record.
    """
    repeat = "repeat the command"
    _change(settings_of(config), id_, lambda history: void_of(history, reason, actor), repeat, **options)


@click.command()
@config_option
@click.argument("id_", metavar="ID", callback=_record_id)
@click.option(
    "--units", multiple=True, required=True, callback=_units, help="METER=±N: what to add. May be given several times."
)
@click.option(
    "--id", "key", callback=_key, help="A name for this correction: it is recorded once. Default: a random one."
)
@reason_option
@actor_option
@_file_option
@json_option
def correct(
    config: Path | None, id_: str, units: dict[str, int], key: str | None, reason: str, actor: str, **options: Any
) -> None:
    """Change the usage of a record: add units, or take them back.

    The record stays, and a correction is recorded in its period. No meter can be left below 0. Meters that the policy
    computes of the named ones (`sum`, `times`) change too, unless they are named themselves.

    Next: `sidecar records correct ID --units tokens=-12 --reason "counted twice"`.
    """
    settings = settings_of(config)
    policy, name = _policy(settings), key or token_hex(8)
    if key is None:
        click.echo(f"if this command fails, repeat it with --id {name}: it is another correction without", err=True)
    repeat = f"repeat the command with --id {name}"
    _change(
        settings, id_, lambda history: correction_of(history, units, name, reason, actor, policy), repeat, **options
    )


def _policy(settings: Settings) -> PolicySource | None:
    """The policies of the settings, which compute meters of others; None: they cannot be read."""
    try:
        return load_policies(settings).source
    except PolicyError:
        return None


def _change(
    settings: Settings,
    id_: str,
    make: Callable[[History], Change],
    repeat: str,
    *,
    files: tuple[Path, ...],
    as_json: bool,
) -> None:
    async def run() -> tuple[Recorded, Adjusted]:
        recorded = await record_change(command_source(settings), originals(settings, files), id_, make, VERSION)
        if recorded.source or is_repeatable(recorded.earlier_us, SystemClock().now_us()):
            return recorded, await adjust(settings, recorded.change, repeat)
        return recorded, Adjusted(_NOT_KNOWN.format(recorded.change.customer))

    recorded, adjusted = asyncio.run(run())
    if recorded.source:
        _warn_of_sealed(settings, [recorded.change.period_time[:7]])
    _report(recorded, adjusted.text, as_json=as_json)
    sys.exit(0 if adjusted.is_done else 1)


def _report(recorded: Recorded, counters: str, *, as_json: bool) -> None:
    change, _, source = recorded
    id_, original = change.id.decode(), change.original["id"]
    if as_json:
        print_json(
            {
                "done": "recorded" if source else "exists",
                "kind": change.kind,
                "id": id_,
                "original": original,
                "customer": change.customer,
                "period_time": change.period_time,
                "usage": {} if change.kind == VOID and not source else change.usage,
                "computed": change.computed.units,
                "not_computed": change.computed.left,
                "source": source,
                "counters": counters,
            }
        )
        return
    if source:
        done = f"recorded a {change.kind} of {original}: {_text(change)}, customer {change.customer}, "
        done += change.period_time
    elif change.kind == VOID:
        done = f"{original} is already void; nothing was recorded"
    else:
        done = f"the correction of {original} already exists: {_text(change)}; nothing was recorded"
    _say(done)
    for reason, meters in _by_reason(change.computed.left):
        _say(f"not computed: {', '.join(meters)}: {reason}: to change it, name it with --units")
    if counters:
        _say(counters)
    click.echo(id_)


def _say(text: str) -> None:
    click.echo(printable(text), err=True)


def _text(change: Change) -> str:
    computed = change.computed.units
    return ", ".join(
        f"{meter} {units:+}{' (computed)' if meter in computed else ''}" for meter, units in change.usage.items()
    )


def _by_reason(left: Mapping[str, str]) -> list[tuple[str, list[str]]]:
    return [(reason, [meter for meter in left if left[meter] == reason]) for reason in dict.fromkeys(left.values())]


@click.command()
@config_option
@click.option(
    "--file", type=click.Path(path_type=Path, dir_okay=False, exists=True), required=True, help="JSON lines of usage."
)
@click.option("--batch", required=True, help="A name for this file. The same lines under one name are recorded once.")
@click.option("--check", "only_check", is_flag=True, help="Check the file and say what it has. Nothing is recorded.")
@reason_option
@actor_option
@json_option
def backfill(  # noqa: PLR0913 - the options of a command
    config: Path | None, file: Path, batch: str, *, only_check: bool, reason: str, actor: str, as_json: bool
) -> None:
    """Record usage of a time that was not metered, from a file of JSON lines.

    Each line has customer, key_id, subject, plan, route, time, usage, and optionally id and other fields of a usage
    record. The file is checked as a whole first. Counters and wallets do not change. A batch of which every line is
    recorded already changes nothing.

    Next: `sidecar records count` sums up.
    """
    settings = settings_of(config)
    lines = read_batch(file, batch, SystemClock().now_us())
    source, recorded, unknown = "", 0, ""
    if not only_check and lines.records:
        after = {"records": lines.records, "usage": lines.usage}
        audit = Audit("records.backfill", actor, f"batch/{batch}", "cli", "done", reason=reason, after=after)
        with command_source(settings) as commands:
            recorded, unknown = _count_recorded(settings, lines)
            if recorded < lines.records:
                source = commands.write(chain(lines.pending(), [pending_statement(audit)]), VERSION)
    if not recorded or source:
        _warn_of_sealed(settings, lines.months)
    done = "checked" if only_check or not lines.records else "recorded" if source else "exists"
    if as_json:
        counts = {"records": lines.records, "recorded_before": recorded, "usage": lines.usage}
        print_json({"done": done, **counts, "source": source})
        return
    units = ", ".join(f"{meter} {number}" for meter, number in sorted(lines.usage.items()))
    texts = {"checked": "checked", "recorded": "recorded", "exists": "recorded before, nothing changed:"}
    click.echo(printable(f"{texts[done]} {counted(lines.records, 'record')}: {units or 'no usage'}"))
    if source and recorded:
        _say(f"{recorded} of them had been recorded before: consumers drop these copies by their ids")
    if source and unknown:
        _say(f"not known whether they had been recorded before: {unknown}. Consumers drop copies by their ids")


def _count_recorded(settings: Settings, lines: Batch) -> tuple[int, str]:
    """How many of the lines are recorded already, and what could not be read of where they may be."""
    try:
        sources = history_sources(settings)
        recorded = asyncio.run(count_recorded(lines, sources))
    except SinkError as error:
        return 0, str(error)
    return recorded, unread(sources, lines.since_us / 1e6)


def _warn_of_sealed(settings: Settings, months: Collection[str]) -> None:
    """Name the months that are sealed: what is recorded of them now is billed later."""
    for month in sorted(months):
        path = settings.ledger.dir / "sealed" / f"{month}.json"
        if path.exists():
            _say(
                f"warning: {month} is sealed ({path}): `sidecar ledger verify` counts this as late, and it is billed "
                "with a later month"
            )
