"""What people would use instead, each set up as its own documentation says for speed: one worker, no access log,
keep-alive on both sides, no limits. All get the same requests and pass them to the same upstream.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import toolbox
from benchmarks.stage import PROXY_CORE, Parts, Stage, free_port, get, tree

ROOT = Path(__file__).resolve().parent.parent
MANY = 1_000_000_000  # requests per connection: nobody closes in the middle of a run


@dataclass(frozen=True)
class Started:
    """A proxy that answers. `parts` says which processes do which part of the work; `verify` is called after the load
    with the requests that the load generator saw answered, and the bound of those it may have abandoned. `may_rest`: a
    part that may use less than a tick of CPU."""

    port: int
    parts: Callable[[], Parts]
    verify: Callable[[int, int], dict[str, int]] = lambda _answered, _abandoned: {}
    may_rest: str = ""


@dataclass(frozen=True)
class Peer:
    name: str
    title: str
    missing: Callable[[], str]  # "" or what is missing and how to get it
    version: Callable[[], str]
    start: Callable[[Stage, int], Started]  # stage, the upstream's port
    traffic: str = "same"  # of load.TRAFFIC


def on_path(program: str, package: str) -> Callable[[], str]:
    return lambda: "" if shutil.which(program) else f"not on this machine: apt-get install {package}"


def first_line(*argv: str) -> Callable[[], str]:
    def ask() -> str:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        return (done.stdout + done.stderr).strip().splitlines()[0]

    return ask


def _whole_tree(stage: Stage, name: str, argv: list[str], port: int) -> Started:
    pid = stage.start(name, argv, PROXY_CORE)
    stage.until_answers(name, port)
    return Started(port, lambda: {"proxy": tree(pid)})


NGINX_MAIN = """
daemon off; worker_processes 1; pid {dir}/{name}.pid; error_log stderr error;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests {many}; keepalive_timeout 600s;
  client_body_temp_path {dir}/{name}-1; proxy_temp_path {dir}/{name}-2; fastcgi_temp_path {dir}/{name}-3;
  uwsgi_temp_path {dir}/{name}-4; scgi_temp_path {dir}/{name}-5;
  {body}
}}
"""
NGINX_PROXY = """
  upstream api {{ server 127.0.0.1:{upstream}; keepalive 128; keepalive_requests {many}; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://api; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
"""
# A chat completion as OpenAI answers it, with its usage.
CHAT = (
    '{"id":"chatcmpl-1","object":"chat.completion","created":1763692406,"model":"gpt-4.1-2025-04-14","choices":[{"index":0,'
    '"message":{"role":"assistant","content":"' + "word " * 80 + '","refusal":null},"finish_reason":"stop"}],"usage":'
    '{"prompt_tokens":68,"completion_tokens":81,"total_tokens":149,"prompt_tokens_details":{"cached_tokens":0,'
    '"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0}},"service_tier":"default"}'
)
NGINX_UPSTREAM = """
  server {{
    listen 127.0.0.1:{port}; default_type application/json;
    location / {{ return 200 "{answer}"; }}
    location = /v1/chat/completions {{ return 200 '{chat}'; }}
    location = /bench-status {{ stub_status; }}
  }}
"""


def nginx(stage: Stage, name: str, body: str) -> list[str]:
    """The command line of an nginx whose http block holds `body`."""
    config = stage.write(f"{name}.conf", NGINX_MAIN.format(dir=stage.dir, name=name, body=body, many=MANY))
    return ["nginx", "-e", "stderr", "-p", str(stage.dir), "-c", str(config)]


def start_upstream(stage: Stage, answer_bytes: int, core: int) -> int:
    """The API behind all of them: nginx with an answer from memory; its port."""
    port = free_port()
    body = NGINX_UPSTREAM.format(port=port, answer="x" * answer_bytes, chat=CHAT)
    stage.start("upstream", nginx(stage, "upstream", body), core)
    stage.until_answers("upstream", port)
    return port


def requests_seen(upstream: int) -> int:
    """How many requests the upstream has taken (stub_status: the line after "server accepts handled requests")."""
    return int(get(upstream, "/bench-status")[1].splitlines()[2].split()[2])


def _nginx_proxy(stage: Stage, upstream: int) -> Started:
    port = free_port()
    body = NGINX_PROXY.format(port=port, upstream=upstream, many=MANY)
    return _whole_tree(stage, "nginx", nginx(stage, "nginx", body), port)


HAPROXY = """
global
  nbthread 1
  maxconn 4096
defaults
  mode http
  option http-keep-alive
  http-reuse always
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend in
  bind 127.0.0.1:{port}
  default_backend api
backend api
  server api 127.0.0.1:{upstream}
"""


def _haproxy(stage: Stage, upstream: int) -> Started:
    port = free_port()
    config = stage.write("haproxy.cfg", HAPROXY.format(port=port, upstream=upstream))
    return _whole_tree(stage, "haproxy", ["haproxy", "-db", "-f", str(config)], port)


ENVOY = """
static_resources:
  listeners:
  - address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
          route_config:
            virtual_hosts:
            - {{ name: api, domains: ["*"], routes: [{{ match: {{ prefix: "/" }}, route: {{ cluster: api }} }}] }}
  clusters:
  - name: api
    type: STATIC
    load_assignment:
      cluster_name: api
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {upstream} }} }} }}
"""


def _envoy(stage: Stage, upstream: int) -> Started:
    port = free_port()
    config = stage.write("envoy.yaml", ENVOY.format(port=port, upstream=upstream))
    flags = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
    return _whole_tree(stage, "envoy", [str(toolbox.envoy()), "-c", str(config), *flags], port)


def _aiohttp(stage: Stage, upstream: int) -> Started:
    port = free_port()
    script = str(ROOT / "benchmarks" / "aiohttp_proxy.py")
    return _whole_tree(stage, "aiohttp", [sys.executable, script, str(port), str(upstream)], port)


def _aiohttp_version() -> str:
    from importlib.metadata import version  # noqa: PLC0415 - asked once, when the results are written

    return f"aiohttp {version('aiohttp')} on uvloop {version('uvloop')}"


PEERS = (
    Peer("nginx", "nginx, bare pass-through", on_path("nginx", "nginx"), first_line("nginx", "-v"), _nginx_proxy),
    Peer("haproxy", "HAProxy, bare", on_path("haproxy", "haproxy"), first_line("haproxy", "-v"), _haproxy),
    Peer("envoy", "Envoy, bare", toolbox.envoy_missing, toolbox.envoy_version, _envoy),
    Peer("aiohttp", "aiohttp server + client", lambda: "", _aiohttp_version, _aiohttp),
)
