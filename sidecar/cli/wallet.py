"""`sidecar wallet`: fill, void, show and audit the wallets of customers, in Redis or on a node without one.

Amounts are decimal and exact. A grant can be repeated after a lost answer: its id is granted once.
After a change the balance alone goes to standard output, and a message to standard error.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import click

from sidecar.cli.options import print_json
from sidecar.cli.tables import print_rows
from sidecar.cli.wallet_options import END, GRANT_ID, MOMENT, Target, run_on, wallet_options
from sidecar.cli.wallet_rebuild import rebuild
from sidecar.core.errors import SidecarError, StoreError
from sidecar.core.price.book import EVERY, Change
from sidecar.core.price.decimals import AMOUNT_MAX
from sidecar.core.price.wallet import Grant, balance
from sidecar.core.words import counted
from sidecar.loading.eviction import evictions_of
from sidecar.wallets.audit import Audit, audit
from sidecar.wallets.text import describe_wallet, format_moment

_PRIORITIES = click.IntRange(0, 1_000_000)
_EXAMPLES = 5
_REFUSED = {
    "other": "a grant with the id {id} and other figures exists; repeat those figures, or choose another --id",
    "many": "the wallet has 64 grants that are not used up; void one, or wait until one expires",
    "full": "the grants would exceed {maximum} {unit}, the maximum; grant less",
    "unknown": "no grant has the id {id}; `sidecar wallet show` lists them",
}
_DONE = {
    "made": "granted {amount} {unit} to {customer} as {id}; denied requests are admitted again within a second",
    "there": "the grant {id} already exists; nothing was changed",
    "void": "voided {id}: removed {amount} {unit} from {customer}; effective within a second",
    "former": "the grant {id} was made before, and is used up, expired or void; nothing was changed",
    "gone": "{id} has nothing left to void: it is used up, expired or already void",
}


@click.group()
def wallet() -> None:
    """Fill, void, show and audit the prepaid wallets of customers."""


@wallet.command()
@wallet_options
@click.option("--amount", required=True, help="The amount, such as 50.00, with at most the digits of the unit.")
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
    metavar="AMOUNT",
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
def grant(target: Target, id_: str | None, as_json: bool, amount: str, rollover_max: str | None, **times: int) -> None:
    """Grant credit to a customer, once for an --id, and print the balance.

    Next: `sidecar wallet show` lists the grants and their order of use.
    """
    amounts = target.amount("--amount", amount), target.amount("--rollover-max", rollover_max)
    wanted = _checked(id_ or f"g_{secrets.token_hex(6)}", amounts, times)
    try:
        change = run_on(target, lambda wallet: wallet.grant(wanted))
    except StoreError as error:
        again = f"; the grant may exist: repeat the command with --id {wanted.id}" if error.maybe_applied else ""
        raise SidecarError(f"{error}{again}") from None
    if change.done == "past":
        raise click.UsageError(
            f"--expires {format_moment(wanted.expires_us)} is in the past: write a later time, or never"
        )
    _report(change, wanted.id, target, as_json=as_json)
    for warning in asyncio.run(evictions_of(target.settings)):
        click.echo(f"warning: {warning}", err=True)


def _checked(id_: str, amounts: tuple[int, int], times: dict[str, int]) -> Grant:
    """The grant that the options describe. UsageError: the options contradict each other."""
    (amount, rest), until_us = amounts, times["rollover_until"]
    expires_us, starts_us = times["expires"], times["starts"]
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
        priority=times["priority"],
        starts_us=starts_us,
        expires_us=expires_us,
        amount=amount,
        remaining=amount,
        rollover_max=rest,
        rollover_until_us=until_us,
        made_us=0,
    )


@wallet.command()
@wallet_options
@click.option("--grant", "id_", type=GRANT_ID, required=True, help="The id of the grant.")
def void(target: Target, id_: str, as_json: bool) -> None:
    """Remove the remaining credit of a grant, and print the balance. Used credit stays used.

    Next: `sidecar wallet show` lists the remaining grants.
    """
    change = run_on(target, lambda wallet: wallet.void(id_))
    _report(change, id_, target, as_json=as_json)


@wallet.command()
@wallet_options
@click.option("--ledger", type=click.IntRange(1), metavar="N", help="Also the last N postings.")
@click.option(
    "--verify", is_flag=True, help="Compare the sum of the ledger with the balance. Exit status 1: they differ."
)
def show(target: Target, as_json: bool, ledger: int | None, verify: bool) -> int:
    """Show the grants in their order of use, the debt, the holds and the balance.

    Next: `sidecar wallet rebuild --dry-run` if --verify reports a difference.
    """
    book = run_on(target, lambda wallet: wallet.read(EVERY if verify else ledger or 0))
    result = audit(book) if verify else None
    rows = describe_wallet(book._replace(postings=book.postings[-ledger:] if ledger else ()), target.digits)
    if as_json:
        print_json(rows | ({"ledger_sum": target.text(result.ledger), "whole": result.whole} if result else {}))
    else:
        _print_wallet(rows, f"{target.customer}, {target.unit}")
    if result:
        _report_audit(result, target)
    return 0 if result is None or result.whole else 1


wallet.add_command(rebuild)


# --- Output ----------------------------------------------------------------------------------------------------------


def _report(change: Change, id_: str, target: Target, *, as_json: bool) -> None:
    """Report the result of a change, and print the balance. SidecarError: it was refused."""
    done = (
        "former" if change.done == "there" and all(grant.id != id_ for grant in change.wallet.grants) else change.done
    )
    words = {"customer": target.customer, "unit": target.unit, "id": id_, "amount": target.text(change.moved)}
    if done in _REFUSED:
        raise SidecarError(_REFUSED[done].format_map(words | {"maximum": target.text(AMOUNT_MAX)}))
    left = target.text(balance(change.wallet))
    if as_json:
        print_json(words | {"done": done, "balance": left, "debt": target.text(change.wallet.debt)})
    else:
        click.echo(_DONE[done].format_map(words), err=True)
        click.echo(left)


def _print_wallet(rows: dict[str, Any], title: str) -> None:
    """On a terminal as tables; in a pipe one line per row, its kind first, separated by tabs."""
    for name in ("balance", "available", "debt", "held", "holds"):
        click.echo(f"{name}\t{rows[name]}")
    for kind in ("grants", "postings"):
        print_rows(rows[kind], list(rows[kind][0]) if rows[kind] else (), title=f"{kind} of {title}", kind=kind[:-1])


def _report_audit(result: Audit, target: Target) -> None:
    for posting in result.broken[:_EXAMPLES]:
        text = f"posting {posting.place} ({posting.kind} {posting.id}) has the balance {target.text(posting.balance)}"
        click.echo(f"{text}, which is not the sum of the postings up to it", err=True)
    if len(result.broken) > _EXAMPLES:
        click.echo(f"and {len(result.broken) - _EXAMPLES} more", err=True)
    if result.whole:
        click.echo(f"whole: the sum of {counted(result.postings, 'posting')} is the balance", err=True)
    else:
        off = target.text(result.balance - result.ledger)
        sums = f"the ledger sums to {target.text(result.ledger)}, the wallet has {target.text(result.balance)}"
        click.echo(f"NOT whole: {sums}, a difference of {off}", err=True)
