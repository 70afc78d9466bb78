"""The proxy that one would write in an afternoon (benchmarks/aiohttp_proxy.py), run by the harness's interpreter."""

from __future__ import annotations

import sys
from importlib.metadata import version

from benchmarks.peers.form import ROOT, Peer, Started, whole_tree
from benchmarks.stage import Stage, free_port

SCRIPT = ROOT / "benchmarks" / "aiohttp_proxy.py"


def _start(stage: Stage, upstream: int) -> Started:
    port = free_port()
    return whole_tree(stage, "aiohttp", [sys.executable, str(SCRIPT), str(port), str(upstream)], port)


def _version() -> str:
    return f"aiohttp {version('aiohttp')} on uvloop {version('uvloop')}"


FORMS = (Peer("aiohttp", "aiohttp server + client", lambda: "", _version, _start),)
