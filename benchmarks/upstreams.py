"""The APIs behind all forms: an nginx that answers from memory, and a server that really sends a stream's chunks one by
one. Both count what they were asked for, in the same words, so that nobody can answer in their stead.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.stage import Stage, free_port, get

MANY = 1_000_000_000  # requests per connection: nobody closes in the middle of a run
FROM_CONFIG = 4000  # bytes: what nginx takes as one word of its configuration; more is a file in the page cache
STATUS = "/bench-status"
CHAT_PATH = "/v1/chat/completions"

NGINX_MAIN = """
{modules}
daemon off; worker_processes 1; pid {dir}/{name}.pid; error_log stderr error;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests {many}; keepalive_timeout 600s;
  client_body_temp_path {dir}/{name}-1; proxy_temp_path {dir}/{name}-2; fastcgi_temp_path {dir}/{name}-3;
  uwsgi_temp_path {dir}/{name}-4; scgi_temp_path {dir}/{name}-5;
  {body}
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
  open_file_cache max=16 inactive=600s; sendfile on; tcp_nopush on;
  server {{
    listen 127.0.0.1:{port}; default_type application/json;
    location / {{ {answer} }}
    location = {chat_path} {{ return 200 '{chat}'; }}
    location = {status} {{ stub_status; }}
  }}
"""


def nginx(stage: Stage, name: str, body: str, modules: str = "") -> list[str]:
    """The command line of an nginx whose http block holds `body`."""
    text = NGINX_MAIN.format(dir=stage.dir, name=name, body=body, many=MANY, modules=modules)
    config = stage.write(f"{name}.conf", text)
    return ["nginx", "-e", "stderr", "-p", str(stage.dir), "-c", str(config)]


def start_upstream(stage: Stage, answer_bytes: int, core: int) -> int:
    """The API behind all of them: nginx with an answer from memory; its port."""
    port = free_port()
    answer = f'return 200 "{"x" * answer_bytes}";'
    if answer_bytes > FROM_CONFIG:
        stage.write("answer/body", "x" * answer_bytes)
        stage.dir.chmod(0o711)  # the worker of an nginx that root started is nobody
        answer = f"root {stage.dir}/answer; rewrite ^ /body break;"
    body = NGINX_UPSTREAM.format(port=port, answer=answer, chat=CHAT, chat_path=CHAT_PATH, status=STATUS)
    stage.start("upstream", nginx(stage, "upstream", body), core)
    stage.until_answers("upstream", port)
    return port


def start_streams(stage: Stage, core: int) -> int:
    """The API that streams: 200 chunks an answer, each in a packet of its own; its port."""
    port = free_port()
    stage.start("streams", [sys.executable, str(Path(__file__).with_name("streams.py")), str(port)], core)
    stage.until("the stream's upstream to answer", lambda: get(port, STATUS)[0] == 200)
    return port


def _figures(upstream: int) -> list[int]:
    """accepts, handled, requests: nginx's stub_status, in the line after "server accepts handled requests"."""
    return [int(word) for word in get(upstream, STATUS)[1].splitlines()[2].split()]


def requests_seen(upstream: int) -> int:
    """How many requests the upstream has taken."""
    return _figures(upstream)[2]


def chunks_sent(upstream: int) -> int:
    """How many chunks the upstream that streams has sent; IndexError from any other."""
    return _figures(upstream)[3]


def open_streams(upstream: int) -> int:
    """How many answers are on their way: the first line says "Active connections: n"."""
    return int(get(upstream, STATUS)[1].splitlines()[0].split()[2])
