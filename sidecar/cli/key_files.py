"""`sidecar keys import | export`: many API keys from a file of CSV or JSON, or to one.

An import is checked as a whole before anything is written. In a key file it is then one atomic change; in Redis it is
written in batches, and after an error it can be repeated.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sidecar.cli.options import config_option, json_option, print_json, settings_of
from sidecar.config.compile import plan_names
from sidecar.core.errors import Fault, PolicyError, SidecarError, StoreError, unreadable
from sidecar.core.words import counted
from sidecar.edge.clock import SystemClock
from sidecar.keys.imports import Import, Options, plan_import
from sidecar.keys.registers import make_credential, make_id, open_keys
from sidecar.keys.tables import as_csv, as_json, table

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from sidecar.config.settings import Settings
    from sidecar.core.identity import KeyRecord
    from sidecar.keys.registers import Register

_FAULTS = 20  # of a file, printed at most

force_option = click.option("--force", is_flag=True, help="Accept a plan that the policies do not define yet.")


def defined_plans(settings: Settings) -> set[str] | None:
    """The names of the plans; None, with a warning, where the policies cannot be read."""
    try:
        return plan_names(settings.policies)
    except PolicyError as error:
        click.echo(f"warning: plans are not checked: {settings.ascribe(error.faults)[0]}", err=True)
        return None


@click.command(name="import")
@config_option
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@click.option(
    "--check", "only_check", is_flag=True, help="Check the file and say what would change. Nothing is written."
)
@click.option("--make-keys", is_flag=True, help="Make a key for rows without key and hash, and print it, this once.")
@click.option("--replace", "replace_", is_flag=True, help="Change registered keys that the file has with other values.")
@force_option
@json_option
def import_(config: Path | None, file: str, only_check: bool, force: bool, as_json: bool, **flags: bool) -> None:
    """Register the keys of FILE (`-`: standard input): CSV with a header, a JSON array, or an object per line.

    Columns: key (the key itself, of which the hash is stored) or hash, customer, plan, and optionally id, subject,
    status, zone, anchor, expires, name, test, plan_since. Keys that are registered with the same values stay as they
    are. If a row is wrong, nothing is imported; each fault names its line and column.

    Next: `sidecar keys list`.
    """
    settings = settings_of(config)
    options = Options(
        plans=None if force else defined_plans(settings),
        now=f"{now():%Y-%m-%dT%H:%M:%SZ}",
        make_id=make_id,
        make_key=(lambda test: make_credential(test=test)) if flags["make_keys"] else None,
        replace=flags["replace_"],
    )
    register, name = open_keys(settings), "standard input" if file == "-" else file
    try:
        changes = plan_import(name, _text(file), register, options)
    except PolicyError as error:
        raise PolicyError(_shortened(name, error.faults)) from None
    if only_check:
        _report(changes, [], "would import", as_json=as_json)
        return
    if changes.made:
        require_output()
    _write(register.register, changes, as_json=as_json)


@click.command()
@config_option
@click.option("--format", "format_", type=click.Choice(["csv", "json"]), default="csv", show_default=True)
def export(config: Path | None, format_: str) -> None:
    """Print all keys with their hashes, for `sidecar keys import`. The keys themselves are not stored anywhere.

    Hashes made with keys.pepper are of use only where the pepper is the same.

    Next: `sidecar keys export > keys.csv`.
    """
    records = open_keys(settings_of(config)).register.records()
    click.echo(as_csv(records) if format_ == "csv" else as_json(records), nl=False)


def now() -> datetime:
    """The present time, in whole seconds."""
    return datetime.fromtimestamp(SystemClock().now_us() // 1_000_000, UTC)


def _shortened(name: str, faults: list[Fault]) -> list[Fault]:
    more = f", of which {_FAULTS} are shown" if len(faults) > _FAULTS else ""
    return [*faults[:_FAULTS], Fault(name, 0, "", f"nothing was imported: {counted(len(faults), 'fault')}{more}")]


def _text(file: str) -> str:
    try:
        content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return content.decode("utf-8-sig")
    except OSError as error:
        raise click.UsageError(f"{file}: {unreadable(error)}") from None
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{file}: is not UTF-8 text: {error.reason} at byte {error.start}") from None


def _write(register: Register, changes: Import, *, as_json: bool) -> None:
    """Write the changes. SidecarError: not everything was written. The keys made so far are printed."""
    written: list[KeyRecord] = []
    try:
        register.put(*changes.new, *changes.changed, written=written.extend)
    except StoreError as error:
        with printing_once(_made(changes, written)):
            _print_made(changes, written, as_json=as_json)
        all_ = counted(len(changes.new) + len(changes.changed), "key")
        remedy = "import the file again: keys that are registered stay as they are"
        raise SidecarError(f"{len(written):,} of {all_} were imported, then {error}; {remedy}") from None
    with printing_once(_made(changes, written)):
        _report(changes, written, "imported", as_json=as_json)


def _made(changes: Import, written: list[KeyRecord]) -> list[str]:
    """The ids of the keys that were made, and are registered."""
    return [record.id for record in written if record.id in changes.made]


@contextmanager
def printing_once(ids: Collection[str]) -> Iterator[None]:
    """Print keys that were made for `ids`. SidecarError: that failed, and nobody has them."""
    try:
        yield
    except OSError as error:
        if not ids:
            raise
        raise SidecarError(
            f"registered, but not printed ({error.strerror or error}): {', '.join(ids)}; nobody has these keys: "
            "`sidecar keys rotate` makes others in their place, `sidecar keys revoke` ends them"
        ) from None


def require_output() -> None:
    """UsageError: there is no standard output, on which a key is printed once."""
    if sys.stdout is None:
        raise click.UsageError("standard output is closed, and a new key is printed there, once: nothing was done")


def _report(changes: Import, written: list[KeyRecord], did: str, *, as_json: bool) -> None:
    new, changed, unchanged = len(changes.new), len(changes.changed), changes.unchanged
    if as_json:
        made = {record.id: changes.made[record.id] for record in written if record.id in changes.made}
        print_json({"new": new, "changed": changed, "unchanged": unchanged, "keys": made})
        return
    _print_made(changes, written, as_json=False)
    text = f"{did} {counted(new + changed, 'key')}: {new:,} new, {changed:,} changed; {unchanged:,} unchanged"
    click.echo(text, err=True)


def _print_made(changes: Import, written: list[KeyRecord], *, as_json: bool) -> None:
    """The keys that were made, which cannot be printed again."""
    made = [(record, changes.made[record.id]) for record in written if record.id in changes.made]
    if as_json and made:
        print_json({"keys": {record.id: key for record, key in made}})
    elif made:
        click.echo(table([("id", "customer", "key"), *((each.id, each.customer, key) for each, key in made)]), nl=False)
