"""A sidecar set up for one point of a curve: the compiled wheel, `sidecar run`, a real Redis.

What differs between two points is said in `Site`; all else is alike. As in the forms, the shipper is stopped while a
point is measured, and carries the rest afterwards: as many records as requests were answered, or no number.
"""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import redis

from benchmarks import compiled
from benchmarks.sidecars import USAGE, shippers_of, signal_all, start_redis
from benchmarks.stage import API_KEY, PROXY_CORE, Parts, RunFailed, Stage, command_line, cpu_us, free_port, get, tree

START_SECONDS = 180
_CONFIG = """
listen: 127.0.0.1:{port}
control: {{ listen: 127.0.0.1:{control} }}
workers: {workers}
upstreams:
  default: {{ urls: ["http://127.0.0.1:{upstream}"] }}
policies: policies/
keys: {{ redis: true }}
redis: {{ url: "redis://127.0.0.1:{redis}/0", leases: {leases} }}
journal: {{ dir: journal, durability: os, cap: {cap_gib}GiB }}
sink: {{ file: records.jsonl }}
http: {{ idle_timeout: 600s }}
"""
_POLICY = """
meters:
  requests: {{ count: 1 }}
routes:
  - {{ id: all, match: {{ path: "/**" }}, upstream: default }}
plans:
{plans}
"""
# None is ever reached, so each request is admitted and pays for all of them. Bursts are of some seconds: eight workers
# lease less of a shorter one than they would use in 100 ms (docs/leases.md).
_LIMITS = (
    "{ id: burst, meter: requests, rate: 1000000/s, burst: 5000000, scope: key }",
    "{ id: monthly, meter: requests, quota: 1000000000/month, scope: customer }",
    "{ id: subjects, meter: requests, rate: 2000000/s, burst: 9000000, scope: subject }",
    "{ id: daily, meter: requests, quota: 900000000/day, scope: customer }",
    "{ id: minute, meter: requests, window: 800000000/1m, scope: key }",
    "{ id: hourly, meter: requests, quota: 800000000/hour, scope: subject }",
    "{ id: all, meter: requests, rate: 3000000/s, burst: 9000000, scope: customer }",
    "{ id: yearly, meter: requests, quota: 2000000000/year, scope: key }",
)
_CHUNK = 10_000
_CALLS = {"cmdstat_eval", "cmdstat_evalsha", "cmdstat_fcall"}


def credential(number: int) -> str:
    """The key of a customer, 1 and up; the Lua scripts of `traffic` spell it alike."""
    return f"bench-{number:07d}"


@dataclass(frozen=True)
class Site:
    """`limits` on each request, up to 8. `plans` in the policy; `keys` registered besides the probe's own, each with a
    customer of its own, the plans shared out evenly. `leases`: else each request asks Redis. `journal`: what an earlier
    life has left, by name of the file."""

    workers: int = 1
    limits: int = 2
    plans: int = 1
    keys: int = 0
    leases: bool = True
    journal: tuple[tuple[str, Path], ...] = ()
    cap_gib: int = 4

    def start(self, stage: Stage, upstream: int) -> Running:
        """Write the documents, start Redis with all keys, and the sidecar; wait for its first 200."""
        port, store = free_port(), free_port()
        stage.write("policies/bench.yaml", self._policy())
        config = {"port": port, "control": free_port(), "upstream": upstream, "redis": store}
        own = {"workers": self.workers, "leases": str(self.leases).lower(), "cap_gib": self.cap_gib}
        stage.write("sidecar.yaml", _CONFIG.format(**config, **own))
        for name, path in self.journal:
            (stage.dir / "journal" / name).parent.mkdir(parents=True, exist_ok=True)
            (stage.dir / "journal" / name).symlink_to(path)
        redis_pid = start_redis(stage, store)
        self._register(store)
        begun = time.perf_counter_ns()
        command = ["env", "PYTHONPATH=", str(compiled.python()), "-P", "-m", "sidecar", "run", "-c", "sidecar.yaml"]
        pid = stage.start("sidecar", command, PROXY_CORE)
        stage.until("the sidecar's first 200", lambda: get(port)[0] == 200, START_SECONDS)
        started_ms = (time.perf_counter_ns() - begun) // 1_000_000
        return Running(stage, port, pid, redis_pid, store, started_ms)

    def _policy(self) -> str:
        limits = ", ".join(_LIMITS[: self.limits])
        return _POLICY.format(plans="\n".join(f"  p{n}: {{ limits: [{limits}] }}" for n in range(self.plans)))

    def _register(self, port: int) -> None:
        """As `sidecar keys new` writes them, but for the index, which only lists them."""
        with redis.Redis(port=port) as client:
            client.set(*_entry(API_KEY, 0, 0))
            for first in range(1, self.keys + 1, _CHUNK):
                numbers = range(first, min(first + _CHUNK, self.keys + 1))
                client.mset(dict(_entry(credential(n), n, n * self.plans // (self.keys + 1)) for n in numbers))


def _entry(key: str, number: int, plan: int) -> tuple[str, str]:
    digest = sha256(key.encode()).hexdigest()
    record = {"id": f"k_{number}", "hash": f"sha256:{digest}", "customer": f"cust-{number}"}
    return f"sc:key:{digest}", json.dumps(record | {"subject": f"app-{number}", "plan": f"p{plan}"})


@dataclass
class Running:
    """A sidecar that answers; `start_ms` is what it took from the command to the first 200."""

    stage: Stage
    port: int
    pid: int
    redis_pid: int
    redis_port: int
    start_ms: int

    def parts(self) -> Parts:
        """The sidecar without its shipper, which is stopped, and Redis."""
        family = tree(self.pid)
        shippers = shippers_of(family)
        signal_all(shippers, signal.SIGSTOP)
        return {"proxy": [one for one in family if one not in shippers], "redis": [self.redis_pid]}

    def workers(self) -> list[int]:
        """The processes that serve."""
        return [pid for pid in tree(self.pid) if "-m sidecar _worker" in command_line(pid)]

    def memory_kib(self) -> dict[str, float]:
        """Resident, and the share of it that is the workers' own (proportional set size), of all workers."""
        rolled = [_rolled(pid) for pid in self.workers()]
        return {"rss_kib": sum(one["Rss"] for one in rolled), "pss_kib": sum(one["Pss"] for one in rolled)}

    def calls(self) -> int:
        """Scripts that Redis ran until now."""
        with redis.Redis(port=self.redis_port, decode_responses=True) as client:
            return sum(figures["calls"] for name, figures in client.info("commandstats").items() if name in _CALLS)

    def settle(self) -> None:
        """Until the workers rest: what a start leaves to do is none of a request's cost."""
        used = 0

        def rest() -> bool:
            nonlocal used
            before, used = used, cpu_us(self.parts()["proxy"])
            time.sleep(0.2)
            return before == used

        self.stage.until("the sidecar to come to rest", rest, START_SECONDS)

    def drained(self, answered: int, abandoned: int) -> None:
        """Let it end, and hold its records to what was answered. RunFailed: they differ."""
        signal_all(shippers_of(tree(self.pid)), signal.SIGCONT)
        self.stage.drain("sidecar")
        mark = USAGE.encode()
        with (self.stage.dir / "records.jsonl").open("rb") as lines:
            records = sum(mark in line for line in lines)
        # one more at the least for the first 200, and probes that came too early
        if not answered < records <= answered + abandoned + 100:
            raise RunFailed(f"{answered} requests were answered, and {records} records were written")

    def killed(self) -> None:
        """End it without a drain: where there is more to ship than anybody would wait for. The supervisor goes first,
        or it would start the others again."""
        family = tree(self.pid)
        for pid in (self.pid, *(one for one in family if one != self.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _rolled(pid: int) -> dict[str, int]:
    """The figures of /proc/<pid>/smaps_rollup, KiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
