"""The sidecar's own forms, run as an operator runs it: the compiled wheel, `sidecar run -c`, one worker, nothing
switched off. One form more is the tree as it lies, pure Python.

After each load the sidecar is drained, and its records are counted against what the load generator saw: the same work,
honestly done, or no number. What Redis counted has to be what the records bill, to the unit.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import redis

from benchmarks import compiled
from benchmarks.peers import ROOT, Peer, Started, first_line, on_path
from benchmarks.stage import API_KEY, PROXY_CORE, Parts, RunFailed, Stage, command_line, free_port, tree
from benchmarks.stores import start_redis

STOPPED_SECONDS = 20  # a shipper that is stopped for longer is killed by its supervisor as stuck
SHIPPER = re.compile(r"-m sidecar _shipper\b")
USAGE = "sidecar.usage.v1"

CONFIG = """
listen: 127.0.0.1:{port}
control: {{ listen: 127.0.0.1:{control} }}
workers: 1
upstreams:
  default: {{ urls: ["http://127.0.0.1:{upstream}"] }}
policies: policies/
keys: {{ file: keys.yaml }}
journal: {{ dir: journal, durability: os }}
sink: {{ file: records.jsonl }}
"""
REDIS = """
redis: {{ url: "redis://127.0.0.1:{redis}/0", leases: {leases}, timeout: {timeout} }}
"""
KEYS = """
keys:
  - {{ id: k_bench, hash: "sha256:{hash}", customer: cust-bench, subject: app-bench, plan: bench }}
"""
POLICY = """
meters:
  requests: {{ count: 1 }}{meters}
routes:
  - {{ id: all, match: {{ path: "/**" }}, upstream: default{usage} }}
plans:
  bench: {{ limits: [{limits}] }}
"""
# Never reached, so every request is admitted and every request pays for both.
LIMITS = """
    { id: burst, meter: requests, rate: 1000000/s, burst: 1000000, scope: key },
    { id: monthly, meter: requests, quota: 1000000000/month, scope: customer } """


# What a chat uses, read from its answer: held by an estimate from the question, and settled by the truth.
TOKENS = """
  input_tokens: { usage: openai.input_uncached }
  output_tokens: { usage: openai.output }"""
COUNTED = """,
    { id: tokens, meter: output_tokens, quota: 1000000000000/month, scope: customer } """

# In the interpreter's place: the worker runs under a tool, everybody else as always.
SWITCH = """#!/bin/sh
case " $* " in *" _worker "*) exec {prefix} {python} "$@" ;; *) exec {python} "$@" ;; esac
"""
INSTEAD = "import sys; sys.executable = {python!r}; sys.argv = {argv!r}; from sidecar.cli import main; main()"


@dataclass(frozen=True)
class Form:
    """limits: two of them, or none. redis: real counters. shipping: the shipper runs during the load. pure: the tree,
    not the compiled wheel. leases: units are reserved ahead. chat: usage is read, and a third limit counts it.
    worker_prefix: what the worker's command is run by, for tools that look into it and make it slow."""

    limits: bool
    redis: bool
    shipping: bool
    pure: bool = False
    leases: bool = False
    chat: bool = False
    worker_prefix: tuple[str, ...] = ()
    redis_timeout: str = "50ms"
    start_seconds: int = 15

    def missing(self) -> str:
        """ "" where it runs here. The wheel is made now, before anything is measured."""
        lacking = on_path("redis-server", "redis-server")() if self.redis else ""
        return lacking or compiled.missing()

    def version(self) -> str:
        return first_line(*self._command("--version"))()

    def _command(self, *words: str) -> list[str]:
        """One interpreter for both. `-P`: the folder that one stands in does not go before what is installed."""
        path = f"PYTHONPATH={ROOT if self.pure else ''}"
        return ["env", path, str(compiled.python()), "-P", "-m", "sidecar", *words]

    def start(self, stage: Stage, upstream: int) -> Started:
        """Write the documents, start Redis and the sidecar, and wait for its first 200."""
        ports = {"port": free_port(), "control": free_port(), "upstream": upstream, "redis": free_port()}
        stage.write("policies/bench.yaml", self._policy())
        stage.write("keys.yaml", KEYS.format(hash=hashlib.sha256(API_KEY.encode()).hexdigest()))
        stage.write(
            "sidecar.yaml",
            (CONFIG + (REDIS if self.redis else "")).format(
                **ports, leases=str(self.leases).lower(), timeout=self.redis_timeout
            ),
        )
        store = start_redis(stage, ports["redis"]) if self.redis else None
        pid = stage.start("sidecar", self._run(stage), PROXY_CORE)
        stage.until_answers("the sidecar", ports["port"], seconds=self.start_seconds)
        verify = self._verify(stage, pid, ports["redis"])
        return Started(ports["port"], self._parts(pid, store), verify, may_rest="redis" if self.leases else "")

    def _run(self, stage: Stage) -> list[str]:
        """`sidecar run`; with a prefix, children are started by a script in the interpreter's place."""
        words = ["run", "-c", "sidecar.yaml"]
        if not self.worker_prefix:
            return self._command(*words)
        python = stage.write("python", SWITCH.format(prefix=shlex.join(self.worker_prefix), python=compiled.python()))
        python.chmod(0o755)
        return [*self._command()[:-2], "-c", INSTEAD.format(python=str(python), argv=["sidecar", *words])]

    def _policy(self) -> str:
        limits = LIMITS + COUNTED * self.chat if self.limits else ""
        return POLICY.format(limits=limits, meters=TOKENS * self.chat, usage=", usage: openai" * self.chat)

    def _parts(self, pid: int, store: int | None) -> Callable[[], Parts]:
        def split() -> Parts:
            family = tree(pid)
            shippers = shippers_of(family)
            if not shippers:
                raise RunFailed("no process of the sidecar is a shipper: " + "; ".join(map(command_line, family)))
            if not self.shipping:
                signal_all(shippers, signal.SIGSTOP)
            parts = {"proxy": [one for one in family if one not in shippers]}
            shipping = {"shipper": shippers} if self.shipping else {}
            return parts | shipping | ({"redis": [store]} if store else {})

        return split

    def _verify(self, stage: Stage, pid: int, redis_port: int) -> Callable[[int, int], dict[str, int]]:
        def count(answered: int, abandoned: int) -> dict[str, int]:
            signal_all(shippers_of(tree(pid)), signal.SIGCONT)
            stage.drain("sidecar")
            records, billed = _read(stage.dir / "records.jsonl")
            # one more at the least for the first 200; and a probe that came too early
            if not answered < records <= answered + abandoned + 100:
                raise RunFailed(f"{answered} requests were answered, and {records} records were written")
            facts = {"records": records}
            return facts | (_counted(redis_port, billed, records) if self.redis else {})

        return count


def shippers_of(family: list[int]) -> list[int]:
    return [pid for pid in family if SHIPPER.search(command_line(pid))]


def signal_all(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        os.kill(pid, number)


def _read(path: Path) -> tuple[int, int]:
    """Records of usage in the sink, and the requests that they bill."""
    records = billed = 0
    with path.open("rb") as lines:
        for line in lines:
            record = orjson.loads(line)
            if record["type"] == USAGE:
                records += 1
                billed += record["data"]["usage"].get("requests", 0)
    return records, billed


def _counted(port: int, billed: int, records: int) -> dict[str, int]:
    """Hold the quota's counter to the bill; the calls that it took."""
    with redis.Redis(port=port, decode_responses=True) as client:
        keys = list(client.scan_iter("*monthly*"))
        used = sum(int(client.get(key) or 0) for key in keys if client.type(key) == "string")
        calls = sum(
            figures["calls"]
            for name, figures in client.info("commandstats").items()
            if name.removeprefix("cmdstat_") in {"eval", "evalsha", "fcall"}
        )
    if used != billed:
        raise RunFailed(f"Redis counted {used} requests, the records bill {billed}")
    return {"redis_calls_per_1000_requests": calls * 1000 // records}


def _peer(name: str, title: str, form: Form, **differs: Any) -> Peer:
    return Peer(name, title, form.missing, form.version, form.start, **differs)


FORMS = (
    _peer("bare", "sidecar, embedded, no limits", Form(limits=False, redis=False, shipping=True)),
    _peer("embedded", "sidecar, embedded: key, 2 limits, record", Form(limits=True, redis=False, shipping=True)),
    _peer("redis", "sidecar, Redis: key, 2 exact limits, record", Form(limits=True, redis=True, shipping=False)),
    _peer("pure", "sidecar, Redis: the same, in pure Python", Form(limits=True, redis=True, shipping=False, pure=True)),
    _peer(
        "paths",
        "sidecar, Redis: each request another path",
        Form(limits=True, redis=True, shipping=False),
        traffic="paths",
    ),
    _peer(
        "leased",
        "sidecar, Redis: key, 2 leased limits, record",
        Form(limits=True, redis=True, shipping=False, leases=True),
    ),
    _peer(
        "chat",
        "sidecar, Redis: a chat, its tokens read and settled",
        Form(limits=True, redis=True, shipping=False, chat=True),
        traffic="chat",
    ),
    _peer(
        "stream",
        "sidecar, Redis: streams, 2 leased limits, tokens read and settled",
        Form(limits=True, redis=True, shipping=False, leases=True, chat=True),
        traffic="streams",
        unit="nginx-stream",
        connections=128,
    ),
    _peer("shipped", "sidecar, Redis: the shipper running", Form(limits=True, redis=True, shipping=True)),
)
