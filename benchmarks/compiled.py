"""The compiled wheel of the sources as they are now, in a virtual environment of its own, made once for each state.

A state is what the wheel is made of, byte for byte, so a figure is never that of another state. A few of them are kept.
`python -m benchmarks.compiled` makes it, and prints the path of its interpreter.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from fcntl import LOCK_EX, flock
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".cache" / "compiled"
LOCKS = ("requirements/build.txt", "requirements/run.txt")
PARTS = ("hatch_build.py", "pyproject.toml", "README.md", "LICENSE", "sidecar", *LOCKS)
NOTHING_ELSE = ("--no-deps", "--no-index")  # the lock files have named all that is installed
KEPT = 3
HALF_AN_HOUR = 1800
# A distribution builds its interpreter guided by profiles, as the official images do; one built by hand without them
# takes about a tenth more. So the system's own is measured where it can be.
SYSTEM = "/usr/bin/python3"
FIT = (
    "import ensurepip, sys, sysconfig, pathlib; assert sys.version_info >= (3, 11);"
    "assert pathlib.Path(sysconfig.get_path('include'), 'Python.h').exists(); print(sys.version)"
)


def sources(root: Path) -> list[Path]:
    """What the wheel is made of, in an order that is always the same."""
    found = [path for part in PARTS for path in (root / part, *(root / part).rglob("*"))]
    return sorted(path for path in found if path.is_file() and "__pycache__" not in path.parts)


def state(root: Path = ROOT) -> str:
    """A name of what the wheel would be made of: the sources, and the interpreter that it is for."""
    digest = hashlib.sha256(_version(base()).encode())
    for path in sources(root):
        text = path.read_bytes()
        digest.update(b"%s %d\n%b" % (bytes(path.relative_to(root)), len(text), text))
    return digest.hexdigest()[:16]


@cache
def base() -> str:
    """The interpreter that both wheels are for: the system's, else the one that runs this."""
    return SYSTEM if _version(SYSTEM) else sys.executable


@cache
def _version(interpreter: str) -> str:
    """What it says of itself; "" where it is too old, or lacks what compiles and what makes an environment."""
    try:
        return subprocess.run([interpreter, "-c", FIT], capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


@cache
def python() -> Path:
    """The interpreter that has the wheel; CalledProcessError where it could not be made, and pip has said why."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)  # somebody may go on editing meanwhile
        for path in sources(ROOT):
            (copy / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, copy / path.relative_to(ROOT))
        home = HOME / state(copy)
        HOME.mkdir(parents=True, exist_ok=True)
        with (HOME / "lock").open("w") as lock:
            flock(lock, LOCK_EX)
            if not (home / "whole").exists():
                _make(copy, home)
            (home / "whole").touch()  # used just now, so it is among those that are kept
    return home / "bin" / "python"


def _make(copy: Path, home: Path) -> None:
    print("compiling the data path, once for this state of the sources: about two minutes", file=sys.stderr, flush=True)
    for old in sorted(HOME.glob("*/whole"), key=lambda path: path.stat().st_mtime)[:-KEPT]:
        shutil.rmtree(old.parent)
    wheels = copy / "wheels"
    subprocess.run([base(), "-m", "venv", str(home)], check=True, timeout=HALF_AN_HOUR)
    locks = [word for lock in LOCKS for word in ("-r", str(copy / lock))]
    _pip(home / "bin" / "python", "install", "--quiet", "--require-hashes", *locks)
    words = ["wheel", "--quiet", *NOTHING_ELSE, "--no-build-isolation", "--wheel-dir", str(wheels), str(copy)]
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # it is the wheel that is asked
    _pip(home / "bin" / "python", *words, env=clean | {"SIDECAR_COMPILE": "1"})
    _pip(home / "bin" / "python", "install", "--quiet", *NOTHING_ELSE, *map(str, wheels.glob("*.whl")))
    asked = [home / "bin" / "sidecar", "--version"]
    said = subprocess.run(asked, capture_output=True, text=True, check=True, env=clean).stdout
    if "(compiled," not in said:
        raise OSError(f"the wheel that was made says {said.strip()}")
    (home / "whole").touch()


def _pip(interpreter: str | Path, *words: str, env: dict[str, str] | None = None) -> None:
    argv = [str(interpreter), "-m", "pip", "--disable-pip-version-check", *words]
    subprocess.run(argv, check=True, env=env, timeout=HALF_AN_HOUR, stdout=sys.stderr)


@cache
def missing() -> str:
    """ "" where the compiled form can be run, which may be made for it now; else why not."""
    if not shutil.which("cc"):
        return "no C compiler on this machine: apt-get install gcc"
    if not _version(base()):
        return "no Python.h or no venv on this machine: apt-get install python3-dev python3-venv"
    try:
        python()
    except (OSError, subprocess.SubprocessError) as error:
        return f"the wheel could not be made: {error}"
    return ""


if __name__ == "__main__":
    if why := missing():
        sys.exit(why)
    print(python())
