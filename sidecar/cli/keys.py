"""`sidecar keys`: make, list, revoke and rotate API keys, and change their plans, in a file or in Redis.

A key is printed once, alone on standard output, and kept nowhere; all else that is said to a person goes to standard
error. A change is made whole or not at all in a file; in Redis it can be sent again.
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
from sidecar.edge.file_keys import KeyFile
from sidecar.edge.redis_keys import RedisKeys, connect, disconnect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sidecar.config.sections import ClientTls
    from sidecar.config.settings import Settings

_TIMEOUT_S = 5.0  # a person waits; the gateway's 50 ms are for requests
_COLUMNS = ("id", "customer", "subject", "plan", "status", "expires", "name")


class FileRegister:
    """The keys of a file. PolicyError: the file is wrong."""

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
    """The keys of a Redis; each call opens and closes a connection. StoreError: no answer."""

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
    async def _keys(self) -> AsyncIterator[RedisKeys]:
        client = connect(self._redis.endpoint, _TIMEOUT_S, _ssl(self._redis.tls))
        try:
            yield RedisKeys(client, SystemClock(), _TIMEOUT_S)
        finally:
            await disconnect(client)


class Desk(NamedTuple):
    """Where keys are registered, and the pepper of their hashes."""

    register: FileRegister | RedisRegister
    pepper: bytes

    def hash_of(self, credential: str) -> str:
        return stored(digest(credential.encode(), self.pepper))

    def known(self, name: str) -> KeyRecord:
        record = self.register.record(name)
        if record is None:
            raise SidecarError(f"no key has the id {name}; `sidecar keys list` shows them")
        return record


def _desk(config: Path | None) -> Desk:
    settings = settings_of(config)
    pepper = settings.keys.pepper.get_secret_value().encode() if settings.keys.pepper else b""
    if settings.keys.redis:
        return Desk(RedisRegister(settings), pepper)
    return Desk(FileRegister(settings.keys.file or Path("keys.yaml")), pepper)


def _ssl(tls: ClientTls) -> dict[str, Any]:
    files = {"ssl_ca_certs": tls.ca, "ssl_certfile": tls.cert, "ssl_keyfile": tls.key}
    trust = {} if tls.verify else {"ssl_cert_reqs": "none", "ssl_check_hostname": False}
    return {name: str(path) for name, path in files.items() if path is not None} | trust


@click.group()
def keys() -> None:
    """Make, list, revoke and rotate API keys, and change their plans."""


@keys.command()
@config_option
@click.option("--customer", required=True, help="Who pays.")
@click.option("--subject", help="Who uses it: app, seat or tenant. Default: the customer.")
@click.option("--plan", required=True, help="The plan, as policies name it.")
@click.option("--id", "name_", help="The key's id in records and lists. Default: a made one.")
@click.option("--name", help="A note for people.")
@click.option("--zone", help="The customer's IANA time zone, for calendar quotas. Default: UTC.")
@click.option("--anchor", help="The first day of the subscription, as 2026-01-31.")
@click.option("--expires", help="When the key ends, as 2026-12-31T23:59:59Z.")
@click.option("--test", is_flag=True, help="A test key: its usage is not billed where policies say so.")
@click.option("--stdin", is_flag=True, help="Register the key on standard input instead of making one.")
@json_option
def new(config: Path | None, name_: str | None, stdin: bool, as_json: bool, **fields: Any) -> None:
    """Make a key and print it, once."""
    desk = _desk(config)
    credential = sys.stdin.readline().strip() if stdin else _made(test=fields["test"])
    if not credential:
        raise click.UsageError("--stdin: there is no key on standard input")
    given = {name: value for name, value in fields.items() if value}
    raw = {"id": name_ or _made_id(), "hash": desk.hash_of(credential), "subject": fields["customer"], **given}
    record, faults = read_record(raw)
    if record is None:
        raise click.UsageError("; ".join(f"--{name} {what}" for name, what in faults))
    if desk.register.record(record.id) is not None:
        raise SidecarError(f"a key has the id {record.id} already; rotate it, or choose another --id")
    desk.register.put(record)
    _show(record, None if stdin else credential, as_json=as_json)


@keys.command(name="list")
@config_option
@json_option
def list_(config: Path | None, as_json: bool) -> None:
    """List all keys; hashes are not shown."""
    now = _now()
    rows = [_row(record, now) for record in _desk(config).register.records()]
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
    """Revoke the keys of these IDS: all, or none where one is unknown."""
    desk = _desk(config)
    revoked = [replace(desk.known(name), status="revoked") for name in ids]
    desk.register.put(*revoked)
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
    """Put the key of this ID on another PLAN, from now on.

    What was counted stays counted: a limit that both plans have goes on where it stands. Records say since when. Other
    keys of the customer keep their plan.
    """
    desk = _desk(config)
    before = desk.known(name)
    if (state := _state(before, _now())) != "active":
        raise SidecarError(f"the key {name} is {state}; make a new one")
    since = before.plan_since if before.plan == plan else f"{_now():%Y-%m-%dT%H:%M:%SZ}"
    after, faults = read_record(before.stored() | {"plan": plan, "plan_since": since} if since else before.stored())
    if after is None:
        raise click.UsageError("; ".join(f"PLAN {what}" for _, what in faults))
    if after != before:
        desk.register.put(after)
    if as_json:
        print_json(_row(after, _now()))
    elif after == before:
        click.echo(f"{name} is on the plan {plan} already", err=True)
    else:
        click.echo(f"{name} is on the plan {plan} since {since}, before on {before.plan}; its counters go on", err=True)


@keys.command()
@config_option
@click.argument("old", metavar="ID")
@click.option("--grace", default="24h", show_default=True, help="How long the old key still works, as 30m, 24h or 7d.")
@click.option("--id", "name_", help="The new key's id. Default: a made one.")
@json_option
def rotate(config: Path | None, old: str, grace: str, name_: str | None, as_json: bool) -> None:
    """Make a key that stands for the same customer, subject and plan as ID, and let ID end after the grace."""
    try:
        end = _now() + timedelta(microseconds=parse(grace, "_us"))
    except (OverflowError, ValueError) as error:
        raise click.UsageError(f"--grace: {error}") from None
    desk = _desk(config)
    before = desk.known(old)
    if (state := _state(before, _now())) != "active":
        raise SidecarError(f"the key {old} is {state}; make a new one")
    if before.expires and datetime.fromisoformat(before.expires) < end:
        end = datetime.fromisoformat(before.expires)
    credential = _made(test=before.test)
    fresh = replace(before, id=name_ or _made_id(), hash=desk.hash_of(credential))
    if read_record(fresh.stored())[0] is None or desk.register.record(fresh.id) is not None:
        raise click.UsageError("--id is taken, or is not 1 to 256 printable ASCII characters")
    desk.register.put(fresh, replace(before, expires=end.isoformat().replace("+00:00", "Z")))
    if not as_json:
        click.echo(f"{old} works until {end.isoformat()}", err=True)
    _show(fresh, credential, as_json=as_json)


def _show(record: KeyRecord, credential: str | None, *, as_json: bool) -> None:
    """Say what was made, and print the key itself: here, and nowhere again."""
    if as_json:
        print_json(_row(record, _now()) | ({"key": credential} if credential else {}))
        return
    click.echo(f"id {record.id}, customer {record.customer}, subject {record.subject}, plan {record.plan}", err=True)
    if credential:
        click.echo("the key, shown this once:", err=True)
        click.echo(credential)


def _row(record: KeyRecord, now: datetime) -> dict[str, Any]:
    """A key as it is shown: every field but the hash, its state instead of its status."""
    told = {name: getattr(record, name) for name in record.__slots__ if name != "hash"}
    return told | {"status": _state(record, now)}


def _state(record: KeyRecord, now: datetime) -> str:
    if record.status == "active" and record.expires and datetime.fromisoformat(record.expires) <= now:
        return "expired"
    return record.status


def _made(*, test: bool) -> str:
    return make_key(secrets.token_bytes(RANDOM_BYTES), PREFIX + TEST if test else PREFIX)


def _made_id() -> str:
    return f"k_{secrets.token_hex(6)}"


def _now() -> datetime:
    """The present, to the second."""
    return datetime.fromtimestamp(SystemClock().now_us() // 1_000_000, UTC)
