"""The wallets of a node without Redis, for other processes: each call is a request to its worker (`listener`)."""

from __future__ import annotations

from typing import Any

from sidecar.core.price.book import Change, Posted, WalletSnapshot
from sidecar.core.price.wallet import Grant, Wallet
from sidecar.embedded.listener import Ask, Json, checked
from sidecar.embedded.state import wallet_of


class EmbeddedWallet:
    """The wallet of a customer, as `RedisWallet`. `ask` sends a request to the worker.

    StoreError: the change failed, or there was no answer and it may have been made (`maybe_applied`).
    """

    def __init__(self, ask: Ask, customer: str, name: str) -> None:
        self._ask = ask
        self._whose = {"customer": customer, "unit": name}

    async def grant(self, grant: Grant) -> Change:
        """Add a grant; the worker sets `remaining` and `made_us`. Debt is paid first."""
        return _change_of(await self._request("grant", grant=grant))

    async def void(self, id: str) -> Change:
        """Remove the rest of a grant."""
        return _change_of(await self._request("void", grant=id))

    async def expire_grants(self) -> Change:
        """Remove expired grants and release overdue holds, as every other change does first."""
        return _change_of(await self._request("sweep"))

    async def read(self, postings: int = 0) -> WalletSnapshot:
        """The current wallet, with the last `postings` of its ledger."""
        return _book_of(await self._request("read", postings=postings))

    async def replace(self, book: WalletSnapshot, wallet: Wallet) -> bool:
        """Replace the wallet; False if something was posted since `book` was read."""
        last = book.postings[-1].place if book.postings else ""
        return bool((await self._request("replace", last=last, wallet=wallet))["replaced"])

    async def _request(self, do: str, **more: Any) -> Json:
        return checked(await self._ask({"do": do, **self._whose, **more}))


def _change_of(answer: Json) -> Change:
    return Change(answer["done"], answer["moved"], answer["now_us"], wallet_of(answer["wallet"]))


def _book_of(answer: Json) -> WalletSnapshot:
    return WalletSnapshot(
        answer["now_us"],
        wallet_of(answer["wallet"]),
        answer["held"],
        {name: Grant(*figures) for name, figures in answer["granted"].items()},
        tuple(Posted(*each) for each in answer["postings"]),
    )
