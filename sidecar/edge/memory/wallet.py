"""Administration of wallets in memory: each change is one step of `core.decision.grants`.

As on Redis, grants are idempotent by id, and a change is stored together with its posting. Durability is the caller's
task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sidecar.core.decision import Hold
from sidecar.core.decision.grants import Changed, expire_grants, grant, void
from sidecar.core.decision.wallet_charges import PLACES
from sidecar.core.limits import NEVER_US, wallet_keys
from sidecar.core.price.book import Change, Posted, WalletSnapshot
from sidecar.core.price.wallet import Grant, Wallet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, MutableMapping

    from sidecar.core.decision import Write

    Store = Callable[[str, Iterable[Write], int], None]


class MemoryWallet:
    """The wallet of a customer, at the time that is passed to each call. `store` applies its writes.

    `name` is its unit and scale (`wallet_name`).
    """

    def __init__(self, state: MutableMapping[str, Any], store: Store, customer: str, name: str) -> None:
        self._state = state
        self._store = store
        self._keys = wallet_keys(customer, name)

    @property
    def key(self) -> str:
        """Its first key."""
        return self._keys[0]

    def grant(self, wanted: Grant, now_us: int) -> Change:
        """Add a grant; the store sets `remaining` and `made_us`."""
        return self._keep(grant(self._state, self._keys, wanted, now_us), now_us)

    def void(self, id: str, now_us: int) -> Change:
        """Remove the rest of a grant."""
        return self._keep(void(self._state, self._keys, id, now_us), now_us)

    def expire_grants(self, now_us: int) -> Change:
        """Expire grants and release holds that are past their time, as every other change does first."""
        return self._keep(expire_grants(self._state, self._keys, now_us), now_us)

    def read(self, postings: int, now_us: int) -> WalletSnapshot:
        """The current wallet, with the last `postings` of its ledger."""
        wallet, ledger, _, held, granted = (self._state.get(key) for key in self._keys)
        holds: dict[bytes, Hold] = held or {}
        given: dict[bytes, Grant] = granted or {}
        last = list((ledger or {}).items())[-postings:] if postings else []
        return WalletSnapshot(
            now_us,
            wallet or Wallet(),
            {id_.decode(): hold.charge for id_, hold in holds.items()},
            {id_.decode(): each for id_, each in given.items()},
            tuple(Posted(f"{place // PLACES}-{place % PLACES}", *posting) for place, posting in last),
        )

    def replace(self, last: str, wallet: Wallet, now_us: int) -> bool:
        """Replace the wallet; False if the place of its last posting is not `last`, that is, if it changed since."""
        ledger = self._state.get(self._keys[1])
        place = next(reversed(ledger), 0) if ledger else 0
        if last != (f"{place // PLACES}-{place % PLACES}" if ledger else ""):
            return False
        known: Wallet = self._state.get(self._keys[0], Wallet())
        self._store(self._keys[0], [(self._keys[0], None, wallet._replace(topped=known.topped), NEVER_US)], now_us)
        return True

    def _keep(self, changed: Changed, now_us: int) -> Change:
        self._store(self._keys[0], changed.writes, now_us)
        return Change(changed.done, changed.moved, now_us, changed.wallet)
