"""Mirrors sidecar/embedded/wallets.py."""

from sidecar.core.price.book import EVERY
from sidecar.core.price.wallet import Grant, Wallet, balance

GRANT = Grant("g1", 0, 0, 0, 100, 100)


async def test_a_wallet_is_filled_read_and_replaced_over_the_socket(worker):
    wallet = worker.wallet
    made = await wallet.grant(GRANT)
    assert (made.done, made.moved, balance(made.wallet)) == ("made", 100, 100)
    book = await wallet.read(EVERY)
    assert book == worker.state.read({"customer": "acme", "unit": "usd", "postings": EVERY})
    assert await wallet.replace(book, Wallet(made.wallet.grants, 30))
    assert (await wallet.void("g1")).moved == 70  # the debt is paid first
    assert (await wallet.expire_grants()).done == "swept"
    assert not await wallet.replace(book, Wallet())
