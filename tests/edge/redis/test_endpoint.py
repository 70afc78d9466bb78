"""Mirrors sidecar/edge/redis/endpoint.py. test_keys.py and test_wallet.py connect with it to real servers."""

import pytest
from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import ReadOnlyError, RedisClusterException

from sidecar.config.addresses import parse_redis_url
from sidecar.edge.redis.endpoint import NO_ANSWER, connect, describe, disconnect


# Fails if redis-py's default of three retries is left on: a store that is away is waited for four times as long.
@pytest.mark.parametrize("tls", [False, True])
async def test_a_client_tries_once_within_its_timeout_and_has_tls_options_only_with_tls(tls):
    endpoint = parse_redis_url(f"redis{'s' * tls}://me:pw@h:1/2")._replace(ssl=(("ssl_ca_certs", "/ca.pem"),))
    client = connect(endpoint, 0.25)
    options = client.connection_pool.connection_kwargs
    assert (options["host"], options["port"], options["db"]) == ("h", 1, 2)
    assert (options["username"], options["password"]) == ("me", "pw")
    assert options["socket_timeout"] == options["socket_connect_timeout"] == 0.25
    assert options["retry"].get_retries() == 0
    assert options.get("ssl_ca_certs") == ("/ca.pem" if tls else None)
    await disconnect(client)


async def test_a_client_of_sentinels_asks_them_in_the_same_way():
    endpoint = parse_redis_url("rediss+sentinel://a,b:2/main/3")._replace(ssl=(("ssl_ca_certs", "/ca.pem"),))
    client = connect(endpoint, 0.25)
    for sentinel in client.connection_pool.sentinel_manager.sentinels:
        options = sentinel.connection_pool.connection_kwargs
        assert (options["socket_timeout"], options["ssl_ca_certs"]) == (0.25, "/ca.pem")
        assert not options.get("username")
    await disconnect(client)


def test_an_error_of_redis_py_is_one_line_without_the_repr_of_a_client():
    assert describe(MasterNotFoundError("No master found for 'x' : <redis.Redis(<a>)> - network:Error")) == (
        "No master found for 'x': no sentinel of redis.url has answered with one"
    )
    assert describe(RedisClusterException("no node\nat all")) == "no node"
    assert describe(TimeoutError()) == "no answer in time"
    assert all(isinstance(error, NO_ANSWER) for error in (RedisClusterException(), OSError(), ReadOnlyError()))
