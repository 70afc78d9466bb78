"""Checks through JSON: the same question to the store."""

import orjson

from sidecar.core.decision.packed import pack, unpack
from sidecar.core.identity import Identity
from sidecar.core.limits import checks_for
from sidecar.core.policy import Limit
from sidecar.core.price import Price, Tier

WHO = Identity("k{1}", "app", "cust:1", "pro", zone="Europe/Berlin")
LIMITS = (
    Limit("r", "rate", 40, per=3, period_us=1_000_000, stage="shadow"),
    Limit("w", "window", 7, period_us=60_000_000, fixed=True, over="allow"),
    Limit("q", "quota", 5, calendar="month", zone="customer", alerts=(80,)),
    Limit("s", "concurrency", 2, period_us=1_000_000),
    Limit("credit.calls", "priced", 0, calendar="day", scope="customer", unit="usd",
          price=Price("volume", tiers=(Tier(10, 5), Tier(None, 4)), included=3)),
    Limit("credit", "balance", 0, scope="customer", unit="usd", period_us=60_000_000, offline=9),
)  # fmt: skip


# Fails if a field that a script is told of is left out.
def test_the_store_is_asked_the_same():
    from sidecar.edge.redis.counters import _Wire  # noqa: PLC0415 - the one that reads all of it

    checks = checks_for(LIMITS, (1, 2, 3, 1, 4, 0), WHO, 1_790_000_000_000_000)
    again = unpack(orjson.loads(orjson.dumps(pack(checks))))
    for name in ("as_reserved", "forced", "head", "wallets", "settle_head", "settle_keys", "slot_key", "tail"):
        assert getattr(_Wire(again), name) == getattr(_Wire(checks), name), name
    assert (again.keys, again.costs, again.must_settle) == (checks.keys, checks.costs, True)
    assert [check.payer for check in again.entries] == [check.payer for check in checks.entries]
