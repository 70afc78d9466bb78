"""`sidecar wallet`: fill, void, show and audit the wallets of customers, in Redis or on a node without one.

Amounts are decimal and exact. A grant can be repeated after a lost answer: its id is granted once.
After a change the balance alone goes to standard output, and a message to standard error.
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

from sidecar.app.wallets import AnyWallet, open_wallet
from sidecar.cli.options import config_option, json_option, print_json, settings_of
from sidecar.config.patterns import CUSTOMER, RIGHT, UNIT
from sidecar.core.errors import SidecarError, StoreError
from sidecar.core.price.book import EVERY, Change
from sidecar.core.price.decimals import decimal_of
from sidecar.core.price.wallet import Grant, balance
from sidecar.core.words import counted
from sidecar.wallets.audit import Audit, Rebuilt, audit, differences, rebuilt
from sidecar.wallets.text import describe_wallet, format_moment, parse_amount, parse_moment_us

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

_GRANT_ID = r"^[!-~]{1,128}$"
_RIGHT = RIGHT | {_GRANT_ID: "1 to 128 printable ASCII characters without spaces"}
_PRIORITIES = click.IntRange(0, 1_000_000)
_ATTEMPTS = 20  # to rebuild a wallet between two requests of its customer
_EXAMPLES = 5
_BASIS = {
    True: "all postings were replayed",
    False: "the start of the ledger is trimmed, or a grant is unknown: the sum is exact, its grants are an estimate",
}
_REFUSED = {
    "other": "a grant with the id {id} and other figures exists; repeat those figures, or choose another --id",
    "many": "the wallet has 64 grants that are not used up; void one, or wait until one expires",
    "full": "the balance would reach 2251799 units, the maximum; grant less",
    "unknown": "no grant has the id {id}; `sidecar wallet show` lists them",
}
_DONE = {
    "made": "granted {amount} {unit} to {customer} as {id}; denied requests are admitted again within a second",
    "there": "the grant {id} already exists; nothing was changed",
    "void": "voided {id}: removed {amount} {unit} from {customer}; effective within a second",
    "former": "the grant {id} was made before, and is used up, expired or void; nothing was changed",
    "gone": "{id} has nothing left to void: it is used up, expired or already void",
}


def _option_type(name: str, read: Callable[[str], Any]) -> Callable[[Any], Any]:
    """A click type that converts a text by `read`, whose ValueError states the remedy."""

    def convert(value: Any) -> Any:
        if not isinstance(value, str):  # a default
            return value
        try:
            return read(value)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    convert.__name__ = name
    return convert


def _matching(pattern: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if re.fullmatch(pattern, text) is None:
            raise ValueError(f"'{text}' is not {_RIGHT[pattern]}")
        return text

    return read


def _end_us(text: str) -> int:
    return 0 if text == "never" else parse_moment_us(text)


AMOUNT = _option_type("amount", parse_amount)
MOMENT = _option_type("moment", parse_moment_us)
END = _option_type("moment|never", _end_us)
CUSTOMER_NAME = _option_type("name", _matching(CUSTOMER))
UNIT_NAME = _option_type("unit", _matching(UNIT))
GRANT_ID = _option_type("id", _matching(_GRANT_ID))


@click.group()
def wallet() -> None:
    """Fill, void, show and audit the prepaid wallets of customers."""


def _wallet_options(function: F) -> F:
    for option in (
        json_option,
        click.option(
            "--unit", type=UNIT_NAME, required=True, help="The currency or unit, as in policies, such as usd."
        ),
        click.option("--customer", type=CUSTOMER_NAME, required=True, help="The customer who owns the wallet."),
        config_option,
    ):
        function = option(function)
    return function


@wallet.command()
@_wallet_options
@click.option("--amount", type=AMOUNT, required=True, help="The amount, such as 50.00, with at most nine decimals.")
@click.option(
    "--expires", type=END, required=True, help="When it expires, such as 2027-01-01 (midnight UTC), or never."
)
@click.option(
    "--priority",
    type=_PRIORITIES,
    default=0,
    show_default=True,
    help="Grants of lower priority numbers are used first.",
)
@click.option("--starts", type=MOMENT, default=0, show_default="now", help="When the grant becomes usable.")
@click.option(
    "--rollover-max",
    type=AMOUNT,
    default=0,
    show_default="0",
    help="How much of the unused rest is kept when it expires.",
)
@click.option("--rollover-until", type=MOMENT, default=0, show_default="never", help="When that rest expires.")
@click.option(
    "--id",
    "id_",
    type=GRANT_ID,
    help="The id, such as that of the purchase: it is granted once. Default: a random one.",
)
def grant(config: Path | None, customer: str, unit: str, id_: str | None, as_json: bool, **figures: int) -> None:
    """Grant credit to a customer, once for an --id, and print the balance.

    Next: `sidecar wallet show` lists the grants and their order of use.
    """
    wanted = _checked(id_ or f"g_{secrets.token_hex(6)}", figures)
    try:
        change = _run(config, customer, unit, lambda wallet: wallet.grant(wanted))
    except StoreError as error:
        again = f"; the grant may exist: repeat the command with --id {wanted.id}" if error.maybe_applied else ""
        raise SidecarError(f"{error}{again}") from None
    if change.done == "past":
        raise click.UsageError(
            f"--expires {format_moment(wanted.expires_us)} is in the past: write a later time, or never"
        )
    _report(change, wanted.id, {"customer": customer, "unit": unit}, as_json=as_json)


def _checked(id_: str, figures: dict[str, int]) -> Grant:
    """The grant that the options describe. UsageError: the options contradict each other."""
    expires_us, starts_us = figures["expires"], figures["starts"]
    rest, until_us = figures["rollover_max"], figures["rollover_until"]
    if expires_us and starts_us >= expires_us:
        raise click.UsageError("--starts is not before --expires: write an earlier start or a later expiry")
    if bool(rest) is not bool(until_us):
        raise click.UsageError("--rollover-max and --rollover-until belong together: write both, or neither")
    if until_us and not expires_us:
        raise click.UsageError(
            "--rollover-until: a grant that never expires does not roll over; write --expires 2027-01-01"
        )
    if until_us and until_us <= expires_us:
        raise click.UsageError("--rollover-until is not after --expires: write a later time")
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
@_wallet_options
@click.option("--grant", "id_", type=GRANT_ID, required=True, help="The id of the grant.")
def void(config: Path | None, customer: str, unit: str, id_: str, as_json: bool) -> None:
    """Remove the remaining credit of a grant, and print the balance. Used credit stays used.

    Next: `sidecar wallet show` lists the remaining grants.
    """
    change = _run(config, customer, unit, lambda wallet: wallet.void(id_))
    _report(change, id_, {"customer": customer, "unit": unit}, as_json=as_json)


@wallet.command()
@_wallet_options
@click.option("--ledger", type=click.IntRange(1), metavar="N", help="Also the last N postings.")
@click.option(
    "--verify", is_flag=True, help="Compare the sum of the ledger with the balance. Exit status 1: they differ."
)
def show(config: Path | None, customer: str, unit: str, as_json: bool, ledger: int | None, verify: bool) -> int:
    """Show the grants in their order of use, the debt, the holds and the balance.

    Next: `sidecar wallet rebuild --dry-run` if --verify reports a difference.
    """
    book = _run(config, customer, unit, lambda wallet: wallet.read(EVERY if verify else ledger or 0))
    result = audit(book) if verify else None
    shown = book._replace(postings=book.postings[-ledger:] if ledger else ())
    if as_json:
        print_json(
            describe_wallet(shown)
            | ({"ledger_sum": decimal_of(result.ledger), "whole": result.whole} if result else {})
        )
    else:
        _print_wallet(describe_wallet(shown), f"{customer}, {unit}")
    if result:
        _report_audit(result)
    return 0 if result is None or result.whole else 1


@wallet.command()
@_wallet_options
@click.option("--dry-run", is_flag=True, help="Compare only. Exit status 1: wallet and ledger differ.")
def rebuild(config: Path | None, customer: str, unit: str, as_json: bool, dry_run: bool) -> None:
    """Rebuild a wallet from its ledger, list the differences, and replace the stored wallet.

    Next: `sidecar wallet show --verify`.
    """

    async def work(wallet: AnyWallet) -> tuple[Rebuilt, list[tuple[str, int, int]]]:
        for _ in range(_ATTEMPTS):
            book = await wallet.read(EVERY)
            made = rebuilt(book)
            changes = differences(book, made.wallet)
            if not changes or dry_run or await wallet.replace(book, made.wallet):
                return made, changes
        raise SidecarError("requests changed the wallet during each attempt to rebuild it; try again at a quieter time")

    made, changes = _run(config, customer, unit, work)
    rows = [{"what": what, "stands": decimal_of(now), "ledger": decimal_of(ledger)} for what, now, ledger in changes]
    if as_json:
        print_json({"exact": made.exact, "balance": decimal_of(balance(made.wallet)), "differences": rows})
    else:
        _print_rows(rows)
    click.echo(f"{_BASIS[made.exact]}; {len(rows) or 'no'} difference{'s' * (len(rows) != 1)}", err=True)
    sys.exit(1 if rows and dry_run else 0)


def _run(config: Path | None, customer: str, unit: str, work: Callable[[AnyWallet], Awaitable[T]]) -> T:
    settings = settings_of(config)

    async def run() -> T:
        async with open_wallet(settings, customer, unit) as wallet:
            return await work(wallet)

    return asyncio.run(run())


# --- Output ----------------------------------------------------------------------------------------------------------


def _report(change: Change, id_: str, words: dict[str, str], *, as_json: bool) -> None:
    """Report the result of a change, and print the balance. SidecarError: it was refused."""
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


def _print_wallet(rows: dict[str, Any], title: str) -> None:
    """On a terminal as tables; in a pipe one line per row, its kind first, separated by tabs."""
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
            table.add_column(name, overflow="fold")  # a truncated id cannot be used
        for row in rows:
            table.add_row(*(str(row[name]) for name in names))
        Console().print(table)
    else:
        for row in rows:
            click.echo("\t".join([kind] * bool(kind) + [str(value) for value in row.values()]))


def _report_audit(result: Audit) -> None:
    for posting in result.broken[:_EXAMPLES]:
        text = f"posting {posting.place} ({posting.kind} {posting.id}) has the balance {decimal_of(posting.balance)}"
        click.echo(f"{text}, which is not the sum of the postings up to it", err=True)
    if len(result.broken) > _EXAMPLES:
        click.echo(f"and {len(result.broken) - _EXAMPLES} more", err=True)
    if result.whole:
        click.echo(f"whole: the sum of {counted(result.postings, 'posting')} is the balance", err=True)
    else:
        off = decimal_of(result.balance - result.ledger)
        sums = f"the ledger sums to {decimal_of(result.ledger)}, the wallet has {decimal_of(result.balance)}"
        click.echo(f"NOT whole: {sums}, a difference of {off}", err=True)
