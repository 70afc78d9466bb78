"""Load, bounded in time and connections. wrk, a closed loop, counts what was served; what is no 2xx fails the run."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass

from benchmarks.stage import API_KEY, LOAD_CORE, RunFailed, Stage

CONNECTIONS = 64
HEADERS = {"X-Api-Key": API_KEY, "User-Agent": "bench", "Accept": "*/*"}

# wrk's own summary rounds the time; this prints integers. Without `response` it costs nothing per request.
REPORT = """
done = function(s, latency)
  local e = s.errors
  io.write(string.format('\\n{"requests":%d,"us":%d,"bytes":%d,"status":%d,"socket":%d}\\n',
    s.requests, s.duration, s.bytes, e.status, e.connect + e.read + e.write + e.timeout))
end
"""


@dataclass(frozen=True)
class Served:
    """`received`: bytes, those of answers that were cut at the end included."""

    requests: int
    duration_us: int
    received: int = 0


def missing() -> str:
    return "" if shutil.which("wrk") else "not on this machine: apt-get install wrk"


EACH_ITS_PATH = """
local n = 0
request = function()
  n = n + 1
  return wrk.format(nil, '/bench/' .. n)
end
"""
CHAT = """
wrk.method = 'POST'
wrk.path = '/v1/chat/completions'
wrk.headers['Content-Type'] = 'application/json'
local asked = string.rep('word ', 60)
wrk.body = '{"model":"gpt-4.1","max_tokens":200,"messages":[{"role":"user","content":"' .. asked .. '"}]}'
"""
STREAMS = "streams"
TRAFFIC = {  # the same head for ever, none alike, a chat's question, and one whose answer is streamed
    "same": "",
    "paths": EACH_ITS_PATH,
    "chat": CHAT,
    STREAMS: CHAT.replace('"max_tokens"', '"stream":true,"stream_options":{"include_usage":true},"max_tokens"'),
}


def wrk(
    stage: Stage, port: int, seconds: int, *, traffic: str = "same", lua: str = "", connections: int = CONNECTIONS
) -> Served:
    """`seconds` of requests on keep-alive connections, each sending its next when the last is answered.

    `lua` is a script of its own, in the place of one of TRAFFIC.
    """
    served = _run(stage, port, seconds, lua or TRAFFIC[traffic], connections)
    if not served.requests:
        raise RunFailed(f"in {seconds} s no request was answered")
    return served


def warm_up(stage: Stage, port: int, seconds: int, *, traffic: str, connections: int) -> Served:
    """The same, before anything is counted: the slow need not have answered yet."""
    return _run(stage, port, seconds, TRAFFIC[traffic], connections) if seconds else Served(0, 0)


def _run(stage: Stage, port: int, seconds: int, lua: str, connections: int) -> Served:
    script = stage.write("report.lua", REPORT + lua)
    headers = [part for name, value in HEADERS.items() for part in ("-H", f"{name}: {value}")]
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "15s", "-s", str(script), *headers]
    done = subprocess.run(
        ["taskset", "-c", str(LOAD_CORE), *argv, f"http://127.0.0.1:{port}/bench"],
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds + 20,
    )
    if done.returncode:
        raise RunFailed(f"wrk ended with exit code {done.returncode}: {done.stderr.strip()}")
    said = json.loads(done.stdout.strip().splitlines()[-1])
    if said["status"] or said["socket"]:
        raise RunFailed(f"of {said['requests']} requests {said['status']} had no 2xx; {said['socket']} socket errors")
    return Served(said["requests"], said["us"], said["bytes"])
