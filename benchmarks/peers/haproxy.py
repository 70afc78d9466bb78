"""HAProxy with one thread and no log, connections to the API shared by all; bare, and with its own limiter: a map says
what a key may, stick tables count what it did.
"""

from __future__ import annotations

from benchmarks.peers.form import Peer, Started, first_line, on_path, prove_limits, whole_tree
from benchmarks.stage import API_KEY, SPENT_KEY, Stage, free_port

CONFIG = """
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
  {rules}
  default_backend api
backend api
  server api 127.0.0.1:{upstream}
{tables}
"""
# The documented pattern for limits that differ by key: a map's number less the table's.
RULES = """
  http-request set-var(txn.limit) req.hdr(x-api-key),map_str_int({map},0)
  http-request deny deny_status 401 if { var(txn.limit) -m int 0 }
  http-request track-sc0 req.hdr(x-api-key) table burst
  http-request track-sc1 req.hdr(x-api-key) table monthly
  http-request set-var(txn.burst) sc_http_req_rate(0,burst)
  http-request set-var(txn.monthly) sc_http_req_rate(1,monthly)
  http-request deny deny_status 429 if { var(txn.limit),sub(txn.burst) lt 0 }
  http-request deny deny_status 429 if { var(txn.limit),sub(txn.monthly) lt 0 }
"""
TABLES = """
backend burst
  stick-table type string len 64 size 100k expire 10s store http_req_rate(1s)
backend monthly
  stick-table type string len 64 size 100k expire 24d store http_req_rate(24d)
"""  # 24 days are the longest time that HAProxy counts in
NOT_HERE = on_path("haproxy", "haproxy")
VERSION = first_line("haproxy", "-v")


def _proxy(stage: Stage, upstream: int, rules: str = "", tables: str = "") -> Started:
    port = free_port()
    text = CONFIG.format(port=port, upstream=upstream, rules=rules, tables=tables)
    return whole_tree(stage, "haproxy", ["haproxy", "-db", "-f", str(stage.write("haproxy.cfg", text))], port)


def _bare(stage: Stage, upstream: int) -> Started:
    return _proxy(stage, upstream)


def _limits(stage: Stage, upstream: int) -> Started:
    keys = stage.write("keys.map", f"{API_KEY} 1000000000\n{SPENT_KEY} 3\n")
    started = _proxy(stage, upstream, RULES.replace("{map}", str(keys)), TABLES)
    return Started(started.port, started.parts, lambda _answered, _abandoned: prove_limits(started.port))


FORMS = (
    Peer("haproxy", "HAProxy, bare", NOT_HERE, VERSION, _bare),
    Peer("haproxy-limits", "HAProxy: key, 2 local limits", NOT_HERE, VERSION, _limits),
)
