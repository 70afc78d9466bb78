"""Names in the counter store. All keys of one account have the hash tag {account}, so they are on one Redis node.

A counter's key is made of a code for the limit's kind, its id, the scope's value and the window's id, never of the
limit's amounts or the plan, so an edit of a policy resets nothing. Kinds whose counters differ never share a key. No
value that a customer can choose can spell another counter's key. A wallet's key has the scale of its unit, so no amount
is ever read in another scale than that in which it was written.

    sc:{account}:code=limit id:scope letter + scope value:window id
    sc:{account}:wallet (ledger, holds, held, granted):customer:wallet name, such as usd or credits.2
    sc:{account}:retry:customer:digest
    sc:{account}:ids:the first seven characters of an exchange's id

`current_key` says where the value of a key of version 0.1 is now.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

from sidecar.core.digits import BASE32
from sidecar.core.identity import Identity
from sidecar.core.price.decimals import DIGITS

_WALLET: Final = ("wallet", "ledger", "holds", "held", "granted")
_MARKS: Final = ":ids:"
_SCOPES: Final = frozenset("cks")
_UNSAFE: Final = re.compile(rb"[^!-~]|[%:{}]")  # no id of a limit has an "="
_CROCKFORD: Final = bytes.maketrans(BASE32.encode(), b"0123456789abcdefghijklmnopqrstuv")


def escaped(value: str) -> str:
    """`value` with all that could end or forge a part of a key percent-encoded (UTF-8). "" is "%", unlike any other:
    an empty `{}` is not a hash tag, and a customer's keys would be spread over a cluster.
    """  # noqa: D205
    raw = value.encode("utf-8", "surrogatepass")
    return _UNSAFE.sub(lambda match: b"%%%02X" % match[0][0], raw).decode("ascii") or "%"


def account_stem(account: str) -> str:
    """The beginning of all keys of an account, without the colon."""
    return f"sc:{{{escaped(account)}}}"


def counter_stem(code: str, limit_id: str, scope: str, identity: Identity) -> str:
    """The key of a limit's counter without its window. `code` is its kind's."""
    if scope == "key":
        letter, value = "k", identity.key_id
    elif scope == "subject":
        letter, value = "s", identity.subject
    else:
        letter, value = "c", identity.customer
    return f"{account_stem(identity.account)}:{code}={escaped(limit_id)}:{letter}{escaped(value)}"


def wallet_name(unit: str, digits: int) -> str:
    """The name of the wallets of a unit in this scale: the unit alone with 9 digits, as in version 0.1; else `unit.2`.

    No unit has a dot.
    """
    return unit if digits == DIGITS else f"{unit}.{digits}"


def scale_of(name: str) -> tuple[str, int]:
    """The unit and the digits of a wallet's name."""
    unit, dot, digits = name.partition(".")
    return unit, int(digits) if dot else DIGITS


def wallet_keys(customer: str, name: str, account: str = "") -> tuple[str, ...]:
    """The keys of a wallet: wallet, ledger, holds, held, which decisions read and write, and granted.

    `name` is a `wallet_name`. `account`: "" is the customer itself.
    """
    stem, last = account_stem(account or customer), f"{escaped(customer)}:{escaped(name)}"
    return tuple([f"{stem}:{name}:{last}" for name in _WALLET])


def wallet_of(key: str) -> tuple[str, str]:
    """The customer and the name of the wallet whose first key (`wallet_keys`) this is, also one of version 0.1."""
    *_, customer, name = current_key(key).split(":")
    return "" if customer == "%" else unquote(customer), name


def beside_wallet(key: str, name: str) -> str:
    """The key `name` (ledger, granted, …) of the wallet at `key`."""
    return key.replace(":wallet:", f":{name}:", 1)


def account_of(key: str) -> str:
    """The account whose key this is."""
    tag = key[key.index("{") + 1 : key.index("}")]
    return "" if tag == "%" else unquote(tag)


def marks_stem(account: str) -> str:
    """The key, up to its bucket, of the marks that make a call idempotent by exchange id."""
    return account_stem(account) + _MARKS


def marks_stem_beside(key: str) -> str:
    """`marks_stem` of the account whose key (of a counter, a wallet, marks) this is."""
    return key[: key.index("}") + 1] + _MARKS


def id_us(id_: bytes) -> int:
    """When an id was made, in µs since the epoch by its maker's clock: ten Crockford digits of ms, as in a ULID."""
    return int(id_[:10].translate(_CROCKFORD), 32) * 1000


def current_key(key: str) -> str:
    """The key that now has what version 0.1 kept under `key`; the same where it is a key of this version.

    Version 0.1 had no code before a limit's id (its kind follows from the window's id), and no customer in the keys of
    wallets and first attempts. An account was always one customer.
    """
    stem, brace, rest = key.partition("}:")
    parts = rest.split(":")
    if not brace or not stem.startswith("sc:{") or "=" in parts[0]:
        return key
    word, customer = parts[0], stem[4:]
    if len(parts) == 2 and (word in _WALLET or (word == "retry" and parts[1][:1] not in _SCOPES)):
        rest = f"{word}:{customer}:{parts[1]}"
    elif word == "alert" and len(parts) > 3:
        rest = ":".join(["alert", *_with_code(parts[1:-1]), parts[-1]]) if "=" not in parts[1] else rest
    elif len(parts) > 1 and parts[1][:1] in _SCOPES and word != "retry" and word not in _WALLET:
        rest = ":".join(_with_code(parts))
    return f"{stem}}}:{rest}"


def _with_code(parts: list[str]) -> list[str]:
    """A counter's key of version 0.1, behind the hash tag, in its parts: id, scope, and the parts of the window."""
    limit_id, scope, *window = parts
    if window == ["slots"]:
        return [f"s={limit_id}", scope]
    code = "r" if not window else "w" if len(window) == 2 else "b" if window[0][:1] == "g" else "q"
    return [f"{code}={limit_id}", scope, *window]
