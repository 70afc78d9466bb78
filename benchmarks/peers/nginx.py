"""nginx as its documentation says for speed: one worker, no log, keep-alive on both sides. Bare it is the unit of all
figures; with `limit_req` and a map of keys it is what many have in front of an API today.
"""

from __future__ import annotations

from benchmarks.peers.form import Peer, Started, first_line, on_path, prove_limits, whole_tree
from benchmarks.stage import API_KEY, SPENT_KEY, Stage, free_port
from benchmarks.upstreams import MANY, nginx

PROXY = """
  {http}
  upstream api {{ server 127.0.0.1:{upstream}; keepalive 128; keepalive_requests {many}; }}
  server {{
    listen 127.0.0.1:{port};
    {server}
    location / {{ proxy_pass http://api; proxy_http_version 1.1; proxy_set_header Connection ""; {location} }}
  }}
"""
# A limit's rate belongs to its zone, so keys with small limits have zones of their own; an empty key is not counted.
KEYS_AND_LIMITS = f"""
  map $http_x_api_key $known {{ default ""; "{API_KEY}" known; "{SPENT_KEY}" known; }}
  map $http_x_api_key $wide {{ default ""; "{API_KEY}" $http_x_api_key; }}
  map $http_x_api_key $small {{ default ""; "{SPENT_KEY}" $http_x_api_key; }}
  limit_req_zone $wide zone=burst:10m rate=1000000r/s;
  limit_req_zone $wide zone=monthly:10m rate=1000000r/s;
  limit_req_zone $small zone=small:10m rate=1r/m;
  limit_req_status 429;
"""
HOLD = """
    if ($known = "") { return 401; }
    limit_req zone=burst burst=1000000 nodelay; limit_req zone=monthly burst=2000000 nodelay;
    limit_req zone=small burst=2 nodelay;
"""
UNBUFFERED = "proxy_buffering off;"
NOT_HERE = on_path("nginx", "nginx")
VERSION = first_line("nginx", "-v")


def _proxy(stage: Stage, upstream: int, name: str, http: str = "", server: str = "", location: str = "") -> Started:
    port = free_port()
    body = PROXY.format(port=port, upstream=upstream, many=MANY, http=http, server=server, location=location)
    return whole_tree(stage, name, nginx(stage, name, body), port)


def _bare(stage: Stage, upstream: int) -> Started:
    return _proxy(stage, upstream, "nginx")


def _limits(stage: Stage, upstream: int) -> Started:
    started = _proxy(stage, upstream, "nginx-limits", KEYS_AND_LIMITS, HOLD)
    return Started(started.port, started.parts, lambda _answered, _abandoned: prove_limits(started.port))


def _streams(stage: Stage, upstream: int) -> Started:
    return _proxy(stage, upstream, "nginx-stream", location=UNBUFFERED)


FORMS = (
    Peer("nginx", "nginx, bare pass-through", NOT_HERE, VERSION, _bare),
    Peer("nginx-limits", "nginx: key, 2 local limits", NOT_HERE, VERSION, _limits),
    Peer(
        "nginx-stream",
        "nginx, bare, buffering off: streams",
        NOT_HERE,
        VERSION,
        _streams,
        "streams",
        "nginx-stream",
        128,
    ),
)
