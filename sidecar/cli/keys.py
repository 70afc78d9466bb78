"""`sidecar keys`: make, list, revoke and rotate API keys, and change their plans, in a file or in Redis.

A key is printed once, alone on standard output, and is not stored; messages go to standard error. In a file a change is
atomic; in Redis it can be repeated after an error.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sidecar.cli.key_files import defined_plans, export, force_option, import_, now, printing_once, require_output
from sidecar.cli.options import config_option, json_option, print_json, settings_of
from sidecar.cli.tables import print_rows
from sidecar.config.document import did_you_mean
from sidecar.config.units import parse
from sidecar.core.errors import SidecarError
from sidecar.core.identity import KeyRecord, read_record
from sidecar.keys.registers import credential_fault, make_credential, make_id, open_keys

if TYPE_CHECKING:
    from sidecar.config.settings import Settings

_COLUMNS = ("id", "customer", "subject", "plan", "status", "expires", "name")


@click.group()
def keys() -> None:
    """Make, find, revoke, rotate and import API keys, and change their plans."""


keys.add_command(import_)
keys.add_command(export)


@keys.command()
@config_option
@click.option("--customer", required=True, help="The customer: the party that pays.")
@click.option("--subject", help="The user of the key: app, seat or tenant. Default: the customer.")
@click.option("--plan", required=True, help="The plan, as policies name it.")
@click.option("--id", "name_", help="The key's id in records and lists. Default: a random one.")
@click.option("--name", help="A note for people.")
@click.option("--zone", help="The customer's IANA time zone, for calendar quotas. Default: UTC.")
@click.option("--anchor", help="The first day of the subscription, such as 2026-01-31.")
@click.option("--expires", help="When the key expires, such as 2026-12-31T23:59:59Z.")
@click.option("--test", is_flag=True, help="A test key: policies can exclude its usage from billing.")
@click.option("--stdin", is_flag=True, help="Register the key on standard input instead of making one.")
@force_option
@json_option
def new(config: Path | None, name_: str | None, stdin: bool, force: bool, as_json: bool, **fields: Any) -> None:
    """Make a key and print it. It cannot be printed again."""
    settings = settings_of(config)
    registry = open_keys(settings)
    credential = _read_credential() if stdin else make_credential(test=fields["test"])
    options = {name: value for name, value in fields.items() if value}
    raw = {"id": name_ or make_id(), "hash": registry.hash_of(credential), "subject": fields["customer"], **options}
    record, faults = read_record(raw)
    if record is None:
        raise click.UsageError("; ".join(f"--{name} {what}" for name, what in faults))
    if not force:
        _check_plan(settings, record.plan, "--plan")
    if registry.find(record.id) is not None:
        raise SidecarError(f"another key has the id {record.id}; rotate that key, or choose another --id")
    if not stdin:
        require_output()
    registry.register.put(record)
    _show(record, None if stdin else credential, as_json=as_json)


@keys.command(name="list")
@config_option
@json_option
def list_(config: Path | None, as_json: bool) -> None:
    """List all keys, without their hashes."""
    moment = now()
    _print_rows([_row(record, moment) for record in open_keys(settings_of(config)).register.records()], as_json)


@keys.command()
@config_option
@click.argument("text", default="")
@click.option("--customer", help="Only keys of this customer.")
@click.option("--plan", help="Only keys with this plan.")
@click.option("--status", type=click.Choice(["active", "revoked", "expired"]), help="Only keys in this state.")
@json_option
def search(config: Path | None, text: str, as_json: bool, **fields: str | None) -> int:
    """List the keys whose id, customer, subject or name contains TEXT. Exit status 1 if no key matches."""
    moment, wanted = now(), {name: value for name, value in fields.items() if value}
    rows = [_row(record, moment) for record in open_keys(settings_of(config)).register.records()]
    matches = [
        row
        for row in rows
        if all(row[name] == value for name, value in wanted.items())
        and any(text.lower() in row[name].lower() for name in ("id", "customer", "subject", "name"))
    ]
    _print_rows(matches, as_json)
    if not matches:
        click.echo("no key matches", err=True)
    return 0 if matches else 1


@keys.command()
@config_option
@click.argument("name", metavar="ID", required=False)
@click.option("--stdin", is_flag=True, help="Show the key that is given on standard input, instead of an ID.")
@json_option
def show(config: Path | None, name: str | None, stdin: bool, as_json: bool) -> None:
    """Show all fields of one key, but not its hash."""
    registry = open_keys(settings_of(config))
    if stdin is (name is not None):
        raise click.UsageError("give the ID of a key, or --stdin")
    if name is None:
        matching = registry.register.matching((), {registry.hash_of(_read_credential())})
        if not matching:
            raise SidecarError("this key is not registered; `sidecar keys list` shows all keys")
        record = matching[0]
    else:
        record = registry.get(name)
    row = _row(record, now())
    if as_json:
        print_json(row)
    else:
        for field, value in row.items():
            click.echo(f"{field:<12}{value if value not in ('', False) else '-'}")


@keys.command()
@config_option
@click.argument("ids", nargs=-1, required=True)
@json_option
def revoke(config: Path | None, ids: tuple[str, ...], as_json: bool) -> None:
    """Revoke the keys of these IDS. If one is unknown, none is revoked."""
    registry = open_keys(settings_of(config))
    revoked = [replace(registry.get(name), status="revoked") for name in ids]
    registry.register.put(*revoked)
    if as_json:
        print_json([_row(record, now()) for record in revoked])
    else:
        click.echo(f"revoked {', '.join(ids)}", err=True)


@keys.command()
@config_option
@click.argument("name", metavar="ID")
@click.argument("plan", metavar="PLAN")
@force_option
@json_option
def plan(config: Path | None, name: str, plan: str, force: bool, as_json: bool) -> None:
    """Change the plan of the key with this ID to PLAN, from now on.

    Counters are kept: a limit that both plans have continues from its present count. Records state when the plan
    changed. Other keys of the customer keep their plan.
    """
    settings = settings_of(config)
    registry = open_keys(settings)
    before = registry.get(name)
    if (state := _state(before, now())) != "active":
        raise SidecarError(f"the key {name} is {state}; make a new one")
    since = before.plan_since if before.plan == plan else f"{now():%Y-%m-%dT%H:%M:%SZ}"
    after, faults = read_record(before.stored() | {"plan": plan, "plan_since": since} if since else before.stored())
    if after is None:
        raise click.UsageError("; ".join(f"PLAN {what}" for _, what in faults))
    if not force:
        _check_plan(settings, after.plan, "PLAN")
    if after != before:
        registry.register.put(after)
    if as_json:
        print_json(_row(after, now()))
    elif after == before:
        click.echo(f"{name} already has the plan {plan}; nothing was changed", err=True)
    else:
        click.echo(
            f"{name} has the plan {plan} since {since}, before that {before.plan}; its counters continue", err=True
        )


@keys.command()
@config_option
@click.argument("old", metavar="ID")
@click.option(
    "--grace", default="24h", show_default=True, help="How long the old key still works, such as 30m, 24h or 7d."
)
@click.option("--id", "name_", help="The new key's id. Default: a random one.")
@json_option
def rotate(config: Path | None, old: str, grace: str, name_: str | None, as_json: bool) -> None:
    """Make a key with the customer, subject and plan of ID, and let ID expire after the grace period."""
    try:
        end = now() + timedelta(microseconds=parse(grace, "_us"))
    except (OverflowError, ValueError) as error:
        raise click.UsageError(f"--grace: {error}") from None
    registry = open_keys(settings_of(config))
    before = registry.get(old)
    if (state := _state(before, now())) != "active":
        raise SidecarError(f"the key {old} is {state}; make a new one")
    if before.expires and datetime.fromisoformat(before.expires) < end:
        end = datetime.fromisoformat(before.expires)
    credential = make_credential(test=before.test)
    fresh = replace(before, id=name_ or make_id(), hash=registry.hash_of(credential))
    if read_record(fresh.stored())[0] is None or registry.find(fresh.id) is not None:
        raise click.UsageError("--id is the id of another key, or is not 1 to 256 printable ASCII characters")
    require_output()
    registry.register.put(fresh, replace(before, expires=end.isoformat().replace("+00:00", "Z")))
    if not as_json:
        click.echo(f"{old} works until {end.isoformat()}", err=True)
    _show(fresh, credential, as_json=as_json)


def _show(record: KeyRecord, credential: str | None, *, as_json: bool) -> None:
    """Print the fields of a new key, and the key itself if `credential` is given."""
    if as_json:
        with printing_once([record.id] if credential else []):
            print_json(_row(record, now()) | ({"key": credential} if credential else {}))
        return
    click.echo(f"id {record.id}, customer {record.customer}, subject {record.subject}, plan {record.plan}", err=True)
    if credential:
        click.echo("the key, which is printed only this once:", err=True)
        with printing_once([record.id]):
            click.echo(credential)


def _print_rows(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(rows)
    else:
        print_rows(rows, _COLUMNS)


def _row(record: KeyRecord, moment: datetime) -> dict[str, Any]:
    """All fields of a key except its hash, with its state in place of its status."""
    fields = {name: getattr(record, name) for name in record.__slots__ if name != "hash"}
    return fields | {"status": _state(record, moment)}


def _state(record: KeyRecord, moment: datetime) -> str:
    if record.status == "active" and record.expires and datetime.fromisoformat(record.expires) <= moment:
        return "expired"
    return record.status


def _read_credential() -> str:
    try:
        credential = sys.stdin.readline().strip()
        credential.encode()
    except UnicodeError:
        raise click.UsageError("--stdin: the key is not UTF-8 text") from None
    if not credential:
        raise click.UsageError("--stdin: standard input is empty; write the key to it")
    if what := credential_fault(credential):
        raise click.UsageError(f"--stdin: the key {what}")
    return credential


def _check_plan(settings: Settings, plan: str, parameter: str) -> None:
    """UsageError: no policy defines the plan, so requests of its keys would be refused."""
    known = defined_plans(settings)
    if known is not None and plan not in known:
        hint = f"{did_you_mean(plan, known)} (policies: {settings.policies}; --force skips this)"
        raise click.UsageError(f"{parameter}: '{plan}' is not defined; {hint}")
