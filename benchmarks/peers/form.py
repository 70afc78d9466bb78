"""What a form is: something that stands in front of the upstream, started on a stage, and what it has to show for it.

The sidecar's own forms and everybody else's are of one type, so they are started, loaded and held to their work alike.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.stage import API_KEY, PROXY_CORE, SPENT_KEY, Parts, RunFailed, Stage, get, tree

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60
REFUSED = 429


@dataclass(frozen=True)
class Started:
    """A proxy that answers. `parts` says which processes do which part of the work; `verify` is called after the load
    with the requests that the load generator saw answered, and the bound of those it may have abandoned. `may_rest`: a
    part that may use less than a tick of CPU."""

    port: int
    parts: Callable[[], Parts]
    verify: Callable[[int, int], dict[str, int]] = lambda _answered, _abandoned: {}
    may_rest: str = ""


@dataclass(frozen=True)
class Peer:
    """`unit`: the form that this one is compared with; another than nginx where only that one had the same traffic.
    `connections`: fewer than others have, where a core is full with fewer, and more would only wait for longer."""

    name: str
    title: str
    missing: Callable[[], str]  # "" or what is missing and how to get it
    version: Callable[[], str]
    start: Callable[[Stage, int], Started]  # stage, the upstream's port
    traffic: str = "same"  # of load.TRAFFIC
    unit: str = "nginx"
    connections: int = 64


def on_path(*programs_and_packages: str) -> Callable[[], str]:
    """Program, package, program, package …: "" where all programs are here, else what installs those that are not."""
    pairs = list(zip(programs_and_packages[::2], programs_and_packages[1::2], strict=True))

    def ask() -> str:
        lacking = [package for program, package in pairs if not shutil.which(program)]
        return f"not on this machine: apt-get install {' '.join(lacking)}" if lacking else ""

    return ask


def first_line(*argv: str) -> Callable[[], str]:
    def ask() -> str:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        return (done.stdout + done.stderr).strip().splitlines()[0]

    return ask


def whole_tree(stage: Stage, name: str, argv: list[str], port: int) -> Started:
    """A proxy that is one process with its children, and nothing beside it."""
    pid = stage.start(name, argv, PROXY_CORE)
    stage.until_answers(name, port)
    return Started(port, lambda: {"proxy": tree(pid)})


def prove_limits(port: int, path: str = "/bench", body: str | None = None) -> dict[str, int]:
    """Hold a form that knows keys and limits to it: a key that nobody registered is turned away, and so is a key whose
    limits of the same kind are small. RunFailed where one of them passed."""
    if (status := get(port, path, "bench-nobody", body)[0]) not in {401, 403}:
        raise RunFailed(f"a key that is not registered was answered {status}")
    if (status := get(port, path, API_KEY, body)[0]) != 200:
        raise RunFailed(f"after the load, {API_KEY} was answered {status}")
    answers = [get(port, path, SPENT_KEY, body)[0] for _ in range(8)]
    if answers[0] != 200 or REFUSED not in answers:
        raise RunFailed(f"a key with small limits was answered {answers}")
    return {}
