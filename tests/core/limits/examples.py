"""A limit of each kind, one identity and one moment, for the tests of limits."""

from hypothesis import strategies as st

from sidecar.core.identity import Identity
from sidecar.core.limits import Limit, checks_for
from sidecar.core.price import Price

NOW_US = 1_795_239_000_123_456  # 2026-11-21T05:30:00 UTC
DAY_US = 86_400_000_000
WHO = Identity("k_7f", "app-42", "cust-9", "pro")

burst = Limit("burst", "rate", 10, per=5, period_us=1_000_000)
monthly = Limit("monthly", "quota", 10_000, calendar="month", scope="customer")
minute = Limit("minute", "window", 100, period_us=60_000_000, scope="subject")
fixed = Limit("fixed", "window", 100, period_us=60_000_000, fixed=True)
inflight = Limit("inflight", "concurrency", 4, period_us=60_000_000)
cost = Limit("credit.requests", "priced", 0, calendar="month", scope="customer", unit="usd", price=Price("per_unit", 9))
credit = Limit("credit", "balance", 0, unit="usd", period_us=600_000_000)

EXAMPLES = {
    "rate": burst,
    "quota": monthly,
    "window": minute,
    "concurrency": inflight,
    "priced": cost,
    "balance": credit,
}
texts = st.text(st.characters() | st.sampled_from("{}:%ksc"), max_size=12)


def keys(*limits, who=WHO, now_us=NOW_US):
    return checks_for(limits, (1,) * len(limits), who, now_us).keys
