"""`sidecar customers`: what customers have left, asked from the counters that enforce."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

import click

from sidecar.app.live_limits import read_live
from sidecar.cli.options import config_option, json_option, print_json, settings_of
from sidecar.cli.tables import print_rows, printable
from sidecar.config.settings import Settings
from sidecar.core.decision.live import LiveBalance, LiveLimit, as_document
from sidecar.core.errors import SidecarError
from sidecar.core.identity import Identity
from sidecar.core.price.decimals import decimal_of
from sidecar.keys.registers import open_keys
from sidecar.loading.documents import load_policies
from sidecar.wallets.text import format_moment

_COLUMNS: Final = ("limit", "used", "left", "resets", "of", "plan", "note")
_BALANCES: Final = ("balance", "available", "held", "expiring", "expires", "note")
_PRICED: Final = ("meter", "used", "window")
_NOTES: Final = {"shadow": "does not deny yet", "soft": "only warns"}


@click.group()
def customers() -> None:
    """Show what customers have left of their limits and balances."""


@customers.command()
@config_option
@click.argument("customer")
@click.option("--subject", default="", help="Only what this subject's keys can use: its own limits and the customer's.")
@click.option("--key", "key_id", default="", metavar="ID", help="Only what this key can use.")
@json_option
def limits(config: Path | None, customer: str, *, subject: str, key_id: str, as_json: bool) -> int:
    """Show every limit and balance of a customer now: used, remaining, when it resets, and which limit binds.

    The figures are those of the counters that enforce, in Redis or of this node. Used units contain those that open
    requests and leases have taken.

    Next: `sidecar wallet show` lists the grants of a balance.
    """
    settings = settings_of(config)
    policy = load_policies(settings).policy
    identities = _identities(settings, customer, subject, key_id)
    figures = asyncio.run(read_live(settings, policy, identities))
    if as_json:
        print_json({"customer": customer} | as_document(figures))
    else:
        has_plans = len({each.plan for each in figures.limits}) > 1
        print_rows([_row(each, has_plans=has_plans) for each in figures.limits], _COLUMNS)
        print_rows([_balance(each) for each in figures.balances], _BALANCES, title="Balances", kind="balance")
        print_rows([_priced(each) for each in figures.priced], _PRICED, title="Paid by balances", kind="priced")
    if not figures.limits and not figures.balances:
        click.echo(f"the plans of {printable(customer)} have no limits", err=True)
    return 0


def _identities(settings: Settings, customer: str, subject: str, key_id: str) -> list[Identity]:
    """The callers that active keys of the customer stand for. SidecarError: no key is left."""
    records = [each for each in open_keys(settings).register.records() if each.customer == customer]
    if not records:
        raise SidecarError(f"no key is registered for the customer {customer}; `sidecar keys list` shows all customers")
    chosen = [each for each in records if subject in {"", each.subject} and key_id in {"", each.id}]
    identities = [identity for each in chosen if (identity := each.identity()) is not None]
    if not identities:
        what = " and ".join([f"--subject {subject}"] * bool(subject) + [f"--key {key_id}"] * bool(key_id))
        raise SidecarError(
            f"the customer {customer} has no active key{' with ' + what if what else ''}; "
            f"`sidecar keys search --customer {customer}` lists its keys"
        )
    return identities


def _row(each: LiveLimit, *, has_plans: bool) -> dict[str, Any]:
    limit = each.limit
    unit = limit.meter or "at once"
    notes = ["binds"] * each.is_binding + ["lets pass"] * (limit.over == "allow") + [_NOTES.get(limit.stage, "")]
    return {
        "limit": limit.id,
        "used": f"{each.used} of {limit.amount} {unit}",
        "left": each.remaining,
        "of": f"{limit.scope} {each.holder}",
        "plan": each.plan if has_plans else "",
        "resets": format_moment(each.resets_us).replace("T", " ")[:-4] + "Z" if each.resets_us else "",
        "note": ", ".join(note for note in notes if note),
    }


def _balance(each: LiveBalance) -> dict[str, Any]:
    return {
        "balance": each.unit,
        "available": decimal_of(each.available, each.digits),
        "held": decimal_of(each.held, each.digits),
        "expiring": decimal_of(each.expiring, each.digits),
        "expires": format_moment(each.expires_us),
        "note": "binds" if each.is_binding else "",
    }


def _priced(each: LiveLimit) -> dict[str, Any]:
    return {"meter": each.limit.meter, "used": each.used, "window": each.window}
