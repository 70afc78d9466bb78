"""LiteLLM's proxy in front of an API that speaks like OpenAI: keys by its hook for custom authentication, their limits
of requests and tokens a minute counted in Redis, no database, no logging, one worker. Its chats are those of `chat`.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from pathlib import Path

import redis

from benchmarks import toolbox
from benchmarks.peers.form import Peer, Started, on_path, prove_limits
from benchmarks.stage import PROXY_CORE, RunFailed, Stage, free_port, get, tree
from benchmarks.stores import start_redis
from benchmarks.upstreams import CHAT_PATH

AUTH = Path(__file__).with_name("litellm_auth.py")
START_SECONDS = 120
WARM = 60  # requests: its first ones import what they need, and take several times as long
CONFIG = """
model_list:
- model_name: gpt-4.1
  litellm_params: {{ model: openai/gpt-4.1, api_base: "http://127.0.0.1:{upstream}/v1", api_key: not-a-secret }}
litellm_settings: {{ callbacks: [], num_retries: 0, request_timeout: 60, telemetry: false, set_verbose: false }}
general_settings:
  custom_auth: litellm_auth.identify
  coordination_redis: {{ host: 127.0.0.1, port: {redis} }}
  fail_closed_rate_limit_enforcement: true
"""
ENV = {
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOG": "ERROR",
    **dict.fromkeys(  # its lists from the package, not from the network
        (
            "LITELLM_LOCAL_MODEL_COST_MAP",
            "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS",
            "LITELLM_LOCAL_AUTOROUTER_PRESETS",
            "LITELLM_LOCAL_BLOG_POSTS",
            "LITELLM_LOCAL_POLICY_TEMPLATES",
        ),
        "True",
    ),
    "DISABLE_ADMIN_UI": "True",
    "NO_DOCS": "True",
}
ASKED = json.dumps({"model": "gpt-4.1", "max_tokens": 200, "messages": [{"role": "user", "content": "word"}]})


def _start(stage: Stage, upstream: int) -> Started:
    port, redis_port = free_port(), free_port()
    store = start_redis(stage, redis_port)
    stage.write("config.yaml", CONFIG.format(upstream=upstream, redis=redis_port))
    stage.write("litellm_auth.py", AUTH.read_text())
    program = [str(toolbox.litellm()), "-m", "litellm.proxy.proxy_cli"]
    flags = ["--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    pid = stage.start(
        "litellm", [*program, *flags], PROXY_CORE, ENV | {"LITELLM_MASTER_KEY": f"sk-{secrets.token_hex(32)}"}
    )
    stage.until("LiteLLM to answer a chat", lambda: get(port, CHAT_PATH, body=ASKED)[0] == 200, START_SECONDS)
    for _ in range(WARM):
        get(port, CHAT_PATH, body=ASKED)
    return Started(port, lambda: {"proxy": tree(pid), "redis": [store]}, _verify(port, redis_port))


def _verify(port: int, redis_port: int) -> Callable[[int, int], dict[str, int]]:
    def verify(answered: int, _abandoned: int) -> dict[str, int]:
        with redis.Redis(port=redis_port, decode_responses=True) as client:
            calls = sum(figures["calls"] for name, figures in client.info("commandstats").items() if "eval" in name)
        if calls < answered:  # its windows are of a minute, so a counter may have begun anew
            raise RunFailed(f"{answered} requests were answered, and Redis was asked {calls} times")
        prove_limits(port, CHAT_PATH, ASKED)
        return {"redis_calls_per_1000_requests": calls * 1000 // answered}

    return verify


def _missing() -> str:
    return on_path("redis-server", "redis-server")() or toolbox.litellm_missing()


FORMS = (
    Peer(
        "litellm",
        "LiteLLM: a chat, key, 2 limits in Redis",
        _missing,
        lambda: toolbox.LITELLM,
        _start,
        "chat",
        "nginx",
        16,
    ),
)
