"""`sidecar keys`: make, list, revoke and rotate API keys, and change their plans, in a file or in Redis.

A key is printed once, alone on standard output, and is not stored; messages go to standard error. In a file a change is
atomic; in Redis it can be repeated after an error.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from rich.console import Console
from rich.table import Table

from sidecar.cli.options import config_option, json_option, print_json, settings_of
from sidecar.config.units import parse
from sidecar.core.errors import SidecarError
from sidecar.core.identity import PREFIX, RANDOM_BYTES, TEST, KeyRecord, digest, make_key, read_record, stored
from sidecar.edge.clock import SystemClock
from sidecar.edge.keys.file_keys import KeyFile
from sidecar.edge.redis.endpoint import connect, disconnect
from sidecar.edge.redis.key_registry import KeyRegistry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sidecar.config.settings import Settings

_TIMEOUT_S = 5.0  # longer than the gateway's 50 ms: no request waits
_COLUMNS = ("id", "customer", "subject", "plan", "status", "expires", "name")


class FileRegister:
    """The keys of a file. PolicyError: the file is invalid."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def records(self) -> list[KeyRecord]:
        return KeyFile(self._path).records()

    def record(self, name: str) -> KeyRecord | None:
        records = self.records() if self._path.exists() else []
        return next((record for record in records if record.id == name), None)

    def put(self, *records: KeyRecord) -> None:
        KeyFile(self._path).put(*records)


class RedisRegister:
    """The keys in Redis; each call opens and closes a connection. StoreError: Redis did not answer."""

    def __init__(self, settings: Settings) -> None:
        if settings.redis is None:
            raise SidecarError("keys.redis needs redis.url")
        self._redis = settings.redis

    def records(self) -> list[KeyRecord]:
        async def work() -> list[KeyRecord]:
            async with self._keys() as keys:
                return sorted([record async for record in keys.records()], key=lambda record: record.id)

        return asyncio.run(work())

    def record(self, name: str) -> KeyRecord | None:
        async def work() -> KeyRecord | None:
            async with self._keys() as keys:
                return await keys.record(name)

        return asyncio.run(work())

    def put(self, *records: KeyRecord) -> None:
        async def work() -> None:
            async with self._keys() as keys:
                await keys.put(*records)

        asyncio.run(work())

    @asynccontextmanager
    async def _keys(self) -> AsyncIterator[KeyRegistry]:
        client = connect(self._redis.endpoint, _TIMEOUT_S)
        try:
            yield KeyRegistry(client)
        finally:
            await disconnect(client)


class HashedKeys(NamedTuple):
    """The registered keys, and the pepper of their hashes."""

    register: FileRegister | RedisRegister
    pepper: bytes

    def hash_of(self, credential: str) -> str:
        return stored(digest(credential.encode(), self.pepper))

    def get(self, name: str) -> KeyRecord:
        """SidecarError: no key has this id."""
        record = self.register.record(name)
        if record is None:
            raise SidecarError(f"no key has the id {name}; `sidecar keys list` shows all ids")
        return record


def _open_keys(config: Path | None) -> HashedKeys:
    settings = settings_of(config)
    pepper = settings.keys.pepper.get_secret_value().encode() if settings.keys.pepper else b""
    if settings.keys.redis:
        return HashedKeys(RedisRegister(settings), pepper)
    return HashedKeys(FileRegister(settings.keys.file or Path("keys.yaml")), pepper)


@click.group()
def keys() -> None:
    """Make, list, revoke and rotate API keys, and change their plans."""


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
@json_option
def new(config: Path | None, name_: str | None, stdin: bool, as_json: bool, **fields: Any) -> None:
    """Make a key and print it. It cannot be printed again."""
    registry = _open_keys(config)
    credential = sys.stdin.readline().strip() if stdin else _make_credential(test=fields["test"])
    if not credential:
        raise click.UsageError("--stdin: standard input is empty; write the key to it")
    options = {name: value for name, value in fields.items() if value}
    raw = {"id": name_ or _make_id(), "hash": registry.hash_of(credential), "subject": fields["customer"], **options}
    record, faults = read_record(raw)
    if record is None:
        raise click.UsageError("; ".join(f"--{name} {what}" for name, what in faults))
    if registry.register.record(record.id) is not None:
        raise SidecarError(f"another key has the id {record.id}; rotate that key, or choose another --id")
    registry.register.put(record)
    _show(record, None if stdin else credential, as_json=as_json)


@keys.command(name="list")
@config_option
@json_option
def list_(config: Path | None, as_json: bool) -> None:
    """List all keys, without their hashes."""
    now = _now()
    rows = [_row(record, now) for record in _open_keys(config).register.records()]
    if as_json:
        print_json(rows)
    elif sys.stdout.isatty():
        table = Table(*_COLUMNS)
        for row in rows:
            table.add_row(*(row[column] for column in _COLUMNS))
        Console().print(table)
    else:
        for row in rows:
            click.echo("\t".join(row[column] for column in _COLUMNS))


@keys.command()
@config_option
@click.argument("ids", nargs=-1, required=True)
@json_option
def revoke(config: Path | None, ids: tuple[str, ...], as_json: bool) -> None:
    """Revoke the keys of these IDS. If one is unknown, none is revoked."""
    registry = _open_keys(config)
    revoked = [replace(registry.get(name), status="revoked") for name in ids]
    registry.register.put(*revoked)
    if as_json:
        print_json([_row(record, _now()) for record in revoked])
    else:
        click.echo(f"revoked {', '.join(ids)}", err=True)


@keys.command()
@config_option
@click.argument("name", metavar="ID")
@click.argument("plan", metavar="PLAN")
@json_option
def plan(config: Path | None, name: str, plan: str, as_json: bool) -> None:
    """Change the plan of the key with this ID to PLAN, from now on.

    Counters are kept: a limit that both plans have continues from its present count. Records state when the plan
    changed. Other keys of the customer keep their plan.
    """
    registry = _open_keys(config)
    before = registry.get(name)
    if (state := _state(before, _now())) != "active":
        raise SidecarError(f"the key {name} is {state}; make a new one")
    since = before.plan_since if before.plan == plan else f"{_now():%Y-%m-%dT%H:%M:%SZ}"
    after, faults = read_record(before.stored() | {"plan": plan, "plan_since": since} if since else before.stored())
    if after is None:
        raise click.UsageError("; ".join(f"PLAN {what}" for _, what in faults))
    if after != before:
        registry.register.put(after)
    if as_json:
        print_json(_row(after, _now()))
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
        end = _now() + timedelta(microseconds=parse(grace, "_us"))
    except (OverflowError, ValueError) as error:
        raise click.UsageError(f"--grace: {error}") from None
    registry = _open_keys(config)
    before = registry.get(old)
    if (state := _state(before, _now())) != "active":
        raise SidecarError(f"the key {old} is {state}; make a new one")
    if before.expires and datetime.fromisoformat(before.expires) < end:
        end = datetime.fromisoformat(before.expires)
    credential = _make_credential(test=before.test)
    fresh = replace(before, id=name_ or _make_id(), hash=registry.hash_of(credential))
    if read_record(fresh.stored())[0] is None or registry.register.record(fresh.id) is not None:
        raise click.UsageError("--id is the id of another key, or is not 1 to 256 printable ASCII characters")
    registry.register.put(fresh, replace(before, expires=end.isoformat().replace("+00:00", "Z")))
    if not as_json:
        click.echo(f"{old} works until {end.isoformat()}", err=True)
    _show(fresh, credential, as_json=as_json)


def _show(record: KeyRecord, credential: str | None, *, as_json: bool) -> None:
    """Print the fields of a new key, and the key itself if `credential` is given."""
    if as_json:
        print_json(_row(record, _now()) | ({"key": credential} if credential else {}))
        return
    click.echo(f"id {record.id}, customer {record.customer}, subject {record.subject}, plan {record.plan}", err=True)
    if credential:
        click.echo("the key, shown this once:", err=True)
        click.echo(credential)


def _row(record: KeyRecord, now: datetime) -> dict[str, Any]:
    """All fields of a key except its hash, with its state in place of its status."""
    fields = {name: getattr(record, name) for name in record.__slots__ if name != "hash"}
    return fields | {"status": _state(record, now)}


def _state(record: KeyRecord, now: datetime) -> str:
    if record.status == "active" and record.expires and datetime.fromisoformat(record.expires) <= now:
        return "expired"
    return record.status


def _make_credential(*, test: bool) -> str:
    return make_key(secrets.token_bytes(RANDOM_BYTES), PREFIX + TEST if test else PREFIX)


def _make_id() -> str:
    return f"k_{secrets.token_hex(6)}"


def _now() -> datetime:
    """The present time, in whole seconds."""
    return datetime.fromtimestamp(SystemClock().now_us() // 1_000_000, UTC)
