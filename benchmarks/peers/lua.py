"""nginx with Lua, as the gateways that are built on it do this work: the key is looked up in the worker, one script in
Redis decides on two limits for each request over kept connections, and a record of each goes to Kafka asynchronously,
in batches. What a crash loses of those is lost: there is no journal.

The libraries are Debian's own: the module, and clients for Redis and Kafka that its users have in production.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import redis

from benchmarks.peers.form import Peer, Started, first_line, on_path, prove_limits
from benchmarks.stage import API_KEY, PROXY_CORE, SPENT_KEY, Parts, Stage, free_port, tree
from benchmarks.stores import KAFKA, TOPIC, hold_to_redis, kafka_missing, messages, start_kafka, start_redis
from benchmarks.upstreams import MANY, nginx

SCRIPT = Path(__file__).with_name("metered.lua")
MODULES = Path("/usr/lib/nginx/modules")
NEEDED = {
    MODULES / "ngx_http_lua_module.so": "libnginx-mod-http-lua",
    Path("/usr/share/lua/5.1/nginx/redis.lua"): "lua-nginx-redis",
    Path("/usr/share/lua/5.1/nginx/kafka/producer.lua"): "lua-nginx-kafka",
    Path("/usr/share/lua/5.1/cjson/util.lua"): "lua-cjson",
}
LOAD = "".join(f"load_module {MODULES}/{name}_module.so;\n" for name in ("ndk_http", "ngx_http_lua"))
PROXY = """
  lua_package_path "{scripts}/?.lua;;";
  init_by_lua_block {{
    metered = require "metered"
    metered.keys = {{
      ["{key}"] = {{ id = "wide", customer = "c-wide", subject = "app", step_us = 1, burst = 1e6, quota = 1e9 }},
      ["{spent}"] = {{ id = "few", customer = "c-few", subject = "app", step_us = 3600000000, burst = 3, quota = 3 }},
    }}
    metered.redis_port, metered.kafka_port, metered.topic = {redis}, {kafka}, "{topic}"
  }}
  upstream api {{ server 127.0.0.1:{upstream}; keepalive 128; keepalive_requests {many}; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      access_by_lua_block {{ metered.admit() }}
      log_by_lua_block {{ metered.record() }}
      proxy_pass http://api; proxy_http_version 1.1; proxy_set_header Connection "";
    }}
  }}
"""


def _missing() -> str:
    lacking = [package for file, package in NEEDED.items() if not file.exists()]
    here = f"not on this machine: apt-get install {' '.join(lacking)}" if lacking else ""
    return on_path("nginx", "nginx", "redis-server", "redis-server")() or here or kafka_missing()


def _start(stage: Stage, upstream: int) -> Started:
    port, redis_port = free_port(), free_port()
    store = start_redis(stage, redis_port)
    broker, kafka_port = start_kafka(stage)
    stage.write("lua/metered.lua", SCRIPT.read_text())
    where = {"port": port, "upstream": upstream, "redis": redis_port, "kafka": kafka_port, "topic": TOPIC}
    body = PROXY.format(**where, scripts=stage.dir / "lua", key=API_KEY, spent=SPENT_KEY, many=MANY)
    pid = stage.start("lua", nginx(stage, "lua", body, LOAD), PROXY_CORE)
    stage.until_answers("nginx with Lua", port)

    def parts() -> Parts:
        return {"proxy": tree(pid), "redis": [store], "kafka": tree(broker)}

    return Started(port, parts, _verify(stage, port, redis_port, kafka_port))


def _verify(stage: Stage, port: int, redis_port: int, kafka_port: int) -> Callable[[int, int], dict[str, int]]:
    def verify(answered: int, abandoned: int) -> dict[str, int]:
        with redis.Redis(port=redis_port, decode_responses=True) as client:
            counted = int(client.get("monthly:c-wide") or 0)
        hold_to_redis(counted, answered, abandoned)
        prove_limits(port)
        stage.until("all records to be in Kafka", lambda: messages(kafka_port) >= answered, 30)
        return {"records": messages(kafka_port)}

    return verify


def _version() -> str:
    return f"{first_line('nginx', '-v')()} with Lua and {KAFKA}"


FORMS = (Peer("lua", "nginx + Lua: key, 2 limits in Redis, Kafka", _missing, _version, _start),)
