"""Values that commands exchange with a store of wallets: a wallet with its ledger, and the result of a change.

Every store of wallets (Redis, a node's memory) returns these, so the commands do not depend on which one it is.
"""

from __future__ import annotations

from typing import NamedTuple

from sidecar.core.price.wallet import Grant, Wallet

EVERY = 1_000_000  # more postings than a ledger holds


class Posted(NamedTuple):
    """A posting (core.price.wallet) as the ledger stores it. `balance`: that of the wallet afterwards.

    `place` is its unique position in the ledger: ms since the epoch, a hyphen, and a sequence number within that ms.
    `charges` are those of a settle, as in core.price.wallet.
    """

    place: str
    kind: str
    id: str
    delta: int
    balance: int
    charges: str = ""

    @property
    def at_ms(self) -> int:
        """Time of the posting by the store's clock, ms since the epoch."""
        return int(self.place.partition("-")[0])


class Change(NamedTuple):
    """The result of a change: `done` (a word of `core.decision.grants`), the amount moved, and the wallet after it."""

    done: str
    moved: int
    now_us: int
    wallet: Wallet


class WalletSnapshot(NamedTuple):
    """A wallet and its ledger at one instant, with its holds and grants read the moment after.

    `held`: the amounts held, by exchange id. `granted`: the last 1,000 grants by id as they were made: `remaining` is
    the whole amount, however much has been used since.
    """

    now_us: int
    wallet: Wallet
    held: dict[str, int]
    granted: dict[str, Grant]
    postings: tuple[Posted, ...]
