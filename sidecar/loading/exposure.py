"""Exposures of secrets on this machine: a node that runs as root, and secret files that other users can read.

These are warnings, of `check` and in the log of `run`: a container may have its reasons. A group may read: Kubernetes
gives secrets to a group.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sidecar.loading import header_secrets
from sidecar.loading.certificates import uses

if TYPE_CHECKING:
    from sidecar.config.settings import Settings

AS_ROOT: Final = (
    "sidecar runs as root, but needs no rights of root: start it as a user of its own that owns journal.dir"
)


def warnings(settings: Settings) -> list[str]:
    """One warning for each exposure, with the command that ends it. Files that are missing are left out."""
    exposed = [
        f"{name}: {path} holds secrets, and all users of this machine can read it: chmod o= {shlex.quote(str(path))}"
        for name, path in _secret_files(settings)
        if _is_readable_by_others(path)
    ]
    return [AS_ROOT] * (os.geteuid() == 0) + exposed


def _secret_files(settings: Settings) -> Iterator[tuple[str, Path]]:
    """The files with keys and secrets, each with its setting."""
    if settings.keys.file is not None:
        yield "keys.file", settings.keys.file
    for use in uses(settings):
        if use.key is not None:
            yield ".".join((*map(str, use.loc), "key")), use.key
    if settings.kafka is not None and settings.kafka.security.token_file is not None:
        yield "kafka.security.token_file", settings.kafka.security.token_file
    for path in header_secrets.paths(settings):
        yield "headers of upstreams", path


def _is_readable_by_others(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & stat.S_IROTH)
    except OSError:
        return False
