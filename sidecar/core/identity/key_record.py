"""Registered API keys, as they are stored in files and Redis, and the faults of a document of one."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from sidecar.core.identity.api_keys import has_valid_checksum
from sidecar.core.identity.identity import Identity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

STATUSES = ("active", "revoked")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_STORED = re.compile(r"sha256:[0-9a-f]{64}")
_PRINTABLE = re.compile(r"[!-~](?:[ -~]{0,254}[!-~])?")


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A registered API key. `hash` is `sha256:` and 64 hex digits; `anchor` a date.

    `expires` and `plan_since` are RFC 3339 with an offset.
    """

    id: str
    hash: str
    customer: str
    subject: str
    plan: str
    status: str = "active"
    zone: str = "UTC"
    anchor: str = ""
    expires: str = ""
    name: str = ""
    test: bool = False
    plan_since: str = ""

    def __repr__(self) -> str:
        return f"KeyRecord({self.id!r})"

    @property
    def digest(self) -> bytes:
        """The 32 bytes of `hash`."""
        return bytes.fromhex(self.hash.removeprefix("sha256:"))

    def identity(self) -> Identity | None:
        """The identity of the key; None if it is revoked. The anchor is a midnight in the customer's zone."""
        if self.status != "active":
            return None
        anchor_us = (
            _us(datetime.combine(date.fromisoformat(self.anchor), time(), ZoneInfo(self.zone))) if self.anchor else 0
        )
        expires_us = _us(datetime.fromisoformat(self.expires)) if self.expires else 0
        return Identity(
            key_id=self.id,
            subject=self.subject,
            customer=self.customer,
            plan=self.plan,
            zone=self.zone,
            anchor_us=anchor_us,
            test=self.test,
            expires_us=expires_us,
            plan_since=self.plan_since,
        )

    def stored(self) -> dict[str, Any]:
        """The fields that differ from their defaults, as they are stored in files and Redis."""
        values = ((name, getattr(self, name), default) for name, default in DEFAULTS.items())
        return {name: value for name, value, default in values if value != default}


# The fields of a key record, and the defaults of those that have one.
DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(KeyRecord)}


def read_record(raw: Mapping[str, Any]) -> tuple[KeyRecord | None, list[tuple[str, str]]]:
    """A key record from a mapping, or all of its faults: (field, the rule that it breaks)."""
    faults = [(name, f"has an unknown field; a key has {', '.join(_CHECKS)}") for name in raw if name not in _CHECKS]
    for name, (check, right) in _CHECKS.items():
        if name in raw and not check(raw[name]):
            faults.append((name, right))
        elif name not in raw and name in _REQUIRED:
            faults.append((name, "is missing"))
    return (None, faults) if faults else (KeyRecord(**raw), [])


def _us(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and _PRINTABLE.fullmatch(value) is not None and not has_valid_checksum(value.encode())


def _is_moment(value: Any) -> bool:
    try:
        return datetime.fromisoformat(value).tzinfo is not None
    except (TypeError, ValueError):
        return False


def _is_date(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value) is not None and _is_moment(value + "T00Z")


def _is_zone(value: Any) -> bool:
    try:
        return bool(ZoneInfo(value).key)
    except (KeyError, OSError, TypeError, ValueError):
        return False


_NAME_RULE = "is 1 to 256 printable ASCII characters, quoted where it could be a number, and never the key itself"
_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "id": (_is_name, _NAME_RULE),
    "hash": (lambda value: isinstance(value, str) and _STORED.fullmatch(value) is not None,
             "is `sha256:` and 64 lower-case hex digits; `sidecar keys new` makes one"),
    "customer": (_is_name, _NAME_RULE),
    "subject": (_is_name, _NAME_RULE),
    "plan": (_is_name, _NAME_RULE),
    "status": (lambda value: value in STATUSES, f"is one of {', '.join(STATUSES)}"),
    "zone": (_is_zone, "is an IANA time zone, as in Europe/Berlin"),
    "anchor": (_is_date, "is a date, as in 2026-01-31"),
    "expires": (_is_moment, "is a moment with its offset, as in 2026-12-31T23:59:59Z"),
    "name": (_is_name, _NAME_RULE),
    "test": (lambda value: isinstance(value, bool), "is true or false"),
    "plan_since": (_is_moment, "is a moment with its offset, as `sidecar keys plan` writes it: 2026-11-21T01:03:26Z"),
}  # fmt: skip
_REQUIRED = frozenset({"id", "hash", "customer", "subject", "plan"})
