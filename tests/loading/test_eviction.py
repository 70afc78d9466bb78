"""The warning of a Redis that may evict, from a server and without one."""

import pytest

from sidecar.config.settings import load_settings
from sidecar.loading.eviction import evictions_of


@pytest.mark.redis
async def test_only_a_redis_that_answers_and_may_evict_is_a_warning(make_redis):
    server = make_redis()
    settings = load_settings(None, {"SIDECAR_REDIS__URL": server.url})
    assert await evictions_of(settings) == []
    server.cli.config_set("maxmemory-policy", "allkeys-lru")
    [warning] = await evictions_of(settings)
    assert warning.startswith("redis: maxmemory-policy is allkeys-lru: it may evict counters and wallets")
    server.kill()
    # Fails if an outage at the start is an error: the node has to start without Redis.
    assert await evictions_of(settings) == []


async def test_without_redis_nothing_is_contacted():
    assert await evictions_of(load_settings(None, {})) == []
