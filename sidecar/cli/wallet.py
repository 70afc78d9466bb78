"""`sidecar wallet`: fill, void, show and audit the wallets of customers, in the Redis of the settings.

Amounts are decimal and exact. What is repeated after a lost answer is done once: a grant is known by its id.
After a change the balance alone goes to standard output; what was done is told on standard error.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from sidecar.app.wallets import (
    Audit,
    Rebuilt,
    audit,
    decimal_of,
    differences,
    moment_us,
    nanos_of,
    opened,
    rebuilt,
    told,
    told_us,
)
from sidecar.cli.options import config_option, json_option, print_json, settings_of
from sidecar.config.patterns import CUSTOMER, RIGHT, UNIT
from sidecar.core.errors import SidecarError, StoreError
from sidecar.core.price.wallet import Grant, balance
from sidecar.edge.redis_wallet import EVERY, Change, RedisWallet

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

_GRANT_ID = r"^[!-~]{1,128}$"
_RIGHT = RIGHT | {_GRANT_ID: "1 to 128 printable ASCII characters without spaces"}
_PRIORITIES = click.IntRange(0, 1_000_000)
_ATTEMPTS = 20  # at making a wallet anew between two requests of its customer
_EXAMPLES = 5
_BASIS = {
    True: "every posting was played again",
    False: "the ledger's beginning is trimmed or its grants unknown: the sum is right, its parts are the likeliest",
}
_REFUSED = {
    "other": "a grant has the id {id} already, with other figures; repeat those, or choose another --id",
    "many": "the wallet holds 64 grants that are not used up; void one, or wait until one expires",
    "full": "with it the balance would reach 2251799 units; grant less",
    "unknown": "no grant has the id {id}; `sidecar wallet show` lists them",
}
_DONE = {
    "made": "granted {amount} {unit} to {customer} as {id}; who was denied is admitted again within a second",
    "there": "the grant {id} is already there; nothing was changed",
    "void": "voided {id}: took {amount} {unit} from {customer}; it is felt within a second",
    "former": "the grant {id} was made before, and is used up, expired or void; nothing was changed",
    "gone": "nothing is left of {id} to take: it is used up, expired or void already",
}


def _words(name: str, read: Callable[[str], Any]) -> Callable[[Any], Any]:
    """A type of option: what `read` makes of a text; its ValueError says what would be right."""

    def convert(value: Any) -> Any:
        if not isinstance(value, str):  # a default
            return value
        try:
            return read(value)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    convert.__name__ = name
    return convert


def _of_form(form: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if re.fullmatch(form, text) is None:
            raise ValueError(f"'{text}' is not {_RIGHT[form]}")
        return text

    return read


def _end_us(text: str) -> int:
    return 0 if text == "never" else moment_us(text)


AMOUNT = _words("amount", nanos_of)
MOMENT = _words("moment", moment_us)
END = _words("moment|never", _end_us)
CUSTOMER_NAME = _words("name", _of_form(CUSTOMER))
UNIT_NAME = _words("unit", _of_form(UNIT))
GRANT_ID = _words("id", _of_form(_GRANT_ID))


@click.group()
def wallet() -> None:
    """Fill, void, show and audit the prepaid wallets of customers."""


def _whose(function: F) -> F:
    for option in (
        json_option,
        click.option("--unit", type=UNIT_NAME, required=True, help="The currency or unit, as policies name it: usd."),
        click.option("--customer", type=CUSTOMER_NAME, required=True, help="Who pays."),
        config_option,
    ):
        function = option(function)
    return function


@wallet.command()
@_whose
@click.option("--amount", type=AMOUNT, required=True, help="How much, as 50.00: at most nine digits after the point.")
@click.option("--expires", type=END, required=True, help="When it ends, as 2027-01-01 (midnight UTC), or never.")
@click.option("--priority", type=_PRIORITIES, default=0, show_default=True, help="Lower ones burn first.")
@click.option("--starts", type=MOMENT, default=0, show_default="now", help="From when on it counts.")
@click.option("--rollover-max", type=AMOUNT, default=0, show_default="0", help="How much of the rest outlives it.")
@click.option("--rollover-until", type=MOMENT, default=0, show_default="never", help="How long that rest lives.")
@click.option("--id", "id_", type=GRANT_ID, help="The purchase: the same id is granted once. Default: a made one.")
def grant(config: Path | None, customer: str, unit: str, id_: str | None, as_json: bool, **figures: int) -> None:
    """Grant credit to a customer, once for an --id, and print the balance.

    Next: `sidecar wallet show` tells what burns when.
    """
    wanted = _checked(id_ or f"g_{secrets.token_hex(6)}", figures)
    try:
        change = _run(config, customer, unit, lambda wallet: wallet.grant(wanted))
    except StoreError as error:
        again = f"; it may be made all the same: repeat it with --id {wanted.id}" if error.maybe_applied else ""
        raise SidecarError(f"{error}{again}") from None
    if change.done == "past":
        raise click.UsageError(f"--expires {told_us(wanted.expires_us)} is past: write a later moment, or never")
    _tell(change, wanted.id, {"customer": customer, "unit": unit}, as_json=as_json)


def _checked(id_: str, figures: dict[str, int]) -> Grant:
    """The grant that the options mean. UsageError: they contradict each other."""
    expires_us, starts_us = figures["expires"], figures["starts"]
    rest, until_us = figures["rollover_max"], figures["rollover_until"]
    if expires_us and starts_us >= expires_us:
        raise click.UsageError("--starts is not before --expires: write an earlier start, or a later end")
    if bool(rest) is not bool(until_us):
        raise click.UsageError("--rollover-max and --rollover-until say one thing together: write both, or neither")
    if until_us and not expires_us:
        raise click.UsageError(
            "--rollover-until: what never expires has no rest to roll over; write --expires 2027-01-01"
        )
    if until_us and until_us <= expires_us:
        raise click.UsageError("--rollover-until is not after --expires: write a later moment")
    return Grant(
        id=id_,
        priority=figures["priority"],
        starts_us=starts_us,
        expires_us=expires_us,
        amount=figures["amount"],
        remaining=figures["amount"],
        rollover_max=rest,
        rollover_until_us=until_us,
        made_us=0,
    )


@wallet.command()
@_whose
@click.option("--grant", "id_", type=GRANT_ID, required=True, help="The id of the grant.")
def void(config: Path | None, customer: str, unit: str, id_: str, as_json: bool) -> None:
    """Take what is left of a grant, and print the balance. What was used of it stays used.

    Next: `sidecar wallet show` tells what is left.
    """
    change = _run(config, customer, unit, lambda wallet: wallet.void(id_))
    _tell(change, id_, {"customer": customer, "unit": unit}, as_json=as_json)


@wallet.command()
@_whose
@click.option("--ledger", type=click.IntRange(1), metavar="N", help="Also the last N postings.")
@click.option(
    "--verify", is_flag=True, help="Sum the ledger up and hold it against the balance. Exit status 1: unlike."
)
def show(config: Path | None, customer: str, unit: str, as_json: bool, ledger: int | None, verify: bool) -> int:
    """Show the grants in the order in which they burn, the debt, what is held, and the balance.

    Next: `sidecar wallet rebuild --dry-run` where --verify finds a difference.
    """
    book = _run(config, customer, unit, lambda wallet: wallet.read(EVERY if verify else ledger or 0))
    found = audit(book) if verify else None
    shown = book._replace(postings=book.postings[-ledger:] if ledger else ())
    if as_json:
        print_json(told(shown) | ({"ledger_sum": decimal_of(found.ledger), "whole": found.whole} if found else {}))
    else:
        _print_told(told(shown), f"{customer}, {unit}")
    if found:
        _say(found)
    return 0 if found is None or found.whole else 1


@wallet.command()
@_whose
@click.option("--dry-run", is_flag=True, help="Compare only. Exit status 1: the wallet is not what its ledger says.")
def rebuild(config: Path | None, customer: str, unit: str, as_json: bool, dry_run: bool) -> None:
    """Make a wallet anew from its ledger, say where it differs, and put it in the place of the one that stands.

    Next: `sidecar wallet show --verify`.
    """

    async def work(wallet: RedisWallet) -> tuple[Rebuilt, list[tuple[str, int, int]]]:
        for _ in range(_ATTEMPTS):
            book = await wallet.read(EVERY)
            made = rebuilt(book)
            found = differences(book, made.wallet)
            if not found or dry_run or await wallet.replace(book, made.wallet):
                return made, found
        raise SidecarError("the wallet changed while it was made anew; try again when it is quieter")

    made, found = _run(config, customer, unit, work)
    rows = [{"what": what, "stands": decimal_of(stands), "ledger": decimal_of(would)} for what, stands, would in found]
    if as_json:
        print_json({"exact": made.exact, "balance": decimal_of(balance(made.wallet)), "differences": rows})
    else:
        _print_rows(rows)
    click.echo(f"{_BASIS[made.exact]}; {len(rows) or 'no'} difference{'s' * (len(rows) != 1)}", err=True)
    sys.exit(1 if rows and dry_run else 0)


def _run(config: Path | None, customer: str, unit: str, work: Callable[[RedisWallet], Awaitable[T]]) -> T:
    redis = settings_of(config).redis
    if redis is None:
        raise click.UsageError("redis.url is not set: wallets are kept in Redis, so set it in the settings")

    async def run() -> T:
        async with opened(redis, customer, unit) as wallet:
            return await work(wallet)

    return asyncio.run(run())


# --- What is told ----------------------------------------------------------------------------------------------------


def _tell(change: Change, id_: str, words: dict[str, str], *, as_json: bool) -> None:
    """Say what a change did, and print the balance."""
    done = (
        "former" if change.done == "there" and all(grant.id != id_ for grant in change.wallet.grants) else change.done
    )
    words |= {"id": id_, "amount": decimal_of(change.moved)}
    if done in _REFUSED:
        raise SidecarError(_REFUSED[done].format_map(words))
    left = decimal_of(balance(change.wallet))
    if as_json:
        print_json(words | {"done": done, "balance": left, "debt": decimal_of(change.wallet.debt)})
    else:
        click.echo(_DONE[done].format_map(words), err=True)
        click.echo(left)


def _print_told(rows: dict[str, Any], title: str) -> None:
    """Two tables and a line on a terminal; in a pipe a line for each, its kind first, parted by tabs."""
    for name in ("balance", "available", "debt", "held", "holds"):
        click.echo(f"{name}\t{rows[name]}")
    for kind in ("grants", "postings"):
        _print_rows(rows[kind], f"{kind} of {title}", kind[:-1])


def _print_rows(rows: list[dict[str, Any]], title: str = "", kind: str = "") -> None:
    if not rows:
        return
    if sys.stdout.isatty():
        names = [name for name in rows[0] if any(row[name] != "" for row in rows)]
        table = Table(title=title)
        for name in names:
            table.add_column(name, overflow="fold")  # an id that is cut short is none
        for row in rows:
            table.add_row(*(str(row[name]) for name in names))
        Console().print(table)
    else:
        for row in rows:
            click.echo("\t".join([kind] * bool(kind) + [str(value) for value in row.values()]))


def _say(found: Audit) -> None:
    for posted in found.broken[:_EXAMPLES]:
        text = f"posting {posted.place} ({posted.kind} {posted.id}) says a balance of {decimal_of(posted.balance)}"
        click.echo(f"{text}, which is not the sum up to it", err=True)
    if len(found.broken) > _EXAMPLES:
        click.echo(f"and {len(found.broken) - _EXAMPLES} more", err=True)
    if found.whole:
        click.echo(f"whole: {found.postings} postings sum to the balance", err=True)
    else:
        off = decimal_of(found.balance - found.ledger)
        sums = f"the ledger sums to {decimal_of(found.ledger)}, the wallet holds {decimal_of(found.balance)}"
        click.echo(f"NOT whole: {sums}, a difference of {off}", err=True)
