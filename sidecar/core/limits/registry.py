"""All kinds of limits, by name. A new kind is a module of its own, a line here, and an arm of the scripts on Redis."""

from __future__ import annotations

from typing import Final

from sidecar.core.limits.balance import BalanceKind
from sidecar.core.limits.base import Kind
from sidecar.core.limits.concurrency import ConcurrencyKind
from sidecar.core.limits.priced import PricedKind
from sidecar.core.limits.quota import QuotaKind
from sidecar.core.limits.rate import RateKind
from sidecar.core.limits.window import WindowKind

_KINDS: Final[tuple[Kind, ...]] = (
    RateKind(), QuotaKind(), WindowKind(), ConcurrencyKind(), PricedKind(), BalanceKind(),
)  # fmt: skip
KINDS: Final[dict[str, Kind]] = {kind.name: kind for kind in _KINDS}
