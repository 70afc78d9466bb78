"""The options of `sidecar wallet` that name a wallet, and the call of its store.

The scale of a wallet is the one that the policies give its unit, so the commands read them; `--digits` chooses another.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from functools import wraps
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import click

from sidecar.cli.options import config_option, json_option, settings_of
from sidecar.config.patterns import CUSTOMER, RIGHT, UNIT
from sidecar.config.settings import Settings
from sidecar.config.wallet_units import digits_of
from sidecar.core.limits import wallet_name
from sidecar.core.price.decimals import DIGITS, decimal_of
from sidecar.loading.documents import load_policies
from sidecar.wallets.opening import AnyWallet, open_wallets
from sidecar.wallets.scales import other_balances
from sidecar.wallets.text import parse_amount, parse_moment_us

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

_GRANT_ID: Final = r"^[!-~]{1,128}$"
_RIGHT: Final = RIGHT | {_GRANT_ID: "1 to 128 printable ASCII characters without spaces"}


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


MOMENT = _option_type("moment", parse_moment_us)
END = _option_type("moment|never", _end_us)
CUSTOMER_NAME = _option_type("name", _matching(CUSTOMER))
UNIT_NAME = _option_type("unit", _matching(UNIT))
GRANT_ID = _option_type("id", _matching(_GRANT_ID))


class Target(NamedTuple):
    """The wallet that a command is about: `digits` are the scale of its unit."""

    settings: Settings
    customer: str
    unit: str
    digits: int

    def text(self, amount: int) -> str:
        """An amount as a decimal."""
        return decimal_of(amount, self.digits)

    def amount(self, option: str, text: str | None) -> int:
        """The amount of an option, 0 without it. BadParameter: what would be right."""
        try:
            return 0 if text is None else parse_amount(text, self.digits)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint=f"'{option}'") from None


def wallet_options(function: F) -> Callable[..., Any]:
    """The options that name a wallet, which `function` gets as one `Target`. PolicyError: the policies are wrong."""

    @wraps(function)
    def command(config: Path | None, customer: str, unit: str, digits: int | None, **more: Any) -> Any:
        return function(target_of(settings_of(config), customer, unit, digits), **more)

    return name_options(command)


def target_of(settings: Settings, customer: str, unit: str, digits: int | None) -> Target:
    """The wallet that options name; without `digits` in the scale of the policies. PolicyError: these are wrong."""
    return Target(
        settings, customer, unit, digits_of(load_policies(settings).units, unit) if digits is None else digits
    )


def name_options(function: F, *, required: bool = True) -> F:
    """The options that name a wallet, as they are written."""
    unit = "The currency or unit, as in policies, such as usd."
    for option in (
        json_option,
        click.option(
            "--digits",
            type=click.IntRange(0, DIGITS),
            help="The scale of the wallet, if it is not the one that the policies give its unit.",
        ),
        click.option("--unit", type=UNIT_NAME, required=required, help=unit),
        click.option("--customer", type=CUSTOMER_NAME, required=required, help="The customer who owns the wallet."),
        config_option,
    ):
        function = option(function)
    return function


def run_on(target: Target, work: Callable[[AnyWallet], Awaitable[T]]) -> T:
    """The result of `work` on the wallet. Warns of credit that the customer has in the unit in another scale."""
    settings, customer, unit, digits = target

    async def run() -> tuple[T, dict[int, int]]:
        async with open_wallets(settings) as wallets:
            others = await other_balances(wallets, customer, unit, digits)
            return await work(wallets(customer, wallet_name(unit, digits))), others

    result, others = asyncio.run(run())
    for other, amount in others.items():
        click.echo(
            f"warning: {customer} also has a wallet in {unit} with {other} digits, whose balance is "
            f"{decimal_of(amount, other)}; this one has {digits}. Requests pay from the one with the digits that the "
            f"policy gives {unit}; --digits {other} shows the other one",
            err=True,
        )
    return result
