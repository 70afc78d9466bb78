"""`sidecar wallet rebuild`: make a wallet anew, from its ledger in the store or from the stream."""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

from sidecar.cli.options import print_json, settings_of
from sidecar.cli.tables import print_rows
from sidecar.cli.wallet_options import Target, name_options, run_on, target_of
from sidecar.config.settings import Settings
from sidecar.core.errors import SidecarError
from sidecar.core.limits import wallet_name
from sidecar.core.price.book import EVERY
from sidecar.core.price.decimals import decimal_of
from sidecar.core.price.stream import Remade, is_whole, remade
from sidecar.core.price.wallet import balance
from sidecar.core.words import counted
from sidecar.edge.redis.endpoint import connected
from sidecar.edge.redis.wallet import RedisWallet
from sidecar.ledger.connection import open_ledger
from sidecar.ledger.pending import RELATION, pending_rows
from sidecar.ledger.postings import StreamWallet, choose_postings, postings_of, wallets
from sidecar.wallets.audit import Rebuilt, differences, rebuilt
from sidecar.wallets.opening import TIMEOUT_S, AnyWallet

_ATTEMPTS: Final = 20  # to rebuild a wallet between two requests of its customer
_BASIS: Final = {
    True: "all postings were replayed",
    False: "the start of the ledger is trimmed, or a grant is unknown: the sum is exact, its grants are an estimate",
}
_REFUSED: Final = {
    "full": "is not empty in Redis; --replace replaces it",
    "unread": "has postings that are not on the stream yet; wait a second, load the ledger, and repeat the command",
}
_COLUMNS: Final = ("customer", "unit", "was", "balance", "grants", "done")
_NO_REDIS: Final = (
    "--from-ledger is for Redis: a node without redis.url restores its wallets from its journal (docs/embedded.md)"
)


@click.command()
@partial(name_options, required=False)
@click.option("--dry-run", is_flag=True, help="Compare only. Exit status 1: something would change.")
@click.option("--from-ledger", "from_ledger", is_flag=True, help="From the postings of the ledger (docs/ledger.md).")
@click.option("--all", "every", is_flag=True, help="With --from-ledger: all wallets that have postings.")
@click.option("--replace", "replaces", is_flag=True, help="With --from-ledger: also wallets that are not empty.")
def rebuild(
    config: Path | None, *, as_json: bool, dry_run: bool, from_ledger: bool, every: bool, replaces: bool, **name: Any
) -> None:
    """Rebuild a wallet from its ledger, list the differences, and replace the stored wallet.

    With --from-ledger, after Redis was lost: from the postings that `sidecar ledger load` loaded, and those of this
    node's journal. Stop the nodes, or let nobody buy and use meanwhile. Amounts that open exchanges hold are not on the
    stream. Neither are the figures of rollovers, so no rebuilt grant rolls over.

    Next: `sidecar wallet show --verify`.
    """
    settings = settings_of(config)
    if not from_ledger and (every or replaces):
        raise click.UsageError("--all and --replace are for --from-ledger")
    customer, unit = name["customer"] or "", name["unit"] or ""
    if every is bool(customer or unit) or (not every and not (customer and unit)):
        raise click.UsageError("name a wallet with --customer and --unit" + (", or --all" if from_ledger else ""))
    target = target_of(settings, customer, unit, name["digits"])
    if from_ledger:
        _from_ledger(settings, None if every else target, as_json=as_json, dry_run=dry_run, replaces=replaces)
    else:
        _from_own_ledger(target, as_json=as_json, dry_run=dry_run)


def _from_own_ledger(target: Target, *, as_json: bool, dry_run: bool) -> None:
    async def work(wallet: AnyWallet) -> tuple[Rebuilt, list[tuple[str, int, int]]]:
        for _ in range(_ATTEMPTS):
            book = await wallet.read(EVERY)
            made = rebuilt(book)
            changes = differences(book, made.wallet)
            if not changes or dry_run or await wallet.replace(book, made.wallet):
                return made, changes
        raise SidecarError("requests changed the wallet during each attempt to rebuild it; try again at a quieter time")

    made, changes = run_on(target, work)
    rows = [{"what": what, "stands": target.text(now), "ledger": target.text(ledger)} for what, now, ledger in changes]
    if as_json:
        print_json({"exact": made.exact, "balance": target.text(balance(made.wallet)), "differences": rows})
    else:
        print_rows(rows, ("what", "stands", "ledger"))
    click.echo(f"{_BASIS[made.exact]}; {len(rows) or 'no'} difference{'s' * (len(rows) != 1)}", err=True)
    sys.exit(1 if rows and dry_run else 0)


class _Restored(NamedTuple):
    """A wallet, what was made of the stream, its balance in Redis before, and what was done."""

    name: StreamWallet
    made: Remade
    before: int
    done: str

    def as_row(self) -> dict[str, Any]:
        customer, _, unit, digits = self.name
        now = balance(self.made.wallet)
        return {
            "customer": customer,
            "unit": unit,
            "was": decimal_of(self.before, digits),
            "balance": decimal_of(now, digits),
            "grants": len(self.made.wallet.grants),
            "done": self.done,
        }


def _from_ledger(
    settings: Settings, target: Target | None, *, as_json: bool, dry_run: bool, replaces: bool
) -> None:  # fmt: skip
    if settings.redis is None:
        raise click.UsageError(_NO_REDIS)
    restored = asyncio.run(_restore(settings, _made(settings, target), dry_run=dry_run, replaces=replaces))
    rows = [each.as_row() for each in restored]
    if as_json:
        print_json(rows)
    else:
        print_rows(rows, _COLUMNS)
    _warn(restored)
    refused = [each for each in restored if each.done in _REFUSED]
    for each in refused:
        click.echo(f"sidecar: the wallet of {each.name.customer} in {each.name.unit} {_REFUSED[each.done]}", err=True)
    differ = [each for each in restored if each.before != balance(each.made.wallet)]
    if dry_run:
        would = [each for each in differ if replaces or not each.before]  # one that is not empty is refused
        click.echo(f"{counted(len(would), 'wallet')} would be restored", err=True)
    else:
        click.echo(f"{counted(sum(each.done == 'done' for each in restored), 'wallet')} restored", err=True)
    sys.exit(1 if refused or (dry_run and differ) else 0)


def _made(settings: Settings, target: Target | None) -> list[tuple[StreamWallet, Remade]]:
    options = settings.ledger
    with open_ledger(options.dir, f"{options.memory_bytes}B", options.threads) as rows:
        for fault in rows.faults:
            click.echo(f"sidecar: {fault}", err=True)
        with pending_rows(rows.engine, settings.journal.dir) as pending:
            choose_postings(rows.engine, target.customer if target else "", RELATION if pending else "")
            names = [each for each in wallets(rows.engine) if target is None or each[2:] == target[2:]]
            made = [(name, remade(postings_of(rows.engine, name))) for name in names]
    if target is not None and not made:
        raise SidecarError(f"the ledger has no postings of {target.customer} in {target.unit}; load it first")
    for name, each in made:
        assert is_whole(each), name  # noqa: S101 - the rule of the replay
    return made


async def _restore(
    settings: Settings, made: list[tuple[StreamWallet, Remade]], *, dry_run: bool, replaces: bool
) -> list[_Restored]:  # fmt: skip
    restored: list[_Restored] = []
    assert settings.redis is not None  # noqa: S101 - see _from_ledger
    async with connected(settings.redis.endpoint, TIMEOUT_S) as client:
        for name, each in made:
            wallet = RedisWallet(client, name.customer, wallet_name(name.unit, name.digits), name.account)
            before = balance((await wallet.read()).wallet)
            done = "" if dry_run else await wallet.restore(each.wallet, each.granted, replaces=replaces)
            restored.append(_Restored(name, each, before, done))
    return restored


def _warn(restored: list[_Restored]) -> None:
    for (customer, _, unit, digits), made, _, _ in restored:
        whose = f"warning: {customer}, {unit}:"
        if made.left_out:
            left_out = decimal_of(made.left_out, digits)
            click.echo(f"{whose} {left_out} left out: open exchanges held it of grants that have ended", err=True)
        for grant in made.rolled_over:
            click.echo(
                f"{whose} {grant} has rolled over, and until when is not on the stream: it now never expires", err=True
            )
