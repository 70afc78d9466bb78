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
    "config": "sidecar.config.settings:settings_schema",
}


@click.command()
@click.argument("what", type=click.Choice(list(SCHEMAS)))
@click.option("--table", is_flag=True, help="Of a record: the fields of all kinds as a Markdown table instead.")
def schema(what: str, *, table: bool) -> None:
    """Print the JSON Schema of WHAT.

    Next: point your editor at it, or hold your own documents to it in CI.
    """
    if table:
        if what != "record":
            raise click.UsageError("--table is for records: sidecar schema record --table")
        click.echo(import_module("sidecar.core.record.fields").fields_table())
        return
    module, _, name = SCHEMAS[what].partition(":")
    make: Callable[[], dict[str, Any]] = getattr(import_module(module), name)
    print_json(make())
