"""Mirrors sidecar/wallets/scales.py."""

import pytest

from sidecar.config.settings import load_settings
from sidecar.core.price.wallet import Grant
from sidecar.wallets.opening import open_wallets
from sidecar.wallets.scales import other_balances, scale_warnings

DAY_US = 86_400_000_000


@pytest.fixture(params=[pytest.param("redis", marks=pytest.mark.redis), "stopped"])
def settings(request, tmp_path):
    """Wallets on Redis, or in the files of a node without one."""
    (tmp_path / "policies.yaml").write_text("plans: { free: {} }\n")
    (tmp_path / "sidecar.yaml").write_text("policies: policies.yaml\njournal: { dir: journal }\n")
    url = {"SIDECAR_REDIS__URL": request.getfixturevalue("redis_clean").url} if request.param == "redis" else {}
    return load_settings(tmp_path / "sidecar.yaml", url)


async def fill(settings, *wallets, expires_us=0):
    async with open_wallets(settings) as wallet_of:
        for customer, name, amount in wallets:
            made = await wallet_of(customer, name).grant(Grant("g", 0, 0, expires_us, amount, amount))
            assert made.done == "made"


async def test_credit_in_other_scales_of_a_unit_is_found_and_that_of_other_units_and_customers_is_not(settings):
    # Fails if a scale is left out, or if an amount is given in the scale that was asked for.
    await fill(settings, ("acme", "credits", 5), ("acme", "credits.0", 7), ("acme", "credits.2", 9), ("acme", "usd", 1))
    await fill(settings, ("other", "credits.4", 3))
    async with open_wallets(settings) as wallets:
        assert await other_balances(wallets, "acme", "credits", 2) == {0: 7, 9: 5}
        assert await other_balances(wallets, "acme", "credits", 9) == {0: 7, 2: 9}
        assert await other_balances(wallets, "acme", "usd", 9) == {}
        await wallets("acme", "credits").void("g")
        assert await other_balances(wallets, "acme", "credits", 2) == {0: 7}


async def test_every_scale_that_still_holds_credit_is_a_warning_with_its_customers(settings):
    filled = [(f"c{number}", "credits", 5) for number in range(4)]
    await fill(settings, *filled, ("acme", "credits.3", 7), ("acme", "credits.2", 9), ("acme", "usd", 1))
    many, one = await scale_warnings(settings, {"credits": 2, "usd": 9})
    uses = "unit credits: requests use wallets with 2 digits, but balances with"
    assert many.startswith(f"{uses} 9 digits are left in 4 wallets (c0, c1, c2, …): docs/wallets.md")
    assert one.startswith(f"{uses} 3 digits are left in 1 wallet (acme): docs/wallets.md")
    assert await scale_warnings(settings, {"usd": 9}) == []
    assert await scale_warnings(settings, {}) == []


async def test_a_wallet_whose_credit_is_gone_is_no_warning(settings):
    # Fails if the existence of a wallet is the reason: its keys never expire, and so the warning would stay for ever.
    await fill(settings, ("acme", "credits", 5))
    async with open_wallets(settings) as wallets:
        await wallets("acme", "credits").void("g")
    assert await scale_warnings(settings, {"credits": 2}) == []


async def test_what_cannot_be_looked_at_is_a_warning_and_no_failure(tmp_path):
    away = load_settings(None, {"SIDECAR_REDIS__URL": "redis://127.0.0.1:1"})
    [warning] = await scale_warnings(away, {"credits": 2})
    assert warning.startswith("wallets: not all could be checked for another scale of their unit: ")
    assert "the wallet's store did not answer: Error 111 connecting to 127.0.0.1:1" in warning
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "state").write_bytes(b"damaged")
    [warning] = await scale_warnings(load_settings(None, {"SIDECAR_JOURNAL__DIR": str(tmp_path)}), {"credits": 2})
    assert "0/state: " in warning
