import pytest

from sidecar.app.checking import bounds
from sidecar.config.settings import load_settings
from sidecar.core.policy import Limit

MEMORY = load_settings(None, {})
REDIS = load_settings(None, {"SIDECAR_REDIS__URL": "redis://127.0.0.1:6379/0", "SIDECAR_WORKERS": "4"})
RATE = Limit("burst", "rate", 10, per=5, period_us=1_000_000)


@pytest.mark.parametrize(
    ("settings", "limit", "over", "after_restart"),
    [
        (MEMORY, RATE, 0, 10),
        (MEMORY, Limit("n", "concurrency", 4), 0, 0),
        (MEMORY, Limit("m", "quota", 100, calendar="month", over="allow"), 0, 0),
        (REDIS, RATE, 8, 0),
        (REDIS, Limit("burst", "rate", 10, per=5, period_us=1_000_000, on_store_failure="deny"), 0, 0),
        (REDIS, Limit("m", "quota", 2, calendar="month"), 4, 0),
    ],
)
def test_a_limit_is_missed_by_at_most(settings, limit, over, after_restart):
    assert bounds(limit, settings) == {"over_by_at_most": over, "over_after_restart": after_restart}
