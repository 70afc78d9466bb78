"""`sidecar ledger push`: the ledger's files into ClickHouse. The report goes to standard output."""

from __future__ import annotations

from pathlib import Path
from threading import Event

import click

from sidecar.cli.options import config_option, json_option, print_json, settings_of, stopping
from sidecar.config.settings import Settings
from sidecar.core.errors import PolicyError, SinkError
from sidecar.core.words import counted
from sidecar.edge.ledger.clickhouse import ClickHouse
from sidecar.edge.ledger.clickhouse_tables import ClickHouseTables, Pushed
from sidecar.edge.ledger.engine import Engine
from sidecar.edge.ledger.files import LedgerFolder
from sidecar.ledger.pushing import FOLLOW_SECONDS, Push
from sidecar.ledger.pushing import push as push_files


@click.command()
@config_option
@click.option("--follow", is_flag=True, help="Go on with new files until SIGTERM; it looks for them each 10 s.")
@json_option
def push(config: Path | None, follow: bool, as_json: bool) -> int:
    """Insert the ledger's files into ClickHouse (`ledger.clickhouse.url`): what is new, each record once.

    It makes the tables and views, goes on where the last push ended, and can be killed at any time.
    Exit status 1: a file was refused, which standard error names; the rest is inserted.

    Next: `sidecar ledger totals --engine clickhouse --period 2026-11`.
    """
    settings = settings_of(config)
    url = clickhouse_url(settings)
    done = Push()
    trouble = ""
    with stopping() as stop, Engine(memory=f"{settings.ledger.memory_bytes}B") as engine:
        while True:
            try:
                _push_once(settings, url, engine, done, stop, quiet=as_json)
                trouble = ""
            except SinkError as error:
                if not follow:
                    raise
                if str(error) != trouble:  # each cause is one line
                    trouble = str(error)
                    click.echo(f"sidecar: {trouble}: trying again", err=True)
            if not follow or stop.wait(FOLLOW_SECONDS):
                break
    if as_json:
        print_json(done.as_json())
    else:
        for fault in done.faults:
            click.echo(f"sidecar: {fault}", err=True)
        click.echo(f"{counted(done.rows, 'row')} of {counted(done.files, 'file')} inserted")
    return 1 if done.faults else 0


def _push_once(settings: Settings, url: str, engine: Engine, done: Push, stop: Event, *, quiet: bool) -> None:
    def show(pushed: Pushed) -> None:
        if not quiet:
            place = f"{pushed.topic}/p{pushed.part:04}"
            click.echo(f"{place} {pushed.first}-{pushed.last}: {counted(pushed.rows, 'row')}", err=True)

    with ClickHouse(url) as clickhouse:
        push_files(
            LedgerFolder(settings.ledger.dir),
            engine,
            ClickHouseTables(clickhouse),
            done,
            stop=stop.is_set,
            on_insert=show,
        )


def clickhouse_url(settings: Settings) -> str:
    """Where ClickHouse is. PolicyError: the settings do not say it."""
    if settings.ledger.clickhouse is None:
        what = (
            "is needed for this: write https://user:password@host:8443/database, or set SIDECAR_LEDGER__CLICKHOUSE__URL"
        )
        raise PolicyError([settings.fault(("ledger", "clickhouse", "url"), what)])
    return settings.ledger.clickhouse.url.get_secret_value()
