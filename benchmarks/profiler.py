"""Where a worker spends its time: py-spy looks at the busiest process of the sidecar from outside, under load.

No hook in the product: the worker that is profiled is the worker that is shipped.
"""

from __future__ import annotations

import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from benchmarks import load, toolbox
from benchmarks.measure import Shape
from benchmarks.peers import Peer, start_upstream
from benchmarks.stage import LOAD_CORE, RunFailed, Stage, cpu_us

HZ = 250


def top(peer: Peer, shape: Shape, count: int = 30) -> list[tuple[str, str, str]]:
    """(function, own share, share with callees) of the samples in which the worker ran, the busiest first."""
    with Stage() as stage:
        started = peer.start(stage, start_upstream(stage, shape.answer_bytes, LOAD_CORE))
        load.wrk(stage, started.port, max(shape.warmup, 1))
        worker = max(started.parts()["proxy"], key=lambda pid: cpu_us([pid]))
        with ThreadPoolExecutor(1) as pool:
            serving = pool.submit(load.wrk, stage, started.port, shape.seconds + 1)
            stacks = _record(stage, worker, shape.seconds)
            serving.result()
    return _table(stacks, count)


def _record(stage: Stage, pid: int, seconds: int) -> list[str]:
    """Collapsed stacks, outermost frame first, each with its number of samples."""
    out = stage.dir / "stacks.txt"
    flags = ["--format", "raw", "--rate", str(HZ), "--duration", str(seconds), "--nonblocking"]
    argv = [str(toolbox.py_spy()), "record", "--pid", str(pid), "--output", str(out), *flags]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=seconds + 30)
    if done.returncode or not out.exists():
        raise RunFailed(f"py-spy could not look at process {pid} (it needs ptrace): {done.stderr.strip()}")
    return out.read_text().splitlines()


def _table(stacks: list[str], count: int) -> list[tuple[str, str, str]]:
    own: Counter[str] = Counter()
    within: Counter[str] = Counter()
    for line in stacks:
        frames, _, samples = line.rpartition(" ")
        names = [name.rpartition(":")[0] + ")" for name in frames.split(";")]  # without the line's number
        own[names[-1]] += int(samples)
        for name in set(names):
            within[name] += int(samples)
    total = sum(own.values()) or 1
    return [
        (name, f"{100 * n / total:.1f} %", f"{100 * within[name] / total:.1f} %") for name, n in own.most_common(count)
    ]
