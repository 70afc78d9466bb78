"""Envoy as its page on benchmarking says (one worker, no hot restart, no log, no request ids, no dynamic stats): bare;
with the filter for API keys and the local limiter; and with the global limiter, the service that Envoy's project gives
to hold limits for all proxies in one Redis. What that service costs is a part of what the proxy costs.

Source: envoyproxy.io/docs/envoy/latest/faq/performance/how_to_benchmark_envoy.
"""

from __future__ import annotations

from collections.abc import Callable

import redis
import yaml

from benchmarks import toolbox
from benchmarks.peers.form import Peer, Started, on_path, prove_limits
from benchmarks.stage import API_KEY, PROXY_CORE, SPENT_KEY, Parts, Stage, free_port, tree
from benchmarks.stores import hold_to_redis, start_redis

HTTP = "type.googleapis.com/envoy.extensions.filters.http"
FLAGS = ("--concurrency", "1", "--disable-hot-restart", "--log-level", "error")
LIMITS = {"burst": 1_000_000, "monthly": 1_000_000_000}
MONTH_SECONDS = 30 * 86400
CLIENT = "x-client-id"  # where the filter for API keys writes whose the key is
ACTIONS = [{"request_headers": {"header_name": CLIENT, "descriptor_key": "client"}}]

CONFIG = """
static_resources:
  listeners:
  - address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          generate_request_id: false
          http_filters: {filters}
          route_config:
            virtual_hosts:
            - {{ name: api, domains: ["*"], routes: [{{ match: {{ prefix: "/" }}, route: {route} }}] }}
  clusters: {clusters}
"""


def _filter(name: str, kind: str, **settings: object) -> dict[str, object]:
    return {"name": f"envoy.filters.http.{name}", "typed_config": {"@type": f"{HTTP}.{kind}", **settings}}


ROUTER = _filter("router", "router.v3.Router", dynamic_stats=False)
KEYS = _filter(
    "api_key_auth",
    "api_key_auth.v3.ApiKeyAuth",
    credentials=[{"key": API_KEY, "client": "wide"}, {"key": SPENT_KEY, "client": "small"}],
    key_sources=[{"header": "X-Api-Key"}],
    forwarding={"header": CLIENT, "hide_credentials": True},
)


def _cluster(name: str, port: int, **settings: object) -> dict[str, object]:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    many = {"max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000}
    return {
        "name": name,
        "type": "STATIC",
        "circuit_breakers": {"thresholds": [many]},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
        **settings,
    }


def _envoy(
    stage: Stage, clusters: list[dict[str, object]], filters: list[dict[str, object]], route: dict[str, object]
) -> tuple[int, int]:
    """Start it; its port and pid."""
    port = free_port()
    parts = {"filters": [*filters, ROUTER], "route": {"cluster": "api", **route}, "clusters": clusters}
    flow = {name: yaml.safe_dump(part, default_flow_style=True, width=10**9) for name, part in parts.items()}
    config = stage.write("envoy.yaml", CONFIG.format(port=port, **flow))
    pid = stage.start("envoy", [str(toolbox.envoy()), "-c", str(config), *FLAGS], PROXY_CORE)
    stage.until_answers("envoy", port)
    return port, pid


def _bare(stage: Stage, upstream: int) -> Started:
    port, pid = _envoy(stage, [_cluster("api", upstream)], [], {})
    return Started(port, lambda: {"proxy": tree(pid)})


def _bucket(client: str, limit: str, units: int, seconds: int) -> dict[str, object]:
    entries = [{"key": "client", "value": client}, {"key": "limit", "value": limit}]
    bucket = {"max_tokens": units, "tokens_per_fill": units, "fill_interval": f"{seconds}s"}
    return {"entries": entries, "token_bucket": bucket}


def _named(limit: str) -> dict[str, object]:
    return {"actions": [*ACTIONS, {"generic_key": {"descriptor_key": "limit", "descriptor_value": limit}}]}


def _limits(stage: Stage, upstream: int) -> Started:
    whole = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    wide = [_bucket("wide", "burst", LIMITS["burst"], 1), _bucket("wide", "monthly", LIMITS["monthly"], MONTH_SECONDS)]
    small = [_bucket("small", name, 3, MONTH_SECONDS) for name in LIMITS]
    local = _filter(
        "local_ratelimit",
        "local_ratelimit.v3.LocalRateLimit",
        stat_prefix="limits",
        token_bucket={"max_tokens": LIMITS["monthly"], "tokens_per_fill": LIMITS["monthly"], "fill_interval": "1s"},
        filter_enabled=whole,
        filter_enforced=whole,
        always_consume_default_token_bucket=False,
        rate_limits=[_named(name) for name in LIMITS],
        descriptors=[*wide, *small],
    )
    port, pid = _envoy(stage, [_cluster("api", upstream)], [KEYS, local], {})
    return Started(port, lambda: {"proxy": tree(pid)}, lambda _answered, _abandoned: prove_limits(port))


SERVICE = {
    "domain": "bench",
    "descriptors": [
        {
            "key": "client",
            "value": "wide",
            "descriptors": [
                {
                    "key": "limit",
                    "value": "burst",
                    "rate_limit": {"unit": "second", "requests_per_unit": LIMITS["burst"]},
                },
                {
                    "key": "limit",
                    "value": "monthly",
                    "rate_limit": {"unit": "month", "requests_per_unit": LIMITS["monthly"]},
                },
            ],
        },
        {
            "key": "client",
            "value": "small",
            "descriptors": [
                {"key": "limit", "value": name, "rate_limit": {"unit": "month", "requests_per_unit": 3}}
                for name in LIMITS
            ],
        },
    ],
}


def _service(stage: Stage, store: int) -> tuple[int, int]:
    """The limiter's service as its README says for throughput; its port for gRPC, and its pid."""
    port, http, debug = free_port(), free_port(), free_port()
    stage.write("service/config/bench.yaml", yaml.safe_dump(SERVICE))
    env = {
        "RUNTIME_ROOT": str(stage.dir),
        "RUNTIME_SUBDIRECTORY": "service",
        "RUNTIME_WATCH_ROOT": "false",
        "REDIS_SOCKET_TYPE": "tcp",
        "REDIS_URL": f"127.0.0.1:{store}",
        "REDIS_PIPELINE_WINDOW": "150us",
        "HOST": "127.0.0.1",
        "GRPC_HOST": "127.0.0.1",
        "DEBUG_HOST": "127.0.0.1",
        "GRPC_PORT": str(port),
        "PORT": str(http),
        "DEBUG_PORT": str(debug),
        "USE_STATSD": "false",
        "DISABLE_STATS": "true",
        "LOG_LEVEL": "error",
    }
    pid = stage.start("limiter", [str(toolbox.rate_limiter())], PROXY_CORE, env)
    stage.until_answers("the limiter's service", http, "/healthcheck")
    return port, pid


def _global(stage: Stage, upstream: int) -> Started:
    redis_port = free_port()
    store = start_redis(stage, redis_port)
    service, service_pid = _service(stage, redis_port)
    http2 = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }
    limiter = _filter(
        "ratelimit",
        "ratelimit.v3.RateLimit",
        domain="bench",
        timeout="5s",  # by default 20 ms, after which what was to be limited is let through
        failure_mode_deny=True,
        rate_limit_service={"grpc_service": {"envoy_grpc": {"cluster_name": "limiter"}}, "transport_api_version": "V3"},
    )
    clusters = [_cluster("api", upstream), _cluster("limiter", service, typed_extension_protocol_options=http2)]
    port, pid = _envoy(stage, clusters, [KEYS, limiter], {"rate_limits": [_named(name) for name in LIMITS]})

    def parts() -> Parts:
        return {"proxy": [*tree(pid), *tree(service_pid)], "redis": [store]}

    return Started(port, parts, _verify_global(port, redis_port))


def _verify_global(port: int, redis_port: int) -> Callable[[int, int], dict[str, int]]:
    def verify(answered: int, abandoned: int) -> dict[str, int]:
        with redis.Redis(port=redis_port, decode_responses=True) as client:
            counted = sum(int(client.get(key) or 0) for key in client.scan_iter("*wide*monthly*"))
        hold_to_redis(counted, answered, abandoned)
        return prove_limits(port)

    return verify


def _global_missing() -> str:
    return on_path("redis-server", "redis-server")() or toolbox.envoy_missing() or toolbox.rate_limiter_missing()


def _global_version() -> str:
    return f"{toolbox.envoy_version()} with ratelimit {toolbox.RATE_LIMITER.rpartition('@')[2]}"


FORMS = (
    Peer("envoy", "Envoy, bare", toolbox.envoy_missing, toolbox.envoy_version, _bare),
    Peer("envoy-limits", "Envoy: key, 2 local limits", toolbox.envoy_missing, toolbox.envoy_version, _limits),
    Peer(
        "envoy-global",
        "Envoy: key, 2 global limits (ratelimit service, Redis)",
        _global_missing,
        _global_version,
        _global,
    ),
)
