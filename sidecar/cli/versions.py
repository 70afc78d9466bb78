"""The versions that an operator is asked for: ours, Python's, and those of the parts that read what clients send."""

from __future__ import annotations

import platform
from importlib.metadata import version

from sidecar.control.build_variant import VERSION, build_variant

PARTS = ("httptools", "uvloop", "hiredis", "aiokafka")

# The wheel carries llhttp compiled in and does not tell its version; its releases do. Ours is pinned to >= 0.8.
LLHTTP = {"0.8": "9.4.1"}
LLHTTP_AT_LEAST = ">= 9.4.1"


def llhttp() -> str:
    """The version of the llhttp inside the installed httptools, as far as its releases tell."""
    return LLHTTP.get(version("httptools").rpartition(".")[0], LLHTTP_AT_LEAST)


def line() -> str:
    """All versions in one line."""
    parts = [f"{name} {version(name)}" for name in PARTS]
    parts.insert(1, f"llhttp {llhttp()}")
    about = [build_variant(), f"Python {platform.python_version()}", *parts]
    return f"sidecar {VERSION} ({', '.join(about)})"
