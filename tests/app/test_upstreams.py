import ssl

import pytest

from sidecar.app.upstreams import FOREVER_S, Upstreams, client_tls, head_settings
from sidecar.config.sections import ClientTls
from sidecar.config.settings import load_settings
from sidecar.core.policy import Route, Timeouts
from sidecar.edge.http1.address import HeadSettings

YAML = """\
upstreams:
  default: { urls: ["http://127.0.0.1:9000", "http://127.0.0.1:9001"], timeouts: { first_byte: 7s } }
  llm: { urls: ["http://127.0.0.1:9002"], timeouts: { total: 9s }, pool: { size: 3 } }
"""


@pytest.fixture
def upstreams(tmp_path):
    path = tmp_path / "sidecar.yaml"
    path.write_text(YAML)
    return Upstreams(load_settings(path, {}), {})


def test_routes_of_one_upstream_share_its_connections(upstreams):
    # Fails if a pool is made per route: idle connections would be spread thin.
    assert upstreams.of(Route("a")) is upstreams.of(Route("b"))
    assert upstreams.of(Route("a")) is not upstreams.of(Route("c", upstream="llm"))


def test_a_route_with_timeouts_of_its_own_has_a_pool_that_keeps_them(upstreams):
    own = upstreams.of(Route("slow", timeouts=Timeouts(first_byte_ms=90_000)))
    assert own is not upstreams.of(Route("a"))
    assert own.limits.first_byte_s == 90
    assert own.limits.connect_s == upstreams.of(Route("a")).limits.connect_s


def test_gauges_are_by_upstream_over_all_of_its_pools(upstreams):
    # Fails if the pool of a route with timeouts of its own replaces the other one's figures.
    class Leg:
        pass

    for route in (Route("a"), Route("slow", timeouts=Timeouts(first_byte_ms=90_000))):
        [address, _] = upstreams.of(route)._addresses
        address.idle.append(Leg())
        address.busy |= {Leg(), Leg()}
    upstreams.of(Route("c", upstream="llm"))
    assert upstreams.gauges() == {
        "upstream_open|default": 6,
        "upstream_idle|default": 2,
        "upstream_open|llm": 0,
        "upstream_idle|llm": 0,
    }


def test_settings_in_milliseconds_become_the_loops_seconds(upstreams):
    assert upstreams.of(Route("a")).limits.first_byte_s == 7
    assert upstreams.of(Route("a")).limits.total_s == FOREVER_S
    llm = upstreams.of(Route("c", upstream="llm"))
    assert (llm.limits.total_s, llm.limits.connections) == (9, 3)


def test_what_the_settings_say_of_heads_reaches_the_pool(tmp_path):
    path = tmp_path / "sidecar.yaml"
    path.write_text(
        "upstreams: { default: { urls: https://a.example/v1, host: upstream, headers: { A: 'x ${K}' },"
        " remove_headers: X-B, tls: { server_name: b.example } } }"
    )
    [upstream] = load_settings(path, {}).upstreams.values()
    assert head_settings(upstream, {"$K": "y"}) == HeadSettings(
        "upstream", ((b"A", b"x y"),), frozenset({b"x-b"}), "b.example"
    )
    [address] = Upstreams(load_settings(path, {}), {"$K": "y"}).of(Route("a"))._addresses
    assert (address.options.host, address.options.base, address.server_name) == (b"a.example", "/v1", "b.example")


def test_an_upstream_is_verified_unless_told_otherwise():
    # Fails if `verify` is ignored, either way.
    assert client_tls(ClientTls(), {}).verify_mode == ssl.CERT_REQUIRED
    assert client_tls(ClientTls(), {}).check_hostname
    assert client_tls(ClientTls(verify=False), {}).verify_mode == ssl.CERT_NONE


def test_new_secrets_are_for_pools_in_use_and_for_those_to_come(tmp_path):
    # Fails if swap_in forgets either: a pool would present, trust or send what was replaced.
    path = tmp_path / "sidecar.yaml"
    path.write_text(
        'upstreams: { default: { urls: ["https://h:1"], headers: { X-Key: "${K}" } }, plain: { urls: ["http://h:2"] } }'
    )
    upstreams = Upstreams(load_settings(path, {}), {"$K": "old"})
    pool = upstreams.of(Route("a"))
    before = pool.tls
    fresh = upstreams.secrets({"$K": "new"})
    assert [pool._addresses[0].options.lines, fresh["plain"].tls] == [b"X-Key: old\r\n", None]
    upstreams.swap_in(fresh)
    later = upstreams.of(Route("slow", timeouts=Timeouts(first_byte_ms=90_000)))
    assert before is not pool.tls is fresh["default"].tls is later.tls
    assert [each._addresses[0].options.lines for each in (pool, later)] == [b"X-Key: new\r\n"] * 2
    assert upstreams.of(Route("b", upstream="plain")).tls is None
