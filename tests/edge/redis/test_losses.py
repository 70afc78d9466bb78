import pytest
from redis.crc import key_slot

from sidecar.config.sections import Redis
from sidecar.core.errors import StoreError
from sidecar.edge.redis.losses import accept_losses
from sidecar.edge.redis.markers import GROUPS, is_lost, marker_keys

pytestmark = pytest.mark.redis


async def test_of_a_cluster_every_marker_that_says_so_is_accepted(redis_cluster):
    def owner(key):
        return redis_cluster.nodes[redis_cluster.owner(key_slot(key.encode()))]

    keys = marker_keys(GROUPS)
    for key in (keys[0], keys[77], keys[127]):
        owner(key).cli.set(key, "ID 1700000000000000 0 2")
    owner(keys[5]).cli.set(keys[5], "ID 0 0 2")
    assert await accept_losses(Redis(url=redis_cluster.url).endpoint) == 3
    assert not is_lost(owner(keys[77]).cli.get(keys[77]))
    assert await accept_losses(Redis(url=redis_cluster.url).endpoint) == 0


@pytest.mark.parametrize(
    "url", ["redis://127.0.0.1:1", "redis+cluster://127.0.0.1:1", "redis+sentinel://127.0.0.1:1/x"]
)
async def test_a_redis_that_does_not_answer_is_said_to_be_away(url):
    # Fails if the errors of a cluster's client are not caught.
    with pytest.raises(StoreError, match=r"^redis: [^<]+$"):
        await accept_losses(Redis(url=url).endpoint)
