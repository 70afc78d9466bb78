"""`sidecar ledger push`: the ledger's files into ClickHouse. The report goes to standard output."""

from __future__ import annotations

from pathlib import Path

import click

from sidecar.cli.ledger_progress import LedgerDisplay
from sidecar.cli.options import config_option, json_option, print_json, settings_of, stopping
from sidecar.cli.tables import printable
from sidecar.config.settings import Settings
from sidecar.core.errors import PolicyError, SinkError
from sidecar.core.words import counted
from sidecar.edge.ledger.clickhouse import ClickHouse
from sidecar.edge.ledger.clickhouse_tables import ClickHouseTables
from sidecar.edge.ledger.engine import Engine
from sidecar.edge.ledger.files import LedgerFolder
from sidecar.ledger.pushing import FOLLOW_SECONDS, Push, PushOptions
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
    folder = LedgerFolder(settings.ledger.dir)
    with (
        stopping() as stop,
        Engine(memory=f"{settings.ledger.memory_bytes}B") as engine,
        LedgerDisplay("pushing", quiet=as_json) as display,
    ):
        options = PushOptions(stop.is_set, display.on_insert, display.on_progress)
        while True:
            try:
                with ClickHouse(url) as clickhouse:
                    push_files(folder, engine, ClickHouseTables(clickhouse), done, options)
                display.on_success()
            except SinkError as error:
                if not follow:
                    raise
                display.on_trouble(str(error))
            if not follow or stop.wait(FOLLOW_SECONDS):
                break
    if as_json:
        print_json(done.as_json())
    else:
        for fault in done.faults:
            click.echo(f"sidecar: {printable(fault)}", err=True)
        click.echo(f"{counted(done.rows, 'row')} of {counted(done.files, 'file')} inserted")
    return 1 if done.faults else 0


def clickhouse_url(settings: Settings) -> str:
    """Where ClickHouse is. PolicyError: the settings do not say it."""
    if settings.ledger.clickhouse is None:
        what = (
            "is needed for this: write https://user:password@host:8443/database, or set SIDECAR_LEDGER__CLICKHOUSE__URL"
        )
        raise PolicyError([settings.fault(("ledger", "clickhouse", "url"), what)])
    return settings.ledger.clickhouse.url.get_secret_value()
