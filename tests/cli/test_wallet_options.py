"""Mirrors sidecar/cli/wallet_options.py; test_wallet.py runs the commands that have these options."""

import click
import pytest

from sidecar.cli.wallet_options import END, GRANT_ID, MOMENT, Target
from sidecar.config.settings import load_settings


def test_amounts_are_read_and_written_in_the_digits_of_the_wallet():
    target = Target(load_settings(None, {}), "acme", "credits", 2)
    assert (target.amount("--amount", "12.5"), target.amount("--amount", None)) == (1_250, 0)
    assert target.text(1_250) == "12.5"
    with pytest.raises(click.BadParameter, match="write at most 2 digits") as caught:
        target.amount("--amount", "0.001")
    assert caught.value.param_hint == "'--amount'"


def test_moments_and_ids_are_read_or_refused_with_what_to_write():
    assert (END("never"), END("1970-01-02"), MOMENT(0)) == (0, 86_400_000_000, 0)
    assert GRANT_ID("purchase-1") == "purchase-1"
    for convert, text in ((MOMENT, "never"), (END, "soon"), (GRANT_ID, "a b")):
        with pytest.raises(click.BadParameter, match=f"'{text}' is not "):
            convert(text)
