import time

import pytest

from sidecar.config.sections import Redis
from sidecar.core.errors import StoreError
from sidecar.edge.redis.counter_values import CounterValues
from sidecar.edge.redis.endpoint import connected

pytestmark = pytest.mark.redis


async def test_a_counter_is_raised_and_lowered_only_where_that_is_asked(redis_clean):
    # Fails if a counter with units in flight is lowered by default, or loses its expiry.
    cli, until_us = redis_clean.cli, (time.time_ns() // 1000) + 60_000_000
    cli.set("sc:{a}:q=low:ca:w", 3)
    cli.set("sc:{a}:q=high:ca:w", 30, px=5_000)
    counters = [(f"sc:{{a}}:q={name}:ca:w", 10, until_us) for name in ("low", "high", "new")]
    async with connected(Redis(url=redis_clean.url).endpoint, 1.0) as client:
        values = CounterValues(client)
        assert await values.set(counters, is_exact=False) == [3, 30, 0]
        assert await values.read([key for key, _, _ in counters]) == [10, 30, 10]
        assert cli.pttl(counters[1][0]) <= 5_000
        assert await values.set(counters, is_exact=True) == [10, 30, 10]
        assert await values.read([*[key for key, _, _ in counters], "sc:{a}:q=none:ca:w"]) == [10, 10, 10, 0]
        assert abs(await values.now_us() - time.time_ns() // 1000) < 5_000_000
    assert all(50_000 < cli.pttl(key) <= 60_000 for key in (counters[0][0], counters[2][0]))


async def test_units_are_whole_up_to_the_largest_and_thousands_are_set(redis_clean):
    # Fails if replies are of another order than the counters, or only the first batch is sent.
    counters = [(f"sc:{{a{n}}}:q=m:ca:w", 2**51 - n, 4_000_000_000_000_000) for n in range(1_200)]
    async with connected(Redis(url=redis_clean.url).endpoint, 5.0) as client:
        values = CounterValues(client)
        await values.set(counters, is_exact=False)
        assert await values.read([key for key, _, _ in counters]) == [units for _, units, _ in counters]


async def test_on_a_cluster_each_counter_is_set_on_its_node(redis_cluster):
    counters = [(f"sc:{{a{n}}}:q=m:ca:w", 5, 4_000_000_000_000_000) for n in range(20)]
    async with connected(Redis(url=redis_cluster.url).endpoint, 5.0) as client:
        values = CounterValues(client)
        await values.set(counters, is_exact=False)
        assert set(await values.read([key for key, _, _ in counters])) == {5}
        assert await values.now_us() > 1_700_000_000_000_000


async def test_a_redis_that_does_not_answer_is_an_error_of_one_line():
    async with connected(Redis(url="redis://127.0.0.1:1").endpoint, 0.2) as client:
        with pytest.raises(StoreError, match=r"^redis: [^<]+; repeat the command$"):
            await CounterValues(client).read(["sc:{a}:q=m:ca:w"])
