"""The contacts of `sidecar check`: Redis, Kafka, sink and ClickHouse, each in a bounded time. Nothing is changed there.

An error means that `sidecar run` would not work with these settings: a refused user, an unknown certificate authority,
a missing permission, a file that cannot be written. A server that does not answer is a warning: it may be back by then.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from sidecar.app import kafka
from sidecar.core.errors import SinkError, StateError, StoreError
from sidecar.edge.kafka.connection import KafkaRefusalError
from sidecar.edge.kafka.topics import topic_faults
from sidecar.edge.ledger.clickhouse import CONNECT_SECONDS, ClickHouse, connection_options
from sidecar.edge.redis.endpoint import describe_error
from sidecar.edge.redis.inspection import Inspection, inspect
from sidecar.keys.migration import is_due
from sidecar.loading.eviction import REDIS_SECONDS, eviction_warnings
from sidecar.wallets.scales import scale_warnings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.config.sections import Redis
    from sidecar.config.settings import Settings

KAFKA_SECONDS = 10
CLICKHOUSE_SECONDS = CONNECT_SECONDS + 5
BROKERS_EXPECTED = 3


class Contacts(NamedTuple):
    """The result for each dependency, by name; the errors and the warnings."""

    results: dict[str, str]
    errors: list[str]
    warnings: list[str]


async def contact(settings: Settings, scales: Mapping[str, int] | None = None, *, stored: str) -> Contacts:
    """Contact what the settings name. `stored`: the data that only Redis has, such as wallets ("": nothing).

    `scales`: the digits of the units in which balances pay. Wallets with others are looked for, also in a saved state.
    """
    contacts = Contacts({}, [], [])
    if settings.redis is None or await _contact_redis(settings, stored, contacts):
        contacts.warnings.extend(await scale_warnings(settings, scales or {}))
    if settings.kafka is not None:
        await _contact_kafka(settings, contacts)
    elif settings.record_file is not None:
        _look_at_file(settings, settings.record_file, contacts)
    if "ledger" in settings.model_fields_set:
        faults = _folder_faults(settings.ledger.dir)
        contacts.errors.extend([str(settings.fault(("ledger", "dir"), fault)) for fault in faults])
        contacts.results["ledger"] = str(settings.ledger.dir)
    if settings.ledger.clickhouse is not None:
        await _contact_clickhouse(settings, settings.ledger.clickhouse.url.get_secret_value(), contacts)
    return contacts


async def _contact_redis(settings: Settings, stored: str, contacts: Contacts) -> bool:
    """Whether it answered."""
    assert settings.redis is not None  # noqa: S101 - the caller asks for it
    endpoint = settings.redis.endpoint
    where = ", ".join([f"{host}:{port}" for host, port in endpoint.hosts])
    try:
        async with asyncio.timeout(REDIS_SECONDS):
            seen = await inspect(endpoint, REDIS_SECONDS)
    except (AuthenticationError, NoPermissionError) as error:
        contacts.errors.append(f"redis at {where} {describe_error(error)}")
    except (RedisError, OSError, TimeoutError) as error:
        is_untrusted = isinstance(error.__cause__, ssl.SSLError) or "CERTIFICATE" in str(error)
        (contacts.errors if is_untrusted else contacts.warnings).append(f"redis at {where} {describe_error(error)}")
    else:
        contacts.results["redis"] = f"{where} (version {seen.version or 'unknown'})"
        contacts.errors.extend(_permission_errors(seen))
        contacts.warnings.extend(persistence_warnings(seen, stored))
        contacts.warnings.extend(await _migration_warnings(settings.redis))
        return True
    contacts.results["redis"] = f"{where}: failed"
    return False


async def _migration_warnings(redis: Redis) -> list[str]:
    try:
        due = await is_due(redis, REDIS_SECONDS)
    except StoreError as error:
        return [f"{error}: not checked whether it has keys of version 0.1"]
    return ["redis: it has keys of version 0.1, which are not read: run `sidecar migrate`"] if due else []


def _permission_errors(seen: Inspection) -> list[str]:
    if not seen.missing:
        return []
    names = ", ".join(dict.fromkeys(seen.missing))
    return [f"redis: the user of redis.url may not run {names}: limits would be decided locally"]


def persistence_warnings(seen: Inspection, stored: str) -> list[str]:
    """Whether a Redis keeps what only it has: counters, and `stored`, such as wallets ("": nothing else)."""
    if not seen.maxmemory_policy and not seen.append_only:
        what = stored or "counters"
        return [f"redis: it has {what}, and its user may not run INFO: check maxmemory-policy and persistence there"]
    warnings = eviction_warnings(seen, f"counters and {stored}" if stored else "counters")
    if not stored:
        return warnings
    if seen.append_only == "0" and seen.snapshots == "no":
        warnings.append(f"redis: it has no persistence: a restart loses {stored}; set appendonly yes")
    elif seen.append_only == "0":
        warnings.append(f"redis: it has snapshots only: a crash loses the last changes of {stored}; set appendonly yes")
    return warnings


async def _contact_kafka(settings: Settings, contacts: Contacts) -> None:
    assert settings.kafka is not None  # noqa: S101 - the caller asks for it
    where = settings.kafka.bootstrap_servers
    wanted = kafka.plans(settings.kafka, 1, BROKERS_EXPECTED)
    try:
        async with asyncio.timeout(KAFKA_SECONDS):
            faults = await topic_faults(kafka.connection(settings), wanted)
    except (SinkError, TimeoutError) as error:
        what = f"kafka: its topics could not be checked: {str(error) or 'no answer'}"
        (contacts.errors if isinstance(error, KafkaRefusalError) else contacts.warnings).append(what)
        contacts.results["kafka"] = f"{where}: failed"
    else:
        contacts.results["kafka"] = where
        contacts.errors.extend([f"kafka: {fault}" for fault in faults if fault.is_refusal])
        contacts.warnings.extend([str(fault) for fault in faults if not fault.is_refusal])


async def _contact_clickhouse(settings: Settings, url: str, contacts: Contacts) -> None:
    """A node runs without ClickHouse, so all but a URL that is not one is a warning."""
    loc = ("ledger", "clickhouse", "url")
    try:
        connection_options(url)
    except ValueError as error:
        contacts.errors.append(str(settings.fault(loc, str(error))))
        contacts.results["clickhouse"] = "failed"
        return
    try:
        async with asyncio.timeout(CLICKHOUSE_SECONDS):
            place, version = await asyncio.to_thread(_clickhouse_version, url)
    except (SinkError, StateError, TimeoutError) as error:
        contacts.warnings.append(str(settings.fault(loc, str(error) or "ClickHouse does not answer")))
        contacts.results["clickhouse"] = "failed"
    else:
        contacts.results["clickhouse"] = f"{place} (version {version})"


def _clickhouse_version(url: str) -> tuple[str, str]:
    with ClickHouse(url) as clickhouse:
        return clickhouse.place, clickhouse.version


def _look_at_file(settings: Settings, path: Path, contacts: Contacts) -> None:
    faults = [
        f"{file} cannot be written by this user"
        for file in (path, path.with_name(path.name + ".positions"))
        if file.exists() and not os.access(file, os.W_OK)
    ]
    faults += _folder_faults(path.parent)
    contacts.errors.extend([str(settings.fault(("sink", "file"), fault)) for fault in faults])
    contacts.results["sink"] = str(path)


def _folder_faults(folder: Path) -> list[str]:
    """Why files cannot be made in a folder, which may be new."""
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        return [f"{folder} is not a folder"]
    return [] if os.access(folder, os.W_OK) else [f"{folder} cannot be written by this user"]
