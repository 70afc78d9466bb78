"""Mirrors sidecar/edge/redis/key_registry.py on a real Redis."""

import pytest

from tests.edge.redis.key_store import opened, record, single

pytestmark = pytest.mark.redis


@pytest.fixture
def endpoint(redis_clean):
    return single(redis_clean)


async def test_keys_are_listed_and_found_by_id(endpoint):
    async with opened(endpoint) as keys:
        await keys.registry.put(*(record(f"k{number}") for number in range(700)))
        assert {one.id async for one in keys.registry.records()} == {f"k{number}" for number in range(700)}
        assert await keys.registry.matching({"k7", "none"}, ()) == [record("k7")]
        both = await keys.registry.matching({"k7"}, {record("k7").hash, record("k9").hash, record("none").hash})
        assert sorted(one.id for one in both) == ["k7", "k9"]
