"""Records that no exchange makes: the life of a source, a change of a wallet, a loaded policy, an operator's act.

Each is a value whose fields are those of the table (fields.py). Those that are None are left out. Times are µs since
1970 under the field's name with `_us` behind it.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from sidecar.core.instants import instant
from sidecar.core.record.text import whole_record

Json = dict[str, Any]


class SourceState(NamedTuple):
    """A source has started, was closed by a successor, or was retired by an operator."""

    state: str
    about: str
    version: str
    predecessor: str | None = None
    highest: dict[str, int] | None = None
    reason: str | None = None
    actor: str | None = None


class Posting(NamedTuple):
    """A change of the wallet of `customer` in `unit`: amounts are whole numbers of 10^-`digits` of the unit.

    `charges` of a settle: meter, units, amount and, where the price depends on it, model.
    """

    customer: str
    account: str
    unit: str
    digits: int
    change: str
    delta: int
    balance: int
    period_time_us: int | None = None
    grant: str | None = None
    priority: int | None = None
    starts_us: int | None = None
    expires_us: int | None = None
    plan: str | None = None
    charges: list[Json] | None = None
    reason: str | None = None
    actor: str | None = None


class PolicyState(NamedTuple):
    """A policy was applied, or refused for its faults. `files` and `plans` are SHA-256 in hex, by path and by label."""

    policy: str
    state: str
    files: dict[str, str]
    plans: dict[str, str]
    faults: list[str] | None = None
    actor: str | None = None


class Audit(NamedTuple):
    """An act of an operator, or an attempt. `before` and `after` hold what changed, and never a secret."""

    action: str
    actor: str
    target: str
    via: str
    state: str
    customer: str | None = None
    account: str | None = None
    reason: str | None = None
    before: Json | None = None
    after: Json | None = None


Statement = SourceState | Posting | PolicyState | Audit
STATEMENTS: Final[dict[str, type[Statement]]] = {
    "source": SourceState, "posting": Posting, "policy": PolicyState, "audit": Audit,
}  # fmt: skip
_KINDS: Final = {type_: kind for kind, type_ in STATEMENTS.items()}


def statement_record(
    statement: Statement, id_: bytes, at: tuple[int, str, int], *, cause: bytes = b"", subject: str = ""
) -> bytes:
    """The record of a statement. `at`: its time (µs since 1970), its source, its sequence there.

    `cause`: the id of the record that led to it (of a settle, the exchange's). The partition key is the customer,
    or the source of a statement without one.
    """
    customer = getattr(statement, "customer", None)
    envelope = {"id": id_.decode(), "partitionkey": customer or at[1]}
    if subject or customer:
        envelope["subject"] = subject or str(customer)
    if cause:
        envelope["causationid"] = cause.decode()
    data = dict(_members(statement._asdict()))
    return whole_record(_KINDS[type(statement)], envelope, at, data)


def _members(values: Json) -> list[tuple[str, Any]]:
    return [
        (name.removesuffix("_us"), instant(value)) if name.endswith("_us") else (name, value)
        for name, value in values.items()
        if value is not None
    ]
