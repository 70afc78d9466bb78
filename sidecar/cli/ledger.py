"""`sidecar ledger`: load records for billing into files, and keep the files. Reports go to standard output."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from sidecar.app import kafka
from sidecar.cli.key_files import now
from sidecar.cli.ledger_answers import memory_of, query, totals
from sidecar.cli.ledger_progress import LedgerDisplay
from sidecar.cli.ledger_proof import retire, seal_, verify
from sidecar.cli.ledger_push import push
from sidecar.cli.ledger_trace import trace
from sidecar.cli.options import config_option, json_option, print_json, settings_of, stopping
from sidecar.cli.tables import print_text, printable
from sidecar.config.settings import Settings
from sidecar.core.errors import SinkError
from sidecar.edge.kafka.bulk import BulkReader
from sidecar.edge.ledger.engine import Engine
from sidecar.edge.ledger.files import LedgerFolder
from sidecar.edge.rotation import not_taken, with_rotated
from sidecar.ledger.compacting import Retention
from sidecar.ledger.compacting import compact as compact_folder
from sidecar.ledger.load_options import FLUSH_SECONDS, LoadOptions
from sidecar.ledger.loading import Loader
from sidecar.ledger.sink_files import ShortFileError, longer_copy


@click.group()
def ledger() -> None:
    """Records for billing: load them into files, sum them up, trace a sum to its records.

    Needs `pip install 'metering-sidecar[billing]'`. All periods are in UTC.
    """


for _command in (totals, query, trace, push, verify, seal_, retire):
    ledger.add_command(_command)


@ledger.command()
@config_option
@click.option("--follow", is_flag=True, help="Go on until SIGTERM, also for loads that end; a file each minute.")
@click.option(
    "--file", "files", multiple=True, type=click.Path(path_type=Path, dir_okay=False), help="Only this one; repeatable."
)
@click.option("--partition", "partitions", multiple=True, type=click.IntRange(0), help="Only this one; repeatable.")
@json_option
def load(config: Path | None, follow: bool, files: tuple[Path, ...], partitions: tuple[int, ...], as_json: bool) -> int:
    """Load records and denials: from Kafka, or from the sink's file, or from the files that are named.

    With the sink's file, those that were rotated to NAME.1 or NAME-20261121 are loaded too, but not compressed ones.
    Others that begin with NAME are named on standard error.
    It goes on where the last load ended, and can be killed at any time. Several loads share the partitions; one that
    follows takes over those of a load that ended.
    Exit status 1: a file was refused, which standard error names; the rest is loaded. A line that is not a record is
    kept with its fault in the view `rejected`. The last line and `rejected` of --json count those of this load, and the
    exit status is 0, since the next load does not see them again; `verify` has exit status 1 from then on.

    Next: from cron, `sidecar ledger load && sidecar ledger verify`.
    """
    settings = settings_of(config)
    if files and partitions:
        raise click.UsageError("--partition is of topics: leave it out with --file")
    with stopping() as stop, LedgerDisplay(quiet=as_json) as display:
        options = LoadOptions(
            stop.is_set, display.on_file, display.on_progress, on_trouble=display.on_trouble, follow=follow
        )
        with Loader(LedgerFolder(settings.ledger.dir), options, memory=memory_of(settings)) as loader:
            if settings.kafka is not None and not files:
                topics = kafka.streams(settings.kafka).values()
                with BulkReader(kafka.connection(settings)) as reader:
                    loader.load_topics(reader, topics, partitions)
            else:
                notes = Notes()
                _load_files(loader, files or _sink_files(settings, notes), bool(files), notes)
                while follow and not stop.wait(FLUSH_SECONDS):
                    _load_files(loader, files or _sink_files(settings, notes), bool(files), notes)
    report = loader.report
    if as_json:
        print_json(report.as_json())
    else:
        for fault in report.faults:
            click.echo(f"sidecar: {printable(fault)}", err=True)
        display.conclude(report)
    return 1 if report.faults else 0


class Notes:
    """Messages about files that were passed over, on standard error: each once, also where a load follows."""

    def __init__(self) -> None:
        self._texts: set[str] = set()

    def add(self, text: str) -> None:
        """Print it, unless that was done before."""
        if text not in self._texts:
            self._texts.add(text)
            click.echo(f"sidecar: {printable(text)}", err=True)


def _sink_files(settings: Settings, notes: Notes) -> list[Path]:
    path = settings.record_file
    if path is None:
        raise SinkError("records go to standard output, which cannot be read back: name --file")
    denials = path.with_name(f"{path.stem}.denials{path.suffix}")
    for each, why in (not_taken(path) | not_taken(denials)).items():
        notes.add(f"{each}: {why}")
    return [*with_rotated(path), *with_rotated(denials)]


def _load_files(loader: Loader, files: Sequence[Path], is_named: bool, notes: Notes) -> None:
    for path in files:
        try:
            loader.load_file(path)
        except ShortFileError as error:
            if (whole := longer_copy(path, files)) is None:
                loader.fault(str(error))
            else:
                notes.add(f"{path}: not loaded: a copy of the first bytes of {whole}, which is loaded")
        except SinkError as error:
            if is_named or not isinstance(error.__cause__, FileNotFoundError):
                loader.fault(str(error))


@ledger.command()
@config_option
@json_option
def compact(config: Path | None, as_json: bool) -> int:
    """Join small files into larger ones, and remove what `ledger.retain` no longer asks for. Sums do not change.

    It can run beside a load, and be killed at any time.
    """
    settings = settings_of(config)
    folder = LedgerFolder(settings.ledger.dir)
    if not folder.identity():
        raise SinkError(f"{folder.path}: not a ledger: `sidecar ledger load` makes one, or set ledger.dir")
    with stopping() as stop, Engine(folder=folder.path, memory=memory_of(settings)) as engine:
        done = compact_folder(folder, engine, _retention(settings), stop=stop.is_set)
    if as_json:
        print_json(done.as_json())
    else:
        for file, parts in done.joined:
            print_text(printable(f"{file}: of {parts} files"))
        for file in done.removed:
            print_text(printable(f"{file}: removed, no longer retained"))
        for fault in done.faults:
            click.echo(f"sidecar: {printable(fault)}", err=True)
    return 1 if done.faults else 0


def _retention(settings: Settings) -> Retention:
    options = settings.ledger
    now_us = int(now().timestamp()) * 1_000_000

    def before(seconds: int) -> int:
        return now_us - seconds * 1_000_000 if seconds else 0

    denials = settings.kafka.topics.denials if settings.kafka is not None else "usage.denials"
    own = options.retain_denials_seconds or options.retain_seconds
    return Retention(before(options.retain_seconds), {denials: before(own)})
