"""`sidecar schema`: what a record, a policy and a configuration look like, for editors, validators and consumers."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import click

from sidecar.cli.options import print_json

SCHEMAS = {
    "record": "sidecar.core.record:record_schema",
    "policy": "sidecar.config.policies:policy_schema",
    "settings": "sidecar.config.settings:settings_schema",
    "config": "sidecar.config.settings:settings_schema",  # its name until 0.1
}
TABLES = {
    "record": "sidecar.core.record.schema:fields_table",
    "settings": "sidecar.config.reference:settings_table",
}


@click.command()
@click.argument("what", type=click.Choice(list(SCHEMAS)))
@click.option("--table", is_flag=True, help="Print all fields of record or settings as Markdown tables instead.")
def schema(what: str, *, table: bool) -> None:
    """Print the JSON Schema of WHAT.

    Next: name it in the settings of your editor, or validate your documents with it in CI.
    """
    if not table:
        print_json(_named(SCHEMAS[what])())
    elif what in TABLES:
        click.echo(_named(TABLES[what])())
    else:
        raise click.UsageError(f"--table is for {' and '.join(TABLES)}: sidecar schema settings --table")


def _named(name: str) -> Callable[[], Any]:
    module, _, function = name.partition(":")
    make: Callable[[], Any] = getattr(import_module(module), function)
    return make
