"""The progress of a load or push on standard error: a bar on a terminal, else a line for each file that was written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from sidecar.core.words import counted

if TYPE_CHECKING:
    from sidecar.edge.ledger.clickhouse_tables import Pushed
    from sidecar.edge.ledger.writer import Loaded
    from sidecar.ledger.report import LoadReport
    from sidecar.ledger.report import Progress as Place

_NEXT: Final = (
    "`sidecar ledger verify` says where, with exit status 1; `sidecar ledger query 'FROM rejected'` shows the text"
)


class LedgerDisplay:
    """Shows what a load or push does. `quiet`: only troubles."""

    def __init__(self, what: str = "loading", *, quiet: bool = False) -> None:
        console = Console(stderr=True)
        self._is_bar = console.is_terminal and not quiet
        self._quiet = quiet
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[figures]}"))
        self._bar = Progress(*columns, TimeElapsedColumn(), console=console, disable=not self._is_bar)
        self._task = self._bar.add_task(what, total=None, figures="")
        self._places: dict[tuple[str, int], Place] = {}
        self._begun: dict[tuple[str, int], int] = {}
        self._troubles = ""

    def on_file(self, loaded: Loaded) -> None:
        """A file was written."""
        if self._quiet or self._is_bar:
            return
        parts = [counted(loaded.records, "record"), f"{loaded.size} bytes"]
        parts += [
            f"{number} {name}" for number, name in ((loaded.rejected, "rejected"), (loaded.copies, "twice")) if number
        ]
        click.echo(f"{loaded.file}: {', '.join(parts)}", err=True)

    def on_insert(self, pushed: Pushed) -> None:
        """Offsets were pushed."""
        if not self._quiet and not self._is_bar:
            place = f"{pushed.topic}/p{pushed.part:04}"
            click.echo(f"{place} {pushed.first}-{pushed.last}: {counted(pushed.rows, 'row')}", err=True)

    def on_progress(self, place: Place) -> None:
        """A partition was loaded or pushed further."""
        if not self._is_bar:
            return
        key = (place.topic, place.part)
        self._begun.setdefault(key, place.offset)
        self._places[key] = place
        done = sum(each.offset - self._begun[name] for name, each in self._places.items())
        lag = sum(max(0, each.end - each.offset) for each in self._places.values())
        elapsed = self._bar.tasks[0].elapsed or 0
        rate = f"{done / elapsed:,.0f}/s" if elapsed > 1 else ""
        self._bar.update(
            self._task, completed=done, total=done + lag, figures=f"{place.topic}/{place.part} {rate} lag {lag:,}"
        )

    def on_trouble(self, text: str) -> None:
        """Something failed that is tried again; each cause is one line."""
        if text != self._troubles:
            self._troubles = text
            click.echo(f"sidecar: {text}: trying again", err=True)

    def on_success(self) -> None:
        """An attempt succeeded: a later failure is another trouble."""
        self._troubles = ""

    def conclude(self, report: LoadReport) -> None:
        """Print the sums of a load; if lines were rejected, the last line says so."""
        count = counted(report.files, "file")
        rejected, copies = report.total("rejected"), report.total("copies")
        click.echo(f"{counted(report.total('records'), 'record')} in {count}, {rejected} rejected, {copies} twice")
        if rejected:
            lines = "1 line is not a record" if rejected == 1 else f"{rejected} lines are not records"
            click.echo(f"sidecar: {lines} and NOT in any sum: {_NEXT}", err=True)

    def __enter__(self) -> Self:
        if self._is_bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_bar:
            self._bar.stop()
