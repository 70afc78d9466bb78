"""What was measured last of each thing, as JSON under .cache/benchmarks, so that one long page can be made of several
short sittings. Nothing here measures; whoever reads is told when, how and on which machine it was.

A sitting is never taken apart: what is compared within a round stays together, and of each name the newest stands.
"""

from __future__ import annotations

import datetime as dt
import json
import shlex
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks import compiled, report

HOME = compiled.ROOT / ".cache" / "benchmarks"


@dataclass(frozen=True)
class Sitting:
    """`names` are what was measured (forms, curves); `data` is theirs alone. `when` is UTC, to the minute."""

    when: str
    command: str
    machine: str
    state: str
    names: list[str]
    data: dict[str, Any]


def keep(kind: str, names: list[str], data: dict[str, Any]) -> None:
    """Add a sitting of this moment, and forget those of which every name was measured since."""
    if not names:
        return
    now = dt.datetime.now(dt.UTC)  # noqa: TID251 - the date of a report, not a clock
    command = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
    fresh = Sitting(f"{now:%Y-%m-%d %H:%M}", command, report.machine(), _state(), names, data)
    stand: list[Sitting] = [fresh]
    for old in reversed(kept(kind)):
        if set(old.names) - {name for newer in stand for name in newer.names}:
            stand.append(old)
    HOME.mkdir(parents=True, exist_ok=True)
    draft = (HOME / f"{kind}.json").with_suffix(".new")
    draft.write_text(json.dumps([asdict(one) for one in reversed(stand)], indent=1))
    draft.replace(HOME / f"{kind}.json")


def kept(kind: str) -> list[Sitting]:
    """The sittings that stand, the oldest first; none where nothing was measured yet."""
    path = HOME / f"{kind}.json"
    return [Sitting(**one) for one in json.loads(path.read_text())] if path.exists() else []


def newest(kind: str) -> dict[str, Sitting]:
    """Of each name the sitting in which it was measured last."""
    return {name: one for one in kept(kind) for name in one.names}


def _state() -> str:
    """The commit that was measured, and whether it was all that was measured."""
    asked = ["git", "-C", str(compiled.ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "no commit"
