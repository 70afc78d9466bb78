"""What people would use instead, each set up as its own documentation says for speed: one worker, no access log,
keep-alive on both sides. All get the same requests and pass them to the same upstream; each that is said to hold keys
and limits has to turn away a key that nobody registered, and one that has used up its limits.
"""

from __future__ import annotations

from benchmarks.peers import envoy, litellm, lua, nginx
from benchmarks.peers.form import ROOT, Peer, Started, first_line, on_path
from benchmarks.upstreams import requests_seen, start_upstream

PEERS: tuple[Peer, ...] = (*nginx.FORMS, *envoy.FORMS, *lua.FORMS, *litellm.FORMS)

__all__ = ["PEERS", "ROOT", "Peer", "Started", "first_line", "on_path", "requests_seen", "start_upstream"]
